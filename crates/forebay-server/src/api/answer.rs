//! Embeddings as bytes of a response: written straight into the body, without a string or a tree of
//! values per row in between.
//!
//! Base64 of the little-endian 32-bit values is what the official clients ask for and the fast
//! path; numbers are written in the shortest form that reads back as the same value. Values are
//! finite: the runtime lets no other leave, and this module never looks again.

use std::borrow::Cow;

use base64_simd::STANDARD;
use forebay::Embedding;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bytes that a value takes as a number, with its comma, as a rule at most.
const NUMBER_BYTES: usize = 14;

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// A string: base64, standard alphabet with padding, of the values as little-endian F32.
    Base64,
}

/// A response body under construction.
pub(crate) struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    /// A body with room for these rows and so many bytes beside each of them.
    pub(crate) fn for_rows(rows: &[Embedding], encoding: Encoding, beside: usize) -> Self {
        let values = rows.first().map_or(0, |row| row.vector.len());
        let row = match encoding {
            Encoding::Float => values * NUMBER_BYTES + 2,
            Encoding::Base64 => STANDARD.encoded_length(values * size_of::<f32>()) + 2,
        };
        Self { bytes: Vec::with_capacity(256 + rows.len() * (row + beside)) }
    }

    /// Text that is JSON already.
    pub(crate) fn raw(&mut self, json: &str) {
        self.bytes.extend_from_slice(json.as_bytes());
    }

    /// A whole number.
    pub(crate) fn number(&mut self, value: usize) {
        let mut digits = [0_u8; 20];
        let mut start = digits.len();
        let mut rest = value;
        loop {
            start -= 1;
            // Twenty digits hold every 64-bit number, and a remainder of ten is one digit.
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.bytes.extend_from_slice(&digits[start..]);
    }

    /// A string, quoted and escaped.
    pub(crate) fn text(&mut self, text: &str) {
        self.json(&text);
    }

    /// Any value whose serialization cannot fail: plain structs, numbers, strings.
    pub(crate) fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        if let Err(error) = serde_json::to_writer(&mut self.bytes, value) {
            tracing::error!("a part of an answer cannot be written: {error}");
            self.raw("null");
        }
    }

    /// One vector.
    pub(crate) fn row(&mut self, row: &[f32], encoding: Encoding) {
        match encoding {
            Encoding::Float => self.numbers(row),
            Encoding::Base64 => self.base64(row),
        }
    }

    /// Every vector, as a list.
    pub(crate) fn rows(&mut self, rows: &[Embedding], encoding: Encoding) {
        self.list(rows, |answer, row| answer.row(&row.vector, encoding));
    }

    /// A list with one element per item.
    pub(crate) fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.bytes.push(b'[');
        for (nth, item) in items.iter().enumerate() {
            if nth > 0 {
                self.bytes.push(b',');
            }
            write(self, item);
        }
        self.bytes.push(b']');
    }

    fn numbers(&mut self, row: &[f32]) {
        let mut buffer = zmij::Buffer::new();
        self.bytes.push(b'[');
        for (nth, value) in row.iter().enumerate() {
            if nth > 0 {
                self.bytes.push(b',');
            }
            self.bytes.extend_from_slice(buffer.format_finite(*value).as_bytes());
        }
        self.bytes.push(b']');
    }

    fn base64(&mut self, row: &[f32]) {
        let row = little_endian(row);
        self.bytes.push(b'"');
        STANDARD.encode_append(&row, &mut self.bytes);
        self.bytes.push(b'"');
    }

    /// The finished body.
    pub(crate) fn finish(self) -> bytes::Bytes {
        self.bytes.into()
    }
}

/// The values as bytes, least significant first: no copy where memory has them so.
fn little_endian(row: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(row))
    } else {
        Cow::Owned(row.iter().flat_map(|value| value.to_le_bytes()).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(row: &[f32], encoding: Encoding) -> serde_json::Value {
        let mut answer = Answer { bytes: Vec::new() };
        answer.row(row, encoding);
        serde_json::from_slice(&answer.finish()).expect("JSON")
    }

    fn finite() -> impl Strategy<Value = f32> {
        any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite())
    }

    proptest! {
        #[test]
        fn both_encodings_give_the_same_bits_back(row in prop::collection::vec(finite(), 0..70)) {
            let bits = |row: &[f32]| -> Vec<u32> { row.iter().map(|value| value.to_bits()).collect() };
            let numbers: Vec<f32> =
                serde_json::from_value(written(&row, Encoding::Float)).expect("numbers");
            prop_assert_eq!(bits(&numbers), bits(&row));
            let text = written(&row, Encoding::Base64);
            let bytes = STANDARD.decode_to_vec(text.as_str().expect("a string")).expect("base64");
            let values: Vec<u32> = bytes
                .chunks_exact(4)
                .map(|value| u32::from_le_bytes([value[0], value[1], value[2], value[3]]))
                .collect();
            prop_assert_eq!(values, bits(&row));
        }

        #[test]
        fn whole_numbers_read_back(value in any::<usize>()) {
            let mut answer = Answer { bytes: Vec::new() };
            answer.number(value);
            let read: usize = serde_json::from_slice(&answer.finish()).expect("a number");
            prop_assert_eq!(read, value);
        }
    }

    #[test]
    fn base64_is_padded_and_of_the_standard_alphabet() {
        // The bytes 00 00 80 3f, as every F32 decoder knows them.
        assert_eq!(written(&[1.0], Encoding::Base64), "AACAPw==");
        assert_eq!(written(&[], Encoding::Base64), "");
    }
}
