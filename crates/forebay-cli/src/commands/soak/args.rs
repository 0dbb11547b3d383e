//! The options of `forebay soak`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use forebay::Level;
use forebay_soak::profile::Scenario;
use forebay_soak::targets::Address;

use crate::commands::drill::duration;
use crate::settings::Settings;

/// Keep a runtime under load and faults for minutes or a night, and judge it
///
/// Requests are sent when they are due, whether or not earlier ones are answered; latencies count from
/// when they were due. Every vector is compared with what the CPU computes in F32. Faults are drawn from
/// the seed. The report is PREFIX.html (one page that works offline), PREFIX.json and PREFIX.csv;
/// PREFIX.history has every request and reply, which a checker of its own judges.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
Profiles: smoke (2 minutes), gate (half an hour), hour, night, or a file like those in config/soak
Targets:  library, http://HOST:PORT, https://HOST:PORT, unix:PATH; with native+, openai+, tei+ or grpc+ before an address

Examples:
  forebay soak --profile smoke --seed 7 --report smoke
  forebay soak --profile hour --target unix:/run/forebay/forebay.sock --admin /run/forebay/admin.sock
  forebay soak --target http://127.0.0.1:8080 --beside tei+http://127.0.0.1:8081 --no-faults
  forebay soak --find-capacity --p99 50
  forebay soak compare before.json after.json

Exit codes:
  0    passed
  1    an objective was missed
  2    a promise was broken: a request lost or answered twice, a wrong vector, a late reply
  3    something leaks
  4    the best level did not come, or did not come back
  5    void: the harness could not keep up
  64   the command line or the profile is wrong
  65   a file is no history
  66   a file is missing
  69   the target cannot be reached
  74   a file cannot be written
  78   the configuration is wrong
  130  interrupted by SIGINT or SIGTERM; the report is partial"
)]
pub(crate) struct SoakArgs {
    #[command(subcommand)]
    pub(super) command: Option<SoakCommand>,
    #[command(flatten)]
    pub(super) run: SoakRun,
}

/// What else there is to do with reports and histories.
#[derive(Subcommand, Debug)]
pub(crate) enum SoakCommand {
    /// Compare two reports; ends with 1 if the second is worse
    Compare(CompareArgs),
    /// Judge histories; ends with 2 if a promise was broken
    Check(CheckArgs),
}

/// Options of `forebay soak compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// Report before, a .json file
    pub(super) before: PathBuf,
    /// Report after, a .json file
    pub(super) after: PathBuf,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Options of `forebay soak check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Histories
    #[arg(required = true)]
    pub(super) histories: Vec<PathBuf>,
}

/// Options of a run.
#[derive(Args, Debug)]
pub(crate) struct SoakRun {
    /// What to do and what to reach: the name of a profile, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "smoke")]
    pub(super) profile: String,
    /// What is tested
    #[arg(long, value_name = "TARGET", default_value = "library")]
    pub(super) target: Address,
    /// Another server that gets the same load afterwards, for comparison; may be repeated
    #[arg(long, value_name = "TARGET")]
    pub(super) beside: Vec<Address>,
    /// Operator's socket of the daemon that is tested, which takes faults
    #[arg(long, value_name = "PATH")]
    pub(super) admin: Option<PathBuf>,
    /// File with the key that the server asks for
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Option<PathBuf>,
    /// PEM file with the authorities that vouch for servers reached by https://
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Model to name in requests of the dialect of OpenAI
    #[arg(long, value_name = "NAME")]
    pub(super) model_name: Option<String>,
    /// Process of the server, if it is on this machine; that of a unix socket is found out
    #[arg(long, value_name = "PID")]
    pub(super) target_pid: Option<u32>,
    /// The server is on another machine: what its processes need is not judged
    #[arg(long)]
    pub(super) remote: bool,
    /// File with one text per line, instead of generated texts
    #[arg(long, value_name = "FILE")]
    pub(super) texts: Option<PathBuf>,
    /// Seed of texts, moments, requests and faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// File with faults, instead of those drawn from the seed: lines SECONDS DEVICE|all FAULT
    #[arg(long, value_name = "FILE", conflicts_with = "no_faults")]
    pub(super) faults: Option<PathBuf>,
    /// No faults
    #[arg(long)]
    pub(super) no_faults: bool,
    /// Another scenario than the profile's
    #[arg(long, value_name = "NAME")]
    pub(super) scenario: Option<ScenarioName>,
    /// Another mean rate than the profile's, in requests per second
    #[arg(long, value_name = "R")]
    pub(super) rate: Option<f64>,
    /// Another length of the measured part than the profile's
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) duration: Option<Duration>,
    /// By how much 1 - cosine of a right answer may differ from 0
    /// [default: what the arithmetic of the target needs]
    #[arg(long, value_name = "X")]
    pub(super) tolerance: Option<f64>,
    /// Find the highest rate at which the objectives are met; --duration is that of one probe
    #[arg(long)]
    pub(super) find_capacity: bool,
    /// Another objective for the 99th percentile than the profile's, in milliseconds
    #[arg(long = "p99", value_name = "MS")]
    pub(super) p99_ms: Option<f64>,
    /// Level at which the target is as it should be, such as cpu or gpu(2)
    /// [default: the one at which each of its workers serves]
    #[arg(long, value_name = "LEVEL")]
    pub(super) expect_level: Option<Level>,
    /// What the names of the report's files begin with
    #[arg(long, value_name = "PREFIX", default_value = "soak")]
    pub(super) report: PathBuf,
}

/// A scenario by its name on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ScenarioName {
    SingleStream,
    MultiStream,
    Server,
    Offline,
    Soak,
    Chaos,
}

impl ScenarioName {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl From<ScenarioName> for Scenario {
    fn from(name: ScenarioName) -> Self {
        match name {
            ScenarioName::SingleStream => Self::SingleStream,
            ScenarioName::MultiStream => Self::MultiStream,
            ScenarioName::Server => Self::Server,
            ScenarioName::Offline => Self::Offline,
            ScenarioName::Soak => Self::Soak,
            ScenarioName::Chaos => Self::Chaos,
        }
    }
}

/// Whether a variable of the environment changes what a run is; the configuration file has an option, and
/// who may use a daemon is nobody's business who reads a report.
fn is_replayed(name: &str) -> bool {
    name.starts_with("FOREBAY_") && name != "FOREBAY_CONFIG" && !name.starts_with("FOREBAY_AUTH__")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    // No argument and no variable holds the one byte that cannot be quoted.
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), Cow::into_owned)
}

impl SoakRun {
    /// The line that repeats this run, with what was left to its default where it decides, and with the
    /// variables of the environment that are Forebay's.
    pub(super) fn replay(
        &self,
        settings: &Settings,
        environment: impl Iterator<Item = (String, String)>,
    ) -> String {
        let mut words = vec!["forebay".to_owned(), "soak".to_owned()];
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([format!("--{name}"), value]);
            }
        };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        add("profile", Some(self.profile.clone()));
        add("seed", Some(self.seed.to_string()));
        add("target", Some(self.target.to_string()));
        for address in &self.beside {
            add("beside", Some(address.to_string()));
        }
        add("admin", path(&self.admin));
        add("key-file", path(&self.key_file));
        add("ca", path(&self.ca));
        add("model-name", self.model_name.clone());
        add("target-pid", self.target_pid.map(|pid| pid.to_string()));
        add("texts", path(&self.texts));
        add("faults", path(&self.faults));
        add("scenario", self.scenario.map(ScenarioName::name));
        add("rate", self.rate.map(|rate| rate.to_string()));
        add("duration", self.duration.map(|duration| format!("{}ms", duration.as_millis())));
        add("tolerance", self.tolerance.map(|tolerance| tolerance.to_string()));
        add("expect-level", self.expect_level.map(|level| level.to_string()));
        add("p99", self.p99_ms.map(|p99| p99.to_string()));
        let flags = [
            ("--no-faults", self.no_faults),
            ("--find-capacity", self.find_capacity),
            ("--remote", self.remote),
        ];
        words
            .extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name).to_owned()));
        words.extend(settings.replay());
        let mut set: Vec<(String, String)> =
            environment.filter(|(name, _)| is_replayed(name)).collect();
        set.sort();
        let set = set.into_iter().map(|(name, value)| format!("{name}={}", quoted(&value)));
        set.chain(words.iter().map(|word| quoted(word))).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: SoakRun,
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn the_line_that_repeats_a_run_is_read_again_as_what_it_was() {
        let given = [
            "soak",
            "--profile",
            "my profile.toml",
            "--seed",
            "7",
            "--target",
            "unix:/run/a b.sock",
            "--beside",
            "tei+http://127.0.0.1:80",
            "--admin",
            "/run/it's.sock",
            "--target-pid",
            "42",
            "--texts",
            "$HOME/texts",
            "--expect-level",
            "gpu(1)",
            "--duration",
            "90s",
            "--rate",
            "2.5",
            "--no-faults",
            "--remote",
            "--model",
            "a model",
            "--device",
            "cuda:0,cpu",
        ];
        let line = Line::parse_from(given);
        let set = [
            ("FOREBAY_LANES__WAIT", "spin"),
            ("FOREBAY_AUTH__KEY_HASHES", "secret"),
            ("FOREBAY_WORKER", "/my worker"),
            ("HOME", "/root"),
        ];
        let set = || set.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter();
        let replayed = line.run.replay(&line.settings, set());
        let words = shlex::split(&replayed).unwrap();
        assert_eq!(
            words[..3],
            ["FOREBAY_LANES__WAIT=spin", "FOREBAY_WORKER=/my worker", "forebay"]
        );
        let again = Line::parse_from(&words[3..]);
        assert_eq!(again.run.replay(&again.settings, set()), replayed);
        assert_eq!(format!("{:?}", again.run), format!("{:?}", line.run));
    }
}
