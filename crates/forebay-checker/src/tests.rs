//! Sound histories break nothing; each planted error is found where it is.

use super::*;

fn vector(values: [f32; 2]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// Texts 0 and 1 lie along the axes; vector 0 is a little off text 0, vector 1 is text 1.
fn sound() -> String {
    let (x, y, near) = (vector([1.0, 0.0]), vector([0.0, 1.0]), vector([0.99995, 0.01]));
    format!(
        "forebay-soak-history,1\nrule,0.001,50,1000\ntext,0,{x}\ntext,1,{y}\n\
         invoke,0,0,2,0,100,101\ninvoke,1,1,1,200,110,111\ninvoke,2,0,1,0,120,121\n\
         invoke,3,0,1,0,130,131\ninvoke,4,1,1,0,140,141\nlevel,150,cpu\n\
         vector,0,{near}\nvector,1,{y}\nanswer,0,0 1\nanswer,1,1\nok,0,102,160,0\n\
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
    assert_eq!(verdict.first, None);
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
    let first = verdict.first.unwrap();
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
    breaks("answer,1,1\n", "answer,1,1 1\n", "answered once", "ok,1,112,180");
    breaks("answer,0,0 1", "answer,0,0", "one vector for each", "ok,0");
    breaks("ok,1,112,180", "ok,1,112,111", "before it was sent", "ok,1");
    breaks("ok,1,112,180", "ok,1,110,180", "before it was sent", "ok,1");
    // Due at 110, a deadline of 200, a slack of 50, whenever it left.
    assert!(judged(&sound().replacen("ok,1,112,180", "ok,1,300,360", 1)).is_sound());
    breaks("ok,1,112,180", "ok,1,300,361", "within its deadline", "ok,1");
    breaks("ok,1,112,180", "ok,1,112,361", "within its deadline", "ok,1");
    breaks("ok,0,102,160", "ok,0,102,1103", "within its deadline", "ok,0");
    breaks("end,300\n", "", "has an end", "");
    breaks("end,300", "end,300\nend,301", "can be read", "end,301");
    breaks("ok,1,112,180,1", "ok,1,112,180,7", "can be read", "ok,1");
    breaks("invoke,4,1", "invoke,3,1,1,0,140,141\ninvoke,4,1", "only what was asked", "invoke,3");
}

#[test]
fn another_texts_vector_is_named() {
    let first =
        breaks("ok,1,112,180,1", "answer,2,0\nok,1,112,180,2", "the one of its text", "ok,1");
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
        assert!(judged(&history).first.unwrap().promise.contains("finite"), "{wrong:?}");
    }
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(check("".as_bytes()), Err(CheckError::Header { .. })));
    assert!(matches!(check("forebay-history,1\n".as_bytes()), Err(CheckError::Header { .. })));
}

#[test]
fn lines_that_cannot_be_read_are_counted() {
    for line in ["", "ok", "ok,+1,150,150,0", "vector,3,xyz", "text,1,", "level,1,", "maybe,1"] {
        let verdict = judged(&sound().replacen("end,", &format!("{line}\nend,"), 1));
        assert_eq!(verdict.broken.values().sum::<u64>(), 1, "{line:?}");
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
    assert_eq!(judged(&own(7.0, 7.0)).first, None);
    let first = judged(&own(7.0, 1.0)).first.unwrap();
    assert!(first.promise.contains("the one of its text"), "{first:?}");
    assert!(first.what.contains("its length is 0.14"), "{}", first.what);
    assert!(judged(&own(7.0, f32::NAN)).first.unwrap().promise.contains("finite"));
    // Without the line a vector has length 1.
    assert!(!judged(&own(7.0, 7.0).replacen("length,own\n", "", 1)).is_sound());
}

#[test]
fn what_a_level_computes_is_held_to_its_tolerance() {
    // Vector 0 is 0.00005 off; at this level 0.00001 is allowed, and else 0.001.
    let tight = sound().replacen("text,0,", "tolerance,cpu,0.00001\ntext,0,", 1);
    // The request left before the level was known.
    assert_eq!(judged(&tight).first, None);
    let known = tight.replacen("invoke,0", "level,90,cpu\ninvoke,0", 1);
    let first = judged(&known).first.unwrap();
    assert!(first.promise.contains("the one of its text") && first.request == Some(0), "{first:?}");
    assert!(first.what.contains("allowed at this level is 0.00001"), "{}", first.what);
    let line = known.lines().nth(usize::try_from(first.line).unwrap() - 1).unwrap();
    assert!(line.starts_with("ok,0"), "{line}");
    // Another level soon afterwards may have computed it, unseen.
    let soon = known.replacen("end,", "level,5000000,gpu(1)\nend,", 1);
    assert_eq!(judged(&soon).first, None);
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
        let first = with(elsewhere).first.unwrap();
        assert!(first.promise.contains("within its deadline"), "{elsewhere}: {first:?}");
    }
    // A moment that nobody could take it in does not excuse the rest.
    let later = sound().replacen("ok,1,112,180", "ok,1,112,400", 1);
    assert!(!judged(&later.replacen("end,", "stall,100,120\nend,", 1)).is_sound());
}
