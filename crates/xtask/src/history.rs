//! `check-history`: judges what a drill's clients have written down, by itself. It shares no code
//! with the runtime nor with the drill: the format of the files is read here a second time, and what
//! is right is said here a second time.
//!
//! A history is lines of comma-separated fields; times are microseconds.
//!
//! ```text
//! forebay-history,1
//! invoke,REQUEST,CLIENT,TEXT,SCHEDULED,AT    a text is about to be submitted
//! refused,REQUEST,AT,KIND                    it was not accepted
//! ok,REQUEST,AT,DIGEST                       an accepted one was answered with a vector
//! err,REQUEST,AT,KIND                        an accepted one was answered with an error
//! fault,AT,WHERE,FAULT                       a fault is about to be injected
//! end,AT                                     every reply is here, or was waited for long enough
//! ```
//! The answers are lines `TEXT,RUNG,DIGEST` below `forebay-answers,1`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::console::say;

/// Digests that are right, by text.
type Answers = HashMap<u64, HashSet<u64>>;

/// Checks every file and prints what it found.
///
/// # Errors
/// A file that cannot be read, or a history that breaks a promise.
pub(crate) fn check(files: &[PathBuf], answers: &Path) -> Result<()> {
    let known = read_answers(open(answers)?)
        .with_context(|| format!("{} is not a file of answers", answers.display()))?;
    let mut broken = 0;
    for file in files {
        let verdict = judge(open(file)?, &known)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        say(&format!("{}: {}", file.display(), verdict.counts.text()));
        for (kind, count) in &verdict.broken {
            say(&format!("  {count} x {kind}"));
        }
        if let Some((line, what)) = &verdict.first {
            say(&format!("  the first: {}:{line}: {what}", file.display()));
            broken += 1;
        }
    }
    ensure!(broken == 0, "{broken} of {} histories break a promise", files.len());
    say("every accepted request has one reply, and every vector is a known one");
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(BufReader::new(file))
}

/// What happened to one request.
struct Request {
    line: u64,
    text: u64,
    at: u64,
    outcome: Option<&'static str>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    invoked: u64,
    refused: u64,
    vectors: u64,
    errors: u64,
    faults: u64,
}

impl Counts {
    fn text(&self) -> String {
        let Self { invoked, refused, vectors, errors, faults } = self;
        format!(
            "{invoked} submitted, {refused} refused, {vectors} vectors, {errors} errors, {faults} faults"
        )
    }
}

/// What a history comes to.
#[derive(Debug, Default)]
struct Verdict {
    counts: Counts,
    /// How often each promise was broken.
    broken: BTreeMap<&'static str, u64>,
    /// The first line that breaks one, and how.
    first: Option<(u64, String)>,
}

impl Verdict {
    fn breaks(&mut self, promise: &'static str, line: u64, what: String) {
        *self.broken.entry(promise).or_default() += 1;
        if self.first.as_ref().is_none_or(|(first, _)| line < *first) {
            self.first = Some((line, format!("{promise}: {what}")));
        }
    }
}

// The promises, as a report names them.
const FORM: &str = "a line that is none of a history's";
const ONCE: &str = "a request submitted twice";
const ASKED: &str = "a reply to a request that was never submitted";
const ACCEPTED: &str = "a reply to a request that was refused";
const ONE_REPLY: &str = "a second reply";
const REPLY: &str = "an accepted request without a reply";
const KNOWN: &str = "a vector that no rung gives for its text";
const ORDER: &str = "times that run backwards";
const WHOLE: &str = "a history without its end";

/// Judges one history.
fn judge(mut input: impl BufRead, answers: &Answers) -> Result<Verdict> {
    let mut judge = Judge {
        answers,
        requests: HashMap::new(),
        verdict: Verdict::default(),
        last_at: 0,
        ended: false,
    };
    let (mut text, mut line) = (String::new(), 0);
    loop {
        text.clear();
        if input.read_line(&mut text)? == 0 {
            break;
        }
        line += 1;
        let whole = text.strip_suffix('\n');
        match whole {
            Some("forebay-history,1") if line == 1 => {}
            _ if line == 1 => {
                bail!("its first line is {:?}, not forebay-history,1", text.trim_end())
            }
            Some(whole) => judge.line(line, whole),
            None => judge.verdict.breaks(FORM, line, format!("{text:?} is cut off")),
        }
    }
    ensure!(line > 0, "it is empty");
    Ok(judge.finish(line))
}

struct Judge<'a> {
    answers: &'a Answers,
    requests: HashMap<u64, Request>,
    verdict: Verdict,
    last_at: u64,
    ended: bool,
}

impl Judge<'_> {
    fn line(&mut self, line: u64, text: &str) {
        if self.ended {
            self.verdict.breaks(FORM, line, format!("{text:?} stands behind the end"));
            return;
        }
        if self.event(line, text).is_none() {
            self.verdict.breaks(FORM, line, format!("{text:?}"));
        }
    }

    /// `None` for a line that cannot be read.
    fn event(&mut self, line: u64, text: &str) -> Option<()> {
        let fields: Vec<&str> = text.split(',').collect();
        match fields.as_slice() {
            ["invoke", request, client, text, scheduled, at] => {
                number(client)?;
                self.invoke(line, number(request)?, number(text)?, number(scheduled)?, number(at)?);
            }
            ["refused", request, at, kind] => {
                word(kind)?;
                if self.outcome(line, number(request)?, number(at)?, "refused").is_some() {
                    self.verdict.counts.refused += 1;
                }
            }
            ["ok", request, at, digest] => {
                let digest = digest_of(digest)?;
                if let Some(text) = self.outcome(line, number(request)?, number(at)?, "answered") {
                    self.verdict.counts.vectors += 1;
                    self.vector(line, text, digest);
                }
            }
            ["err", request, at, kind] => {
                word(kind)?;
                if self.outcome(line, number(request)?, number(at)?, "answered").is_some() {
                    self.verdict.counts.errors += 1;
                }
            }
            ["fault", at, place, fault] => {
                number(at)?;
                word(place)?;
                word(fault)?;
                self.verdict.counts.faults += 1;
            }
            ["end", at] => {
                let at = number(at)?;
                if at < self.last_at {
                    let what =
                        format!("the end is at {at}, and something happened at {}", self.last_at);
                    self.verdict.breaks(ORDER, line, what);
                }
                self.ended = true;
            }
            _ => return None,
        }
        Some(())
    }

    fn invoke(&mut self, line: u64, request: u64, text: u64, scheduled: u64, at: u64) {
        self.verdict.counts.invoked += 1;
        self.last_at = self.last_at.max(at);
        if at < scheduled {
            let what = format!("request {request} was due at {scheduled} and submitted at {at}");
            self.verdict.breaks(ORDER, line, what);
        }
        let new = Request { line, text, at, outcome: None };
        if let Some(before) = self.requests.insert(request, new) {
            let what = format!("request {request}, before that in line {}", before.line);
            self.verdict.breaks(ONCE, line, what);
        }
    }

    /// Notes how a request ended. Its text, unless there is no such request or it had ended.
    fn outcome(&mut self, line: u64, request: u64, at: u64, how: &'static str) -> Option<u64> {
        self.last_at = self.last_at.max(at);
        let Some(known) = self.requests.get_mut(&request) else {
            self.verdict.breaks(ASKED, line, format!("request {request}"));
            return None;
        };
        if at < known.at {
            let what = format!("request {request} was submitted at {} and {how} at {at}", known.at);
            self.verdict.breaks(ORDER, line, what);
        }
        if let Some(before) = known.outcome.replace(how) {
            let promise = if before == "refused" { ACCEPTED } else { ONE_REPLY };
            self.verdict.breaks(promise, line, format!("request {request} was {before} before"));
            return None;
        }
        Some(known.text)
    }

    fn vector(&mut self, line: u64, text: u64, digest: u64) {
        if !self.answers.get(&text).is_some_and(|known| known.contains(&digest)) {
            self.verdict.breaks(KNOWN, line, format!("text {text} and {digest:016x}"));
        }
    }

    fn finish(mut self, lines: u64) -> Verdict {
        if !self.ended {
            let what = "it was broken off, so that replies may be missing from it".to_owned();
            self.verdict.breaks(WHOLE, lines, what);
            return self.verdict;
        }
        let open = self.requests.iter().filter(|(_, request)| request.outcome.is_none());
        let mut open: Vec<(u64, u64)> =
            open.map(|(number, request)| (request.line, *number)).collect();
        open.sort_unstable();
        for (line, request) in open {
            self.verdict.breaks(REPLY, line, format!("request {request}"));
        }
        self.verdict
    }
}

fn read_answers(input: impl BufRead) -> Result<Answers> {
    let mut answers = Answers::new();
    let mut lines = input.lines().zip(1_u64..);
    match lines.next() {
        Some((Ok(head), _)) if head == "forebay-answers,1" => {}
        _ => bail!("its first line is not forebay-answers,1"),
    }
    for (text, line) in lines {
        let text = text?;
        let fields: Vec<&str> = text.split(',').collect();
        let parsed = match fields.as_slice() {
            [text, rung, digest] => word(rung).and(number(text).zip(digest_of(digest))),
            _ => None,
        };
        let (number, digest) = parsed.with_context(|| format!("line {line} is {text:?}"))?;
        answers.entry(number).or_default().insert(digest);
    }
    ensure!(!answers.is_empty(), "there is no answer in it");
    Ok(answers)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

fn digest_of(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

fn word(text: &str) -> Option<()> {
    (!text.is_empty()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERS: &str = "forebay-answers,1\n0,cuda:0,000000000000000a\n0,cpu,000000000000000b\n\
                           1,cpu,000000000000000c\n";
    const SOUND: &str = "forebay-history,1\n\
        invoke,1,0,0,100,101\ninvoke,2,1,1,100,102\ninvoke,3,0,0,110,111\n\
        ok,1,150,000000000000000b\nfault,160,cuda:0,slow=10\nrefused,3,112,overloaded\n\
        err,2,170,unavailable\nend,200\n";

    fn judged(history: &str) -> Verdict {
        judge(history.as_bytes(), &read_answers(ANSWERS.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_sound_history_breaks_nothing() {
        let verdict = judged(SOUND);
        assert_eq!(verdict.first, None);
        let counts = Counts { invoked: 3, refused: 1, vectors: 1, errors: 1, faults: 1 };
        assert_eq!(verdict.counts, counts);
    }

    /// Whether a history with one line changed breaks this promise alone, first in line `line`.
    fn assert_breaks(from: &str, to: &str, promise: &'static str, line: u64) {
        assert!(SOUND.contains(from), "{from}");
        let verdict = judged(&SOUND.replacen(from, to, 1));
        let broken: Vec<&str> = verdict.broken.keys().copied().collect();
        assert_eq!(broken, [promise], "{to}: {:?}", verdict.first);
        let (first, what) = verdict.first.unwrap();
        assert_eq!(first, line, "{what}");
        assert!(what.starts_with(promise), "{what}");
    }

    #[test]
    fn each_planted_error_is_found_where_it_is() {
        assert_breaks("err,2,170,unavailable\n", "", REPLY, 3);
        assert_breaks(
            "err,2,170",
            "err,2,170,unavailable\nok,2,171,000000000000000c\nfault,1,a",
            ONE_REPLY,
            9,
        );
        assert_breaks("end,", "ok,3,180,000000000000000a\nend,", ACCEPTED, 9);
        assert_breaks("end,", "ok,9,180,000000000000000a\nend,", ASKED, 9);
        assert_breaks("end,", "refused,9,180,overloaded\nend,", ASKED, 9);
        assert_breaks("00000000b", "00000000c", KNOWN, 5);
        assert_breaks("invoke,1,0,0,", "invoke,1,0,7,", KNOWN, 5);
        assert_breaks("ok,1,150", "ok,1,99", ORDER, 5);
        assert_breaks("invoke,3,0,0,110", "invoke,3,0,0,1100", ORDER, 4);
        assert_breaks("end,200", "end,20", ORDER, 9);
        assert_breaks("end,200\n", "", WHOLE, 8);
        assert_breaks("end,200", "end,200\nend,201", FORM, 10);
        assert_breaks("end,200\n", "end,200\nfau", FORM, 10);
        assert_breaks("fault,160", "fault,-1", FORM, 6);
        assert_breaks("invoke,3", "invoke,3,0,0,110,111\nrefused,3,111,x\ninvoke,3", ONCE, 6);
    }

    #[test]
    fn what_cannot_be_read_breaks_the_form() {
        for line in [
            "",
            "ok",
            "ok,1,150,b",
            "ok,1,150,000000000000000g",
            "ok,+1,150,000000000000000b",
            "err,2,170,",
            "invoke,4,0,0,1",
            "maybe,1,2,3",
            "ok,1,150,000000000000000b,",
        ] {
            let verdict = judged(&SOUND.replacen("end,", &format!("{line}\nend,"), 1));
            assert_eq!(verdict.broken, BTreeMap::from([(FORM, 1)]), "{line:?}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let known = read_answers(ANSWERS.as_bytes()).unwrap();
        assert!(judge("".as_bytes(), &known).is_err());
        assert!(judge(ANSWERS.as_bytes(), &known).is_err());
        for answers in ["", SOUND, "forebay-answers,1\n", "forebay-answers,1\n0,cpu\n"] {
            assert!(read_answers(answers.as_bytes()).is_err(), "{answers:?}");
        }
    }

    #[test]
    fn files_are_judged_each_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let answers = file("answers", ANSWERS);
        let sound = file("sound", SOUND);
        let lost = file("lost", &SOUND.replacen("ok,1,150,000000000000000b\n", "", 1));
        check(&[sound.clone(), sound.clone()], &answers).unwrap();
        let error = check(&[sound, lost], &answers).unwrap_err().to_string();
        assert!(error.contains("1 of 2"), "{error}");
    }
}
