//! What `forebay doctor` says about the limits that this system sets. Files and system calls only.

use rustix::fs::MemfdFlags;
use rustix::process::{Resource, getrlimit};

use super::doctor_report::Report;

/// Below this limit of open files, an embedding application may run out of them.
const OPEN_FILES_MIN: u64 = 256;

/// A worker with a small model takes about this much.
const MEMORY_MIB_MIN: u64 = 512;

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
    fn this_machine_has_shared_memory() {
        let mut report = Report::default();
        limits(&mut report, Some(1 << 20));
        assert_eq!(report.broken_count(), 0, "{report}");
    }
}
