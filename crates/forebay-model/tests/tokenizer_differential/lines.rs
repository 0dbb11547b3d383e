//! Seeded lines of every kind of Unicode that a text can hold.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

pub(crate) type Kind = (&'static str, fn(&mut StdRng) -> String);

pub(crate) const KINDS: [Kind; 19] = [
    ("ascii sentence", |rng| words(rng, 1..40, ASCII_WORDS)),
    ("latin accents, composed", |rng| words(rng, 1..30, ACCENTED)),
    ("latin accents, decomposed", decomposed),
    ("chinese, japanese, korean", |rng| {
        chars(
            rng,
            0..80,
            &[
                (0x4e00, 0x9fff),
                (0x3040, 0x30ff),
                (0xac00, 0xd7a3),
                (0x3400, 0x4dbf),
                (0x20000, 0x2a6df),
                (0xf900, 0xfaff),
                (0x3000, 0x303f),
                (0x1100, 0x11ff),
            ],
        )
    }),
    ("arabic and hebrew", |rng| {
        chars(
            rng,
            0..80,
            &[(0x0600, 0x06ff), (0x0590, 0x05ff), (0xfb1d, 0xfdff), (0x20, 0x20), (0x200e, 0x200f)],
        )
    }),
    ("devanagari and thai", |rng| {
        chars(rng, 0..80, &[(0x0900, 0x097f), (0x0e00, 0x0e7f), (0x20, 0x20), (0x200c, 0x200d)])
    }),
    ("greek and cyrillic", |rng| {
        chars(rng, 0..80, &[(0x0370, 0x03ff), (0x0400, 0x052f), (0x1f00, 0x1fff), (0x20, 0x20)])
    }),
    ("emoji sequences", emoji),
    ("control characters", |rng| mixed(rng, &[(0x00, 0x1f), (0x7f, 0x9f)])),
    ("zero width and format", |rng| {
        mixed(
            rng,
            &[
                (0x200b, 0x200f),
                (0x202a, 0x202e),
                (0x2060, 0x206f),
                (0xfeff, 0xfeff),
                (0xad, 0xad),
                (0xfff9, 0xfffd),
                (0xe0001, 0xe007f),
            ],
        )
    }),
    ("white space", |rng| {
        mixed(
            rng,
            &[
                (0x09, 0x0d),
                (0x20, 0x20),
                (0x85, 0x85),
                (0xa0, 0xa0),
                (0x1680, 0x1680),
                (0x2000, 0x200a),
                (0x2028, 0x2029),
                (0x202f, 0x202f),
                (0x205f, 0x205f),
                (0x3000, 0x3000),
            ],
        )
    }),
    ("next to the surrogates", |rng| {
        mixed(
            rng,
            &[
                (0xd7f0, 0xd7ff),
                (0xe000, 0xe010),
                (0xfdd0, 0xfdef),
                (0xfffe, 0x1000f),
                (0x10fff0, 0x10ffff),
            ],
        )
    }),
    ("piles of combining marks", marks),
    ("very long words", long_words),
    ("numbers", numbers),
    ("punctuation", |rng| {
        mixed(
            rng,
            &[
                (0x21, 0x2f),
                (0x3a, 0x40),
                (0x5b, 0x60),
                (0x7b, 0x7e),
                (0xa1, 0xbf),
                (0x2010, 0x205e),
                (0x2e00, 0x2e5d),
                (0xfe10, 0xfe6f),
                (0xff01, 0xff65),
                (0x20a0, 0x20bf),
                (0x2190, 0x23ff),
            ],
        )
    }),
    ("special tokens as text", |rng| words(rng, 0..20, SPECIALS)),
    ("case that changes length", |rng| words(rng, 1..30, CASES)),
    ("random scalar values", |rng| chars(rng, 0..60, &[(0, 0x10ffff)])),
];

const ASCII_WORDS: &[&str] = &[
    "the",
    "vehicle",
    "stopped",
    "at",
    "intersection",
    "Lidar",
    "ROBOT",
    "unbelievably",
    "don't",
    "e-mail",
    "a",
    "I",
    "battery-voltage",
    "GPS.fix",
    "lane_change",
    "xyzzyq",
    "42",
    "3.14",
    "km/h",
    "(warning)",
];
const ACCENTED: &[&str] = &[
    "café",
    "naïve",
    "Ærøskøbing",
    "Straße",
    "łódź",
    "señor",
    "Ångström",
    "İstanbul",
    "ﬁlter",
    "Œuvre",
    "crème",
    "über",
    "Ðakovo",
    "žluťoučký",
    "ñandú",
    "Ǆ",
    "ŉ",
    "ǰ",
    "Việt",
    "ệ",
];
const SPECIALS: &[&str] = &[
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[UNK]",
    "[MASK]",
    "[cls]",
    "[ SEP ]",
    "[MASK",
    "CLS]",
    "##ing",
    "a[SEP]b",
    "[SEP][SEP]",
    "[unused1]",
    "plain",
    "\u{200d}[MASK]\u{301}",
    " ",
];
const CASES: &[&str] = &[
    "İ",
    "ẞ",
    "ﬃ",
    "Σ",
    "ΑΣ",
    "ΣΑ",
    "ς",
    "Kelvin K",
    "Å",
    "ſ",
    "Ⅷ",
    "Ⓐ",
    "ＡＢＣ",
    "𝐀𝔹",
    "ᾈ",
    "Ꭰ",
    "ꭰ",
    "Ⴀ",
    "ა",
    "Ა",
    "ǅ",
    "ŐŰ",
];

fn words(rng: &mut StdRng, count: std::ops::Range<usize>, list: &[&str]) -> String {
    const SEPARATORS: [&str; 9] = [" ", " ", " ", ", ", ". ", "  ", "", "\t", "-"];
    let mut line = String::new();
    for _ in 0..rng.random_range(count) {
        line += list.choose(rng).unwrap();
        line += SEPARATORS.choose(rng).unwrap();
    }
    line
}

fn scalar(rng: &mut StdRng, ranges: &[(u32, u32)]) -> char {
    loop {
        let &(first, last) = ranges.choose(rng).unwrap();
        if let Some(scalar) = char::from_u32(rng.random_range(first..=last)) {
            return scalar;
        }
    }
}

fn chars(rng: &mut StdRng, count: std::ops::Range<usize>, ranges: &[(u32, u32)]) -> String {
    (0..rng.random_range(count)).map(|_| scalar(rng, ranges)).collect()
}

/// Words of several scripts with characters of `ranges` before, inside and after them.
fn mixed(rng: &mut StdRng, ranges: &[(u32, u32)]) -> String {
    const WORDS: &[&str] = &["speed", "Ün", "速度", "سرعة", "12", "x", "", "warning", "e\u{301}"];
    let mut line = String::new();
    for _ in 0..rng.random_range(0..25) {
        line += WORDS.choose(rng).unwrap();
        for _ in 0..rng.random_range(0..4) {
            line.push(scalar(rng, ranges));
        }
    }
    line
}

fn decomposed(rng: &mut StdRng) -> String {
    const MARKS: &[(u32, u32)] = &[(0x300, 0x30c), (0x323, 0x332), (0x340, 0x345)];
    let mut line = String::new();
    for _ in 0..rng.random_range(0..60) {
        line.push(scalar(rng, &[(0x41, 0x5a), (0x61, 0x7a), (0x20, 0x20), (0xc0, 0x17f)]));
        if rng.random_bool(0.4) {
            line.push(scalar(rng, MARKS));
        }
    }
    line
}

fn emoji(rng: &mut StdRng) -> String {
    const BASES: &[(u32, u32)] =
        &[(0x1f300, 0x1faff), (0x2600, 0x27bf), (0x1f1e6, 0x1f1ff), (0x30, 0x39), (0x61, 0x7a)];
    const JOINTS: [&str; 6] = ["\u{200d}", "\u{fe0f}", "\u{1f3fd}", "\u{20e3}", " ", ""];
    let mut line = String::new();
    for _ in 0..rng.random_range(0..50) {
        line.push(scalar(rng, BASES));
        line += JOINTS.choose(rng).unwrap();
    }
    line
}

fn marks(rng: &mut StdRng) -> String {
    let mut line = String::new();
    for _ in 0..rng.random_range(0..6) {
        line.push(scalar(rng, &[(0x61, 0x7a), (0x4e00, 0x4e80), (0x5d0, 0x5ea), (0x1100, 0x1112)]));
        let ranges =
            [(0x300, 0x36f), (0x483, 0x489), (0x591, 0x5bd), (0x1ab0, 0x1aff), (0x1d165, 0x1d172)];
        line += &chars(rng, 0..40, &ranges);
        line += if rng.random_bool(0.5) { " " } else { "" };
    }
    line
}

/// Words around the 100 characters above which a word becomes one unknown token.
fn long_words(rng: &mut StdRng) -> String {
    const ALPHABETS: [&[(u32, u32)]; 4] = [
        &[(0x61, 0x7a)],
        &[(0x61, 0x66), (0xe0, 0xff)],
        &[(0x430, 0x44f)],
        &[(0x30, 0x39), (0x61, 0x63)],
    ];
    let mut line = String::new();
    for _ in 0..rng.random_range(1..4) {
        let around_limit = rng.random_range(95..106);
        let length = if rng.random_bool(0.7) { around_limit } else { rng.random_range(1..2_000) };
        let alphabet = ALPHABETS.choose(rng).unwrap();
        line += &chars(rng, length..length + 1, alphabet);
        line += if rng.random_bool(0.8) { " " } else { "." };
    }
    line
}

fn numbers(rng: &mut StdRng) -> String {
    let mut line = String::new();
    for _ in 0..rng.random_range(0..15) {
        line += &match rng.random_range(0..7) {
            0 => format!("{} ", rng.random::<i64>()),
            1 => format!("{:e},", rng.random::<f64>() * 1e12),
            2 => format!("{:.3}°C ", rng.random_range(-40.0..60.0)),
            3 => format!("0x{:08X}", rng.random::<u32>()),
            4 => format!("20{:02}-{:02}-{:02}T{:02}:00Z ", rng.random_range(0..99), 7, 31, 23),
            5 => chars(
                rng,
                1..9,
                &[(0x660, 0x669), (0x966, 0x96f), (0xff10, 0xff19), (0x1d7ce, 0x1d7ff)],
            ),
            _ => {
                chars(rng, 1..9, &[(0xb2, 0xb3), (0xbc, 0xbe), (0x2070, 0x2089), (0x2150, 0x218b)])
            }
        };
    }
    line
}
