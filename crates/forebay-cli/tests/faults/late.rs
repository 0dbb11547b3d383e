//! Workers that are late: what they hold is computed elsewhere long before they count as hung, and
//! they come back.

use forebay::Fault;
use forebay::events::{EventKind, explain};

use crate::history::{COMES_BACK, assert_chain, assert_levels, words};
use crate::load::{GPU, patient, script, under_load, under_load_of};
use crate::support::script::Script;
use crate::support::{exists, forebay, output};

/// Far longer than a test may take.
const NEVER_MS: u32 = 600_000;

#[test]
fn what_a_stopped_worker_holds_is_answered_while_it_is_still_there() {
    let change = |config: &mut forebay::Config| {
        patient(config);
        config.cuda.batch_deadline_ms = NEVER_MS;
    };
    let outcome = under_load_of(&script(), change, |loaded| {
        let status = loaded.runtime.status();
        let stopped = status.workers[0].pid.expect("it serves");
        loaded.inject(GPU, Fault::Stop);
        loaded.happened(GPU, "serving to suspect", 1);
        loaded.answers_everybody();
        // All that it held has been answered, and it is as it was.
        assert!(exists(stopped));
        assert_eq!(loaded.runtime.status().workers[0].pid, Some(stopped));
        let ended =
            |event: &forebay::events::Event| matches!(event.kind, EventKind::WorkerEnded { .. });
        assert!(!loaded.events().iter().any(ended));
        assert!(loaded.counted("forebay_requests_hedged_total", "") > 0);
        loaded.inject(GPU, Fault::Kill);
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 1));
    let begin = ["fault stop", "hedged", "serving to suspect", "fault kill", "suspect to exited"];
    let chain = assert_chain(&outcome.events, GPU, &[&begin[..], &COMES_BACK].concat());
    let levels = ["level gpu(2) to gpu(1)", "level gpu(1) to gpu(2)"];
    assert_levels(&outcome.events, chain[2], &levels);
}

#[test]
fn a_worker_that_hangs_is_ended_at_its_deadline_and_the_log_tells_the_story() {
    let folder = tempfile::tempdir().expect("folder");
    let change = |config: &mut forebay::Config| {
        patient(config);
        config.events.folder = folder.path().to_owned();
    };
    let outcome = under_load_of(&script(), change, |loaded| {
        loaded.inject(GPU, Fault::EndlessKernel);
        loaded.restarted(1);
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 1));
    let begin = ["fault endless_kernel", "hedged", "serving to suspect", "suspect to exited"];
    let expected = [&begin[..], &COMES_BACK].concat();
    let chain = assert_chain(&outcome.events, GPU, &expected);
    let EventKind::WorkerEnded { reason, .. } = &chain[4].kind else { panic!("{:?}", chain[4]) };
    assert!(reason.contains("cuda.batch_deadline_ms"), "{reason}");

    // Whichever event is asked about, the story begins with the fault and ends with the level.
    let (first, last) = (chain[0].id, chain[chain.len() - 1].id);
    for event in [&chain[2], &chain[5]] {
        let story = explain(&outcome.events, event.id).expect("it is there");
        let steps: Vec<_> = story.steps.iter().map(|step| step.event.id).collect();
        assert_eq!(steps.first(), Some(&first));
        assert!(steps.contains(&last) && story.not_serving.is_empty(), "{story:#?}");
        assert!(words(story.steps[steps.len() - 1].event) == "level gpu(1) to gpu(2)");
    }
    let number = chain[2].id.to_string();
    let mut command = forebay(&["explain", &number, "--folder"]);
    let told = output(command.arg(folder.path()));
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    let mut lines = told.lines();
    for said in [
        "fault endless_kernel was injected on cuda:0",
        "texts",
        "cuda:0 serving to suspect",
        "level gpu(2) to gpu(1)",
        "cuda:0 suspect to exited",
        "worker 1 of cuda:0 ended",
        "cuda:0 serves (worker 2",
        "level gpu(1) to gpu(2)",
    ] {
        assert!(lines.any(|line| line.contains(said)), "{said:?} does not come in: {told}");
    }
}

#[test]
fn a_slow_worker_catches_up_and_comes_back_through_its_canary() {
    let script = Script { delay_us: 1_000, ..script() };
    let change = |config: &mut forebay::Config| {
        config.hedge.floor_ms = 250;
        config.cuda.batch_deadline_ms = NEVER_MS;
    };
    let outcome = under_load_of(&script, change, |loaded| {
        loaded.inject(GPU, Fault::Slow(1_000));
        loaded.happened(GPU, "serving to suspect", 1);
        loaded.answers_everybody();
        loaded.inject(GPU, Fault::Slow(1));
        loaded.happened(GPU, "probation to serving", 2);
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 0));
    let device = GPU.to_string();
    let of_device = outcome.events.iter().filter(|event| event.kind.device() == Some(&device));
    let said: Vec<String> = of_device.map(words).collect();
    let from = said.iter().position(|said| said == "fault slow=1000").expect("injected");
    assert_eq!(said[from + 1..from + 3], ["hedged", "serving to suspect"]);
    // As long as it is slow its canary is late, too.
    let back = said.iter().rposition(|said| said == "suspect to warming").expect("it caught up");
    let expected = ["suspect to warming", "warming to probation", "probation to serving"];
    assert_eq!(said[back..back + 3], expected, "{said:?}");
    assert_eq!(said[back + 3], "serving to draining", "{said:?}");
}

#[test]
fn answers_of_a_late_worker_and_of_its_stand_in_are_one() {
    // Late by a little: some answers come from the one, some from the other.
    let outcome = under_load(|loaded| {
        for _ in 0..3 {
            loaded.inject_when_up(GPU, Fault::Slow(60));
            loaded.answers_everybody();
            loaded.inject_when_up(GPU, Fault::Slow(1));
            loaded.comes_back();
        }
    });
    outcome.assert_no_error();
    assert_eq!((outcome.wrong, outcome.restarts), (0, 0));
}
