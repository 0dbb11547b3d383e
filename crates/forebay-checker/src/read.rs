//! One line of a history, taken apart. A field that is not what it should be gives `None`: the judge
//! counts the line as one that cannot be read.

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
    Answer { id: u64, vectors: Vec<u64> },
    Ok { request: u64, sent_us: u64, at_us: u64, answer: u64 },
    Err { request: u64, sent_us: u64, at_us: u64 },
    Unreadable { request: u64, sent_us: u64, at_us: u64, why: &'t str },
    Lost { request: u64, why: &'t str },
    Stray { request: Option<u64>, why: &'t str },
    Stall { from_us: u64, to_us: u64 },
    Fault,
    Level { at_us: u64, level: &'t str },
    End,
}

/// Takes a line apart.
pub(crate) fn line(text: &str) -> Option<Line<'_>> {
    let fields: Vec<&str> = text.split(',').collect();
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
        ["invoke", request, first, count, deadline, scheduled, at] => Line::Invoke {
            request: number(request)?,
            first: number(first)?,
            count: number(count)?,
            deadline_us: number(deadline)?,
            scheduled_us: number(scheduled)?,
            at_us: number(at)?,
        },
        ["unsent", request, at, kind] => {
            word(kind).and(number(at))?;
            Line::Unsent { request: number(request)? }
        }
        ["refused", request, at, kind] => {
            word(kind).and(number(at))?;
            Line::Refused { request: number(request)? }
        }
        ["vector", id, vector] => Line::Vector { id: number(id)?, vector: floats(vector)? },
        ["answer", id, vectors] => {
            let vectors: Option<Vec<u64>> =
                vectors.split(' ').filter(|id| !id.is_empty()).map(number).collect();
            Line::Answer { id: number(id)?, vectors: vectors? }
        }
        ["ok", request, sent, at, answer] => Line::Ok {
            request: number(request)?,
            sent_us: number(sent)?,
            at_us: number(at)?,
            answer: number(answer)?,
        },
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
        ["stall", from, to] => Line::Stall { from_us: number(from)?, to_us: number(to)? },
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
