//! What the processes of a target take: memory, descriptors, threads, mappings, read from `/proc`.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use serde::{Deserialize, Serialize};

use crate::targets::Look;

/// One look at one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in seconds since the run began.
    pub at_s: f64,
    /// What the process does: `host`, `worker` with its device, or its name.
    pub role: String,
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the system was: tells it from others of its number.
    pub started: u64,
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// Memory with its share of what it shares, in KiB; the same as resident where that is not told.
    pub pss_kib: u64,
    /// Open descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
    /// Memory mappings.
    pub mappings: u64,
}

/// A process and its descendants, `root` first.
fn family(root: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![root] };
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(pid) = family.get(next) {
        family.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    family
}

/// Processes of a target, those included that have ended and nobody has waited for.
#[must_use]
pub fn count(root: u32) -> u64 {
    family(root).len() as u64
}

/// What `/proc/PID/stat` says.
struct Stat {
    name: String,
    parent: u32,
    threads: u64,
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let (head, rest) = text.rsplit_once(") ")?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            parent: number(1)?.try_into().ok()?,
            threads: number(17)?,
            started: number(19)?,
        })
    }
}

/// A look at every process of a target.
#[must_use]
pub fn look(root: u32, target: Option<&Look>, at_s: f64) -> Vec<Sample> {
    let workers: HashMap<u32, &str> = target
        .into_iter()
        .flat_map(|look| &look.workers)
        .filter_map(|worker| Some((worker.pid?, worker.device.as_str())))
        .collect();
    let one = |pid: u32| {
        let stat = Stat::read(pid)?;
        let role = match workers.get(&pid) {
            Some(device) => format!("worker {device}"),
            None if pid == root => "host".to_owned(),
            None => stat.name,
        };
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let rss_kib = kib(&rollup, "Rss:")
            .or_else(|| kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:"))?;
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
        let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
        Some(Sample {
            at_s,
            role,
            pid,
            started: stat.started,
            rss_kib,
            pss_kib: kib(&rollup, "Pss:").unwrap_or(rss_kib),
            fds,
            threads: stat.threads,
            mappings: maps.iter().filter(|byte| **byte == b'\n').count() as u64,
        })
    };
    family(root).into_iter().filter_map(one).collect()
}

/// A process that took the place of another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// When it was first seen, in seconds since the measured part began.
    pub at_s: f64,
    /// What it does.
    pub role: String,
    /// Its number.
    pub pid: u32,
}

/// Workers that took the place of others, as far as looks from time to time show them: one that ended
/// again between two looks is in none.
#[must_use]
pub fn restarts(samples: &[Sample]) -> Vec<Restart> {
    let mut last: HashMap<&str, (u32, u64)> = HashMap::new();
    let mut found = Vec::new();
    for sample in samples.iter().filter(|sample| sample.role.starts_with("worker ")) {
        let process = (sample.pid, sample.started);
        let before = last.insert(&sample.role, process);
        if before.is_some_and(|before| before.1 < sample.started) {
            let (at_s, role, pid) = (sample.at_s, sample.role.clone(), sample.pid);
            found.push(Restart { at_s, role, pid });
        } else if let Some(before) = before.filter(|before| before.1 > sample.started) {
            // The old one is still there beside the new one.
            last.insert(&sample.role, before);
        }
    }
    found
}

/// What processes have at rest that should be the same at the next rest: by role and name.
#[must_use]
pub fn counters(samples: &[Sample]) -> BTreeMap<(String, &'static str), u64> {
    let mut counters = BTreeMap::new();
    for sample in samples {
        for (name, value) in
            [("fds", sample.fds), ("threads", sample.threads), ("mappings", sample.mappings)]
        {
            *counters.entry((sample.role.clone(), name)).or_default() += value;
        }
    }
    counters
}

/// Of several looks at the processes the least of each counter, for the processes of the last.
#[must_use]
pub fn least(looks: Vec<Vec<Sample>>) -> Vec<Sample> {
    let mut last = looks.last().cloned().unwrap_or_default();
    for sample in &mut last {
        let same = looks
            .iter()
            .flatten()
            .filter(|other| (other.pid, other.started) == (sample.pid, sample.started));
        for other in same {
            sample.fds = sample.fds.min(other.fds);
            sample.threads = sample.threads.min(other.threads);
            sample.mappings = sample.mappings.min(other.mappings);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let pid = std::process::id();
        let before = look(pid, None, 0.0);
        let host = before.iter().find(|sample| sample.pid == pid).expect("this process");
        assert_eq!(host.role, "host");
        assert!(host.rss_kib > 100 && host.pss_kib <= host.rss_kib, "{host:?}");
        assert!(host.threads >= 1 && host.mappings > 5 && host.started > 0, "{host:?}");
        let files: Vec<fs::File> =
            (0..40).map(|_| fs::File::open("/proc/self/stat").expect("opens")).collect();
        let after = look(pid, None, 1.0);
        let host_after = after.iter().find(|sample| sample.pid == pid).expect("this process");
        assert!(host_after.fds >= host.fds + 30, "{} {}", host_after.fds, host.fds);
        drop(files);
    }

    fn sample(role: &str, fds: u64) -> Sample {
        Sample {
            at_s: 0.0,
            role: role.to_owned(),
            pid: 1,
            started: 1,
            rss_kib: 1,
            pss_kib: 1,
            fds,
            threads: 2,
            mappings: 3,
        }
    }

    #[test]
    fn the_least_of_several_looks_leaves_out_what_comes_and_goes() {
        let other = Sample { pid: 2, ..sample("x", 1) };
        let looks =
            vec![vec![sample("host", 7), other], vec![sample("host", 6)], vec![sample("host", 8)]];
        assert_eq!(least(looks), [sample("host", 6)]);
        assert_eq!(least(Vec::new()), []);
    }

    #[test]
    fn a_worker_that_took_the_place_of_another_is_a_restart() {
        let at = |at_s, role: &str, pid, started| Sample { at_s, pid, started, ..sample(role, 1) };
        let samples = [
            at(0.0, "host", 1, 1),
            at(0.0, "worker cpu", 2, 2),
            at(1.0, "worker cpu", 2, 2),
            at(1.0, "worker cuda:0", 3, 3),
            at(2.0, "worker cpu", 4, 9),
            at(2.0, "worker cpu", 2, 2),
            at(3.0, "worker cpu", 4, 9),
            at(3.0, "worker cuda:0", 3, 3),
        ];
        let found = restarts(&samples);
        assert_eq!(found, [Restart { at_s: 2.0, role: "worker cpu".to_owned(), pid: 4 }]);
    }

    #[test]
    fn a_process_that_nobody_waited_for_is_counted() {
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let stat = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        while !stat().contains(") Z ") {
            std::thread::yield_now();
        }
        // It has nothing that a look could show, and is there. Its parent is the one of this thread.
        assert!(look(child.id(), None, 0.0).is_empty());
        assert!(family(std::process::id()).contains(&child.id()));
        assert_eq!(count(child.id()), 1);
        child.wait().expect("ends");
        assert!(!family(std::process::id()).contains(&child.id()));
    }

    #[test]
    fn counters_are_by_role() {
        let counters = counters(&[sample("host", 5), sample("x", 6), sample("x", 7)]);
        assert_eq!(counters[&("x".to_owned(), "fds")], 13);
        assert_eq!(counters[&("host".to_owned(), "threads")], 2);
    }
}
