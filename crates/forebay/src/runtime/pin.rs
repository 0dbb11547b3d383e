//! The operator's cap on the service level, as the runtime's interface has it.

use kameo::error::SendError;

use super::Runtime;
use crate::error::PinError;
use crate::supervisor::{Level, Pin};

impl Runtime {
    /// Caps the service level: from now on no more GPUs serve than `level` says, and the CPU takes
    /// over if it says none. `None` lifts the cap.
    ///
    /// The workers above the cap finish what they hold, get no more texts and stay ready: their
    /// state is `capped`. Of several GPUs the best that serve go on. A GPU that falls is replaced by a
    /// capped one. The cap holds until it is lifted, whatever happens to workers, and passes to a
    /// runtime that is started beside this one; it ends with the program. The event log has it.
    ///
    /// # Errors
    /// [`PinError`]; nothing has changed then.
    pub async fn pin_level(&self, level: Option<Level>) -> Result<(), PinError> {
        let asked = self.supervisor.ask(Pin(level)).send().await;
        asked.map_err(|error| match error {
            SendError::HandlerError(refused) => refused,
            _ => PinError::Ending,
        })
    }

    /// The cap that [`Runtime::pin_level`] has set, if it holds.
    #[must_use]
    pub fn pinned_level(&self) -> Option<Level> {
        self.board.pinned()
    }
}
