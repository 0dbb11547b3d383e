//! Tests of the merge: order, lanes, names, one axis, and nothing lost without being counted.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn host(name: &'static str, start_us: f64, duration_us: f64) -> HostSpan {
    HostSpan { name, start_us, duration_us, fields: Vec::new() }
}

fn line(batch: u64, track: &str, start_us: f64, duration_us: f64) -> WorkerLine {
    WorkerLine { batch, rows: 2, tokens: 9, track: track.to_owned(), start_us, duration_us }
}

fn events(timeline: &Timeline) -> Vec<Value> {
    let value = serde_json::to_value(timeline).expect("json");
    assert_eq!(value["displayTimeUnit"], "ms");
    value["traceEvents"].as_array().expect("a list").clone()
}

/// Names of the tracks in the order of their numbers.
fn tracks(events: &[Value], pid: u64) -> Vec<String> {
    let named = events.iter().filter(|event| event["name"] == "thread_name" && event["pid"] == pid);
    named.map(|event| event["args"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn host_and_workers_stand_on_one_axis_in_the_order_of_the_pipeline() {
    let mut batch = host("batch", 1_050.0, 100.0);
    batch.fields = vec![("batch_id", 7), ("rows", 2), ("waited_us", 30)];
    let spans = [
        host("reply", 1_150.0, 5.0),
        batch,
        host("tokenize", 1_010.0, 10.0),
        host("request", 1_000.0, 160.0),
    ];
    let lines = vec![
        line(1, "stream infer", 1_070.0, 60.0),
        line(1, "thread copy-in", 1_060.0, 4.0),
        line(1, "another", 1_060.0, 4.0),
    ];
    let workers = [WorkerTrace { name: "worker cuda:1".to_owned(), lines }];
    let events = events(&merge(&spans, &workers));
    assert_eq!(tracks(&events, 1), ["request", "tokenize", "waiting", "in flight", "reply"]);
    assert_eq!(tracks(&events, 2), ["thread copy-in", "stream infer", "another"]);
    let processes: Vec<&Value> =
        events.iter().filter(|event| event["name"] == "process_name").collect();
    assert_eq!(processes[0]["args"]["name"], "host");
    assert_eq!(processes[1]["args"]["name"], "worker cuda:1");
    let complete = |pid: u64, tid: u64| {
        let found = events
            .iter()
            .find(|event| event["ph"] == "X" && event["pid"] == pid && event["tid"] == tid);
        found.expect("an event").clone()
    };
    let (request, waiting, flight) = (complete(1, 1), complete(1, 3), complete(1, 4));
    assert_eq!((request["ts"].as_f64(), request["dur"].as_f64()), (Some(0.0), Some(160.0)));
    assert_eq!((waiting["ts"].as_f64(), waiting["dur"].as_f64()), (Some(20.0), Some(30.0)));
    assert_eq!((flight["ts"].as_f64(), flight["name"].as_str()), (Some(50.0), Some("batch 7")));
    assert_eq!(flight["args"]["rows"], 2);
    let infer = complete(2, 2);
    assert_eq!((infer["ts"].as_f64(), infer["args"]["tokens"].as_u64()), (Some(70.0), Some(9)));
}

#[test]
fn spans_that_overlap_by_rounding_are_cut_and_share_a_lane() {
    let spans = vec![
        Placed::new("b".to_owned(), 9.5, 5.0),
        Placed::new("a".to_owned(), 0.0, 10.0),
        Placed::new("c".to_owned(), 11.0, 1.0),
    ];
    let (lanes, left_out) = lanes(spans);
    assert_eq!((lanes.len(), left_out), (2, 0));
    assert_eq!((lanes[0][1].start_us, lanes[0][1].end_us), (10.0, 14.5));
    assert_eq!(lanes[1][0].name, "c");
}

#[test]
fn nothing_gives_an_empty_timeline_that_is_valid() {
    let timeline = merge(&[], &[]);
    assert_eq!((timeline.spans(), timeline.left_out), (0, 0));
    assert_eq!(events(&timeline).len(), 2);
}

#[test]
fn a_line_that_was_cut_off_is_counted_and_the_others_are_kept() {
    let text = r#"{"batch":1,"rows":2,"tokens":3,"track":"stream pool","start_us":1.5,"duration_us":2}
{"batch":2,"rows":2,"tok"#;
    let (lines, left_out) = read_lines(text.as_bytes()).expect("reads");
    assert_eq!((lines.len(), left_out), (1, 1));
    assert_eq!((lines[0].track.as_str(), lines[0].start_us), ("stream pool", 1.5));
}

#[test]
fn parts_of_workers_are_found_by_name_read_once_and_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("t.json");
    std::fs::write(folder.path().join("t.json.worker-cuda3.jsonl"), "stale").expect("writes");
    let file = TimelineFile::create(&path).expect("creates");
    assert!(file.parts().is_empty());
    let text =
        "{\"batch\":1,\"rows\":2,\"tokens\":3,\"track\":\"x\",\"start_us\":1,\"duration_us\":2}\n";
    std::fs::write(file.worker_path(), text).expect("writes");
    std::fs::write(folder.path().join("t.json.worker-cuda1.jsonl"), text).expect("writes");
    let said = file.finish(&[host("reply", 0.0, 1.0)], 4).expect("finishes");
    assert!(said.contains("3 spans of the host and 2 GPU workers; 4 left out"), "{said}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("lists").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let value: Value = serde_json::from_slice(&std::fs::read(&path).expect("reads")).expect("json");
    assert!(value["traceEvents"].as_array().is_some_and(|events| events.len() > 3));
}

proptest! {
    #[test]
    fn every_span_is_in_a_lane_or_counted_and_no_lane_overlaps(
        spans in prop::collection::vec((0.0_f64..1000.0, 0.0_f64..300.0), 0..300)
    ) {
        let placed = spans.iter().map(|(at, took)| Placed::new(String::new(), *at, *took));
        let (lanes, left_out) = lanes(placed.collect());
        let kept: usize = lanes.iter().map(Vec::len).sum();
        prop_assert_eq!(kept + left_out as usize, spans.len());
        prop_assert!(lanes.len() <= LANES_MAX);
        for pair in lanes.iter().flat_map(|lane| lane.windows(2)) {
            prop_assert!(pair[0].end_us <= pair[1].start_us);
        }
    }
}
