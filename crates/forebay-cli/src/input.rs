//! Texts out of an input: where it comes from, how its lines become texts, in which portions they
//! go on. One line is one text, in order; nothing is skipped and nothing repaired. An input that is
//! not what it should be is an error that names the line.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::{Exit, Failure};
use crate::lines::{LineError, Lines};

const BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of a JSON line per byte of its text at most: a character as `\u00XX`.
const JSON_BYTES_PER_TEXT_BYTE: usize = 6;
/// Bytes that a JSON line may have beyond its text, for fields that are ignored.
const JSON_BYTES_BESIDE: usize = 1 << 20;

/// What a line of the input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// The line is the text.
    Lines,
    /// The line is a JSON object with the text in its field `text`.
    Jsonl,
}

/// A file or standard input, open.
pub(crate) struct Input {
    name: String,
    stream: Box<dyn BufRead + Send>,
    /// Size of a regular file; `None` where it is not known beforehand.
    pub(crate) bytes: Option<u64>,
    /// Device and inode of a file.
    identity: Option<(u64, u64)>,
}

impl Input {
    /// Opens the file at `path`, or standard input for `-`.
    ///
    /// # Errors
    /// The file is missing or cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            let stream = Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin()));
            let name = "standard input".to_owned();
            return Ok(Self { name, stream, bytes: None, identity: None });
        }
        let failed = |error| Failure::reading(path.display(), &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self {
            name: path.display().to_string(),
            stream: Box::new(BufReader::with_capacity(BUFFER_BYTES, file)),
            bytes: metadata.is_file().then_some(metadata.len()),
            identity: metadata.is_file().then_some((metadata.dev(), metadata.ino())),
        })
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file at `path` is this input.
    pub(crate) fn is(&self, path: &Path) -> bool {
        let found = std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        found.is_ok_and(|found| self.identity == Some(found))
    }
}

/// How large a portion of texts may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkLimits {
    /// Texts in a chunk.
    pub(crate) texts_max: usize,
    /// Bytes of one text.
    pub(crate) text_bytes_max: usize,
    /// Bytes of a chunk of more than one text; a text begun counts as whole KiB.
    pub(crate) chunk_bytes_max: usize,
}

/// Texts that go on together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The texts of consecutive lines; at least one.
    pub(crate) texts: Vec<String>,
    /// Number of the first one's line, from 1.
    pub(crate) first_line: u64,
    /// Bytes of the input up to the end of the last one.
    pub(crate) consumed: u64,
}

/// Reads an input chunk by chunk.
pub(crate) struct TextReader {
    name: String,
    lines: Lines<Box<dyn BufRead + Send>>,
    format: Format,
    limits: ChunkLimits,
    line: Vec<u8>,
    /// A text that no longer fitted into the chunk before, with its line and end.
    held: Option<(String, u64, u64)>,
}

#[derive(Deserialize)]
struct JsonLine {
    text: String,
}

impl TextReader {
    /// Reads `input` as `format`.
    pub(crate) fn new(input: Input, format: Format, limits: ChunkLimits) -> Self {
        let line_bytes_max = match format {
            Format::Lines => limits.text_bytes_max,
            Format::Jsonl => limits
                .text_bytes_max
                .saturating_mul(JSON_BYTES_PER_TEXT_BYTE)
                .saturating_add(JSON_BYTES_BESIDE),
        };
        let lines = Lines::new(input.stream, line_bytes_max);
        Self { name: input.name, lines, format, limits, line: Vec::new(), held: None }
    }

    /// The next chunk, or `None` at the end of the input.
    ///
    /// # Errors
    /// The input cannot be read, or a line is not what it should be.
    pub(crate) fn read_chunk(&mut self) -> Result<Option<Chunk>, Failure> {
        let mut chunk = Chunk { texts: Vec::new(), first_line: 0, consumed: 0 };
        let mut bytes = 0;
        while chunk.texts.len() < self.limits.texts_max {
            let next = match self.held.take() {
                Some(held) => Some(held),
                None => self.read_text()?,
            };
            let Some((text, line, consumed)) = next else { break };
            bytes += text.len().next_multiple_of(1024).max(1024);
            if !chunk.texts.is_empty() && bytes > self.limits.chunk_bytes_max {
                self.held = Some((text, line, consumed));
                break;
            }
            if chunk.texts.is_empty() {
                chunk.first_line = line;
            }
            chunk.texts.push(text);
            chunk.consumed = consumed;
        }
        Ok((!chunk.texts.is_empty()).then_some(chunk))
    }

    fn read_text(&mut self) -> Result<Option<(String, u64, u64)>, Failure> {
        let mut line = std::mem::take(&mut self.line);
        let more = self.lines.read(&mut line).map_err(|error| self.unreadable(&error))?;
        if !more {
            return Ok(None);
        }
        let text = match self.format {
            Format::Lines => {
                let text = std::str::from_utf8(&line).map_err(|error| self.not_utf8(&error))?;
                text.to_owned()
            }
            Format::Jsonl => {
                let text = std::str::from_utf8(&line).map_err(|error| self.not_utf8(&error))?;
                let parsed: JsonLine = serde_json::from_str(text)
                    .map_err(|error| self.not_json(text.trim().is_empty(), &error))?;
                if parsed.text.len() > self.limits.text_bytes_max {
                    return Err(self.too_long("a text of ", parsed.text.len()));
                }
                parsed.text
            }
        };
        self.line = line;
        Ok(Some((text, self.lines.number(), self.lines.consumed())))
    }

    fn bad_line(&self, what: impl fmt::Display) -> Failure {
        let place = format!("{}: line {}", self.name, self.lines.number());
        Failure::new(Exit::BadInput, format!("{place} {what}"))
    }

    fn unreadable(&self, error: &LineError) -> Failure {
        match error {
            LineError::Read(error) => Failure::reading(&self.name, error),
            LineError::TooLong { .. } if self.format == Format::Lines => self.too_long("", error),
            LineError::TooLong { .. } => {
                self.bad_line(format_args!("has {error}, too many for one text and its JSON"))
            }
        }
    }

    fn too_long(&self, prefix: &str, bytes: impl fmt::Display) -> Failure {
        let bytes = bytes.to_string();
        let unit = if bytes.ends_with("bytes") { "" } else { " bytes" };
        let allowed = self.limits.text_bytes_max;
        self.bad_line(format_args!("has {prefix}{bytes}{unit}, allowed are {allowed}"))
            .help("split the text, or raise tokenize.text_bytes_max in the configuration")
    }

    fn not_utf8(&self, error: &std::str::Utf8Error) -> Failure {
        let column = error.valid_up_to();
        let offset = self.lines.offset() + column as u64;
        self.bad_line(format_args!(
            "is not valid UTF-8 at byte {} of the line (byte offset {offset} of the input)",
            column + 1
        ))
        .help("convert the input to UTF-8, for example with `iconv -f latin1 -t utf-8`")
    }

    fn not_json(&self, is_empty: bool, error: &serde_json::Error) -> Failure {
        if is_empty {
            return self.bad_line("is empty, expected a JSON object with a field `text`");
        }
        let text = error.to_string();
        // A line is a document of its own: its inner position is a column.
        let (what, _) = text.split_once(" at line ").unwrap_or((&text, ""));
        let column = error.column();
        self.bad_line(format_args!(
            "is not a JSON object with a field `text`: {what} (column {column})"
        ))
        .help("write one object per line, such as {\"text\": \"door is open\"}")
    }
}

/// Every line of a file of moderate size as a text.
///
/// # Errors
/// As for [`TextReader::read_chunk`]; also if there is no line.
pub(crate) fn read_texts(path: &Path, text_bytes_max: usize) -> Result<Vec<String>, Failure> {
    let input = Input::open(path)?;
    let name = input.name().to_owned();
    let limits = ChunkLimits { texts_max: 1024, text_bytes_max, chunk_bytes_max: usize::MAX };
    let mut reader = TextReader::new(input, Format::Lines, limits);
    let mut texts = Vec::new();
    while let Some(chunk) = reader.read_chunk()? {
        texts.extend(chunk.texts);
    }
    if texts.is_empty() {
        return Err(Failure::new(Exit::BadInput, format!("{name} has no lines"))
            .help("give a file with one text per line"));
    }
    Ok(texts)
}

/// A path on the command line where `-` stands for a standard stream.
pub(crate) fn path_or_dash(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a path is expected".to_owned()) } else { Ok(text.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ChunkLimits =
        ChunkLimits { texts_max: 3, text_bytes_max: 5000, chunk_bytes_max: 6 * 1024 };

    fn chunks(bytes: &'static [u8], format: Format) -> Result<Vec<Chunk>, Failure> {
        let input =
            Input { name: "x".to_owned(), stream: Box::new(bytes), bytes: None, identity: None };
        let mut reader = TextReader::new(input, format, LIMITS);
        let mut found = Vec::new();
        while let Some(chunk) = reader.read_chunk()? {
            found.push(chunk);
        }
        Ok(found)
    }

    #[test]
    fn chunks_are_bounded_and_keep_the_order() {
        let found = chunks(b"a\n\nb\r\nc", Format::Lines).unwrap();
        let chunk = |texts: &[&str], first_line, consumed| Chunk {
            texts: texts.iter().map(|text| (*text).to_owned()).collect(),
            first_line,
            consumed,
        };
        assert_eq!(found, [chunk(&["a", "", "b"], 1, 6), chunk(&["c"], 4, 7)]);
    }

    #[test]
    fn a_chunk_ends_before_it_is_too_large() {
        let text: &'static str = format!("{0}\n{0}\nc\n", "x".repeat(4000)).leak();
        let found = chunks(text.as_bytes(), Format::Lines).unwrap();
        let lines: Vec<(u64, usize)> =
            found.iter().map(|chunk| (chunk.first_line, chunk.texts.len())).collect();
        assert_eq!(lines, [(1, 1), (2, 2)]);
    }

    #[test]
    fn json_lines_give_their_text() {
        let found = chunks(b"{\"id\":1,\"text\":\"a\\u0020b\"}\n{\"text\":\"\"}", Format::Jsonl);
        assert_eq!(found.unwrap()[0].texts, ["a b", ""]);
    }

    #[test]
    fn a_bad_line_is_named_with_its_place() {
        for (bytes, format, expected) in [
            (&b"ok\nab\xffc\n"[..], Format::Lines, "x: line 2 is not valid UTF-8 at byte 3"),
            (b"ok\nab\xffc\n", Format::Lines, "(byte offset 5 of the input)"),
            (b"{\"text\":\"a\"}\n{\"t\":1}\n", Format::Jsonl, "line 2 is not a JSON object"),
            (b"{\"text\":\"a\"}\n{\"t\":1}\n", Format::Jsonl, "missing field `text`"),
            (b"{\"text\":7}\n", Format::Jsonl, "line 1 is not a JSON object"),
            (b"{\"text\":\"a\"\n", Format::Jsonl, "line 1 is not a JSON object"),
            (b"\n", Format::Jsonl, "line 1 is empty"),
        ] {
            let failure = chunks(bytes, format).expect_err(expected);
            assert!(failure.message.contains(expected), "{} / {expected}", failure.message);
            assert_eq!(failure.exit, Exit::BadInput);
        }
    }

    #[test]
    fn an_overlong_text_is_named_with_its_size() {
        let long = "x".repeat(5001);
        let json: &'static str = format!("{{\"text\":\"{long}\"}}").leak();
        let plain: &'static str = format!("a\n{long}\n").leak();
        for (text, format, expected) in [
            (plain, Format::Lines, "line 2 has 5001 bytes, allowed are 5000"),
            (json, Format::Jsonl, "line 1 has a text of 5001 bytes, allowed are 5000"),
        ] {
            let failure = chunks(text.as_bytes(), format).expect_err(expected);
            assert!(failure.message.contains(expected), "{}", failure.message);
        }
    }
}
