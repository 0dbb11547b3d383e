//! What `forebay doctor` says about the machine: devices and limits. Files and system calls only;
//! no library is opened and no device touched.

use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use rustix::process::{Resource, getrlimit};

use super::doctor_report::Report;

/// Below this limit of open files, an embedding application may run out of them.
const OPEN_FILES_MIN: u64 = 256;

/// A worker with a small model takes about this much.
const MEMORY_MIB_MIN: u64 = 512;

/// Folders that hold the driver's library where no loader configuration names another.
const LIBRARY_FOLDERS: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
];

/// Which devices there are to compute on.
pub(super) fn devices(report: &mut Report) {
    report.section("devices");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.ok("cpu", format_args!("{cores} cores for this process"));
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").ok();
    if driver.is_none() && !Path::new("/dev/nvidia0").exists() {
        report.note("cuda", "no NVIDIA device", None);
        return;
    }
    let driver = driver.as_deref().and_then(|text| text.lines().next());
    let driver = driver.and_then(|line| line.strip_prefix("NVRM version:")).map(str::trim);
    let library = find_libcuda();
    let library = library.map_or("not found".to_owned(), |path| path.display().to_string());
    report.note(
        "cuda",
        format_args!(
            "NVIDIA device found, driver {}, libcuda.so.1: {library}\n\
             this build has no CUDA engine: the CPU serves",
            driver.unwrap_or("unknown"),
        ),
        None,
    );
}

/// What the system allows this process. `arena_bytes` is what a worker shares with it.
pub(super) fn limits(report: &mut Report, arena_bytes: Option<usize>) {
    report.section("limits");
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < OPEN_FILES_MIN => {
            report.note("open files", files, Some("raise the limit with `ulimit -n 1024`"));
        }
        Some(files) => report.ok("open files", files),
        None => report.ok("open files", "unlimited"),
    }
    let needed_mib = MEMORY_MIB_MIN + arena_bytes.map_or(0, |bytes| bytes as u64 >> 20);
    match memory_available_mib() {
        Some(mib) if mib < needed_mib => report.note(
            "memory",
            format_args!("{mib} MiB available, a worker needs about {needed_mib} MiB"),
            Some("free memory, or lower batch.tokens_max and cpu.sub_batch_tokens_max"),
        ),
        Some(mib) => report.ok("memory", format_args!("{mib} MiB available")),
        None => report.note("memory", "not known: /proc/meminfo cannot be read", None),
    }
    let shared = arena_bytes.unwrap_or(1 << 20);
    match shared_memory(shared) {
        Ok(()) => report.ok("shared memory", format_args!("{} KiB with a worker", shared >> 10)),
        Err(errno) => report.broken(
            "shared memory",
            format_args!("memfd of {shared} bytes: {errno}"),
            Some("allow memfd_create with sealing in the system call filter of the container"),
        ),
    }
}

/// Whether sealable anonymous memory of this size can be had.
fn shared_memory(bytes: usize) -> rustix::io::Result<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("forebay-doctor", flags)?;
    rustix::fs::ftruncate(&memory, bytes as u64)
}

/// Memory that can be had without swapping: what the kernel estimates, or what is left to the
/// control group if that is less.
fn memory_available_mib() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let system = meminfo_available_kib(&meminfo)? >> 10;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(max, current)| max.saturating_sub(current) >> 20);
    Some(group.map_or(system, |group| group.min(system)))
}

fn meminfo_available_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Where the driver's library lies, by its name alone.
fn find_libcuda() -> Option<PathBuf> {
    let loader = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&loader).collect();
    if let Ok(entries) = std::fs::read_dir("/etc/ld.so.conf.d") {
        let files = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
        for text in files {
            let lines = text.lines().map(str::trim);
            folders.extend(lines.filter(|line| line.starts_with('/')).map(PathBuf::from));
        }
    }
    folders.extend(LIBRARY_FOLDERS.map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join("libcuda.so.1")).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let meminfo = "MemTotal:  8000000 kB\nMemFree: 1 kB\nMemAvailable:    2097152 kB\n";
        assert_eq!(meminfo_available_kib(meminfo), Some(2_097_152));
        assert_eq!(meminfo_available_kib("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn this_machine_has_shared_memory_and_a_core() {
        let mut report = Report::default();
        devices(&mut report);
        limits(&mut report, Some(1 << 20));
        assert_eq!(report.broken_count(), 0, "{report}");
    }
}
