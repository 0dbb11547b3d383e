//! What can be wrong with an arena or with a slot that is handed over.

/// Why an arena or a slot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// The operating system refused the memory.
    #[error(
        "cannot {what} an arena of {bytes} bytes: {source}; lower worker.slots, batch.tokens_max or batch.rows_max if memory is short"
    )]
    Os {
        /// What was attempted.
        what: &'static str,
        /// Size of the arena in bytes.
        bytes: u64,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The dimensions make no arena.
    #[error("arena dimension {name} is {value}, allowed are {min} to {max}")]
    Dimension {
        /// Name of the dimension.
        name: &'static str,
        /// The value found.
        value: u64,
        /// Smallest allowed value.
        min: u64,
        /// Largest allowed value.
        max: u64,
    },
    /// The inherited memory is not the arena that the handshake describes.
    #[error("inherited arena has {found} bytes, the handshake describes {expected}")]
    Size {
        /// Size of the memory in bytes.
        found: u64,
        /// Size that the dimensions give.
        expected: u64,
    },
    /// The inherited memory could be truncated by the other side.
    #[error("inherited arena is not sealed against {missing}; it must come from forebay itself")]
    Unsealed {
        /// The seal that is missing.
        missing: &'static str,
    },
    /// A slot number beyond the arena.
    #[error("slot {slot} does not exist, the arena has {slots}")]
    NoSuchSlot {
        /// The slot named.
        slot: u32,
        /// Number of slots.
        slots: u32,
    },
    /// A slot that the worker still holds was handed over again.
    #[error("slot {slot} is handed over while it is in use")]
    InUse {
        /// The slot named.
        slot: u32,
    },
    /// A lease of another arena.
    #[error("slot {slot} was leased from another arena")]
    ForeignLease {
        /// The slot named.
        slot: u32,
    },
    /// More rows or tokens than a slot holds, or none.
    #[error(
        "batch of {rows} rows and {tokens} tokens does not fit a slot of {rows_max} rows and {tokens_max} tokens"
    )]
    DoesNotFit {
        /// Rows of the batch.
        rows: u64,
        /// Tokens of the batch.
        tokens: u64,
        /// Rows that fit.
        rows_max: u32,
        /// Tokens that fit.
        tokens_max: u32,
    },
    /// Row boundaries that do not rise from zero to the number of tokens.
    #[error("row boundary {index} is {value}, expected a rising sequence from 0 to {tokens}")]
    Boundaries {
        /// Position in the boundaries.
        index: usize,
        /// The value found.
        value: u32,
        /// Tokens of the batch.
        tokens: u32,
    },
}
