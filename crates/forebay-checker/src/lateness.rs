//! Replies after their time, against the moments in which who took them stood still.

/// Late replies that are kept until the end at most.
const LATE_MAX: usize = 100_000;

/// A reply that came too late.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) line: u64,
    pub(crate) request: u64,
    pub(crate) first: u64,
    pub(crate) what: String,
    /// Since when it was waited for.
    pub(crate) from_us: u64,
    pub(crate) at_us: u64,
    /// By how much it was late.
    pub(crate) over_us: u64,
}

/// What was late so far, and when nobody could have taken a reply.
#[derive(Default)]
pub(crate) struct Lateness {
    late: Vec<Late>,
    stalls: Vec<(u64, u64)>,
}

impl Lateness {
    pub(crate) fn stall(&mut self, from_us: u64, to_us: u64) {
        self.stalls.push((from_us, to_us));
    }

    /// Takes a late reply; gives it back if there is no room to wait for what is said of it later.
    pub(crate) fn late(&mut self, late: Late) -> Option<Late> {
        if self.late.len() >= LATE_MAX {
            return Some(late);
        }
        self.late.push(late);
        None
    }

    /// The replies that were late by more than nobody could have taken them.
    pub(crate) fn judged(&mut self) -> Vec<Late> {
        let (late, stalls) = (std::mem::take(&mut self.late), std::mem::take(&mut self.stalls));
        let is_late = |late: &Late| {
            let within = |(from, to): &(u64, u64)| {
                (*to).min(late.at_us).saturating_sub(late.from_us.max(*from))
            };
            stalls.iter().map(within).sum::<u64>() < late.over_us
        };
        late.into_iter().filter(is_late).collect()
    }
}
