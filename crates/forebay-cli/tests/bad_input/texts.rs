//! Inputs that are not lines of text.

use crate::support::output;
use crate::{Bench, npy};

#[test]
fn a_line_that_is_not_utf8() {
    let bench = Bench::new();
    bench.input(b"w1\nw2 \xff w3\nw4\n");
    let said = ["in.txt: line 2 is not valid UTF-8", "byte offset 6", "iconv"];
    bench.assert_fails(&mut bench.fake(), 65, &said);
}

#[test]
fn a_line_of_ten_megabytes() {
    let bench = Bench::new();
    bench.input(format!("w1\n{}\nw2\n", "x".repeat(10_000_000)).as_bytes());
    let said = ["line 2 has", "10000000 bytes", "1048576", "tokenize.text_bytes_max"];
    bench.assert_fails(&mut bench.fake(), 65, &said);
    // Where so much is allowed, it is one text of one long, unknown word.
    let mut command = bench.fake();
    for key in [
        "TOKENIZE__TEXT_BYTES_MAX",
        "ADMISSION__CONTROL_TEXT_BYTES_QUEUED_MAX",
        "ADMISSION__INTERACTIVE_TEXT_BYTES_QUEUED_MAX",
        "ADMISSION__BULK_TEXT_BYTES_QUEUED_MAX",
    ] {
        command.env(format!("FOREBAY_{key}"), "20000000");
    }
    let output = output(&mut command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(npy(&bench.path("out.npy")).0.contains("(3, 32)"));
}

#[test]
fn an_empty_file_gives_an_empty_array() {
    let bench = Bench::new();
    bench.input(b"");
    let output = output(&mut bench.fake());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the input is empty"));
    let (header, values) = npy(&bench.path("out.npy"));
    assert!(header.contains("(0, 32)") && values == 0, "{header}");
}

#[test]
fn json_lines_that_are_none() {
    let bench = Bench::new();
    bench.input(b"{\"text\": \"w1\"}\n{\"txt\": \"w2\"}\n");
    let said = ["line 2", "missing field `text`"];
    bench.assert_fails(bench.fake().args(["--format", "jsonl"]), 65, &said);
}

#[test]
fn an_input_that_is_missing_or_no_file() {
    let bench = Bench::new();
    std::fs::remove_file(bench.path("in.txt")).expect("removes");
    bench.assert_fails(&mut bench.fake(), 66, &["cannot read", "in.txt", "check the path"]);
    std::fs::create_dir(bench.path("in.txt")).expect("creates");
    bench.assert_fails(&mut bench.fake(), 66, &["cannot read", "in.txt", "is a directory"]);
}

#[test]
fn a_text_that_kills_the_worker_is_named_by_its_line() {
    use crate::support::script::Script;
    use crate::support::tiny::BAD_ID;
    let bench = Bench::new();
    bench.model.script(&Script { die_on: vec![BAD_ID], ..Script::default() });
    bench.input(b"w1\nw2\nbad\nw3\n");
    bench.assert_fails(&mut bench.fake(), 1, &["line 3", "ran 2 times and its worker died"]);
}
