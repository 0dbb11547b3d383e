//! Texts that run alone: which of them is next, on which worker, and when it is their turn.
//!
//! **Where.** On a worker of a slower tier than the ordinary batches' if it gets to all of them
//! within `hedge.suspect_cpu_wait_ms`: nothing faster is put at risk then. Otherwise on the workers of
//! the best tier, until none is left: the slower one is busy with other things while those are, and
//! the text that it were given would be the last to be answered by far. The first of all goes to the
//! slower one whatever waits, to show what they take there.
//!
//! **Turns.** A busy worker becomes empty only if it gets nothing more for a while. It is kept clear
//! as long as suspects have had no more of its time than ordinary batches, give or take
//! `batch.duration_target_ms`; as many workers are kept clear as the waiting suspects would fill for
//! that long. So suspects take up to half of a worker's time and neither waits for all of the other.
//!
//! Among the suspects the most urgent class goes first. One whose twin has been answered costs
//! nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Core;
use super::sending::RunAs;
use crate::config::Tier;
use crate::dispatch::port::WorkerPort;
use crate::dispatch::roster::Member;
use crate::request::Pending;

/// Weight of one new measurement of a suspect's time.
const MEASUREMENT_WEIGHT: f64 = 0.25;
/// What a suspect or batch counts for at least in the turns: one that is too short to be measured
/// still has had its turn.
const TURN_MIN: Duration = Duration::from_micros(50);
/// Batches that may be in a worker when a turn ends, about.
const BATCHES_OF_A_CHANGE: i64 = 4;
/// Taken for the time of a suspect of which nothing is known.
const UNKNOWN: Duration = Duration::from_millis(5);

/// The texts that wait for a run of their own.
#[derive(Default)]
pub(super) struct Suspects {
    /// The most urgent class first; within a class in the order in which they came.
    queue: VecDeque<Pending>,
    /// By tier, the mean time of one in seconds.
    mean_s: [Option<f64>; 2],
    /// The slower workers would not get to all of those that wait soon enough.
    too_many: bool,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Queues a text behind those that are as urgent.
    pub(super) fn push(&mut self, pending: Pending) {
        let rank = |pending: &Pending| pending.spec.priority.index();
        let place = self.queue.partition_point(|other| rank(other) <= rank(&pending));
        self.queue.insert(place, pending);
    }

    /// Queues one that could not be sent before all others.
    pub(super) fn put_back(&mut self, pending: Pending) {
        self.queue.push_front(pending);
    }

    /// Takes those out for which `leaves` holds.
    pub(super) fn extract(&mut self, mut leaves: impl FnMut(&Pending) -> bool) -> Vec<Pending> {
        if !self.queue.iter().any(&mut leaves) {
            return Vec::new();
        }
        let (gone, kept) = self.queue.drain(..).partition::<Vec<_>, _>(|pending| leaves(pending));
        self.queue = kept.into();
        gone
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        if mutated!(ForgetsSuspectsDeadlines) {
            return None;
        }
        self.queue.iter().filter_map(|pending| pending.spec.deadline).min()
    }

    pub(super) fn oldest_queued_at(&self) -> Option<Instant> {
        self.queue.iter().map(|pending| pending.queued_at).min()
    }

    /// One took a worker of this tier so long.
    pub(super) fn measured(&mut self, tier: Tier, service: Duration) {
        let mean = &mut self.mean_s[place(tier)];
        let seconds = service.as_secs_f64();
        *mean = Some(mean.map_or(seconds, |known| known + MEASUREMENT_WEIGHT * (seconds - known)));
    }

    fn mean(&self, tier: Tier) -> Option<Duration> {
        self.mean_s[place(tier)].and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

impl<W: WorkerPort> Member<W> {
    /// A batch of this worker took so long. Neither side of the account runs ahead by more than
    /// `turn`, or by what a change of turns costs.
    pub(super) fn count_time(&mut self, exclusive: bool, service: Duration, turn: Duration) {
        let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let time = us(service.max(TURN_MIN));
        let bound = us(turn).max(time.saturating_mul(BATCHES_OF_A_CHANGE));
        let change = if exclusive { time } else { -time };
        self.suspect_lead_us = self.suspect_lead_us.saturating_add(change).clamp(-bound, bound);
    }
}

impl<W: WorkerPort> Core<W> {
    /// Queues a text for a run of its own.
    pub(super) fn suspect(&mut self, pending: Pending) {
        if mutated!(SuspectsInCompany) {
            return self.enqueue(pending);
        }
        self.suspects.push(pending);
    }

    /// Runs the next suspect if a worker is free for it.
    pub(super) fn send_suspect(&mut self, now: Instant) -> bool {
        // What a twin has answered meanwhile needs no worker.
        self.suspects.extract(|pending| pending.owed.is_answered());
        if self.suspects.is_empty() {
            self.suspects.too_many = false;
            return false;
        }
        let to_slower = self.slower_takes_them(now);
        self.suspects.too_many = !to_slower;
        let Some(index) = self.free_for_suspect(to_slower) else { return false };
        let Some(pending) = self.suspects.queue.pop_front() else { return false };
        if pending.owed.is_cancelled() {
            self.cancelled(pending);
            return true;
        }
        self.workers.members_mut()[index].alone_since = Some(now);
        self.hand_over(index, vec![pending], RunAs::Suspect, now);
        true
    }

    /// The place of a worker that is free for the next suspect.
    fn free_for_suspect(&self, to_slower: bool) -> Option<usize> {
        // Where none has run yet, one shows what they take there.
        let may_try = !self.settings.hedge.suspect_cpu_wait().is_zero();
        let mut slower = self.workers.slower().filter(|(_, member)| {
            to_slower || (may_try && self.suspects.mean(member.worker.tier()).is_none())
        });
        let mut turns =
            self.workers.takers().filter(|(_, member)| !to_slower && self.is_turn(member));
        let is_free = |(_, member): &(usize, &Member<W>)| member.is_free();
        let free = slower.find(is_free).or_else(|| turns.find(is_free));
        free.map(|(index, _)| index)
    }

    /// The workers, by their places, that ordinary batches must leave alone now so that suspects can
    /// run on them.
    pub(super) fn kept_clear(&self, now: Instant) -> Vec<usize> {
        if self.suspects.is_empty() || self.slower_takes_them(now) {
            return Vec::new();
        }
        let turns = self.workers.takers().filter(|(_, member)| self.is_turn(member));
        let mut clear: Vec<(usize, usize)> =
            turns.map(|(index, member)| (member.worker.load().tokens, index)).collect();
        // The emptiest first: those are clear soonest.
        clear.sort_unstable();
        let tier = self.workers.best().unwrap_or(Tier::Cpu);
        let each = self.suspect_time(tier).unwrap_or(UNKNOWN);
        let all = each.as_secs_f64() * self.suspects.len() as f64;
        let turn = self.settings.batch.duration_target.max(TURN_MIN).as_secs_f64();
        let needed = (all / turn).ceil().max(1.0) as usize;
        clear.into_iter().take(needed).map(|(_, index)| index).collect()
    }

    /// Whether suspects may have this worker now.
    fn is_turn(&self, member: &Member<W>) -> bool {
        member.suspect_lead_us <= 0 || self.batcher.is_empty()
    }

    /// Whether the suspects go to the workers of slower tiers.
    fn slower_takes_them(&self, now: Instant) -> bool {
        !self.suspects.too_many && self.slower_is_enough(now)
    }

    /// Whether the workers of slower tiers get to every suspect soon enough.
    fn slower_is_enough(&self, now: Instant) -> bool {
        let wait_max = self.settings.hedge.suspect_cpu_wait();
        let (mut workers, mut slowest) = (0, Duration::ZERO);
        for (_, member) in self.workers.slower() {
            let Some(each) = self.suspect_time(member.worker.tier()) else { continue };
            // One that is busy with anything but a suspect is not theirs yet, and one that has been
            // at its suspect for too long may never come back.
            let load = member.worker.load();
            let stuck = member.alone_since.is_some_and(|since| since + wait_max <= now);
            if load.batches == 0 || (load.exclusive && !stuck) {
                workers += 1;
                slowest = slowest.max(each);
            }
        }
        if workers == 0 {
            return false;
        }
        let rounds = u32::try_from(self.suspects.len().div_ceil(workers)).unwrap_or(u32::MAX);
        slowest.saturating_mul(rounds) <= wait_max
    }

    /// The moment at which a worker of a slower tier has kept its suspect for so long that those
    /// that wait should go elsewhere.
    pub(super) fn slower_overdue_at(&self, now: Instant) -> Option<Instant> {
        if self.suspects.is_empty() {
            return None;
        }
        let wait_max = self.settings.hedge.suspect_cpu_wait();
        let since = self.workers.slower().filter_map(|(_, member)| member.alone_since);
        since.map(|since| since + wait_max).filter(|at| *at > now).min()
    }

    /// What one suspect takes a worker of this tier, as far as is known.
    fn suspect_time(&self, tier: Tier) -> Option<Duration> {
        self.suspects.mean(tier).or_else(|| {
            let tokens = self.suspects.queue.front()?.ids.len();
            self.expected_on(tier, tokens)
        })
    }
}

fn place(tier: Tier) -> usize {
    match tier {
        Tier::Cpu => 0,
        Tier::Gpu => 1,
    }
}
