//! What the commands share that open a GPU in this process: which device, with which options, and
//! how it is described. The runtime itself never does this; only measuring and testing do.

use forebay::config::{CudaPrecision, Device, Rungs};
use forebay::{Config, cuda_spec};
use forebay_cuda::{
    CudaError, DeviceInfo, Dtype, EngineOptions, Libraries, LibraryFound, MemoryReport,
    PrecisionChoice, devices, load,
};
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// A device that can be opened, with all that was found on the way to it.
#[derive(Serialize)]
pub(super) struct Machine {
    /// Its name in Forebay, such as `cuda:0`.
    pub(super) name: String,
    pub(super) device: DeviceInfo,
    pub(super) libraries: Libraries,
    /// What an engine on it is opened with, precision and sizes of batches aside.
    #[serde(skip)]
    pub(super) options: EngineOptions,
}

/// The one device that a command works on: the one that is listed, or the first GPU.
///
/// # Errors
/// Several are listed.
pub(super) fn one_device(config: &Config) -> Result<Device, Failure> {
    match &config.devices.rungs {
        Rungs::Auto => Ok(Device::Cuda(0)),
        Rungs::Listed(listed) => match listed.as_slice() {
            [device] => Ok(*device),
            several => {
                let several: Vec<String> = several.iter().map(ToString::to_string).collect();
                let message = format!("this takes one device, not {}", several.join(","));
                Err(Failure::new(Exit::Usage, message).help("name one, such as --device cuda:0"))
            }
        },
    }
}

/// Opens the driver and finds GPU `index`.
///
/// # Errors
/// What is missing: the driver, or the device.
pub(super) fn open(config: &Config, index: u32) -> Result<Machine, Failure> {
    let options = forebay_worker::cuda_engine_options(&cuda_spec(config)?);
    let found = load(&options.libraries).and_then(|libraries| Ok((libraries, devices()?)));
    let (libraries, devices) = found.map_err(|error| unusable(index, &error))?;
    let count = devices.len();
    let set = |name| std::env::var_os(name).is_some();
    let as_listed = set("CUDA_VISIBLE_DEVICES") || set("CUDA_DEVICE_ORDER");
    let device = numbered(devices, index, as_listed).ok_or_else(|| {
        let message = match count {
            0 => format!("no device cuda:{index}: the driver sees none"),
            _ => format!("no device cuda:{index}: the driver sees {count}, counted from cuda:0"),
        };
        Failure::new(Exit::Unavailable, message).help(
            "check `nvidia-smi` and CUDA_VISIBLE_DEVICES; a container has to be given its GPUs",
        )
    })?;
    let options = EngineOptions { ordinal: device.ordinal, ..options };
    Ok(Machine { name: format!("cuda:{index}"), device, libraries: libraries.clone(), options })
}

/// The device that workers know as `cuda:index`: in the order of the PCI bus, unless the
/// environment says otherwise.
fn numbered(mut devices: Vec<DeviceInfo>, index: u32, as_listed: bool) -> Option<DeviceInfo> {
    if !as_listed {
        devices.sort_by(|one, other| one.pci.cmp(&other.pci));
    }
    devices.into_iter().nth(index as usize)
}

fn unusable(index: u32, error: &CudaError) -> Failure {
    let failure = Failure::from(error.clone());
    Failure { message: format!("cuda:{index} cannot be used: {}", failure.message), ..failure }
}

/// One line of where device memory goes.
pub(super) fn memory(report: &MemoryReport) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "weights {:.1} MiB, activations {:.1} MiB for {} tokens, slots {:.1} MiB, matrix library \
         {:.1} MiB, {} graphs {:.1} MiB; {:.1} MiB of at most {:.1} MiB",
        mib(report.weights_bytes),
        mib(report.activations_bytes),
        report.tokens_max,
        mib(report.slots_bytes),
        mib(report.gemm_workspace_bytes),
        report.graphs,
        mib(report.graphs_bytes),
        mib(report.total_bytes),
        mib(report.limit_bytes),
    )
}

/// Arithmetic of the engine for a GPU's precision.
pub(super) fn choice(precision: CudaPrecision) -> PrecisionChoice {
    match precision {
        CudaPrecision::Auto => PrecisionChoice::Auto,
        CudaPrecision::F16 => PrecisionChoice::F16,
        CudaPrecision::Bf16 => PrecisionChoice::Bf16,
    }
}

/// The choice that gives this type.
pub(super) fn fixed(dtype: Dtype) -> PrecisionChoice {
    match dtype {
        Dtype::F16 => PrecisionChoice::F16,
        Dtype::BF16 => PrecisionChoice::Bf16,
    }
}

impl std::fmt::Display for Machine {
    /// Lines of device, driver and libraries.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DeviceInfo { name, capability: (major, minor), memory_bytes, .. } = &self.device;
        let Libraries { driver, nvrtc, cublaslt } = &self.libraries;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        let of = |found: &Option<LibraryFound>| match found {
            None => "not found".to_owned(),
            Some(LibraryFound { version, path: Some(path), .. }) => {
                format!("{version}, {}", path.display())
            }
            Some(LibraryFound { version, path: None, .. }) => {
                format!("{version}, found by the dynamic linker")
            }
        };
        writeln!(f, "device    {} {name}, capability {major}.{minor}, {gib:.1} GiB", self.name)?;
        writeln!(f, "driver    serves CUDA {}.{}", driver / 1000, driver % 1000 / 10)?;
        writeln!(f, "nvrtc     {}", of(nvrtc))?;
        writeln!(f, "cublaslt  {}", of(cublaslt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: u32, pci: &str) -> DeviceInfo {
        DeviceInfo {
            ordinal,
            name: "GPU".to_owned(),
            capability: (9, 0),
            memory_bytes: 1 << 30,
            multiprocessors: 1,
            l2_bytes: 1,
            shared_bytes_max: 1,
            integrated: false,
            host_register: true,
            host_page_tables: false,
            uuid: String::new(),
            pci: pci.to_owned(),
        }
    }

    #[test]
    fn devices_are_counted_along_the_bus_unless_the_environment_has_its_own_order() {
        let devices = || vec![device(0, "0000:9a:00.0"), device(1, "0000:19:00.0")];
        let ordinal =
            |index, as_listed| numbered(devices(), index, as_listed).map(|device| device.ordinal);
        assert_eq!((ordinal(0, false), ordinal(1, false)), (Some(1), Some(0)));
        assert_eq!((ordinal(0, true), ordinal(1, true)), (Some(0), Some(1)));
        assert_eq!(ordinal(2, false), None);
    }

    #[test]
    fn one_device_is_taken_and_several_are_refused() {
        let mut config = Config::default();
        assert_eq!(one_device(&config).ok(), Some(Device::Cuda(0)));
        config.devices.rungs = "cuda:1".parse().expect("devices");
        assert_eq!(one_device(&config).ok(), Some(Device::Cuda(1)));
        config.devices.rungs = "cuda:1,cpu".parse().expect("devices");
        let failure = one_device(&config).expect_err("two");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("cuda:1,cpu"), "{}", failure.message);
    }

    #[test]
    fn a_machine_says_what_it_lacks() {
        let machine = Machine {
            name: "cuda:0".to_owned(),
            device: device(0, ""),
            libraries: Libraries { driver: 13_010, nvrtc: None, cublaslt: None },
            options: EngineOptions::default(),
        };
        let text = machine.to_string();
        assert!(text.contains("CUDA 13.1\nnvrtc     not found"), "{text}");
    }
}
