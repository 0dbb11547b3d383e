//! What NVML says of one device. Whatever it does not support, or fails to say, stays unknown.

use forebay_protocol::{DeviceHealth, PROCESSES_MAX, RemappedRows, TemperatureSource};
use nvml_wrapper::enum_wrappers::device::{
    EccCounter, MemoryError, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_FAILURE,
    NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_UNC,
};
use nvml_wrapper::{Device, Nvml};

use super::raw;

/// Who a device is, as last heard of.
#[derive(Debug, Default)]
pub(super) struct Identity {
    uuid: Option<String>,
    pci: Option<String>,
    name: Option<String>,
}

/// What the answers to many questions have in common.
#[derive(Debug, Default)]
struct Answers {
    lost: bool,
    reset_required: bool,
}

impl Answers {
    fn known<T>(&mut self, answer: Result<T, NvmlError>) -> Option<T> {
        match answer {
            Ok(value) => return Some(value),
            Err(NvmlError::GpuLost) => self.lost = true,
            Err(NvmlError::ResetRequired) => self.reset_required = true,
            Err(_) => {}
        }
        None
    }
}

/// Reads device number `index` and brings `identity` up to date.
pub(super) fn read(nvml: &Nvml, index: u32, identity: &mut Identity) -> DeviceHealth {
    let mut answers = Answers::default();
    let mut health = DeviceHealth { index, ..DeviceHealth::default() };
    if let Some(device) = answers.known(nvml.device_by_index(index)) {
        identify(&device, identity, &mut answers);
        faults(&device, &mut health, &mut answers);
        load(&device, &mut health, &mut answers);
    }
    health.uuid.clone_from(&identity.uuid);
    health.pci.clone_from(&identity.pci);
    health.name.clone_from(&identity.name);
    health.lost = answers.lost;
    health.reset_required = answers.reset_required;
    health
}

/// What cannot be asked any more is as it was.
fn identify(device: &Device<'_>, identity: &mut Identity, answers: &mut Answers) {
    let Identity { uuid, pci, name } = identity;
    *uuid = answers.known(device.uuid()).or_else(|| uuid.take());
    *pci = answers.known(device.pci_info()).map(|info| info.bus_id).or_else(|| pci.take());
    *name = answers.known(device.name()).or_else(|| name.take());
}

fn faults(device: &Device<'_>, health: &mut DeviceHealth, answers: &mut Answers) {
    let ids = [
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        NVML_FI_DEV_REMAPPED_COR,
        NVML_FI_DEV_REMAPPED_UNC,
        NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_REMAPPED_FAILURE,
    ];
    let [action, corrected, uncorrected, pending, failure] = fields(device, ids, answers);
    health.recovery_action = action.and_then(|value| u32::try_from(value).ok());
    health.remapped_rows = (|| {
        Some(RemappedRows {
            corrected: corrected?,
            uncorrected: uncorrected?,
            pending: pending? != 0,
            failure: failure? != 0,
        })
    })();
    let uncorrected = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    health.ecc_uncorrected = answers.known(uncorrected);
    health.clocks_event_reasons = answers.known(raw::clocks_event_reasons(device));
    health.temperature_c = answers.known(device.temperature(TemperatureSensor::Gpu));
    health.temperature_source = health.temperature_c.map(|_| TemperatureSource::Nvml);
    let threshold = |which| device.temperature_threshold(which);
    health.slowdown_c = answers.known(threshold(TemperatureThreshold::Slowdown));
    health.shutdown_c = answers.known(threshold(TemperatureThreshold::Shutdown));
    health.slowdown_margin_c = answers.known(raw::slowdown_margin_c(device));
}

fn load(device: &Device<'_>, health: &mut DeviceHealth, answers: &mut Answers) {
    health.power_mw = answers.known(device.power_usage());
    health.power_limit_mw = answers.known(device.enforced_power_limit());
    if let Some(memory) = answers.known(device.memory_info()) {
        health.memory_used_bytes = Some(memory.used);
        health.memory_total_bytes = Some(memory.total);
    }
    health.utilisation_percent = answers.known(device.utilization_rates()).map(|rates| rates.gpu);
    health.pcie_replays = answers.known(device.pcie_replay_counter()).map(u64::from);
    if let Some(processes) = answers.known(device.running_compute_processes()) {
        health.processes = u32::try_from(processes.len()).ok();
        health.pids =
            Some(processes.iter().take(PROCESSES_MAX).map(|process| process.pid).collect());
    }
}

/// Whole numbers that NVML knows by field numbers.
fn fields<const N: usize>(
    device: &Device<'_>,
    ids: [u32; N],
    answers: &mut Answers,
) -> [Option<u64>; N] {
    let mut values = [None; N];
    let found = answers.known(device.field_values_for(&ids.map(FieldId))).unwrap_or_default();
    for (value, found) in values.iter_mut().zip(found) {
        let sample = answers.known(found.and_then(|sample| sample.value));
        *value = sample.and_then(|sample| match sample {
            SampleValue::U32(value) => Some(u64::from(value)),
            SampleValue::U64(value) => Some(value),
            SampleValue::I64(value) => u64::try_from(value).ok(),
            SampleValue::F64(_) => None,
        });
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_unknown_and_says_no_more_than_it_means() {
        let mut answers = Answers::default();
        for error in [NvmlError::NotSupported, NvmlError::NoPermission, NvmlError::Unknown] {
            assert_eq!(answers.known::<u32>(Err(error)), None);
        }
        assert!(!answers.lost && !answers.reset_required);
        assert_eq!(answers.known::<u32>(Err(NvmlError::GpuLost)), None);
        assert!(answers.lost && !answers.reset_required);
        assert_eq!(answers.known::<u32>(Err(NvmlError::ResetRequired)), None);
        assert_eq!(answers.known(Ok(3)), Some(3));
        assert!(answers.lost && answers.reset_required);
    }
}
