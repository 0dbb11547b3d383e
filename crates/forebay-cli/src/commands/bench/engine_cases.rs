//! The batches of `forebay bench engine`: random ones of given shapes, and texts of a file. Nothing
//! is run here.

use std::path::Path;
use std::str::FromStr;

use forebay::Config;
use forebay_model::{ModelFolder, Scratch};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::failure::{Exit, Failure};
use crate::input::read_texts;

/// Different batches of one shape, used in turn.
const SETS: u64 = 4;

/// Most rows of a batch, and most tokens of one row and of a batch.
const ROWS_MAX: u32 = 65_536;
const ROW_TOKENS_MAX: u32 = 512;
const TOKENS_MAX: u64 = 1 << 22;

/// A batch of `rows` rows of exactly `tokens` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: u32,
    pub(super) tokens: u32,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not ROWSxTOKENS with 1 to {ROWS_MAX} rows of 1 to {ROW_TOKENS_MAX} \
                 tokens, at most {TOKENS_MAX} in all; an example is 32x128"
            )
        };
        let (rows, tokens) = text.split_once('x').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        let shape = Self { rows: number(rows)?, tokens: number(tokens)? };
        let fits = (1..=ROWS_MAX).contains(&shape.rows)
            && (1..=ROW_TOKENS_MAX).contains(&shape.tokens)
            && u64::from(shape.rows) * u64::from(shape.tokens) <= TOKENS_MAX;
        if fits { Ok(shape) } else { Err(wrong()) }
    }
}

/// A batch as an engine takes it: token ids of all rows without padding, and where rows begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) ids: Vec<u32>,
    pub(super) cu: Vec<u32>,
}

impl Packed {
    pub(super) fn rows(&self) -> usize {
        self.cu.len() - 1
    }
}

/// What is measured together and becomes one row of figures.
#[derive(Debug)]
pub(super) enum Case {
    /// Batches of one shape, used in turn.
    Shape { shape: Shape, sets: Vec<Packed> },
    /// Batches of real texts, each measured by itself.
    Mix { rows: usize, batches: Vec<Packed> },
}

impl Case {
    /// Every batch of the case.
    pub(super) fn batches(&self) -> &[Packed] {
        match self {
            Self::Shape { sets, .. } => sets,
            Self::Mix { batches, .. } => batches,
        }
    }
}

/// Random batches of a shape; the same ones at every run.
pub(super) fn random(folder: &ModelFolder, shape: Shape) -> Result<Case, Failure> {
    let tokens_max = folder.encoder().position_limit();
    if shape.tokens as usize > tokens_max {
        let Shape { rows, tokens } = shape;
        let message = format!("{rows}x{tokens}: the model has {tokens_max} positions");
        return Err(Failure::new(Exit::Usage, message).help("ask for rows of fewer tokens"));
    }
    let vocab = u32::try_from(folder.encoder().vocab).unwrap_or(u32::MAX);
    let ends = ends(folder)?;
    let sets = (0..SETS).map(|seed| packed(shape, vocab, &ends, seed)).collect();
    Ok(Case::Shape { shape, sets })
}

/// The ids that the model's tokenizer puts around every text.
fn ends(folder: &ModelFolder) -> Result<Vec<u32>, Failure> {
    let tokenizer = folder.tokenizer()?;
    let mut ids = Vec::new();
    let special = tokenizer.special_tokens();
    if special > 0 {
        tokenizer.encode("", special, &mut Scratch::default(), &mut ids).map_err(|error| {
            Failure::new(Exit::BadInput, format!("the model's tokenizer: {error}"))
        })?;
    }
    Ok(ids)
}

fn packed(shape: Shape, vocab: u32, ends: &[u32], seed: u64) -> Packed {
    let mut random = StdRng::seed_from_u64(seed);
    let Shape { rows, tokens } = shape;
    let mut ids: Vec<u32> =
        (0..rows * tokens).map(|_| random.random_range(0..vocab.max(1))).collect();
    for row in ids.chunks_mut(tokens as usize) {
        // The last of them at the end, the others at the start; a short row has what fits.
        if let (Some((last, first)), Some(end)) = (ends.split_last(), row.len().checked_sub(1)) {
            row.iter_mut().zip(first).for_each(|(slot, id)| *slot = *id);
            if end > 0 {
                row[end] = *last;
            }
        }
    }
    Packed { ids, cu: (0..=rows).map(|row| row * tokens).collect() }
}

/// The lines of a file as batches of `rows`, tokenized as the model wants it. A last batch with
/// fewer rows is left out if there is a full one.
pub(super) fn mix(
    folder: &ModelFolder,
    config: &Config,
    path: &Path,
    rows: usize,
) -> Result<Case, Failure> {
    let texts = read_texts(path, config.tokenize.text_bytes_max as usize)?;
    let tokenizer = folder.tokenizer()?;
    let mut scratch = Scratch::default();
    let whole = texts.len() / rows * rows;
    let used = if whole == 0 { &texts[..] } else { &texts[..whole] };
    let mut batches = Vec::new();
    for (batch, texts) in used.chunks(rows).enumerate() {
        let (mut ids, mut cu) = (Vec::new(), vec![0]);
        for (text, line) in texts.iter().zip(batch * rows + 1..) {
            tokenizer.encode(text, folder.tokens_max(), &mut scratch, &mut ids).map_err(
                |error| {
                    Failure::new(
                        Exit::BadInput,
                        format!("{}: line {line}: {error}", path.display()),
                    )
                },
            )?;
            cu.push(ids.len() as u32);
        }
        batches.push(Packed { ids, cu });
    }
    Ok(Case::Mix { rows: rows.min(used.len()), batches })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_wrong_ones_named() {
        assert_eq!("8x128".parse(), Ok(Shape { rows: 8, tokens: 128 }));
        for wrong in ["8", "8x", "x8", "0x4", "4x0", "1x513", "8 x 4", "65537x1", "65536x512"] {
            let error = wrong.parse::<Shape>().expect_err(wrong);
            assert!(error.contains(wrong) && error.contains("ROWSxTOKENS"), "{error}");
        }
    }

    #[test]
    fn random_rows_have_their_ends_and_stay_in_the_vocabulary() {
        for tokens in [1, 2, 3, 40] {
            let shape = Shape { rows: 5, tokens };
            let batch = packed(shape, 50, &[101, 102], 3);
            assert_eq!(batch, packed(shape, 50, &[101, 102], 3));
            // A row of nothing but ends is the same for every seed.
            let other = packed(shape, 50, &[101, 102], 4);
            assert!(tokens < 40 || batch != other);
            assert_eq!((batch.rows(), batch.cu.last()), (5, Some(&(5 * tokens))));
            for row in batch.ids.chunks(tokens as usize) {
                assert_eq!(row[0], 101);
                assert!(tokens == 1 || row[row.len() - 1] == 102);
                let middle = row.iter().skip(1).take(row.len().saturating_sub(2));
                assert!(middle.copied().all(|id| id < 50));
            }
        }
    }
}
