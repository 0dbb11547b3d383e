//! What must be there before anything is put together: model, devices, event log. Read beside each
//! other, off the caller's executor.

use std::sync::Arc;

use forebay_model::{ModelFolder, TextTokenizer};
use tokio::runtime::Handle;
use tokio::task::JoinError;

use super::{ModelInfo, launch};
use crate::config::{Config, ModelConfig};
use crate::error::StartError;
use crate::events::{
    EventHistory, EventLog, EventLogError, StandingQuarantine, standing_quarantines,
};
use crate::metrics::Metrics;

/// What a runtime is put together from.
pub(super) struct Opened {
    pub(super) plan: launch::Plan,
    pub(super) model: ModelInfo,
    pub(super) tokenizer: TextTokenizer,
    pub(super) metrics: Arc<Metrics>,
    pub(super) events: EventLog,
    /// What an earlier run left in quarantine.
    pub(super) quarantines: Vec<StandingQuarantine>,
}

/// Opens everything on threads of `handle`: reading and verifying a model takes a while and must not
/// hold up the caller's executor. Meanwhile the devices are looked for.
///
/// # Errors
/// [`StartError`] for whatever is not there or cannot be used.
pub(super) async fn open(config: Config, handle: Handle) -> Result<Opened, StartError> {
    let lost = |error: JoinError| StartError::Worker { reason: error.to_string() };
    let looking = config.clone();
    let devices = handle.spawn(async move { launch::devices(&looking).await });
    let (model, events) = (config.model.clone(), config.events.clone());
    let metrics = Arc::new(Metrics::new());
    let counting = Arc::clone(&metrics);
    let model = handle.spawn_blocking(move || OpenModel::open(&model));
    let log = handle.spawn_blocking(move || EventLog::open(&events, counting));
    let OpenModel { folder, tokenizer } = model.await.map_err(lost)??;
    let (events, history) = match log.await.map_err(lost)? {
        Ok(opened) => opened,
        // Two runtimes on one log are a mistake of whoever started them.
        Err(error @ EventLogError::InUse { .. }) => return Err(error.into()),
        Err(error) => {
            // What serves matters more than what is written of it.
            tracing::error!("events are kept in memory only: {error}");
            (EventLog::in_memory(&config.events, Arc::clone(&metrics)), EventHistory::default())
        }
    };
    let quarantines = standing_quarantines(&history.events, events.boot());
    let plan = launch::plan(&config, &folder, &tokenizer, devices.await.map_err(lost)?)?;
    let model = ModelInfo::of(&folder);
    Ok(Opened { plan, model, tokenizer, metrics, events, quarantines })
}

/// A model folder that can be served.
struct OpenModel {
    folder: ModelFolder,
    tokenizer: TextTokenizer,
}

impl OpenModel {
    fn open(model: &ModelConfig) -> Result<Self, StartError> {
        let folder = match model.verify_manifest {
            true => ModelFolder::open(&model.path)?,
            false => ModelFolder::open_unverified(&model.path)?,
        };
        let tokenizer = folder.tokenizer()?;
        Ok(Self { folder, tokenizer })
    }
}
