//! What must be there before anything is put together: model, devices, event log. Read beside each
//! other, off the caller's executor.

use std::sync::Arc;

use forebay_model::{ModelFolder, TextTokenizer};
use tokio::runtime::Handle;
use tokio::task::JoinError;

use super::{ModelInfo, launch};
use crate::config::{Config, ModelConfig};
use crate::error::StartError;
use crate::events::{EventLog, EventLogError, StandingQuarantine, standing_quarantines};
use crate::metrics::Metrics;
use crate::supervisor::Level;

/// What a runtime is put together from.
pub(super) struct Opened {
    pub(super) plan: launch::Plan,
    pub(super) model: ModelInfo,
    pub(super) tokenizer: TextTokenizer,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: EventLog,
    /// What an earlier run left in quarantine.
    pub(super) quarantines: Vec<StandingQuarantine>,
    /// The operator's cap on the level.
    pub(super) pinned: Option<Level>,
}

/// What a runtime takes over from the one that it is started beside.
pub(super) struct Shared {
    pub(super) events: EventLog,
    /// The tokenizer of the model with this fingerprint.
    pub(super) tokenizer: (String, TextTokenizer),
    pub(super) metrics: Metrics,
    pub(super) pinned: Option<Level>,
}

/// Opens everything on threads of `handle`: reading and verifying a model takes a while and must not
/// hold up the caller's executor. Meanwhile the devices are looked for.
///
/// # Errors
/// [`StartError`] for whatever is not there or cannot be used.
pub(super) async fn open(
    config: Config,
    handle: Handle,
    shared: Option<Shared>,
) -> Result<Opened, StartError> {
    let lost = |error: JoinError| StartError::Worker { reason: error.to_string() };
    let looking = config.clone();
    let devices = handle.spawn(async move { launch::devices(&looking).await });
    let (model, events) = (config.model.clone(), config.events.clone());
    let (log, known, metrics, pinned) = match shared {
        None => (None, None, Metrics::new(), None),
        Some(Shared { events, tokenizer, metrics, pinned }) => {
            (Some(events), Some(tokenizer), metrics, pinned)
        }
    };
    let metrics = Arc::new(metrics);
    let counting = Arc::clone(&metrics);
    let model = handle.spawn_blocking(move || OpenModel::open(&model, known));
    let log = handle.spawn_blocking(move || match log {
        None => EventLog::open(&events, counting).map(|(log, history)| (log, history.events)),
        Some(log) => {
            let mut history = log.last_of_before_start().to_vec();
            history.extend(log.recent(usize::MAX));
            Ok((log, history))
        }
    });
    let OpenModel { folder, tokenizer } = model.await.map_err(lost)??;
    let (events, history) = match log.await.map_err(lost)? {
        Ok(opened) => opened,
        // Two runtimes on one log are a mistake of whoever started them.
        Err(error @ EventLogError::InUse { .. }) => return Err(error.into()),
        Err(error) => {
            // What serves matters more than what is written of it.
            tracing::error!("events are kept in memory only: {error}");
            (EventLog::in_memory(&config.events, Arc::clone(&metrics)), Vec::new())
        }
    };
    let quarantines = standing_quarantines(&history, events.boot());
    let plan = launch::plan(&config, &folder, &tokenizer, devices.await.map_err(lost)?)?;
    let model = ModelInfo::of(&folder);
    Ok(Opened { plan, model, tokenizer, metrics, events, quarantines, pinned })
}

/// A model folder that can be served.
struct OpenModel {
    folder: ModelFolder,
    tokenizer: TextTokenizer,
}

impl OpenModel {
    /// `known`: a tokenizer that is used again if it is that of these files, and their fingerprint.
    fn open(
        model: &ModelConfig,
        known: Option<(String, TextTokenizer)>,
    ) -> Result<Self, StartError> {
        let folder = match model.verify_manifest {
            true => ModelFolder::open(&model.path)?,
            false => ModelFolder::open_unverified(&model.path)?,
        };
        let known = known.filter(|(fingerprint, _)| fingerprint == folder.fingerprint());
        let tokenizer = match known {
            Some((_, tokenizer)) => tokenizer,
            None => folder.tokenizer()?,
        };
        Ok(Self { folder, tokenizer })
    }
}
