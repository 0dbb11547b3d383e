//! A text gives the same row in any batch: alone, at any offset and in any order, beside 255 others,
//! and in a batch that is as large as the device takes.
//!
//! Forebay's kernels compute a row in the same order whatever surrounds it, so with them the bits
//! must be equal. A library chooses its algorithm by the size of the batch; rows then agree within
//! the rounding of the type, which is held to 1 - cosine of 1e-3.

use rand::Rng;
use rand::rngs::SmallRng;

use super::engine::{Limits, Subject, bits};
use super::known_answer::dot;
use super::report::{Failure, Item, Tally};
use super::texts::{Batch, random_text};
use super::values::generator;
use crate::EngineError;

/// Tokens of each text, before the model's own limit cuts them.
const LENGTHS_QUICK: [u32; 4] = [1, 7, 33, 128];
const LENGTHS_FULL: [u32; 10] = [1, 2, 7, 16, 33, 64, 100, 128, 257, 512];

/// Texts beside the one that is looked at, and the most tokens of each.
const OTHERS: usize = 255;
const OTHER_TOKENS_MAX: u32 = 48;

/// Tokens in front of all texts, which move them to other places of their tiles.
const SHIFTS: [u32; 4] = [1, 3, 8, 77];

/// 1 - cosine that the rounding of library products may cost.
const DISTANCE_MAX: f64 = 1e-3;

/// Texts with the rows that they have alone.
struct Alone {
    texts: Vec<Vec<u32>>,
    rows: Vec<Option<Vec<u32>>>,
}

/// Runs every text alone, then in company, and compares.
pub(super) fn invariance(subject: &mut dyn Subject, quick: bool) -> Result<Item, EngineError> {
    let limits = subject.limits();
    let how = if subject.is_native() { "equal bits" } else { "by cosine" };
    let mut tally = Tally::new(format!("a text in any batch in {}, {how}", subject.dtype()));
    let mut rng = generator(31, "invariance");
    let lengths = if quick { &LENGTHS_QUICK[..] } else { &LENGTHS_FULL };
    let longest = limits.row_tokens_max.min(limits.tokens_max);
    let texts: Vec<Vec<u32>> =
        lengths.iter().map(|&length| random_text(&mut rng, &limits, length.min(longest))).collect();
    let mut rows = Vec::with_capacity(texts.len());
    for text in &texts {
        let row = subject.encode(&Batch::of([&text[..]]));
        rows.push(bits(&mut tally, "a text alone", row)?);
    }
    let alone = Alone { texts, rows };

    let all: Vec<usize> = (0..alone.texts.len()).collect();
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    company(subject, &mut tally, &alone, "all texts in order", &[], &all)?;
    company(subject, &mut tally, &alone, "all texts in reverse", &[], &reversed)?;
    for shift in SHIFTS {
        let front = [random_text(&mut rng, &limits, shift.min(longest))];
        let case = format!("all texts behind {shift} tokens");
        company(subject, &mut tally, &alone, &case, &front, &all)?;
    }
    for text in 0..alone.texts.len() {
        let tokens = alone.texts[text].len();
        let others = others(&mut rng, &limits, OTHER_TOKENS_MAX.min(longest));
        let place = [0, OTHERS / 2, OTHERS][text % 3];
        let case = format!("{tokens} tokens beside {OTHERS} texts, {place} of them in front");
        beside(subject, &mut tally, &alone, &case, &others, text, place)?;

        let room = limits.tokens_max as usize - tokens;
        let fillers = filling(&mut rng, &limits, room, longest);
        let place = [fillers.len(), 0, fillers.len() / 2][text % 3];
        let case = format!("{tokens} tokens in a batch of {}", limits.tokens_max);
        beside(subject, &mut tally, &alone, &case, &fillers, text, place)?;
    }
    Ok(tally.finish())
}

/// As many texts as [`OTHERS`] says.
fn others(rng: &mut SmallRng, limits: &Limits, longest: u32) -> Vec<Vec<u32>> {
    let lengths: Vec<u32> = (0..OTHERS).map(|_| rng.random_range(1..=longest)).collect();
    lengths.into_iter().map(|length| random_text(rng, limits, length)).collect()
}

/// Texts of `room` tokens in all.
fn filling(rng: &mut SmallRng, limits: &Limits, mut room: usize, longest: u32) -> Vec<Vec<u32>> {
    let mut texts = Vec::new();
    while room > 0 {
        let length = rng.random_range(1..=longest).min(room as u32);
        texts.push(random_text(rng, limits, length));
        room -= length as usize;
    }
    texts
}

/// All texts of `order`, behind those of `front`.
fn company(
    subject: &mut dyn Subject,
    tally: &mut Tally,
    alone: &Alone,
    case: &str,
    front: &[Vec<u32>],
    order: &[usize],
) -> Result<(), EngineError> {
    let texts = order.iter().map(|&text| &alone.texts[text]);
    let batch = Batch::of(front.iter().chain(texts).map(|text| &text[..]));
    let looked_at: Vec<_> =
        order.iter().enumerate().map(|(place, &text)| (front.len() + place, text)).collect();
    compare(subject, tally, alone, case, &batch, &looked_at)
}

/// One text among `others`, with `place` of them in front.
fn beside(
    subject: &mut dyn Subject,
    tally: &mut Tally,
    alone: &Alone,
    case: &str,
    others: &[Vec<u32>],
    text: usize,
    place: usize,
) -> Result<(), EngineError> {
    let (front, behind) = others.split_at(place);
    let texts = front.iter().chain([&alone.texts[text]]).chain(behind);
    let batch = Batch::of(texts.map(|text| &text[..]));
    compare(subject, tally, alone, case, &batch, &[(place, text)])
}

/// Compares rows of a batch, each given with the text that it is of, with those of texts alone.
fn compare(
    subject: &mut dyn Subject,
    tally: &mut Tally,
    alone: &Alone,
    case: &str,
    batch: &Batch,
    looked_at: &[(usize, usize)],
) -> Result<(), EngineError> {
    let rows = subject.encode(batch);
    let Some(rows) = bits(tally, case, rows)? else { return Ok(()) };
    let stride = subject.width() + 1;
    for &(place, text) in looked_at {
        let Some(expected) = &alone.rows[text] else { continue };
        let Some(row) = rows.chunks_exact(stride).nth(place) else {
            tally.fail(Failure::Coverage, case, format_args!("row {place} is missing"));
            continue;
        };
        if subject.is_native() {
            let what = format!("row {place} against its text alone");
            tally.same_bits(case, &what, stride, row, expected);
        } else {
            let unit = |row: &[u32]| -> Vec<f32> {
                row[..stride - 1].iter().map(|&bits| f32::from_bits(bits)).collect()
            };
            let (row, expected) = (unit(row), unit(expected));
            let lengths = dot(&row, &row).sqrt() * dot(&expected, &expected).sqrt();
            let distance = 1.0 - dot(&row, &expected) / lengths;
            let what = format!("1 - cosine of row {place} to its text alone");
            tally.measure(case, &what, distance, DISTANCE_MAX);
        }
    }
    Ok(())
}
