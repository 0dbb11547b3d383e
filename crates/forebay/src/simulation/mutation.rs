//! Bugs that can be switched on, to show that the simulator finds them. Each is one wrong step at one
//! place of the code that serves; without the feature the switch is a constant `false` there.

use std::cell::Cell;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The batches of a worker that died are dropped (`dispatch/core/ends.rs`).
    LosesBatches,
    /// What was in a worker that died runs again among others (`dispatch/core/suspects.rs`).
    SuspectsInCompany,
    /// A text that waits for its second run is not told in time that its deadline has passed
    /// (`dispatch/core/suspects.rs`).
    ForgetsSuspectsDeadlines,
    /// A worker serves without having given the known answers (`supervisor/ladder/slot.rs`).
    PromotesUnproven,
    /// A worker is started beside one that cannot be killed (`supervisor/ladder/slot.rs`).
    RestartsBesideStuck,
    /// A worker that was late is never asked for the known answers again
    /// (`supervisor/ladder/slot.rs`).
    LeavesLateWorkersOut,
    /// Wrong known answers are taken for right ones (`supervisor/ladder/slot.rs`).
    BelievesWrongAnswers,
    /// A batch is sent beside one that has all the cores (`dispatch/core/sending.rs`).
    JoinsWholeBatches,
    /// Workers are judged right after the dispatcher was held up (`dispatch/core/late.rs`).
    JudgesAfterStalls,
    /// Nobody counts the second runs (`dispatch/budget.rs`).
    IgnoresRerunBudget,
    /// The last of twins that give up thinks that another is left (`owed.rs`).
    TwinsAllGiveUp,
    /// What is under way beyond a limit that has shrunk is not made good (`admission.rs`).
    ForgetsDebt,
    /// The level stays up when a worker is lost (`supervisor/ladder/mod.rs`).
    KeepsLevel,
}

impl Mutation {
    /// Every bug.
    pub const ALL: [Self; 13] = [
        Self::LosesBatches,
        Self::SuspectsInCompany,
        Self::ForgetsSuspectsDeadlines,
        Self::PromotesUnproven,
        Self::RestartsBesideStuck,
        Self::LeavesLateWorkersOut,
        Self::BelievesWrongAnswers,
        Self::JoinsWholeBatches,
        Self::JudgesAfterStalls,
        Self::IgnoresRerunBudget,
        Self::TwinsAllGiveUp,
        Self::ForgetsDebt,
        Self::KeepsLevel,
    ];
}

thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Whether this bug is switched on for this thread.
pub(crate) fn mutated(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

/// Switches a bug on for this thread, or all off.
pub(super) fn switch(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}
