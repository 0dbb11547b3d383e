//! What a fake worker is told to do: a file in the model folder, written by the test and read by
//! each incarnation of the worker. Unlike an environment variable it belongs to one test only.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the script within the model folder.
pub(crate) const SCRIPT_FILE: &str = "fake_worker.json";
/// Where each incarnation appends its process id, a line each.
pub(crate) const PIDS_FILE: &str = "fake_worker.pids";
/// While this file exists, no batch is computed.
pub(crate) const HOLD_FILE: &str = "fake_worker.hold";

/// Appears when a batch waits in copy-in for [`HOLD_FILE`] to go.
pub(crate) const HELD_FILE: &str = "fake_worker.held";

/// How a worker starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Start {
    #[default]
    Ready,
    /// Never answers the greeting.
    Hang,
    /// Says that its configuration cannot be used.
    Fail,
    /// Exits without a word.
    Exit,
}

/// How a worker breaks the protocol at its first batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rogue {
    /// Answers with 64 bytes that are no descriptor.
    Garbage,
    /// Answers with the first half of a descriptor.
    Half,
    /// Answers for a generation that is not in flight, and then rightly.
    WrongGeneration,
    /// Gives each answer twice.
    Duplicate,
    /// Says that there is one row more.
    WrongShape,
    /// Sends a message that only a host may send.
    HostMessage,
    /// Answers rightly, and ignores the request to drain.
    IgnoreDrain,
    /// Says with every answer that its rows have another checksum.
    WrongChecksum,
    /// Says that it is ready and then nothing more.
    Silent,
    /// Says that it computes more batches side by side than it has slots.
    TooManySideBySide,
}

/// The whole script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Script {
    /// The script holds for these incarnations only; 0 means all. The others behave well.
    pub(crate) incarnations: u64,
    /// The first incarnation that it holds for.
    pub(crate) from_incarnation: u64,
    /// The script holds for workers on these devices only; none means all. The others behave well.
    pub(crate) devices: Vec<String>,
    pub(crate) start: Start,
    /// Time that each start takes.
    pub(crate) start_delay_ms: u64,
    pub(crate) rogue: Option<Rogue>,
    /// Whether it is in copy-in, too, that batches wait for [`HOLD_FILE`] to go.
    pub(crate) hold_copy_in: bool,
    /// Time per batch.
    pub(crate) delay_us: u64,
    /// Token ids at which the worker dies, hangs, fails the batch (to be tried again, or as bad
    /// input), or gives a row that is no embedding.
    pub(crate) die_on: Vec<u32>,
    pub(crate) hang_on: Vec<u32>,
    pub(crate) fail_on: Vec<u32>,
    pub(crate) refuse_on: Vec<u32>,
    pub(crate) nan_on: Vec<u32>,
    /// Every row is the same, whatever its text: for measuring what is around the engine.
    pub(crate) alike: bool,
}

impl Script {
    /// The script of the worker that serves this model folder on this device, for this incarnation of
    /// it.
    pub(crate) fn read(model: &Path, device: &str, incarnation: u64) -> Self {
        let text = match std::fs::read_to_string(model.join(SCRIPT_FILE)) {
            Ok(text) => text,
            Err(_) => return Self::default(),
        };
        let script: Self = serde_json::from_str(&text).expect("the script is valid");
        let after = incarnation.saturating_sub(script.from_incarnation.max(1));
        let holds = (script.devices.is_empty() || script.devices.iter().any(|one| one == device))
            && incarnation >= script.from_incarnation
            && (script.incarnations == 0 || after < script.incarnations);
        if holds { script } else { Self { delay_us: script.delay_us, ..Self::default() } }
    }
}
