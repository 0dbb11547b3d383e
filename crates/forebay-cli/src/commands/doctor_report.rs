//! The findings of `forebay doctor` and how they are laid out.

use std::fmt::{self, Display, Write as _};

/// How a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    /// Worth knowing; everything works without it.
    Note,
    /// Something needed is broken.
    Broken,
}

struct Finding {
    state: State,
    what: &'static str,
    found: String,
    help: Option<String>,
}

/// Findings in sections.
#[derive(Default)]
pub(super) struct Report {
    sections: Vec<(&'static str, Vec<Finding>)>,
}

impl Report {
    /// Begins a section.
    pub(super) fn section(&mut self, title: &'static str) {
        self.sections.push((title, Vec::new()));
    }

    /// Something is as it should be.
    pub(super) fn ok(&mut self, what: &'static str, found: impl Display) {
        self.add(State::Ok, what, found.to_string(), None);
    }

    /// Something is not there or low, and need not be there.
    pub(super) fn note(&mut self, what: &'static str, found: impl Display, help: Option<&str>) {
        self.add(State::Note, what, found.to_string(), help.map(str::to_owned));
    }

    /// Something needed is broken.
    pub(super) fn broken(&mut self, what: &'static str, found: impl Display, help: Option<&str>) {
        self.add(State::Broken, what, found.to_string(), help.map(str::to_owned));
    }

    /// How many needed things are broken.
    pub(super) fn broken_count(&self) -> usize {
        let findings = self.sections.iter().flat_map(|(_, findings)| findings);
        findings.filter(|finding| finding.state == State::Broken).count()
    }

    fn add(&mut self, state: State, what: &'static str, found: String, help: Option<String>) {
        if self.sections.is_empty() {
            self.section("");
        }
        if let Some((_, findings)) = self.sections.last_mut() {
            findings.push(Finding { state, what, found, help });
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, findings) in &self.sections {
            writeln!(f, "{title}")?;
            for Finding { state, what, found, help } in findings {
                let state = match state {
                    State::Ok => "ok",
                    State::Note => "note",
                    State::Broken => "BROKEN",
                };
                // Further lines of a finding stand below its first one.
                let found = found.replace('\n', &format!("\n{:28}", ""));
                writeln!(f, "  {state:<7} {what:<18}{found}")?;
                if let Some(help) = help {
                    writeln!(f, "{:28}help: {help}", "")?;
                }
            }
            f.write_char('\n')?;
        }
        match self.broken_count() {
            0 => writeln!(f, "everything needed is there and works"),
            1 => writeln!(f, "1 thing needed is broken"),
            count => writeln!(f, "{count} things needed are broken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_counts_as_broken() {
        let mut report = Report::default();
        report.section("a");
        report.ok("x", 1);
        report.note("y", "none", Some("get one"));
        assert_eq!(report.broken_count(), 0);
        assert!(report.to_string().ends_with("everything needed is there and works\n"));
        report.broken("z", "gone\nreally", Some("look for it"));
        assert_eq!(report.broken_count(), 1);
        let text = report.to_string();
        assert!(text.contains("help: look for it"), "{text}");
        assert!(text.ends_with("1 thing needed is broken\n"), "{text}");
    }
}
