//! The fixed 64-byte message: which slot, which generation, how many rows, and a checksum.

use bytemuck::{Pod, Zeroable};

use crate::{ErrorClass, Fault};

/// Size of one encoded [`Descriptor`] in bytes.
pub const DESCRIPTOR_BYTES: usize = 64;

const MAGIC: u32 = u32::from_le_bytes(*b"FBAY");

/// What a descriptor asks for or reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum DescriptorKind {
    /// Host to worker: run the batch that stands in this slot. The worker owns the slot from now.
    Run = 1,
    /// Host to worker: finish what is in flight, answer [`DescriptorKind::Drained`] and exit.
    Drain = 2,
    /// Host to worker: bring this [`Fault`] about. A worker whose host has not enabled faults
    /// ignores it.
    Fault = 3,
    /// As [`DescriptorKind::Run`], with its share of the cores while others run beside it. Only a
    /// worker that computes several batches side by side ([`crate::Ready::side_by_side`]) is sent
    /// it; to any other it means the same as `Run`.
    RunBeside = 4,
    /// Worker to host: the rows stand in the slot's output area. The host owns the slot again.
    Done = 17,
    /// Worker to host: the batch failed with a class; the host owns the slot again. A message in
    /// UTF-8 stands in the output area, its length in bytes is in `message_bytes`.
    Failed = 18,
    /// Worker to host: nothing is in flight any more and the process is about to exit.
    Drained = 19,
}

impl DescriptorKind {
    const ALL: [Self; 7] = [
        Self::Run,
        Self::Drain,
        Self::Fault,
        Self::RunBeside,
        Self::Done,
        Self::Failed,
        Self::Drained,
    ];

    fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u16 == code)
    }
}

/// Where the time of one batch went inside the worker, in microseconds (saturating).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchTimes {
    /// From receipt of the descriptor until the encoder took the batch; on a GPU, until the
    /// encoder had a buffer for it and was done with the batch before.
    pub wait_us: u32,
    /// In the encoder; on a GPU whose events keep no time, until the rows were there.
    pub infer_us: u32,
    /// In pooling and normalisation; 0 if that is part of `infer_us`.
    pub pool_us: u32,
}

/// One message after the handshake. It never holds a pointer or a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// What it asks for or reports.
    pub kind: DescriptorKind,
    /// Why a batch failed; `None` unless `kind` is [`DescriptorKind::Failed`].
    pub error: Option<ErrorClass>,
    /// Slot number, below [`crate::ArenaSpec::slots`].
    pub slot: u32,
    /// How many rows the batch has; the code of a fault.
    pub rows: u32,
    /// Generation of the slot; an answer must carry the generation of its question.
    pub generation: u64,
    /// Number of the batch within this runtime, for logs and traces.
    pub batch_id: u64,
    /// Token ids in the slot, all rows together; the number that goes with a fault.
    pub tokens: u32,
    /// `f32` values of one output row, see [`crate::ArenaSpec::row_values`].
    pub row_values: u32,
    /// Tokens that the engine really computed, padding included (answers only).
    pub padded_tokens: u32,
    /// Length of the failure message in bytes; not sent with [`DescriptorKind::Done`].
    pub message_bytes: u32,
    /// [`output_checksum`] of the rows; sent with [`DescriptorKind::Done`] only.
    pub output_checksum: u32,
    /// Where the time went (answers only).
    pub times: BatchTimes,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Wire {
    generation: u64,
    batch_id: u64,
    magic: u32,
    kind: u16,
    error: u16,
    slot: u32,
    rows: u32,
    tokens: u32,
    row_values: u32,
    padded_tokens: u32,
    /// Checksum of the rows of a batch that was computed, else the length of a message.
    about_output: u32,
    wait_us: u32,
    infer_us: u32,
    pool_us: u32,
    crc: u32,
}

const _: () = assert!(size_of::<Wire>() == DESCRIPTOR_BYTES);
const CHECKED_BYTES: usize = DESCRIPTOR_BYTES - size_of::<u32>();

/// Why bytes are not a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// The packet has another size.
    #[error("descriptor of {found} bytes, expected {DESCRIPTOR_BYTES}")]
    Size {
        /// Size of the packet in bytes.
        found: usize,
    },
    /// The first word is not the protocol's mark.
    #[error("descriptor starts with {found:#010x}, expected {MAGIC:#010x}")]
    Magic {
        /// The word found.
        found: u32,
    },
    /// The checksum does not match the content.
    #[error("descriptor checksum is {found:#010x}, computed {computed:#010x}")]
    Checksum {
        /// The checksum in the packet.
        found: u32,
        /// The checksum of what the packet holds.
        computed: u32,
    },
    /// The kind is not one of the protocol's.
    #[error("unknown descriptor kind {0}")]
    Kind(u16),
    /// The error class is not one of the protocol's, or stands where none belongs.
    #[error("error class {class} does not fit descriptor kind {kind}")]
    Class {
        /// Number of the kind.
        kind: u16,
        /// Number of the class; 0 means none.
        class: u16,
    },
    /// No fault has this code, or not with this number.
    #[error("no fault has code {code} with number {number}")]
    Fault {
        /// The code.
        code: u32,
        /// The number.
        number: u32,
    },
}

/// CRC-32 of output rows as they stand in a slot: computed by the worker when it gives the slot
/// back, and by the host over what it has copied out.
#[must_use]
pub fn output_checksum(values: &[f32]) -> u32 {
    let mut checksum = OutputChecksum::default();
    checksum.update(values);
    checksum.finish()
}

/// [`output_checksum`] of rows that come piece by piece.
#[derive(Clone, Debug, Default)]
pub struct OutputChecksum(crc32fast::Hasher);

impl OutputChecksum {
    /// Takes in the values that follow.
    pub fn update(&mut self, values: &[f32]) {
        self.0.update(bytemuck::cast_slice(values));
    }

    /// The checksum of all that came.
    #[must_use]
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

impl Descriptor {
    /// A descriptor of this kind with every number zero.
    #[must_use]
    pub fn new(kind: DescriptorKind) -> Self {
        Self {
            kind,
            error: None,
            slot: 0,
            rows: 0,
            generation: 0,
            batch_id: 0,
            tokens: 0,
            row_values: 0,
            padded_tokens: 0,
            message_bytes: 0,
            output_checksum: 0,
            times: BatchTimes::default(),
        }
    }

    /// The request for a fault.
    #[must_use]
    pub fn of_fault(fault: Fault) -> Self {
        let (rows, tokens) = (fault.code(), fault.number().unwrap_or(0));
        Self { rows, tokens, ..Self::new(DescriptorKind::Fault) }
    }

    /// The fault that is asked for; `None` of any other kind of descriptor.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let named = || Fault::from_code(self.rows, self.tokens);
        (self.kind == DescriptorKind::Fault).then(named).flatten()
    }

    /// The packet to send. Integers are in host byte order: both ends are on one machine.
    #[must_use]
    pub fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut wire = Wire {
            generation: self.generation,
            batch_id: self.batch_id,
            magic: MAGIC,
            kind: self.kind as u16,
            error: self.error.map_or(0, |class| class as u16),
            slot: self.slot,
            rows: self.rows,
            tokens: self.tokens,
            row_values: self.row_values,
            padded_tokens: self.padded_tokens,
            about_output: match self.kind {
                DescriptorKind::Done => self.output_checksum,
                _ => self.message_bytes,
            },
            wait_us: self.times.wait_us,
            infer_us: self.times.infer_us,
            pool_us: self.times.pool_us,
            crc: 0,
        };
        wire.crc = crc32fast::hash(&bytemuck::bytes_of(&wire)[..CHECKED_BYTES]);
        bytemuck::must_cast(wire)
    }

    /// Reads a received packet.
    ///
    /// # Errors
    /// [`DescriptorError`] for anything that [`Descriptor::encode`] cannot have produced. The
    /// numbers are not judged here; the receiver compares them with the slot they name.
    pub fn decode(packet: &[u8]) -> Result<Self, DescriptorError> {
        let bytes: [u8; DESCRIPTOR_BYTES] =
            packet.try_into().map_err(|_| DescriptorError::Size { found: packet.len() })?;
        let wire: Wire = bytemuck::must_cast(bytes);
        if wire.magic != MAGIC {
            return Err(DescriptorError::Magic { found: wire.magic });
        }
        let computed = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        if wire.crc != computed {
            return Err(DescriptorError::Checksum { found: wire.crc, computed });
        }
        let kind = DescriptorKind::from_code(wire.kind).ok_or(DescriptorError::Kind(wire.kind))?;
        let error = ErrorClass::from_code(wire.error);
        let class_fits = match kind {
            DescriptorKind::Failed => error.is_some(),
            _ => wire.error == 0,
        };
        if !class_fits {
            return Err(DescriptorError::Class { kind: wire.kind, class: wire.error });
        }
        let (message_bytes, output_checksum) = match kind {
            DescriptorKind::Done => (0, wire.about_output),
            _ => (wire.about_output, 0),
        };
        let decoded = Self {
            kind,
            error,
            slot: wire.slot,
            rows: wire.rows,
            generation: wire.generation,
            batch_id: wire.batch_id,
            tokens: wire.tokens,
            row_values: wire.row_values,
            padded_tokens: wire.padded_tokens,
            message_bytes,
            output_checksum,
            times: BatchTimes {
                wait_us: wire.wait_us,
                infer_us: wire.infer_us,
                pool_us: wire.pool_us,
            },
        };
        if kind == DescriptorKind::Fault && decoded.fault().is_none() {
            return Err(DescriptorError::Fault { code: wire.rows, number: wire.tokens });
        }
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_descriptor() -> impl Strategy<Value = Descriptor> {
        (
            0..DescriptorKind::ALL.len(),
            0..ErrorClass::ALL.len(),
            any::<[u32; 9]>(),
            any::<[u64; 2]>(),
        )
            .prop_map(|(kind, class, n, long)| {
                let kind = DescriptorKind::ALL[kind];
                if kind == DescriptorKind::Fault {
                    return Descriptor::of_fault(Fault::ALL[n[0] as usize % Fault::ALL.len()]);
                }
                let is_done = kind == DescriptorKind::Done;
                Descriptor {
                    kind,
                    error: (kind == DescriptorKind::Failed).then(|| ErrorClass::ALL[class]),
                    slot: n[0],
                    rows: n[1],
                    generation: long[0],
                    batch_id: long[1],
                    tokens: n[2],
                    row_values: n[3],
                    padded_tokens: n[4],
                    message_bytes: if is_done { 0 } else { n[5] },
                    output_checksum: if is_done { n[5] } else { 0 },
                    times: BatchTimes { wait_us: n[6], infer_us: n[7], pool_us: n[8] },
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(descriptor in any_descriptor()) {
            prop_assert_eq!(Descriptor::decode(&descriptor.encode()), Ok(descriptor));
        }

        #[test]
        fn one_flipped_bit_is_always_refused(descriptor in any_descriptor(), bit in 0..DESCRIPTOR_BYTES * 8) {
            let mut packet = descriptor.encode();
            packet[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Descriptor::decode(&packet).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..130)) {
            if let Ok(descriptor) = Descriptor::decode(&bytes) {
                prop_assert_eq!(&descriptor.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn a_fault_that_does_not_exist_is_refused() {
        let asked = Descriptor::of_fault(Fault::Slow(3));
        assert_eq!(asked.fault(), Some(Fault::Slow(3)));
        let unknown = Descriptor { rows: 99, ..asked };
        let error = DescriptorError::Fault { code: 99, number: 3 };
        assert_eq!(Descriptor::decode(&unknown.encode()), Err(error));
        assert_eq!(Descriptor::new(DescriptorKind::Run).fault(), None);
    }

    #[test]
    fn one_flipped_bit_of_a_row_changes_its_checksum() {
        let rows: Vec<f32> = (0..385).map(|value| value as f32 / 385.0).collect();
        let checksum = output_checksum(&rows);
        for bit in 0..32 {
            let mut flipped = rows.clone();
            flipped[200] = f32::from_bits(flipped[200].to_bits() ^ (1 << bit));
            assert_ne!(output_checksum(&flipped), checksum, "bit {bit}");
        }
        for at in 0..=rows.len() {
            let (one, other) = rows.split_at(at);
            let mut pieces = OutputChecksum::default();
            pieces.update(one);
            pieces.update(other);
            assert_eq!(pieces.finish(), checksum, "split at {at}");
        }
    }

    #[test]
    fn a_packet_of_another_size_is_refused() {
        let packet = Descriptor::new(DescriptorKind::Run).encode();
        assert_eq!(Descriptor::decode(&packet[..63]), Err(DescriptorError::Size { found: 63 }));
    }
}
