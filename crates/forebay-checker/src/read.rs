//! One line of a history, taken apart. A field that is not what it should be gives `None`: the judge
//! counts the line as one that cannot be read.

use std::io::{self, BufRead, Read};

use crate::{Length, Rules};

/// What a line says.
#[derive(Debug, PartialEq)]
pub(crate) enum Line<'t> {
    Rule(Rules),
    Length(Length),
    Tolerance { level: &'t str, tolerance: f64 },
    Text { text: u64, vector: Vec<f32> },
    Invoke { request: u64, first: u64, count: u64, deadline_us: u64, scheduled_us: u64, at_us: u64 },
    Unsent { request: u64 },
    Refused { request: u64 },
    Vector { id: u64, vector: Vec<f32> },
    Ok { request: u64, sent_us: u64, at_us: u64, vectors: Vec<u64> },
    Err { request: u64, sent_us: u64, at_us: u64 },
    Unreadable { request: u64, sent_us: u64, at_us: u64, why: &'t str },
    Lost { request: u64, why: &'t str },
    Stray { request: Option<u64>, why: &'t str },
    Stall { from_us: u64, to_us: u64 },
    Fault,
    Level { at_us: u64, level: &'t str },
    End,
}

impl Line<'_> {
    /// The request that it is about.
    pub(crate) fn request(&self) -> Option<u64> {
        match self {
            Self::Invoke { request, .. }
            | Self::Unsent { request }
            | Self::Refused { request }
            | Self::Ok { request, .. }
            | Self::Err { request, .. }
            | Self::Unreadable { request, .. }
            | Self::Lost { request, .. } => Some(*request),
            Self::Stray { request, .. } => *request,
            _ => None,
        }
    }
}

/// Takes a line apart.
pub(crate) fn line(text: &str) -> Option<Line<'_>> {
    // One more than any line has.
    let fields: Vec<&str> = text.split(',').take(8).collect();
    Some(match fields.as_slice() {
        ["rule", tolerance, slack, wait] => {
            let (tolerance, slack_us) = (share(tolerance)?, number(slack)?);
            Line::Rule(Rules { tolerance, slack_us, wait_us: number(wait)? })
        }
        ["length", "unit"] => Line::Length(Length::Unit),
        ["length", "own"] => Line::Length(Length::Own),
        ["tolerance", level, tolerance] => {
            word(level)?;
            Line::Tolerance { level, tolerance: share(tolerance)? }
        }
        ["text", text, vector] => Line::Text { text: number(text)?, vector: floats(vector)? },
        ["invoke", request, first, count, deadline, scheduled, at] => {
            let (first, count) = (number(first)?, number(count)?);
            // Its texts have numbers, too.
            first.checked_add(count)?;
            Line::Invoke {
                request: number(request)?,
                first,
                count,
                deadline_us: number(deadline)?,
                scheduled_us: number(scheduled)?,
                at_us: number(at)?,
            }
        }
        ["unsent", request, at, kind] => {
            word(kind).and(number(at))?;
            Line::Unsent { request: number(request)? }
        }
        ["refused", request, at, kind] => {
            word(kind).and(number(at))?;
            Line::Refused { request: number(request)? }
        }
        ["vector", id, vector] => Line::Vector { id: number(id)?, vector: floats(vector)? },
        ["ok", request, sent, at, vectors] => {
            let vectors: Option<Vec<u64>> =
                vectors.split(' ').filter(|id| !id.is_empty()).map(number).collect();
            Line::Ok {
                request: number(request)?,
                sent_us: number(sent)?,
                at_us: number(at)?,
                vectors: vectors?,
            }
        }
        ["err", request, sent, at, kind] => {
            word(kind)?;
            Line::Err { request: number(request)?, sent_us: number(sent)?, at_us: number(at)? }
        }
        ["unreadable", request, sent, at, why] => Line::Unreadable {
            request: number(request)?,
            sent_us: number(sent)?,
            at_us: number(at)?,
            why,
        },
        ["lost", request, at, why] => {
            number(at)?;
            Line::Lost { request: number(request)?, why }
        }
        ["stray", at, why] => {
            number(at)?;
            Line::Stray { request: None, why }
        }
        ["stray", at, why, request] => {
            number(at)?;
            Line::Stray { request: Some(number(request)?), why }
        }
        ["stall", from, to] => {
            let (from_us, to_us) = (number(from)?, number(to)?);
            (from_us <= to_us).then_some(Line::Stall { from_us, to_us })?
        }
        ["fault", at, place, fault] => {
            word(place).and(word(fault)).and(number(at))?;
            Line::Fault
        }
        ["level", at, level] => {
            word(level)?;
            Line::Level { at_us: number(at)?, level }
        }
        ["end", at] => {
            number(at)?;
            Line::End
        }
        _ => return None,
    })
}

/// The longest line, in bytes, that is taken for one: some million vectors in one answer.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// The next line without its end; `None` after the last. Of one that is too long its start.
pub(crate) fn next_line<'b>(
    history: &mut impl BufRead,
    line: &'b mut Vec<u8>,
) -> io::Result<Option<&'b [u8]>> {
    line.clear();
    if history.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 == LINE_BYTES_MAX {
        history.skip_until(b'\n')?;
        // What is left of it must not be taken for the whole of it.
        line.truncate(80);
        line.push(b'\xff');
    }
    Ok(Some(line))
}

fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share: &f64| share.is_finite() && *share >= 0.0)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn word(text: &str) -> Option<()> {
    (!text.is_empty()).then_some(())
}

fn floats(text: &str) -> Option<Vec<f32>> {
    let bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
    let (values, rest) = bytes.as_chunks::<4>();
    (rest.is_empty() && !values.is_empty())
        .then(|| values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}
