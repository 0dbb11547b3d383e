//! Why a worker could not run one batch, as one small number in a descriptor.

/// Class of a batch failure that left the worker itself usable.
///
/// The host decides by class alone what happens to the rows; the text that accompanies it (in
/// the slot's output area) is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorClass {
    /// The engine refused the input itself, such as a token id outside the vocabulary. Running
    /// it again gives the same answer.
    Input = 1,
    /// The engine failed in a way that may not repeat; the rows may run once more, alone.
    Retry = 2,
    /// Memory for the batch could not be had; a smaller batch may fit.
    OutOfMemory = 3,
    /// A number that is not finite came out of the engine.
    NonFinite = 4,
    /// A fault in the worker's own logic.
    Internal = 5,
    /// The rows that the host read are not those that the worker wrote: their checksums differ.
    /// Only the host finds this.
    Corrupt = 6,
}

impl ErrorClass {
    /// Every class, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::Input,
        Self::Retry,
        Self::OutOfMemory,
        Self::NonFinite,
        Self::Internal,
        Self::Corrupt,
    ];

    /// The class with this number, or `None` for a number that no class has.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|class| *class as u16 == code)
    }

    /// The name used in metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Retry => "retry",
            Self::OutOfMemory => "out_of_memory",
            Self::NonFinite => "non_finite",
            Self::Internal => "internal",
            Self::Corrupt => "corrupt",
        }
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
