//! `forebay eval`: how good the embeddings are, on data with human judgements.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::out::say;
use crate::service::{Service, precision};
use crate::settings::Settings;
use crate::stats::{cosine, spearman};

/// Measure the quality of embeddings
#[derive(Subcommand, Debug)]
pub(crate) enum EvalCommand {
    Sts(StsArgs),
}

/// Semantic textual similarity: rank correlation with human scores
///
/// Each row of the CSV file has two sentences and the score that people gave to their similarity:
/// sentence1,sentence2,score. A first row whose score is no number is taken as a header. The
/// result is Spearman's rank correlation between the cosines of the embeddings and the scores; 1 is
/// perfect agreement. On the English STS benchmark (test split, 1,379 pairs), all-MiniLM-L6-v2 has
/// 0.8203.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay eval sts stsb-en-test.csv
  forebay eval sts --precision int8 --json stsb-en-test.csv")]
pub(crate) struct StsArgs {
    /// CSV file of sentence1,sentence2,score
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
    /// Print one JSON object instead of two lines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Pairs {
    /// First and second sentence of each pair in turn.
    sentences: Vec<String>,
    scores: Vec<f64>,
}

#[derive(Serialize)]
struct Report {
    pairs: usize,
    spearman: f64,
    precision: String,
}

/// Runs the command.
///
/// # Errors
/// The file is not what it should be, or a sentence has no embedding.
pub(crate) async fn run(command: EvalCommand, settings: &Settings) -> Result<(), Failure> {
    let EvalCommand::Sts(args) = command;
    let bytes = std::fs::read(&args.file).map_err(|e| Failure::reading(args.file.display(), &e))?;
    let pairs = read_pairs(&args.file, &bytes)?;
    let config = settings.runtime_config()?;
    let service = Service::start_all(config).await?;
    let embedded = service.embed_all(pairs.sentences).await;
    let precision = precision(&service.runtime().status());
    service.end().await;
    let embeddings = embedded?;
    let cosines: Vec<f64> = embeddings
        .chunks_exact(2)
        .filter_map(|pair| Some(cosine(&pair.first()?.vector, &pair.last()?.vector)))
        .collect();
    let spearman = spearman(&cosines, &pairs.scores).ok_or_else(|| {
        Failure::new(Exit::BadInput, format!("{} has no two different scores", args.file.display()))
            .help("a rank correlation needs at least two pairs with different scores")
    })?;
    let pairs = cosines.len();
    if args.json {
        let report = Report { pairs, spearman, precision };
        let text = serde_json::to_string(&report).unwrap_or_default();
        return say!("{text}\n");
    }
    say!("pairs {pairs}\nspearman {spearman:.4}\n")
}

fn read_pairs(path: &Path, bytes: &[u8]) -> Result<Pairs, Failure> {
    let bad = |what: String| {
        Failure::new(Exit::BadInput, format!("{}: {what}", path.display()))
            .help("write rows of sentence1,sentence2,score; quote sentences that contain commas")
    };
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut pairs = Pairs::default();
    for (number, row) in rows.records().enumerate() {
        let row = row.map_err(|error| bad(error.to_string()))?;
        let line = row.position().map_or(0, csv::Position::line);
        let (Some(first), Some(second), Some(score), None) =
            (row.get(0), row.get(1), row.get(2), row.get(3))
        else {
            return Err(bad(format!("line {line} has {} fields, expected 3", row.len())));
        };
        match score.trim().parse::<f64>() {
            Ok(score) if score.is_finite() => {
                pairs.sentences.extend([first.to_owned(), second.to_owned()]);
                pairs.scores.push(score);
            }
            _ if number == 0 => {}
            _ => return Err(bad(format!("line {line} has the score {score:?}, no number"))),
        }
    }
    if pairs.scores.is_empty() {
        return Err(bad("no pairs".to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pairs, String> {
        read_pairs(Path::new("x.csv"), text.as_bytes()).map_err(|failure| failure.message)
    }

    #[test]
    fn rows_with_quotes_and_with_or_without_header_are_read() {
        let expected = Pairs {
            sentences: ["a, b", "c", "d", "e"].map(str::to_owned).to_vec(),
            scores: vec![2.5, 5.0],
        };
        assert_eq!(read("\"a, b\",c,2.5\nd,e,5\n"), Ok(expected));
        let with_header = read("sentence1,sentence2,score\nd,e,5\n").unwrap();
        assert_eq!(with_header.scores, [5.0]);
    }

    #[test]
    fn a_bad_row_is_named() {
        for (text, expected) in [
            ("a,b,1\nc,d,high\n", "line 2 has the score \"high\""),
            ("a,b,1\nc,d\n", "line 2 has 2 fields"),
            ("a,b,1\nc,d,2,3\n", "line 2 has 4 fields"),
            ("a,b,NaN\na,b,NaN\n", "line 2 has the score \"NaN\""),
            ("", "no pairs"),
        ] {
            let error = read(text).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
