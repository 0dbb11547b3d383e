//! From an address to what is tested.

use std::sync::Arc;

use forebay::Config;
use forebay::metrics::prometheus;
use forebay_soak::targets::{Address, Dialect, HttpTarget, LibraryTarget, Place, Server, Target};
use forebay_soak::{Profile, SoakError};

use super::args::SoakRun;
use crate::failure::Failure;

/// Something that is tested, until its end.
pub(super) enum Opened {
    Library(Arc<LibraryTarget>),
    Server(Arc<HttpTarget>),
}

impl Opened {
    pub(super) fn target(&self) -> Arc<dyn Target> {
        match self {
            Self::Library(target) => Arc::clone(target) as Arc<dyn Target>,
            Self::Server(target) => Arc::clone(target) as Arc<dyn Target>,
        }
    }

    /// Ends what was started for the run.
    pub(super) async fn end(self) {
        if let Self::Library(target) = self
            && let Some(target) = Arc::into_inner(target)
        {
            target.end().await;
        }
    }
}

/// Starts the library, or connects to a server; `is_first` for the one that the options are about.
pub(super) async fn open(
    address: &Address,
    args: &SoakRun,
    profile: &Profile,
    config: &Config,
    is_first: bool,
) -> Result<Opened, Failure> {
    match address {
        Address::Library => {
            let mut config = config.clone();
            if let Some(faults) = &profile.faults {
                config.faults.enabled = true;
                // Faults on purpose say nothing about the devices.
                config.supervisor.restarts_max = faults.restarts_max;
                config.supervisor.dwell_max_ms =
                    faults.dwell_max_ms.max(config.supervisor.dwell_min_ms);
            }
            config.validate()?;
            // Without its own recorder the library would report to none; one of another run holds.
            let metrics = match prometheus::installed() {
                Some(handle) => Some(handle.clone()),
                None => prometheus::install().ok(),
            };
            Ok(Opened::Library(Arc::new(LibraryTarget::start(config, metrics).await?)))
        }
        Address::Server { dialect, place } => {
            let key = args.key_file.as_ref().filter(|_| is_first);
            let key = key.map(|path| {
                std::fs::read_to_string(path)
                    .map(|key| key.trim().to_owned())
                    .map_err(|error| Failure::reading(path.display(), &error))
            });
            let server = Server {
                dialect: *dialect,
                place: place.clone(),
                admin: args.admin.clone().filter(|_| is_first).map(Place::Unix),
                key: key.transpose()?,
                model: args.model_name.clone(),
                authorities: args.ca.clone(),
                pid: args.target_pid.filter(|_| is_first),
                connections_max: profile.load.connections_max,
            };
            if profile.faults.is_some()
                && (server.admin.is_none() || server.dialect != Dialect::Native)
            {
                let message = "faults need a daemon in its own dialect and its operator's socket: \
                               name that with --admin PATH, or use --no-faults";
                return Err(SoakError::Usage(message.to_owned()).into());
            }
            Ok(Opened::Server(Arc::new(HttpTarget::connect(server).await?)))
        }
    }
}
