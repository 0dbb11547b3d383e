//! The setting that allows faults to be injected.

use super::declare::Allowed::Switch;
use super::declare::group;

group! {
    /// Faults on purpose, for tests and soak runs; never on a vehicle that is in service.
    FaultsConfig as "faults" {
        /// Let the program that embeds the runtime inject faults, and load what that needs on a
        /// GPU; otherwise every such request is refused.
        enabled: bool = false, "", Switch;
    }
}
