//! The tokenizer against Hugging Face `tokenizers` 0.22 on the real vocabulary: the same ids on
//! seeded lines of every kind of Unicode, at several limits, and on arbitrary strings.
//!
//! One difference is known and asserted exactly: the two use different versions of Unicode's
//! punctuation, so the scalars of [`PUNCTUATION_SINCE_8`] split a word here only, and those of
//! [`PUNCTUATION_UNTIL_8`] there only. The reference is given the text with the former set apart by
//! spaces (which is what being punctuation means), ours with the latter.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod lines;

use std::borrow::Cow;

use forebay_model::{Encoded, ModelFolder, Scratch, TextTokenizer};
use lines::KINDS;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokenizers022::{Tokenizer, TruncationParams};

const SEED: u64 = 0x5eed_f0eb;
const LINES_PER_KIND: usize = 1_100;
const LIMITS: [usize; 6] = [2, 3, 8, 64, 128, 256];

/// Punctuation in current Unicode (and here), not in the tables of 0.22.
#[rustfmt::skip]
const PUNCTUATION_SINCE_8: [(u32, u32); 40] = [
    (0x61d, 0x61d), (0x9fd, 0x9fd), (0xa76, 0xa76), (0xc77, 0xc77), (0xc84, 0xc84),
    (0x1b4e, 0x1b4f), (0x1b7d, 0x1b7f), (0x2e43, 0x2e4f), (0x2e52, 0x2e5d), (0x10d6e, 0x10d6e),
    (0x10ead, 0x10ead), (0x10ed0, 0x10ed0), (0x10f55, 0x10f59), (0x10f86, 0x10f89),
    (0x113d4, 0x113d5), (0x113d7, 0x113d8), (0x1144b, 0x1144f), (0x1145a, 0x1145b),
    (0x1145d, 0x1145d), (0x11660, 0x1166c), (0x116b9, 0x116b9), (0x1183b, 0x1183b),
    (0x11944, 0x11946), (0x119e2, 0x119e2), (0x11a3f, 0x11a46), (0x11a9a, 0x11a9c),
    (0x11a9e, 0x11aa2), (0x11b00, 0x11b09), (0x11be1, 0x11be1), (0x11c41, 0x11c45),
    (0x11c70, 0x11c71), (0x11ef7, 0x11ef8), (0x11f43, 0x11f4f), (0x11fff, 0x11fff),
    (0x12ff1, 0x12ff2), (0x16d6d, 0x16d6f), (0x16e97, 0x16e9a), (0x16fe2, 0x16fe2),
    (0x1e5ff, 0x1e5ff), (0x1e95e, 0x1e95f),
];
/// Punctuation in the tables of 0.22, no longer in current Unicode.
const PUNCTUATION_UNTIL_8: [(u32, u32); 2] = [(0x166d, 0x166d), (0x111c9, 0x111c9)];

/// `text` with every scalar of `ranges` between spaces.
fn set_apart<'a>(text: &'a str, ranges: &[(u32, u32)]) -> Cow<'a, str> {
    let listed =
        |c: char| ranges.iter().any(|&(first, last)| (first..=last).contains(&u32::from(c)));
    if !text.contains(listed) {
        return Cow::Borrowed(text);
    }
    let mut apart = String::new();
    for c in text.chars() {
        if listed(c) {
            apart.extend([' ', c, ' ']);
        } else {
            apart.push(c);
        }
    }
    Cow::Owned(apart)
}

struct Pair {
    ours: TextTokenizer,
    reference: Tokenizer,
}

impl Pair {
    fn open() -> Self {
        let path = common::model_path();
        let ours = ModelFolder::open(&path).unwrap().tokenizer().unwrap();
        let mut reference = Tokenizer::from_file(path.join("tokenizer.json")).unwrap();
        reference.with_padding(None);
        reference.with_truncation(None).unwrap();
        Self { ours, reference }
    }

    fn limited(&self, tokens_max: usize) -> Tokenizer {
        let mut reference = self.reference.clone();
        let limit = TruncationParams { max_length: tokens_max, ..TruncationParams::default() };
        reference.with_truncation(Some(limit)).unwrap();
        reference
    }

    /// What the two agree on for `text`, or how they differ beyond the known difference.
    fn compare(
        &self,
        limited: &Tokenizer,
        tokens_max: usize,
        text: &str,
        scratch: &mut Scratch,
    ) -> Result<Encoded, String> {
        let for_reference = set_apart(text, &PUNCTUATION_SINCE_8);
        let text = set_apart(text, &PUNCTUATION_UNTIL_8);
        let whole = self.reference.encode_fast(&*for_reference, true).unwrap();
        let cut = limited.encode_fast(&*for_reference, true).unwrap();
        let mut ids = vec![u32::MAX];
        let encoded = self.ours.encode(&text, tokens_max, scratch, &mut ids).unwrap();
        let same = ids[1..] == *cut.get_ids()
            && encoded.tokens == cut.len()
            && encoded.tokens_before_cut == whole.len()
            && encoded.truncated() == (whole.len() > tokens_max);
        if same {
            return Ok(encoded);
        }
        Err(format!(
            "limit {tokens_max}, text {text:?}\n  ours      {encoded:?} {:?}\n  \
                 reference {} of {} {:?}",
            &ids[1..],
            cut.len(),
            whole.len(),
            cut.get_ids()
        ))
    }
}

#[test]
fn the_same_ids_as_the_reference_on_lines_of_every_kind() {
    let pair = Pair::open();
    let limited = LIMITS.map(|tokens_max| (tokens_max, pair.limited(tokens_max)));
    let mut scratch = Scratch::default();
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut differences = Vec::new();
    let mut lines = 0;
    let mut cut = 0;
    for (kind, generate) in KINDS {
        for index in 0..LINES_PER_KIND {
            let text = generate(&mut rng);
            // Most lines run at the model's own limit, the rest at the smaller ones in turn.
            let (tokens_max, reference) = &limited[if index % 3 == 0 { index / 3 % 6 } else { 5 }];
            lines += 1;
            match pair.compare(reference, *tokens_max, &text, &mut scratch) {
                Ok(encoded) => cut += usize::from(encoded.truncated()),
                Err(found) => differences.push(format!("{kind}: {found}")),
            }
        }
    }
    assert!(lines >= 20_000 && cut >= 1_000, "{lines} lines, {cut} of them cut, prove too little");
    assert!(
        differences.is_empty(),
        "{} of {lines} lines differ, the first ones:\n{}",
        differences.len(),
        differences[..differences.len().min(5)].join("\n")
    );
}

/// Every scalar of the planes that have any assigned (and a sample of the others) inside a word:
/// the two differ on exactly the listed ones.
#[test]
fn the_difference_is_exactly_the_listed_punctuation() {
    let pair = Pair::open();
    let mut scratch = Scratch::default();
    let listed = |code: u32| {
        let mut ranges = PUNCTUATION_SINCE_8.iter().chain(&PUNCTUATION_UNTIL_8);
        ranges.any(|&(first, last)| (first..=last).contains(&code))
    };
    let scalars = (0..0x40000).chain(0xe0000..0xe1000).chain((0x40000..=0x10ffff).step_by(251));
    let mut text = String::new();
    for c in scalars.filter_map(char::from_u32) {
        text.clear();
        text.extend(['a', c, 'b']);
        let mut ids = Vec::new();
        pair.ours.encode(&text, 256, &mut scratch, &mut ids).unwrap();
        let reference = pair.reference.encode_fast(text.as_str(), true).unwrap();
        let differs = ids != reference.get_ids();
        assert_eq!(differs, listed(u32::from(c)), "U+{:04X}: {ids:?}", u32::from(c));
    }
}

#[test]
fn the_same_ids_as_the_reference_on_arbitrary_strings() {
    let pair = Pair::open();
    let limited = pair.limited(64);
    let config = ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(SEED),
        ..ProptestConfig::default()
    };
    let text =
        prop_oneof![any::<String>(), "\\PC{0,200}", "[a-zA-Zéà\\[\\] .,'#\u{300}-\u{303}]{0,300}"];
    proptest!(config, |(text in text)| {
        let found = pair.compare(&limited, 64, &text, &mut Scratch::default());
        prop_assert!(found.is_ok(), "{}", found.unwrap_err());
    });
}
