//! The simulator is clean over many seeds, comes to every rare place, and finds every bug that can be
//! switched on.

use std::collections::BTreeSet;

use super::{Mutation, SOMETIMES, run};

/// Histories of a test run; `cargo xtask simulate` goes through many more.
const SEEDS: u64 = 1_000;
/// Histories within which a bug must show.
const SEEDS_TO_FIND: u64 = 1_000;

#[test]
fn histories_are_clean_and_come_to_every_rare_place() {
    let mut reached = BTreeSet::new();
    for seed in 0..SEEDS {
        match run(seed, None) {
            Ok(report) => reached.extend(report.reached),
            Err(violation) => panic!("{violation}"),
        }
    }
    let missed: Vec<&&str> = SOMETIMES.iter().filter(|place| !reached.contains(*place)).collect();
    assert!(missed.is_empty(), "no history came to {missed:?}");
}

#[test]
fn a_history_depends_on_its_seed_alone() {
    for seed in [3, 77] {
        let histories = [(); 2].map(|()| run(seed, None).expect("clean"));
        let steps = histories.each_ref().map(|report| (report.steps, report.texts, report.elapsed));
        assert_eq!(steps[0], steps[1]);
    }
}

#[test]
fn every_bug_that_can_be_switched_on_is_found() {
    for mutation in Mutation::ALL {
        let found = (0..SEEDS_TO_FIND).find(|seed| run(*seed, Some(mutation)).is_err());
        assert!(found.is_some(), "{mutation:?} is not found within {SEEDS_TO_FIND} histories");
    }
}
