//! Settings of the runtime: what can be set, between which bounds, and where a wrong value stands.
//!
//! Every key is declared once, in the file of its group: its type, default, unit, allowed range and
//! the reason it exists. From that declaration come the struct field, the checks, the error
//! messages, [`Config::describe`] and the committed `config/forebay.toml`.
//!
//! Settings are taken in this order, later ones winning: the defaults, the TOML file, environment
//! variables named `FOREBAY_<GROUP>__<KEY>` (two underscores; `FOREBAY_BATCH__TOKENS_MAX=4096`).
//! Variables without a double underscore (`FOREBAY_WORKER`, `FOREBAY_ONNXRUNTIME`) are not settings
//! and are left alone here. Relative paths in a file count from the folder of that file, those in
//! variables and in code from the current directory of the process.
//!
//! This module never opens a model, a library or a device: it can say that a number is out of
//! range, not that a path holds the wrong thing.

mod canary;
mod check;
mod cross;
mod declare;
mod durations;
mod error;
mod events;
mod faults;
mod flow;
mod health;
mod hedge;
mod loading;
mod near;
mod process;
mod render;
mod server;
mod tracing;
mod value;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use canary::CanaryConfig;
pub use error::{ConfigError, Problem};
pub use events::EventsConfig;
pub use faults::FaultsConfig;
pub use flow::{
    AdmissionConfig, BatchConfig, ClassLimits, LanesConfig, LogConfig, MetricsConfig, ReplyConfig,
    TokenizeConfig,
};
pub use health::HealthConfig;
pub use hedge::HedgeConfig;
pub use process::{
    CpuConfig, CudaConfig, DevicesConfig, ModelConfig, ShutdownConfig, SupervisorConfig,
    WorkerConfig,
};
pub use server::{AuthConfig, CostConfig, LimitsConfig, ServerConfig, TlsConfig};
pub use tracing::TracingConfig;
pub use value::{
    CachePlace, CudaCopies, CudaGemm, CudaKernels, CudaPrecision, Device, DeviceMonitor, EventSync,
    Fallback, LaneWait, LogFormat, LogLevel, OtlpProtocol, Precision, Rungs, Tier,
};

use declare::Group;

/// Every setting of the runtime, grouped as in `config/forebay.toml`.
///
/// A value built in code is checked by [`Config::validate`]; one that was loaded has been checked.
///
/// ```
/// # use forebay::config::{BatchConfig, Config};
/// let config = Config {
///     batch: BatchConfig { tokens_max: 4096, ..BatchConfig::default() },
///     ..Config::default()
/// };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[model]`: which model is served.
    pub model: ModelConfig,
    /// `[devices]`: which rungs the ladder has.
    pub devices: DevicesConfig,
    /// `[worker]`: the worker processes.
    pub worker: WorkerConfig,
    /// `[cpu]`: the CPU engine.
    pub cpu: CpuConfig,
    /// `[cuda]`: the CUDA engine.
    pub cuda: CudaConfig,
    /// `[lanes]`: the bounded lanes between stages.
    pub lanes: LanesConfig,
    /// `[admission]`: how much may be waiting, per priority class.
    pub admission: AdmissionConfig,
    /// `[tokenize]`: text to token ids.
    pub tokenize: TokenizeConfig,
    /// `[batch]`: how requests are put together.
    pub batch: BatchConfig,
    /// `[reply]`: what is checked before an answer leaves.
    pub reply: ReplyConfig,
    /// `[hedge]`: late batches and second runs.
    pub hedge: HedgeConfig,
    /// `[canary]`: known answers.
    pub canary: CanaryConfig,
    /// `[supervisor]`: restarts of failed workers.
    pub supervisor: SupervisorConfig,
    /// `[health]`: the state of the devices.
    pub health: HealthConfig,
    /// `[shutdown]`: the graceful end.
    pub shutdown: ShutdownConfig,
    /// `[faults]`: faults on purpose.
    pub faults: FaultsConfig,
    /// `[events]`: the event log.
    pub events: EventsConfig,
    /// `[metrics]`: where measurements go.
    pub metrics: MetricsConfig,
    /// `[log]`: what is logged.
    pub log: LogConfig,
    /// `[tracing]`: traces of requests.
    pub tracing: TracingConfig,
    /// `[server]`: where the daemon listens.
    pub server: ServerConfig,
    /// `[tls]`: TLS of the daemon.
    pub tls: TlsConfig,
    /// `[auth]`: who may ask the daemon.
    pub auth: AuthConfig,
    /// `[limits]`: how much a client of the daemon may take.
    pub limits: LimitsConfig,
    /// `[cost]`: what the machine costs.
    pub cost: CostConfig,
}

/// The declared groups, in the order of `config/forebay.toml`.
static GROUPS: [&Group; 25] = [
    &ModelConfig::GROUP,
    &DevicesConfig::GROUP,
    &WorkerConfig::GROUP,
    &CpuConfig::GROUP,
    &CudaConfig::GROUP,
    &LanesConfig::GROUP,
    &AdmissionConfig::GROUP,
    &TokenizeConfig::GROUP,
    &BatchConfig::GROUP,
    &ReplyConfig::GROUP,
    &HedgeConfig::GROUP,
    &CanaryConfig::GROUP,
    &SupervisorConfig::GROUP,
    &HealthConfig::GROUP,
    &ShutdownConfig::GROUP,
    &FaultsConfig::GROUP,
    &EventsConfig::GROUP,
    &MetricsConfig::GROUP,
    &LogConfig::GROUP,
    &TracingConfig::GROUP,
    &ServerConfig::GROUP,
    &TlsConfig::GROUP,
    &AuthConfig::GROUP,
    &LimitsConfig::GROUP,
    &CostConfig::GROUP,
];
