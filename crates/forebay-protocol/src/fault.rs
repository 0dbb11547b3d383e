//! Faults that can be asked for: the names that a test, a drill and a report share, and their
//! numbers in a descriptor. Who brings one about is said at each; nothing here does.

use std::str::FromStr;

/// A fault that is injected on purpose. In text it is its name, with `=` and a number behind it
/// where it takes one: `kill`, `slow=10`, `fail_starts=3`, `log_disk_full=0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The host ends the worker's process with SIGKILL.
    Kill,
    /// The host stops the worker's process with SIGSTOP; nobody continues it.
    Stop,
    /// A kernel executes a trap. On a CPU the process aborts.
    Trap,
    /// A kernel writes where there is no memory. On a CPU the process gets SIGSEGV.
    IllegalAddress,
    /// A kernel never ends. On a CPU the next batch never does.
    EndlessKernel,
    /// The next batch asks for more memory than the device has, and fails. On a CPU it fails
    /// likewise, with nothing asked for.
    DeviceOutOfMemory,
    /// Every batch takes this many times as long; 1 ends it.
    Slow(u32),
    /// One bit of the next batch's output is flipped after its checksum was computed.
    FlipOutputBit,
    /// One bit of a weight of the first layer is flipped on the device, for as long as the worker
    /// lives: every result is wrong and looks sound. On a CPU, whose engine owns its weights, every
    /// row is one and the same unit vector instead.
    FlipWeightBit,
    /// The next so many starts of the worker fail; the host tells each of them to.
    FailStarts(u32),
    /// The process that watches the devices stops answering. It is replaced, which ends it.
    MonitorHang,
    /// The next reports of the process that watches the devices hold values that cannot be.
    MonitorLies,
    /// The event log cannot write any more, or can again.
    LogDiskFull(bool),
}

/// Factor of [`Fault::Slow`] where none is given.
const SLOW_DEFAULT: u32 = 10;
/// Largest factor of [`Fault::Slow`] and largest count of [`Fault::FailStarts`].
const NUMBER_MAX: u32 = 1000;

/// Why a text is not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// No fault has this name.
    #[error("no fault is called {name:?}; there are {}", names())]
    Name {
        /// The name found.
        name: String,
    },
    /// The number does not fit the fault.
    #[error("{number:?} does not fit {name}; {allowed}")]
    Number {
        /// The fault's name.
        name: &'static str,
        /// The number found.
        number: String,
        /// What may stand there.
        allowed: &'static str,
    },
}

impl Fault {
    /// Every fault, in the order of its code, with the number that it has where none is given.
    pub const ALL: [Self; 13] = [
        Self::Kill,
        Self::Stop,
        Self::Trap,
        Self::IllegalAddress,
        Self::EndlessKernel,
        Self::DeviceOutOfMemory,
        Self::Slow(SLOW_DEFAULT),
        Self::FlipOutputBit,
        Self::FlipWeightBit,
        Self::FailStarts(1),
        Self::MonitorHang,
        Self::MonitorLies,
        Self::LogDiskFull(true),
    ];

    /// The name in configurations, reports and events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Trap => "trap",
            Self::IllegalAddress => "illegal_address",
            Self::EndlessKernel => "endless_kernel",
            Self::DeviceOutOfMemory => "device_out_of_memory",
            Self::Slow(_) => "slow",
            Self::FlipOutputBit => "flip_output_bit",
            Self::FlipWeightBit => "flip_weight_bit",
            Self::FailStarts(_) => "fail_starts",
            Self::MonitorHang => "monitor_hang",
            Self::MonitorLies => "monitor_lies",
            Self::LogDiskFull(_) => "log_disk_full",
        }
    }

    /// The number that goes with it; `None` for a fault that takes none.
    #[must_use]
    pub const fn number(self) -> Option<u32> {
        match self {
            Self::Slow(number) | Self::FailStarts(number) => Some(number),
            Self::LogDiskFull(on) => Some(on as u32),
            _ => None,
        }
    }

    /// Whether a worker brings it about. The others are the host's.
    #[must_use]
    pub const fn is_workers(self) -> bool {
        match self {
            Self::Trap
            | Self::IllegalAddress
            | Self::EndlessKernel
            | Self::DeviceOutOfMemory
            | Self::Slow(_)
            | Self::FlipOutputBit
            | Self::FlipWeightBit => true,
            Self::Kill
            | Self::Stop
            | Self::FailStarts(_)
            | Self::MonitorHang
            | Self::MonitorLies
            | Self::LogDiskFull(_) => false,
        }
    }

    /// Whether it concerns one device. The others concern the whole runtime.
    #[must_use]
    pub const fn is_of_device(self) -> bool {
        !matches!(self, Self::MonitorHang | Self::MonitorLies | Self::LogDiskFull(_))
    }

    /// Whether it must show, by the end of a worker, before it is over.
    #[must_use]
    pub const fn shows(self) -> bool {
        matches!(
            self,
            Self::Kill
                | Self::Stop
                | Self::Trap
                | Self::IllegalAddress
                | Self::EndlessKernel
                | Self::FlipWeightBit
                | Self::FailStarts(_)
        )
    }

    /// What takes it back, if it does not end by itself or with its worker.
    #[must_use]
    pub const fn undo(self) -> Option<Self> {
        match self {
            Self::Slow(_) => Some(Self::Slow(1)),
            Self::LogDiskFull(_) => Some(Self::LogDiskFull(false)),
            _ => None,
        }
    }

    /// The number by which a descriptor names it, from 1.
    #[must_use]
    pub(crate) fn code(self) -> u32 {
        // Every variant is in the list.
        let place = Self::ALL.iter().position(|fault| fault.name() == self.name());
        place.map_or(0, |place| place as u32 + 1)
    }

    /// The fault with this code and this number.
    #[must_use]
    pub(crate) fn from_code(code: u32, number: u32) -> Option<Self> {
        let place = usize::try_from(code).ok()?.checked_sub(1)?;
        Self::ALL.get(place)?.with_number(number)
    }

    fn with_number(self, number: u32) -> Option<Self> {
        match self {
            Self::Slow(_) => (1..=NUMBER_MAX).contains(&number).then_some(Self::Slow(number)),
            Self::FailStarts(_) => (number <= NUMBER_MAX).then_some(Self::FailStarts(number)),
            Self::LogDiskFull(_) => (number <= 1).then_some(Self::LogDiskFull(number == 1)),
            fault => (number == 0).then_some(fault),
        }
    }

    /// What may stand behind the name.
    const fn allowed(self) -> &'static str {
        match self {
            Self::Slow(_) => "a whole factor from 1 to 1000 is allowed, and 1 ends it",
            Self::FailStarts(_) => "a number of starts from 0 to 1000 is allowed",
            Self::LogDiskFull(_) => "1 (begins) and 0 (ends) are allowed",
            _ => "it takes no number",
        }
    }
}

fn names() -> String {
    Fault::ALL.map(Fault::name).join(", ")
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{}={number}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, number) = match text.split_once('=') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let known = Self::ALL.into_iter().find(|fault| fault.name() == name);
        let fault = known.ok_or_else(|| FaultError::Name { name: name.to_owned() })?;
        let Some(number) = number else { return Ok(fault) };
        // Zero is what a fault without a number has, and may not be written.
        let parsed = number.parse().ok().filter(|_| fault.number().is_some());
        parsed.and_then(|number| fault.with_number(number)).ok_or_else(|| FaultError::Number {
            name: fault.name(),
            number: number.to_owned(),
            allowed: fault.allowed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_lead_back_to_their_fault() {
        let others = [Fault::Slow(1), Fault::FailStarts(7), Fault::LogDiskFull(false)];
        for fault in Fault::ALL.into_iter().chain(others) {
            assert_eq!(fault.to_string().parse(), Ok(fault));
            let number = fault.number().unwrap_or(0);
            assert_eq!(Fault::from_code(fault.code(), number), Some(fault));
        }
        assert_eq!("slow".parse(), Ok(Fault::Slow(10)));
        for (code, number) in [(0, 0), (14, 0), (1, 1), (7, 0), (7, 1001), (11, 1), (13, 2)] {
            assert_eq!(Fault::from_code(code, number), None, "{code} with {number}");
        }
    }

    #[test]
    fn a_wrong_text_is_told_what_would_be_right() {
        let said = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        assert!(said("explode").contains("kill, stop"), "{}", said("explode"));
        assert!(said("kill=0").contains("takes no number"), "{}", said("kill=0"));
        assert!(said("slow=0").contains("1 to 1000"), "{}", said("slow=0"));
        assert!(said("log_disk_full=2").contains("1 (begins)"), "{}", said("log_disk_full=2"));
        assert!(said("slow=").contains("\"\""), "{}", said("slow="));
    }
}
