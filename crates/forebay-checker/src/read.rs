//! One line of a history, taken apart. A field that is not what it should be gives `None`: the judge
//! counts the line as one that cannot be read.

use crate::Rules;

/// What a line says.
#[derive(Debug, PartialEq)]
pub(crate) enum Line<'t> {
    Rule(Rules),
    Text { text: u64, vector: Vec<f32> },
    Invoke { request: u64, first: u64, count: u64, deadline_us: u64, scheduled_us: u64, at_us: u64 },
    Unsent { request: u64, at_us: u64 },
    Refused { request: u64, at_us: u64 },
    Vector { id: u64, vector: Vec<f32> },
    Answer { id: u64, vectors: Vec<u64> },
    Ok { request: u64, at_us: u64, answer: u64 },
    Err { request: u64, at_us: u64 },
    Lost { request: u64, at_us: u64, why: &'t str },
    Stray { at_us: u64, why: &'t str },
    Fault { at_us: u64 },
    Level { at_us: u64 },
    End { at_us: u64 },
}

/// Takes a line apart.
pub(crate) fn line(text: &str) -> Option<Line<'_>> {
    let fields: Vec<&str> = text.split(',').collect();
    Some(match fields.as_slice() {
        ["rule", tolerance, slack, wait] => {
            let tolerance = tolerance.parse().ok().filter(|t: &f64| t.is_finite() && *t >= 0.0)?;
            Line::Rule(Rules { tolerance, slack_us: number(slack)?, wait_us: number(wait)? })
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
            word(kind)?;
            Line::Unsent { request: number(request)?, at_us: number(at)? }
        }
        ["refused", request, at, kind] => {
            word(kind)?;
            Line::Refused { request: number(request)?, at_us: number(at)? }
        }
        ["vector", id, vector] => Line::Vector { id: number(id)?, vector: floats(vector)? },
        ["answer", id, vectors] => {
            let vectors: Option<Vec<u64>> =
                vectors.split(' ').filter(|id| !id.is_empty()).map(number).collect();
            Line::Answer { id: number(id)?, vectors: vectors? }
        }
        ["ok", request, at, answer] => {
            Line::Ok { request: number(request)?, at_us: number(at)?, answer: number(answer)? }
        }
        ["err", request, at, kind] => {
            word(kind)?;
            Line::Err { request: number(request)?, at_us: number(at)? }
        }
        ["lost", request, at, why] => {
            Line::Lost { request: number(request)?, at_us: number(at)?, why }
        }
        ["stray", at, why] => Line::Stray { at_us: number(at)?, why },
        ["fault", at, place, fault] => {
            word(place).and(word(fault))?;
            Line::Fault { at_us: number(at)? }
        }
        ["level", at, level] => {
            word(level)?;
            Line::Level { at_us: number(at)? }
        }
        ["end", at] => Line::End { at_us: number(at)? },
        _ => return None,
    })
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
