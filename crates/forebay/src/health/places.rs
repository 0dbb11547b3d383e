//! Which of NVML's devices a rung is on. CUDA and NVML count devices each in their own way, and a
//! list in the environment may leave some out or turn them round. Pure.

use forebay_protocol::{CudaDevice, DeviceHealth};

use crate::worker_process::visible::Visibility;

/// The device of `cuda:index`. `probed` is what CUDA itself said of the devices, if it was asked: it
/// names each one for certain. The text of an error says why none can be named.
pub(super) fn find<'h>(
    index: u32,
    devices: &'h [DeviceHealth],
    visibility: &Visibility,
    probed: &[CudaDevice],
) -> Result<&'h DeviceHealth, String> {
    if let Some(known) = probed.iter().find(|known| known.ordinal == index) {
        let same = |device: &&DeviceHealth| {
            same_uuid(known, device) || same_place(known, device).unwrap_or(false)
        };
        if let Some(device) = devices.iter().find(same) {
            return Ok(device);
        }
    }
    let by_bus = visibility.counts_by_bus();
    let entry = visibility.entry(index)?;
    let Some(entry) = entry else { return numbered(index, devices, by_bus) };
    if let Ok(number) = entry.parse() {
        return numbered(number, devices, by_bus);
    }
    // A part of a divided device is named after the whole by older drivers, and by itself by newer.
    let entry = entry.strip_prefix("MIG-GPU-").map_or_else(
        || entry.to_owned(),
        |parent| format!("GPU-{}", parent.split('/').next().unwrap_or_default()),
    );
    let named = |device: &&DeviceHealth| {
        device.uuid.as_deref().is_some_and(|uuid| !entry.is_empty() && uuid.starts_with(&entry))
    };
    let mut found = devices.iter().filter(named);
    match (found.next(), found.next()) {
        (Some(device), None) => Ok(device),
        _ => Err(format!("CUDA_VISIBLE_DEVICES names \"{entry}\", which NVML does not")),
    }
}

fn same_uuid(known: &CudaDevice, device: &DeviceHealth) -> bool {
    !known.uuid.is_empty() && device.uuid.as_ref() == Some(&known.uuid)
}

fn same_place(known: &CudaDevice, device: &DeviceHealth) -> Option<bool> {
    Some(place(&known.pci)? == place(device.pci.as_deref()?)?)
}

/// Domain, bus, device and function. CUDA writes four digits of the domain, NVML eight.
fn place(pci: &str) -> Option<[u32; 4]> {
    let (rest, function) = pci.rsplit_once('.')?;
    let mut parts = rest.split(':');
    let mut next = || u32::from_str_radix(parts.next()?, 16).ok();
    let found = [next()?, next()?, next()?, u32::from_str_radix(function, 16).ok()?];
    parts.next().is_none().then_some(found)
}

/// Number `number` in the order of the PCI bus, or in any order if that makes no difference.
fn numbered(number: u32, devices: &[DeviceHealth], by_bus: bool) -> Result<&DeviceHealth, String> {
    // CUDA's own order puts the fastest first and keeps that of the bus among equals.
    let all_equal =
        || devices.iter().all(|device| device.name.is_some() && device.name == devices[0].name);
    if !by_bus && !all_equal() {
        return Err(
            "the devices differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID, so their numbers \
                    say nothing to NVML"
                .to_owned(),
        );
    }
    let mut ordered: Vec<&DeviceHealth> = devices.iter().collect();
    let places: Option<Vec<_>> =
        devices.iter().map(|device| place(device.pci.as_deref()?)).collect();
    if places.is_some() {
        ordered.sort_by_key(|device| device.pci.as_deref().and_then(place));
    }
    let found = ordered.get(number as usize).copied();
    found.ok_or_else(|| format!("NVML sees {} devices", devices.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(index: u32, uuid: &str, pci: &str, name: &str) -> DeviceHealth {
        DeviceHealth {
            index,
            uuid: Some(uuid.to_owned()),
            pci: Some(pci.to_owned()),
            name: Some(name.to_owned()),
            ..DeviceHealth::default()
        }
    }

    /// Two of a kind, numbered against the order of the bus.
    fn pair() -> Vec<DeviceHealth> {
        vec![
            device(0, "GPU-bb22", "00000000:3B:00.0", "A"),
            device(1, "GPU-aa11", "00000000:19:00.0", "A"),
        ]
    }

    fn found(
        index: u32,
        devices: &[DeviceHealth],
        visible: Option<&str>,
        order: Option<&str>,
    ) -> Result<u32, String> {
        let visibility = Visibility::new(visible, order);
        find(index, devices, &visibility, &[]).map(|device| device.index)
    }

    #[test]
    fn without_a_list_the_bus_counts() {
        assert_eq!(found(0, &pair(), None, None), Ok(1));
        assert_eq!(found(1, &pair(), None, None), Ok(0));
        let error = found(2, &pair(), None, None).expect_err("two only");
        assert!(error.contains("2 devices"), "{error}");
        let mut unplaced = pair();
        unplaced[1].pci = None;
        assert_eq!(found(0, &unplaced, None, None), Ok(0));
        assert!(found(0, &[], None, None).is_err());
    }

    #[test]
    fn a_list_is_followed_by_number_and_by_name() {
        let list = Some("1,GPU-bb,GPU-xx,MIG-GPU-aa11/3/0,MIG-cc");
        assert_eq!(found(0, &pair(), list, Some("PCI_BUS_ID")), Ok(0));
        assert_eq!(found(1, &pair(), list, None), Ok(0));
        assert_eq!(found(3, &pair(), list, None), Ok(1));
        for index in [2, 4, 5] {
            assert!(found(index, &pair(), list, None).is_err(), "{index}");
        }
        assert!(found(0, &pair(), Some("GPU-"), None).is_err(), "both begin so");
    }

    #[test]
    fn numbers_in_an_unknown_order_name_equal_devices_only() {
        assert_eq!(found(0, &pair(), Some("0"), None), Ok(1));
        let mut mixed = pair();
        mixed[0].name = Some("B".to_owned());
        assert!(found(0, &mixed, Some("0"), None).is_err());
        assert!(found(0, &mixed, Some("0"), Some("FASTEST_FIRST")).is_err());
        assert!(found(0, &mixed, None, Some("FASTEST_FIRST")).is_err());
        assert_eq!(found(0, &mixed, None, None), Ok(1));
        assert_eq!(found(0, &mixed, Some("0"), Some("PCI_BUS_ID")), Ok(1));
    }

    #[test]
    fn what_cuda_said_comes_first() {
        let known = |ordinal, pci: &str, uuid: &str| CudaDevice {
            ordinal,
            name: String::new(),
            capability: (9, 0),
            memory_bytes: 0,
            multiprocessors: 1,
            integrated: false,
            pci: pci.to_owned(),
            uuid: uuid.to_owned(),
        };
        let probed = [known(0, "", "GPU-bb22"), known(1, "0000:19:00.0", "")];
        let visibility = Visibility::new(Some("7,8"), None);
        for (index, nvml) in [(0, 0), (1, 1)] {
            let pair = pair();
            let device = find(index, &pair, &visibility, &probed).expect("known");
            assert_eq!(device.index, nvml);
        }
    }
}
