//! `forebay soak check`: judges histories without anything of the run that wrote them.

use std::fs::File;
use std::io::BufReader;

use super::args::CheckArgs;
use crate::failure::{Exit, Failure};
use crate::out::say;

/// Runs the command.
///
/// # Errors
/// A file that is no history; a broken promise.
pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let mut broken = 0;
    for path in &args.histories {
        let file = File::open(path).map_err(|error| Failure::reading(path.display(), &error))?;
        let verdict = forebay_checker::check(BufReader::new(file)).map_err(|error| {
            Failure::new(Exit::BadInput, format!("{}: {error}", path.display()))
        })?;
        let counts = &verdict.counts;
        say!(
            "{}: {} requests with {} texts, {} answered, {} errors, {} refused, {} not sent, \
             {} faults\n",
            path.display(),
            counts.requests,
            counts.texts,
            counts.answered,
            counts.errors,
            counts.refused,
            counts.unsent,
            counts.faults
        )?;
        for (promise, how) in &verdict.broken {
            say!("  broken {} times: {promise}\n", how.count)?;
        }
        if let Some(first) = verdict.first() {
            say!(
                "  the first: {}:{}: {}: {}\n",
                path.display(),
                first.line,
                first.promise,
                first.what
            )?;
            broken += 1;
        }
    }
    match broken {
        0 => Ok(()),
        broken => {
            let message = format!("{broken} of {} histories break a promise", args.histories.len());
            Err(Failure::new(Exit::PromiseBroken, message))
        }
    }
}
