//! The operator's cap on the level: what it takes out of service, what steps in, what comes back.

use super::*;

#[test]
fn a_cap_holds_whatever_falls_and_comes_back() {
    use WorkerState::{Backoff, Capped, Exited, Serving, Starting, Warming};
    let mut watched = Watched::new(1);
    watched.go_well(ms(1));
    watched.handle(Event::Capped(Some(Level::Gpu(1))));
    assert_eq!(watched.states, [Serving, Capped, Serving], "the worst gives way, at once");
    watched.crash(0);
    watched.go_well(ms(0));
    assert_eq!((watched.level, watched.states[1]), (Level::Gpu(1), Serving), "the spare steps in");
    watched.go_well(ms(100_000));
    assert_eq!(watched.states, [Capped, Serving, Serving], "it serves well, so it stays");
    watched.handle(Event::Capped(Some(Level::Cpu)));
    assert_eq!((watched.level, watched.states[2]), (Level::Cpu, Serving));
    watched.crash(2);
    assert_eq!(watched.level, Level::Down, "a cap is kept, also where it hurts");
    watched.go_well(ms(100_000));
    assert_eq!(watched.states, [Capped, Capped, Serving]);
    // A capped worker still shows that it computes right numbers.
    watched.handle(Event::Canary(watched.of(0), Err("bit 3 of row 1".to_owned())));
    assert_eq!(watched.states[0], Exited);
    watched.handle(Event::Capped(None));
    watched.go_well(ms(100_000));
    assert_eq!(watched.level, Level::Gpu(2));
    let could = |devices: &[Device], cap| Ladder::leaves_something(devices, Some(cap));
    assert!(could(&DEVICES, Level::Cpu) && could(&DEVICES[..2], Level::Gpu(1)));
    assert!(!could(&DEVICES[..2], Level::Cpu) && !could(&DEVICES, Level::Down));
    // A worker above the cap goes from its known answers straight to being capped: in between it
    // would get a share of the texts.
    watched.handle(Event::Capped(Some(Level::Cpu)));
    let before = watched.changes.len();
    watched.crash(0);
    watched.go_well(ms(100_000));
    let steps = watched.changes[before..].iter().filter(|change| change.id.slot == 0);
    let steps: Vec<_> = steps.map(|change| change.to).collect();
    assert_eq!(steps, [Exited, Backoff, Starting, Warming, Capped]);
}
