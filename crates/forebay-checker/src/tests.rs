//! Sound histories break nothing; each planted error is found where it is.

use proptest::prelude::*;

use super::*;

fn vector(values: [f32; 2]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// Texts 0 and 1 lie along the axes; vector 0 is a little off text 0, vector 1 is text 1.
fn sound() -> String {
    let (x, y, near) = (vector([1.0, 0.0]), vector([0.0, 1.0]), vector([0.99995, 0.01]));
    format!(
        "forebay-soak-history,2\nrule,0.001,50,1000\ntext,0,{x}\ntext,1,{y}\n\
         invoke,0,0,2,0,100,101\ninvoke,1,1,1,200,110,111\ninvoke,2,0,1,0,120,121\n\
         invoke,3,0,1,0,130,131\ninvoke,4,1,1,0,140,141\nlevel,150,cpu\n\
         vector,0,{near}\nvector,1,{y}\nok,0,102,160,0 1\n\
         fault,170,cpu,kill\nok,1,112,180,1\nrefused,2,190,overloaded\nerr,3,132,200,worker_lost\n\
         unsent,4,210,too_many_under_way\nend,300\n"
    )
}

fn judged(history: &str) -> Verdict {
    check(history.as_bytes()).unwrap()
}

#[test]
fn a_sound_history_breaks_nothing() {
    let verdict = judged(&sound());
    assert_eq!(verdict.first(), None);
    let counts = Counts {
        requests: 5,
        texts: 6,
        unsent: 1,
        refused: 1,
        answered: 2,
        errors: 1,
        vectors: 2,
        faults: 1,
    };
    assert_eq!(verdict.counts, counts);
}

/// Whether a history with one place changed breaks this promise alone, first in the line that holds
/// `place`.
fn breaks(from: &str, to: &str, part: &str, place: &str) -> CounterExample {
    let sound = sound();
    assert!(sound.contains(from), "{from}");
    let history = sound.replacen(from, to, 1);
    let verdict = judged(&history);
    assert_eq!(verdict.broken.len(), 1, "{to}: {:?}", verdict.broken);
    let first = verdict.first().unwrap().clone();
    assert!(first.promise.contains(part), "{to}: {}", first.promise);
    let line = history.lines().nth(usize::try_from(first.line).unwrap() - 1).unwrap_or("");
    assert!(line.contains(place), "{to}: {line}");
    first
}

#[test]
fn each_planted_error_is_found_where_it_is() {
    breaks("err,3,132,200,worker_lost\n", "", "is answered", "invoke,3");
    breaks("err,3,132,200,worker_lost", "lost,3,200,closed", "is answered", "lost,3");
    let unreadable = "unreadable,3,132,200,no vectors";
    breaks("err,3,132,200,worker_lost", unreadable, "can be read", "unreadable,3");
    let twice = breaks("end,", "ok,1,112,250,1\nend,", "answered once", "ok,1,112,250");
    assert_eq!(twice.request, Some(1));
    breaks("end,", "stray,260,two answers to one\nend,", "answered once", "stray");
    let stray = breaks("end,", "stray,260,two answers to one,1\nend,", "answered once", "stray");
    assert_eq!(stray.request, Some(1));
    breaks("end,", "ok,9,112,250,1\nend,", "only what was asked", "ok,9");
    breaks("ok,1,112,180,1", "ok,1,112,180,1 1", "answered once", "ok,1,112,180");
    breaks("ok,0,102,160,0 1", "ok,0,102,160,0", "one vector for each", "ok,0");
    breaks("ok,1,112,180", "ok,1,112,111", "before it was sent", "ok,1");
    breaks("ok,1,112,180", "ok,1,110,180", "before it was sent", "ok,1");
    // Due at 110, a deadline of 200, a slack of 50, whenever it left.
    assert!(judged(&sound().replacen("ok,1,112,180", "ok,1,300,360", 1)).is_sound());
    breaks("ok,1,112,180", "ok,1,300,361", "within its deadline", "ok,1");
    breaks("ok,1,112,180", "ok,1,112,361", "within its deadline", "ok,1");
    breaks("ok,0,102,160", "ok,0,102,1103", "within its deadline", "ok,0");
    breaks("end,300\n", "", "has an end", "");
    breaks("end,300", "end,300\nend,301", "can be read", "end,301");
    breaks("ok,1,112,180,1", "ok,1,112,180,7", "the one of its text", "ok,1");
    breaks("invoke,4,1", "invoke,3,1,1,0,140,141\ninvoke,4,1", "only what was asked", "invoke,3");
}

#[test]
fn another_texts_vector_is_named() {
    let first = breaks("ok,1,112,180,1", "ok,1,112,180,0", "the one of its text", "ok,1");
    assert_eq!((first.request, first.text), (Some(1), Some(1)));
    assert!(first.what.contains("the vector of text 0"), "{}", first.what);
    let far = format!("vector,0,{}", vector([0.8, 0.6]));
    let near = format!("vector,0,{}", vector([0.99995, 0.01]));
    let first = breaks(&near, &far, "the one of its text", "ok,0");
    assert!(first.what.contains("1 - cosine is 0.2"), "{}", first.what);
}

#[test]
fn values_that_are_no_numbers_and_other_lengths_are_found() {
    let sound = sound();
    for wrong in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [2.0, 0.0], [0.0, 0.0]] {
        let history = sound.replacen(
            &format!("vector,0,{}", vector([0.99995, 0.01])),
            &format!("vector,0,{}", vector(wrong)),
            1,
        );
        assert!(judged(&history).first().unwrap().promise.contains("finite"), "{wrong:?}");
    }
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(check("".as_bytes()), Err(CheckError::Header { .. })));
    assert!(matches!(check("forebay-soak-history,1\n".as_bytes()), Err(CheckError::Header { .. })));
}

#[test]
fn lines_that_cannot_be_read_are_counted() {
    for line in [
        "",
        "ok",
        "ok,+1,150,150,0",
        "stall,9,8",
        "answer,1,1",
        "vector,3,xyz",
        "text,1,",
        "level,1,",
        "maybe,1",
    ] {
        let verdict = judged(&sound().replacen("end,", &format!("{line}\nend,"), 1));
        let count: u64 = verdict.broken.values().map(|broken| broken.count).sum();
        assert_eq!(count, 1, "{line:?}");
    }
}

#[test]
fn vectors_that_are_not_of_length_1_are_held_to_the_length_of_their_text() {
    let (x, near) = (vector([1.0, 0.0]), vector([0.99995, 0.01]));
    let own = |x_length: f32, length: f32| {
        let sound = sound().replacen("text,0,", "length,own\ntext,0,", 1);
        let sound = sound.replacen(&x, &vector([x_length, 0.0]), 1);
        sound.replacen(&near, &vector([0.99995 * length, 0.01 * length]), 1)
    };
    assert_eq!(judged(&own(7.0, 7.0)).first(), None);
    let judged_short = judged(&own(7.0, 1.0));
    let first = judged_short.first().unwrap();
    assert!(first.promise.contains("the one of its text"), "{first:?}");
    assert!(first.what.contains("its length is 0.14"), "{}", first.what);
    assert!(judged(&own(7.0, f32::NAN)).first().unwrap().promise.contains("finite"));
    // Without the line a vector has length 1.
    assert!(!judged(&own(7.0, 7.0).replacen("length,own\n", "", 1)).is_sound());
}

#[test]
fn what_a_level_computes_is_held_to_its_tolerance() {
    // Vector 0 is 0.00005 off; at this level 0.00001 is allowed, and else 0.001.
    let tight = sound().replacen("text,0,", "tolerance,cpu,0.00001\ntext,0,", 1);
    // The request left before the level was known.
    assert_eq!(judged(&tight).first(), None);
    let known = tight.replacen("invoke,0", "level,90,cpu\ninvoke,0", 1);
    let verdict = judged(&known);
    let first = verdict.first().unwrap();
    assert!(first.promise.contains("the one of its text") && first.request == Some(0), "{first:?}");
    assert!(first.what.contains("allowed at this level is 0.00001"), "{}", first.what);
    let line = known.lines().nth(usize::try_from(first.line).unwrap() - 1).unwrap();
    assert!(line.starts_with("ok,0"), "{line}");
    // Another level soon afterwards may have computed it, unseen.
    let soon = known.replacen("end,", "level,5000000,gpu(1)\nend,", 1);
    assert_eq!(judged(&soon).first(), None);
    let late = known.replacen("end,", "level,7000000,gpu(1)\nend,", 1);
    assert!(!judged(&late).is_sound());
    let down = known.replacen("end,", "level,170,down\nlevel,180,cpu\nend,", 1);
    assert!(!judged(&down).is_sound());
}

#[test]
fn what_nobody_could_have_taken_in_time_is_not_late() {
    // 251 us after it was due; 250 are allowed.
    let late = sound().replacen("ok,1,112,180", "ok,1,112,361", 1);
    let with = |stall: &str| judged(&late.replacen("end,", &format!("{stall}\nend,"), 1));
    assert!(with("stall,100,113").is_sound());
    for elsewhere in ["stall,10,112", "stall,361,999", "stall,200,200"] {
        let verdict = with(elsewhere);
        let first = verdict.first().unwrap();
        assert!(first.promise.contains("within its deadline"), "{elsewhere}: {first:?}");
    }
    // A moment that nobody could take it in does not excuse the rest.
    let later = sound().replacen("ok,1,112,180", "ok,1,112,400", 1);
    assert!(!judged(&later.replacen("end,", "stall,100,120\nend,", 1)).is_sound());
}

#[test]
fn the_first_break_is_the_one_in_the_lowest_line() {
    // A late reply is told when nothing can excuse it any more, and a wrong vector at once.
    let late = sound().replacen("ok,1,112,180", "ok,1,112,361", 1);
    let both = late.replacen("end,", "stray,400,two answers to one\nend,", 1);
    let verdict = judged(&both);
    assert_eq!(verdict.broken.len(), 2);
    assert!(verdict.first().unwrap().promise.contains("within its deadline"), "{verdict:?}");
    let at_once = &verdict.broken["a request is answered once"];
    assert!(at_once.first.line > verdict.first().unwrap().line);
}

/// A history of this many requests with a deadline of 100 us, each answered 1 ms later than that.
fn all_late(count: u64, stall: impl Fn(u64) -> Option<[u64; 2]>) -> String {
    let x = vector([1.0, 0.0]);
    let mut text = format!("forebay-soak-history,2\nrule,0.001,0,1000\ntext,0,{x}\nvector,0,{x}\n");
    for request in 0..count {
        let due = request * 10;
        text.push_str(&format!("invoke,{request},0,1,100,{due},{due}\n"));
    }
    for request in 0..count {
        let at = request * 10 + 1100;
        text.push_str(&format!("ok,{request},{},{at},0\n", request * 10));
        if let Some([from, to]) = stall(request) {
            text.push_str(&format!("stall,{from},{to}\n"));
        }
    }
    text.push_str("end,99999999\n");
    text
}

#[test]
fn however_many_are_late_each_is_judged_with_its_stalls() {
    let count = 150_000;
    // One after the other, from the first reply on.
    let stall = |request: u64| {
        let from = request * 10 + 1100;
        request.is_multiple_of(100).then_some([from, from + 1000])
    };
    let verdict = judged(&all_late(count, |_| None));
    assert_eq!(verdict.broken.values().map(|broken| broken.count).sum::<u64>(), count);
    // Before the first hundred stalled too little for what they were late.
    let verdict = judged(&all_late(count, stall));
    assert_eq!(verdict.broken.values().map(|broken| broken.count).sum::<u64>(), 100);
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..12_u64,
        100..400_u64,
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(u64::MAX / 2),
        Just(1 << 40),
        any::<u64>()
    ]
}

/// A line that may stand in no history.
fn damaged() -> impl Strategy<Value = String> {
    let number = numbers().prop_map(|number| number.to_string());
    let word = prop_oneof![Just("cpu".to_owned()), Just(String::new()), Just("0 1".to_owned())];
    let field = prop_oneof![6 => number, 1 => word, 1 => Just(vector([1.0, 0.0]))];
    let kinds = [
        "rule",
        "length",
        "tolerance",
        "text",
        "invoke",
        "unsent",
        "refused",
        "vector",
        "ok",
        "err",
        "unreadable",
        "lost",
        "stray",
        "stall",
        "fault",
        "level",
        "end",
        "maybe",
    ];
    let line = (proptest::sample::select(kinds.to_vec()), proptest::collection::vec(field, 0..8));
    line.prop_map(|(kind, fields)| format!("{kind},{}\n", fields.join(",")))
}

proptest! {
    #[test]
    fn no_line_makes_it_panic_or_take_memory_without_bound(
        request in numbers(),
        first in numbers(),
        lines in proptest::collection::vec((0..30_usize, damaged()), 0..30)
    ) {
        let sound = sound()
            .replace("invoke,0,0,2", &format!("invoke,0,{first},2"))
            .replace("invoke,3", &format!("invoke,{request}"))
            .replace("err,3", &format!("err,{request}"));
        let mut all: Vec<&str> = sound.split_inclusive('\n').collect();
        for (place, line) in &lines {
            all.insert((place + 1).min(all.len()), line);
        }
        let verdict = judged(&all.concat());
        prop_assert!(verdict.first().is_none_or(|first| first.line <= all.len() as u64));
    }

    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let history = [b"forebay-soak-history,2\n".as_slice(), &bytes].concat();
        let verdict = check(history.as_slice()).unwrap();
        // There are no rules in it.
        prop_assert!(!verdict.is_sound());
    }
}

#[test]
fn a_number_that_no_request_can_have_is_no_line() {
    let line = "invoke,18446744073709551615,0,1,0,1,1\nok,18446744073709551615,1,1,0\n";
    let verdict = judged(&sound().replacen("end,", &format!("{line}end,"), 1));
    assert_eq!(verdict.broken.len(), 1);
    assert_eq!(verdict.broken[FORM].count, 2);
}

#[test]
fn a_line_that_is_too_long_is_no_line() {
    let long = format!("stray,1,{}\nend,", "x".repeat(17 << 20));
    let verdict = judged(&sound().replacen("end,", &long, 1));
    assert_eq!(verdict.broken.len(), 1);
    assert_eq!(verdict.broken[FORM].count, 1);
}
