//! The contract of `tei.v1` in Rust, made of `proto/tei.proto`, for the server and for clients.

use bytes::Bytes;

/// Every message, the servers, and clients for any transport of tonic.
#[allow(missing_docs, unused_qualifications, clippy::pedantic, clippy::nursery)]
pub mod tei {
    tonic::include_proto!("tei.v1");
    pub use super::EmbedResponse;
}

/// The contract as descriptors, which reflection shows.
pub const TEI_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tei_descriptors.bin"));

/// An embedding. On the wire a packed list of floats is its little-endian bytes behind their number,
/// as a field of bytes is, so the vector is written in one piece.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EmbedResponse {
    /// The values as little-endian F32.
    #[prost(bytes = "bytes", tag = "1")]
    pub embeddings: Bytes,
    /// What the text took.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<tei::Metadata>,
}

impl EmbedResponse {
    /// The vector as bytes, without a copy where memory has it so.
    pub(super) fn bytes_of(vector: Vec<f32>) -> Bytes {
        struct Values(Vec<f32>);
        impl AsRef<[u8]> for Values {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        if cfg!(target_endian = "little") {
            Bytes::from_owner(Values(vector))
        } else {
            vector.iter().flat_map(|value| value.to_le_bytes()).collect()
        }
    }

    /// The values.
    #[must_use]
    pub fn vector(&self) -> Vec<f32> {
        let values = self.embeddings.as_chunks::<4>().0;
        values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_vector_is_on_the_wire_what_a_packed_list_of_floats_is() {
        let vector = vec![1.5_f32, -0.0, f32::MIN_POSITIVE, 3e38, -7.25];
        let metadata = Some(tei::Metadata { compute_tokens: 9, ..tei::Metadata::default() });
        let answer =
            EmbedResponse { embeddings: EmbedResponse::bytes_of(vector.clone()), metadata };
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let wire = answer.encode_to_vec();
        // The same two fields as the code that is made for a list of floats writes them.
        let token = tei::TokenEmbedding { embeddings: vector.clone() }.encode_to_vec();
        assert_eq!(wire[..token.len()], token);
        let read = EmbedResponse::decode(wire.as_slice()).expect("decodes");
        assert_eq!(read, answer);
        assert_eq!(bits(&read.vector()), bits(&vector));
    }
}
