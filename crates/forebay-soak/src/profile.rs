//! What a run does and what it must reach: a profile, as the files in `config/soak` have it.

mod objectives;

use std::collections::BTreeMap;
use std::path::Path;

use forebay::{Fault, Priority};
use serde::{Deserialize, Serialize};

use crate::error::SoakError;
use crate::schedule::Arrivals;

pub use objectives::Objectives;

/// The profiles that are part of the program.
pub const PROFILES: [(&str, &str); 4] = [
    ("smoke", include_str!("../../../config/soak/smoke.toml")),
    ("gate", include_str!("../../../config/soak/gate.toml")),
    ("hour", include_str!("../../../config/soak/hour.toml")),
    ("night", include_str!("../../../config/soak/night.toml")),
];

/// How requests are sent; the first four have the names of MLPerf Inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// One text after the other: the next is sent when the last is answered.
    SingleStream,
    /// Eight texts at a time, one such request after the other.
    MultiStream,
    /// Requests arrive when they will.
    Server,
    /// As many requests under way as `load.concurrency` says, all the time: the peak.
    Offline,
    /// As server, with faults, each of which has healed before the next.
    Soak,
    /// As server, with faults at their time whatever the state.
    Chaos,
}

impl Scenario {
    /// Whether requests are sent whether or not earlier ones are done.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Server | Self::Soak | Self::Chaos)
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in reports.
    pub name: String,
    /// How requests are sent.
    pub scenario: Scenario,
    /// Load before anything is measured, in seconds.
    pub warmup_s: f64,
    /// Load that is measured, in seconds, the quiet phase included.
    pub duration_s: f64,
    /// The last part of it, in which no fault is injected, in seconds.
    #[serde(default)]
    pub quiet_s: f64,
    /// The load.
    pub load: Load,
    /// The texts.
    #[serde(default)]
    pub texts: Texts,
    /// Classes of requests with their shares; one of class interactive if there is none.
    #[serde(default)]
    pub classes: Vec<Class>,
    /// Faults; none if the table is missing.
    #[serde(default)]
    pub faults: Option<Faults>,
    /// What must be reached.
    #[serde(default)]
    pub objectives: Objectives,
    /// What is a leak.
    #[serde(default)]
    pub leak: Leak,
    /// What the harness allows itself.
    #[serde(default)]
    pub harness: Harness,
}

/// The load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// When requests arrive, in the open scenarios.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Requests under way, in scenario offline.
    #[serde(default = "Load::concurrency")]
    pub concurrency: u32,
    /// Texts of one request; eight in scenario `multi_stream` if it is left out, else one.
    #[serde(default)]
    pub texts_per_request: Option<u32>,
    /// Requests that are sent and not answered, beyond which a due one is not sent but counted.
    #[serde(default = "Load::outstanding_max")]
    pub outstanding_max: u32,
    /// Connections to a server. A request that is due while all are taken waits for one, and that
    /// wait is part of its latency.
    #[serde(default = "Load::connections_max")]
    pub connections_max: u32,
    /// A request that has no connection after this time is not sent and counts as refused, in
    /// milliseconds.
    #[serde(default = "Load::connection_wait_ms")]
    pub connection_wait_ms: u64,
    /// A request without a deadline that is not answered after this time is lost, in milliseconds. It
    /// must be more than the target may take while nothing serves (`admission.down_grace_ms`).
    #[serde(default = "Load::reply_wait_ms")]
    pub reply_wait_ms: u64,
}

impl Load {
    fn concurrency() -> u32 {
        64
    }
    fn outstanding_max() -> u32 {
        20_000
    }
    fn connections_max() -> u32 {
        64
    }
    fn connection_wait_ms() -> u64 {
        90_000
    }
    fn reply_wait_ms() -> u64 {
        90_000
    }
}

/// The texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Texts {
    /// Different texts.
    pub count: u32,
    /// Half of the texts have fewer words.
    pub words_median: f64,
    /// No text has more words.
    pub words_max: u32,
}

impl Default for Texts {
    fn default() -> Self {
        Self { count: 256, words_median: 12.0, words_max: 120 }
    }
}

impl Profile {
    /// The same for a server that another is compared with: it takes no faults, and what its processes
    /// need is no part of the verdict.
    #[must_use]
    pub fn beside(&self) -> Self {
        let leak = Leak { required: Vec::new(), ..self.leak.clone() };
        Self { faults: None, leak, ..self.clone() }
    }
}

/// Requests of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Their priority, where the target knows such a thing.
    pub priority: Priority,
    /// Their share of all requests; shares are scaled to 1.
    pub share: f64,
    /// Their deadline in milliseconds, where the target knows such a thing; 0 is none.
    #[serde(default)]
    pub deadline_ms: u64,
}

/// Faults by seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Which, as `forebay drill` names them; each as likely as any other.
    pub kinds: Vec<String>,
    /// Shortest time from one to the next, and, except in scenario `chaos`, from when one has healed to
    /// the next, in seconds.
    pub gap_min_s: f64,
    /// Longest time from one to the next, in seconds.
    pub gap_max_s: f64,
    /// How long a fault lasts that does not end by itself, in seconds.
    #[serde(default = "Faults::lasts_s")]
    pub lasts_s: f64,
    /// Share of the faults that strike all devices of the best tier at once.
    #[serde(default)]
    pub all_share: f64,
    /// Time within which the best level must be back after a fault, in seconds.
    pub heal_within_s: f64,
    /// Restarts within its window that the runtime takes for normal: faults on purpose should not
    /// put a device into quarantine. For the library as target.
    #[serde(default = "Faults::restarts_max")]
    pub restarts_max: u32,
    /// Longest probation of a worker that failed before, in milliseconds; it doubles with each
    /// failure. For the library as target.
    #[serde(default = "Faults::dwell_max_ms")]
    pub dwell_max_ms: u32,
}

impl Faults {
    fn lasts_s() -> f64 {
        3.0
    }
    fn restarts_max() -> u32 {
        1000
    }
    fn dwell_max_ms() -> u32 {
        5000
    }
}

/// What is a leak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leak {
    /// Time between two looks at the processes, in seconds.
    pub sample_s: f64,
    /// Share of a process's samples that is left out at its start.
    pub settle_share: f64,
    /// Samples that a process must have to be judged, after those.
    pub samples_min: u32,
    /// Time that they must cover, in seconds: what a process takes as it begins its work is no slope.
    pub seconds_min: f64,
    /// Processes, by what they do, of which one at least must have been judged: that nothing was seen
    /// is no pass. Empty where they cannot be seen, as on another machine.
    pub required: Vec<String>,
    /// Growth of a process's memory that is a leak if the interval of the slope excludes zero, in
    /// MiB per hour.
    pub growth_mib_per_hour_max: f64,
    /// The same in bytes per request, so that a leak is one at any rate.
    pub growth_bytes_per_request_max: f64,
    /// The same as the share of the machine's memory that 30 days of it would take.
    pub growth_ram_share_max: f64,
    /// Growth over the judged time that these two pass by, in MiB: what a heap takes now and then is no
    /// slope. It bounds what a short run can see.
    pub growth_mib_min: f64,
    /// Processes, descriptors, threads and memory mappings that may be more at rest after the run than before:
    /// by name; what is not named must return exactly.
    pub drift_max: BTreeMap<String, u64>,
}

impl Default for Leak {
    fn default() -> Self {
        Self {
            sample_s: 1.0,
            settle_share: 0.15,
            samples_min: 20,
            seconds_min: 20.0,
            required: vec!["host".to_owned()],
            growth_mib_per_hour_max: 600.0,
            growth_bytes_per_request_max: 256.0,
            growth_ram_share_max: 0.05,
            growth_mib_min: 2.0,
            drift_max: BTreeMap::new(),
        }
    }
}

/// What the harness allows itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Harness {
    /// A request sent this much later than it could be was late (ms); less where an objective is.
    pub lag_ms_max: f64,
    /// Highest share of the requests that may be sent late, and of the time for which the harness
    /// may stand still; beyond, the result is void.
    pub lag_share_max: f64,
    /// Time beyond its deadline within which a reply must be there, in milliseconds.
    pub slack_ms: u64,
    /// Different vectors that are kept for the checker. A target whose answers depend on the batch
    /// gives ever new ones.
    pub vectors_max: u32,
    /// Size of the history in MiB; one that would be larger ends the run.
    pub history_mib_max: u64,
    /// Time within which the target must be at its best level before the load, in seconds.
    pub level_wait_s: f64,
    /// Time without load before counters are read at rest, in seconds.
    pub rest_s: f64,
}

impl Default for Harness {
    fn default() -> Self {
        Self {
            lag_ms_max: 50.0,
            lag_share_max: 0.01,
            slack_ms: 250,
            vectors_max: 1_000_000,
            history_mib_max: 16 * 1024,
            level_wait_s: 60.0,
            rest_s: 2.0,
        }
    }
}

impl Profile {
    /// A profile by the name of one that is part of the program, or from a file.
    ///
    /// # Errors
    /// There is no such profile, or it makes no sense.
    pub fn load(name: &str) -> Result<Self, SoakError> {
        if let Some((_, text)) = PROFILES.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        if !path.is_file() {
            let known: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
            return Err(SoakError::Usage(format!(
                "there is no profile {name}; name a file, or one of {}",
                known.join(", ")
            )));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| SoakError::file("cannot read the profile", path, error))?;
        Self::parse(name, &text)
    }

    /// A profile from its text; `name` stands in errors.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self, SoakError> {
        let profile: Self = toml::from_str(text)
            .map_err(|error| SoakError::Usage(format!("profile {name}: {error}")))?;
        profile.check()?;
        Ok(profile)
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), SoakError> {
        let wrong = |message: String| Err(SoakError::Usage(message));
        let positive = [
            ("duration_s", self.duration_s),
            ("harness.level_wait_s", self.harness.level_wait_s),
            ("leak.sample_s", self.leak.sample_s),
            ("texts.words_median", self.texts.words_median),
        ];
        if let Some((name, value)) =
            positive.iter().find(|(_, value)| !value.is_normal() || *value <= 0.0)
        {
            return wrong(format!("{name} is {value}; it must be more than 0"));
        }
        if !(self.warmup_s >= 0.0 && self.quiet_s >= 0.0 && self.quiet_s <= self.duration_s) {
            return wrong(
                "warmup_s and quiet_s must be 0 or more, quiet_s at most duration_s".into(),
            );
        }
        match (&self.load.arrivals, self.scenario.is_open()) {
            (None, true) => return wrong("load.arrivals is missing: an open loop needs it".into()),
            (Some(arrivals), _) => arrivals.check()?,
            _ => {}
        }
        let counts = [
            ("load.concurrency", self.load.concurrency),
            ("load.outstanding_max", self.load.outstanding_max),
            ("load.connections_max", self.load.connections_max),
            ("texts.count", self.texts.count),
            ("load.texts_per_request", self.texts_per_request()),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return wrong(format!("{name} is 0; it must be 1 or more"));
        }
        let shares = self.classes.iter().map(|class| class.share);
        if shares.clone().any(|share| !share.is_finite() || share < 0.0)
            || (!self.classes.is_empty() && shares.sum::<f64>() <= 0.0)
        {
            return wrong(
                "the shares of classes must be 0 or more, and more than 0 together".into(),
            );
        }
        if let Some(faults) = &self.faults {
            faults.parsed()?;
            if !(faults.gap_min_s >= 0.1 && faults.gap_max_s >= faults.gap_min_s) {
                return wrong("faults.gap_min_s must be 0.1 or more, gap_max_s no less".into());
            }
        }
        Ok(())
    }

    /// Texts of one request.
    #[must_use]
    pub fn texts_per_request(&self) -> u32 {
        let usual = if self.scenario == Scenario::MultiStream { 8 } else { 1 };
        self.load.texts_per_request.unwrap_or(usual)
    }

    /// The classes; one of class interactive if there is none.
    #[must_use]
    pub fn classes(&self) -> Vec<Class> {
        match self.classes.is_empty() {
            true => vec![Class { priority: Priority::Interactive, share: 1.0, deadline_ms: 0 }],
            false => self.classes.clone(),
        }
    }
}

impl Faults {
    /// The kinds as faults.
    ///
    /// # Errors
    /// A name that no fault has.
    pub fn parsed(&self) -> Result<Vec<Fault>, SoakError> {
        let parsed = self.kinds.iter().map(|kind| {
            kind.parse::<Fault>()
                .map_err(|error| SoakError::Usage(format!("faults.kinds: {error}")))
        });
        parsed.collect()
    }
}

#[cfg(test)]
mod tests;
