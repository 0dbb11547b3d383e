//! The watcher over shell scripts that are monitors, more or less: what it says meanwhile, and that
//! it leaves no process behind however it ends.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use forebay_protocol::PROTOCOL_VERSION;
use tempfile::TempDir;

use super::*;

struct Watched {
    folder: TempDir,
    reports: Arc<Mutex<Vec<HealthReport>>>,
    args: WatcherArgs,
}

/// A watcher's arguments for a script that first notes its process id.
fn scripted(script: &str) -> Watched {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("monitor");
    let note = format!("echo $$ >> {}", folder.path().join("pids").display());
    std::fs::write(&program, format!("#!/bin/sh\n{note}\n{script}\n")).expect("writes");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("sets");
    let reports = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&reports);
    let args = WatcherArgs {
        program,
        devices: vec![Device::Cuda(0)],
        probed: Vec::new(),
        config: HealthConfig {
            start_deadline_ms: 60_000,
            backoff_min_ms: 1,
            backoff_max_ms: 1,
            ..HealthConfig::default()
        },
        faults: false,
        on_report: OnReport::new(move |report| heard.lock().expect("sound").push(report)),
        metrics: Arc::new(Metrics::new()),
    };
    Watched { folder, reports, args }
}

impl Watched {
    /// Process ids so far, once there are `count`.
    async fn pids(&self, count: usize) -> Vec<u32> {
        loop {
            let text = std::fs::read_to_string(self.folder.path().join("pids")).unwrap_or_default();
            let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            if pids.len() >= count {
                return pids;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn problems(&self) -> Vec<String> {
        let reports = self.reports.lock().expect("sound");
        reports.iter().filter_map(|report| report.problem.clone()).collect()
    }
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn one_that_does_not_end_by_itself_is_killed() {
    let watched = scripted("exec sleep 1000");
    let watch = watch(watched.args.clone());
    let pids = watched.pids(1).await;
    watch.stop().await;
    assert!(!exists(pids[0]));
}

#[tokio::test]
async fn whatever_is_no_report_costs_the_process_and_the_next_is_tried() {
    let version = MonitorReport { protocol: 99, sequence: 1, ..MonitorReport::default() };
    let version = version.encode().expect("encodes");
    let flood = "head -c 300000 /dev/zero; exec sleep 1000";
    for (script, said) in [
        ("echo usage; exec sleep 1000", "said something else"),
        (&format!("echo '{}'; exec sleep 1000", version.trim_end()), "speaks protocol 99"),
        ("exit 3", "ended without a report"),
        ("exec >&-; exec sleep 1000", "ended without a report"),
        (flood, "said something else"),
    ] {
        let watched = scripted(script);
        let watch = watch(watched.args.clone());
        // A second start follows only when the first process is gone.
        let pids = watched.pids(2).await;
        assert!(!exists(pids[0]), "{script}");
        watch.stop().await;
        let problems = watched.problems();
        assert!(problems.iter().all(|problem| problem.contains(said)), "{problems:?}");
        let last = *watched.pids(2).await.last().expect("some");
        assert!(!exists(last), "{script}");
    }
}

#[tokio::test]
async fn a_silence_between_two_reports_makes_the_device_unknown() {
    let report = MonitorReport { protocol: PROTOCOL_VERSION, sequence: 1, ..Default::default() };
    let line = report.encode().expect("encodes");
    let mut watched = scripted(&format!("echo '{}'; exec sleep 1000", line.trim_end()));
    watched.args.config.report_deadline_ms = 20;
    let watch = watch(watched.args.clone());
    watched.pids(2).await;
    watch.stop().await;
    let reports = watched.reports.lock().expect("sound");
    let (first, second) = (&reports[0], &reports[1]);
    let reason = first.devices[0].2.reason();
    assert!(first.problem.is_none() && reason.contains("NVML sees 0 devices"), "{first:?}");
    let problem = second.problem.as_deref().expect("late");
    assert!(problem.contains("20 ms") && problem.contains("report_deadline_ms"), "{problem}");
    assert_eq!(second.devices[0].2, DeviceVerdict::Unknown(problem.to_owned()));
}
