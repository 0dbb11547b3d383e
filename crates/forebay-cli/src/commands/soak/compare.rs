//! `forebay soak compare`: two reports beside each other.

use forebay_soak::Report;
use forebay_soak::report::compare;

use super::args::CompareArgs;
use crate::failure::{Exit, Failure};
use crate::out::say;

/// Runs the command.
///
/// # Errors
/// A file that is no report; a second report that is worse.
pub(super) fn run(args: &CompareArgs) -> Result<(), Failure> {
    let comparison = compare(&Report::read(&args.before)?, &Report::read(&args.after)?)?;
    if args.json {
        say!("{}\n", serde_json::to_string(&comparison).unwrap_or_default())?;
    } else {
        for caution in &comparison.cautions {
            say!("differs: {caution}\n")?;
        }
        say!("{:<22} {:>14} {:>14} {:>9}\n", "", "before", "after", "change")?;
        for row in &comparison.rows {
            let change = match row.before == 0.0 {
                true => String::new(),
                false => format!("{:+.1} %", (row.after / row.before - 1.0) * 100.0),
            };
            let worse = if row.is_worse { "  worse" } else { "" };
            let (name, before, after) = (row.name, row.before, row.after);
            say!("{name:<22} {before:>14.3} {after:>14.3} {change:>9}{worse}\n")?;
        }
    }
    match comparison.is_worse() {
        false => Ok(()),
        true => Err(Failure::new(Exit::Failed, "the second report is worse")),
    }
}
