//! What `forebay doctor` says about devices: the processor, what a short-lived worker process found
//! of CUDA, and what the device monitor can see of each GPU. This process opens no driver.

use forebay::config::{Device, DeviceMonitor, Fallback, Rungs};
use forebay::health::{self, DeviceVerdict, MonitorError, VerdictLimits, verdict};
use forebay::{
    Config, CudaDevice, CudaLibrary, DeviceHealth, MonitorReport, ProbeReport, probe_devices,
};

use super::doctor_report::Report;
use crate::failure::Failure;

/// Compute capability for which there are matrix kernels of Forebay's own.
const NATIVE_GEMM: (u32, u32) = (9, 0);

/// Looks for devices and says what was found. `None` if that could not be done.
pub(super) async fn look(config: &Config) -> Result<ProbeReport, Failure> {
    let asked = config.clone();
    let found = tokio::task::spawn_blocking(move || probe_devices(&asked)).await;
    match found {
        Ok(found) => Ok(found?),
        Err(error) => Err(Failure::new(crate::failure::Exit::Unavailable, error.to_string())),
    }
}

/// The processor.
pub(super) fn cpu(report: &mut Report) {
    report.section("devices");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.ok("cpu", format_args!("{cores} cores for this process"));
}

/// The GPUs and CUDA's libraries, with what each missing piece costs.
pub(super) fn cuda(report: &mut Report, config: &Config, found: &Result<ProbeReport, Failure>) {
    let found = match found {
        Ok(found) => found,
        Err(failure) => {
            let message = format!("not known: {}", failure.message);
            return lacking(report, config, &message, failure.help.as_deref());
        }
    };
    if let Some(version) = &found.driver {
        let release = kernel_module().unwrap_or_else(|| "of unknown release".to_owned());
        report.ok("driver", format_args!("{release}, serves CUDA {version}"));
    }
    for device in &found.devices {
        report.ok("gpu", described(device));
    }
    if let Some(problem) = &found.problem {
        // Messages of the library end with the remedy.
        let (cause, remedy) = match problem.rsplit_once("; ") {
            Some((cause, remedy)) => (cause, Some(remedy)),
            None => (problem.as_str(), None),
        };
        match kernel_module().filter(|_| found.driver.is_none()) {
            Some(release) => lacking(
                report,
                config,
                &format!("none: {cause}\nthe kernel has driver {release} loaded"),
                Some(
                    "give this process the driver's library; a container gets it from NVIDIA's \
                     container toolkit, with --gpus all",
                ),
            ),
            None => lacking(report, config, &format!("none: {cause}"), remedy),
        }
    }
    // Without a GPU nobody misses them.
    if !found.devices.is_empty() {
        libraries(report, found);
    }
}

/// What the device monitor can see, of every GPU that NVML knows.
pub(super) async fn monitor(report: &mut Report, config: &Config) {
    if config.health.monitor == DeviceMonitor::Off {
        return report.note("monitor", "off (health.monitor); the GPUs are not watched", None);
    }
    let asked = config.clone();
    match tokio::task::spawn_blocking(move || health::look(&asked)).await {
        Ok(seen) => seen_by_monitor(report, config, seen),
        Err(error) => report.note("monitor", format_args!("not tried: {error}"), None),
    }
}

fn seen_by_monitor(
    report: &mut Report,
    config: &Config,
    seen: Result<MonitorReport, MonitorError>,
) {
    let problem = match seen {
        Ok(MonitorReport { problem: Some(problem), .. }) => problem,
        Ok(MonitorReport { devices, .. }) => {
            let limits = VerdictLimits::of(&config.health);
            return devices.iter().for_each(|device| capabilities(report, device, &limits));
        }
        Err(error) => error.to_string(),
    };
    report.note("monitor", format_args!("the GPUs cannot be watched: {problem}"), None);
}

fn capabilities(report: &mut Report, device: &DeviceHealth, limits: &VerdictLimits) {
    let named = |wanted: bool| {
        let signals = device.signals();
        let names = signals.iter().filter(|(_, known)| *known == wanted).map(|(name, _)| *name);
        let names = names.collect::<Vec<_>>().join(", ");
        if names.is_empty() { "nothing".to_owned() } else { names }
    };
    let verdict = verdict(device, limits);
    let name = device.name.as_deref().unwrap_or("a GPU without a name");
    let uuid = device.uuid.as_deref().unwrap_or("without an id");
    let shown =
        format!("{name}, {uuid}\nseen: {}\nnot seen: {}\n{verdict}", named(true), named(false));
    match verdict {
        DeviceVerdict::Fine => report.ok("monitor", shown),
        verdict if verdict.allows_use() => report.note("monitor", shown, None),
        _ => {
            let help = "drain it, then reset it with nvidia-smi --gpu-reset, or reboot the machine";
            report.broken("monitor", shown, Some(help));
        }
    }
}

/// Whether the configuration has a rung on the CPU, as far as it can be told.
pub(super) fn wants_cpu(config: &Config, found: &Result<ProbeReport, Failure>) -> bool {
    let gpus = found.as_ref().is_ok_and(|found| !found.devices.is_empty());
    config.devices.fallback == Fallback::Cpu
        || match &config.devices.rungs {
            Rungs::Auto => !gpus,
            Rungs::Listed(devices) => devices.contains(&Device::Cpu),
        }
}

/// Whether the configuration has a rung on a GPU, as far as it can be told.
pub(super) fn wants_gpu(config: &Config, found: &Result<ProbeReport, Failure>) -> bool {
    match &config.devices.rungs {
        Rungs::Auto => found.as_ref().is_ok_and(|found| !found.devices.is_empty()),
        Rungs::Listed(devices) => devices.iter().any(|device| *device != Device::Cpu),
    }
}

/// No GPU can be used: broken if the configuration lists one.
fn lacking(report: &mut Report, config: &Config, message: &str, help: Option<&str>) {
    let listed = matches!(&config.devices.rungs, Rungs::Listed(devices)
        if devices.iter().any(|device| *device != Device::Cpu));
    if listed {
        report.broken("gpu", message, help);
    } else {
        report.note("gpu", format_args!("{message}\nthe CPU serves"), help);
    }
}

fn described(device: &CudaDevice) -> String {
    let CudaDevice {
        ordinal, name, capability: (major, minor), multiprocessors, pci, uuid, ..
    } = device;
    let memory = device.memory_bytes as f64 / f64::from(1 << 30);
    let shared = if device.integrated { " shared with the processor" } else { "" };
    format!(
        "cuda:{ordinal} {name}, compute capability {major}.{minor}, {multiprocessors} \
         multiprocessors\n{memory:.1} GiB of memory{shared}, PCI {pci}, {uuid}",
    )
}

fn libraries(report: &mut Report, found: &ProbeReport) {
    let has = |name| found.libraries.iter().any(|l| l.name == name && l.version.is_some());
    let native = found.devices.iter().all(|device| device.capability == NATIVE_GEMM);
    for library in &found.libraries {
        let CudaLibrary { name, version, path, problem } = library;
        let (what, cost, help) = match name.as_str() {
            "nvrtc" => (
                "nvrtc",
                "until an earlier start with NVRTC has left them in the cache, kernels come from \
                 the built-in PTX, which the driver translates at the first start, and the fused \
                 matrix kernels are missing, so batches take longer",
                "install NVRTC of CUDA 13 (libnvrtc.so.13), or name its folder in cuda.libraries",
            ),
            _ => (
                "cublaslt",
                match (native, has("nvrtc")) {
                    (true, true) => {
                        "matrices are multiplied by Forebay's own kernels only; sizes that they do \
                         not have cannot be served on the GPU"
                    }
                    (true, false) => {
                        "nothing can multiply matrices until an earlier start with NVRTC has left \
                         Forebay's own kernels in the cache: without them the GPU cannot serve"
                    }
                    (false, _) => {
                        "nothing can multiply matrices: the GPU cannot serve. Forebay's own \
                         kernels need compute capability 9.0"
                    }
                },
                "install cuBLAS of CUDA 13 (libcublasLt.so.13), or name its folder in \
                 cuda.libraries",
            ),
        };
        match version {
            Some(version) => {
                let place = path.as_ref().map(|path| path.display().to_string());
                let place = place.unwrap_or_else(|| "found by the dynamic linker".to_owned());
                report.ok(what, format_args!("{version}, {place}"));
            }
            None => {
                let problem = problem.as_deref().unwrap_or("not found");
                report.note(what, format_args!("{cost}\n{problem}"), Some(help));
            }
        }
    }
}

/// Release of the driver in the kernel, if one is loaded.
fn kernel_module() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    release_of(&text).or_else(|| Some("of unknown release".to_owned()))
}

/// The first word with a dot in the line of the kernel module.
fn release_of(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let number = |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    line.split_whitespace().find(number).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn machine(capability: Option<(u32, u32)>, missing: &[&str]) -> ProbeReport {
        let library = |name: &str| {
            let there = !missing.contains(&name);
            CudaLibrary {
                name: name.to_owned(),
                version: there.then(|| "13.0".to_owned()),
                path: there.then(|| "/opt/cuda".into()),
                problem: (!there).then(|| "looked everywhere".to_owned()),
            }
        };
        let device = |capability| CudaDevice {
            ordinal: 0,
            name: "NVIDIA H200".to_owned(),
            capability,
            memory_bytes: 141 << 30,
            multiprocessors: 132,
            integrated: false,
            pci: "0000:19:00.0".to_owned(),
            uuid: String::new(),
        };
        ProbeReport {
            protocol: 2,
            driver: capability.map(|_| "13.0".to_owned()),
            libraries: vec![library("nvrtc"), library("cublaslt")],
            devices: capability.map(device).into_iter().collect(),
            problem: capability.is_none().then(|| "no driver; install one".to_owned()),
        }
    }

    fn report(rungs: &str, found: Result<ProbeReport, Failure>) -> (String, usize) {
        let mut config = Config::default();
        config.devices.rungs = rungs.parse().expect("devices");
        let mut report = Report::default();
        cpu(&mut report);
        cuda(&mut report, &config, &found);
        // Lines are broken where they are shown.
        let words = report.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        (words, report.broken_count())
    }

    #[test]
    fn a_gpu_is_described_with_its_libraries() {
        let (text, broken) = report("auto", Ok(machine(Some((9, 0)), &[])));
        for part in ["cuda:0 NVIDIA H200", "capability 9.0", "141.0 GiB", "13.0, /opt/cuda"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(broken, 0);
    }

    #[test]
    fn each_missing_piece_says_what_it_costs() {
        let costs = [
            (Some((9, 0)), &["nvrtc"][..], "the fused matrix kernels are missing"),
            (Some((9, 0)), &["cublaslt"], "Forebay's own kernels only"),
            (Some((8, 0)), &["cublaslt"], "the GPU cannot serve"),
            (Some((9, 0)), &["cublaslt", "nvrtc"], "without them the GPU cannot serve"),
            (Some((8, 0)), &["cublaslt", "nvrtc"], "need compute capability 9.0"),
            (Some((8, 0)), &["nvrtc"], "left them in the cache"),
            (None, &["cublaslt", "nvrtc"], "none: no driver the CPU serves help: install one"),
        ];
        for (capability, missing, cost) in costs {
            let (text, broken) = report("auto", Ok(machine(capability, missing)));
            assert!(text.contains(cost), "{cost}: {text}");
            assert_eq!(broken, 0, "{text}");
        }
    }

    #[test]
    fn a_gpu_that_is_listed_and_not_there_is_broken() {
        let failed = || Err(Failure::new(Exit::Unavailable, "no answer"));
        assert_eq!(report("cuda:0", Ok(machine(None, &[]))).1, 1);
        assert_eq!(report("cuda:0", failed()).1, 1);
        assert_eq!(report("cpu", failed()).1, 0);
        assert_eq!(report("auto", failed()).1, 0);
    }

    #[test]
    fn what_the_monitor_sees_is_shown_and_a_gpu_out_of_order_is_broken() {
        let shown = |device: DeviceHealth| {
            let seen = MonitorReport { devices: vec![device], ..MonitorReport::default() };
            let mut report = Report::default();
            seen_by_monitor(&mut report, &Config::default(), Ok(seen));
            let words = report.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            (words, report.broken_count())
        };
        let (text, broken) = shown(DeviceHealth { power_mw: Some(1), ..DeviceHealth::default() });
        assert!(text.contains("seen: power not seen: recovery action, Xid events"), "{text}");
        assert!(text.contains("unknown: not known: recovery action"), "{text}");
        assert_eq!(broken, 0);
        let (text, broken) =
            shown(DeviceHealth { recovery_action: Some(1), ..DeviceHealth::default() });
        assert!(text.contains("needs_reset") && text.contains("--gpu-reset"), "{text}");
        assert_eq!(broken, 1);
    }

    #[test]
    fn the_release_is_found_in_what_the_kernel_says() {
        let text = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release \
                    Build\nGCC version:  gcc version 13.3.0\n";
        assert_eq!(release_of(text).as_deref(), Some("580.65.06"));
        assert_eq!(release_of("nothing"), None);
    }
}
