//! The best level of a target: which it is, and the wait for it.

use std::time::{Duration, Instant};

use forebay::Level;

use crate::driver::Driver;
use crate::error::SoakError;
use crate::targets::{Look, Target};

/// Time for the first look at a target.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Waits until a target is at its best level, and says which that is; `None` for a target that does
/// not tell.
pub(super) async fn best_level(
    driver: &Driver,
    expected: Option<Level>,
    wait_s: f64,
) -> Result<Option<Level>, SoakError> {
    let target = driver.target.as_ref();
    if !target.tells() {
        return Ok(None);
    }
    let until = Instant::now() + Duration::from_secs_f64(wait_s);
    loop {
        let look = first_look(target).await;
        let found = look.as_ref().map(|look| (look.level(), expected.unwrap_or(look.best_level())));
        match found {
            // Nothing that serves is nothing to test.
            Some((level, best)) if level >= best && best > Level::Down => return Ok(Some(best)),
            Some((_, best)) if driver.stop.is_set() => return Ok(Some(best)),
            Some((found, expected)) if Instant::now() >= until => {
                return Err(SoakError::NotBest { target: target.name(), found, expected, wait_s });
            }
            None if Instant::now() >= until || driver.stop.is_set() => {
                let reason = "it does not say how it is, so that no level can be judged".to_owned();
                return Err(SoakError::Unreachable { target: target.name(), reason });
            }
            _ => tokio::time::sleep(target.look_interval()).await,
        }
    }
}

/// A look at a target, if it gives any.
pub(super) async fn first_look(target: &dyn Target) -> Option<Look> {
    tokio::time::timeout(FIRST_LOOK, target.look()).await.ok().flatten()
}
