//! The exit code of a worker process tells the host what kind of end it was.

/// How a worker process ended itself. A process that was ended by a signal has no such code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WorkerExit {
    /// Drained, or its socket was closed.
    Clean = 0,
    /// A stage panicked.
    Panic = 70,
    /// The host said something that the protocol does not allow, or speaks another version.
    Protocol = 76,
    /// The configuration, the model or a library cannot be used; starting again will not help.
    Config = 78,
    /// A CUDA error that poisons the whole process.
    StickyCuda = 100,
    /// The device is gone.
    DeviceLost = 101,
    /// The known-answer test gave wrong numbers.
    CanaryMismatch = 102,
    /// The process could not get host memory.
    HostOutOfMemory = 103,
    /// The worker's own watchdog found it stuck.
    Watchdog = 104,
    /// The device has too little free memory now; others may give some back.
    DeviceBusy = 105,
    /// There is no such device now.
    DeviceMissing = 106,
}

impl WorkerExit {
    /// Every exit that a worker chooses itself.
    pub const ALL: [Self; 11] = [
        Self::Clean,
        Self::Panic,
        Self::Protocol,
        Self::Config,
        Self::StickyCuda,
        Self::DeviceLost,
        Self::CanaryMismatch,
        Self::HostOutOfMemory,
        Self::Watchdog,
        Self::DeviceBusy,
        Self::DeviceMissing,
    ];

    /// The exit with this code, or `None` for a code that no worker chooses.
    #[must_use]
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }

    /// The code handed to the operating system.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether a worker that cannot start for this reason may be able to soon, with nothing changed
    /// on this side.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::StickyCuda | Self::DeviceLost | Self::DeviceBusy | Self::HostOutOfMemory
        )
    }

    /// The name used in metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Panic => "panic",
            Self::Protocol => "protocol",
            Self::Config => "config",
            Self::StickyCuda => "sticky_cuda",
            Self::DeviceLost => "device_lost",
            Self::CanaryMismatch => "canary_mismatch",
            Self::HostOutOfMemory => "host_out_of_memory",
            Self::Watchdog => "watchdog",
            Self::DeviceBusy => "device_busy",
            Self::DeviceMissing => "device_missing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_maps_back_and_none_is_used_twice() {
        for exit in WorkerExit::ALL {
            assert_eq!(WorkerExit::from_code(i32::from(exit.code())), Some(exit));
        }
        assert_eq!(WorkerExit::from_code(1), None);
        assert_eq!(WorkerExit::from_code(-1), None);
    }

    #[test]
    fn only_the_state_of_the_machine_passes_by_itself() {
        let passing: Vec<&str> = WorkerExit::ALL
            .into_iter()
            .filter(|exit| exit.may_pass())
            .map(WorkerExit::name)
            .collect();
        assert_eq!(passing, ["sticky_cuda", "device_lost", "host_out_of_memory", "device_busy"]);
    }
}
