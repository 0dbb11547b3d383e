//! The types that settings have beyond numbers and switches, and how they are written in TOML.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares an enum whose variants are words of the file, with the list of the words.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        $Name:ident { $( $(#[doc = $variant_doc:literal])+ $Variant:ident = $word:literal, )+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $Name {
            $( $(#[doc = $variant_doc])+ #[serde(rename = $word)] $Variant, )+
        }

        impl $Name {
            /// Every word that may be written.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word for this value, as written in the file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$Variant => $word, )+ }
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $Name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $( $word => Ok(Self::$Variant), )+
                    _ => Err(format!("`{text}` is not one of {}", Self::WORDS.join(", "))),
                }
            }
        }
    };
}

words! {
    /// Arithmetic of the CPU engine.
    Precision {
        /// 32-bit floating point: the reference results.
        F32 = "f32",
        /// Weights quantised to 8 bits when the model is loaded.
        Int8 = "int8",
    }
}

words! {
    /// Arithmetic of the CUDA engine.
    CudaPrecision {
        /// What fits the model's weights.
        Auto = "auto",
        /// IEEE half precision.
        F16 = "f16",
        /// bfloat16: less exact, with the range of 32-bit floating point.
        Bf16 = "bf16",
    }
}

words! {
    /// Who multiplies matrices on the GPU.
    CudaGemm {
        /// Whatever is there and fits the device.
        Auto = "auto",
        /// The cuBLASLt library.
        CublasLt = "cublaslt",
        /// Forebay's own kernels.
        Native = "native",
    }
}

words! {
    /// Where the kernels of the CUDA engine come from.
    CudaKernels {
        /// Compiled with NVRTC if it is there, else what is built in.
        Auto = "auto",
        /// Compiled for the device with NVRTC.
        Nvrtc = "nvrtc",
        /// What is built in, translated by the driver.
        Ptx = "ptx",
    }
}

words! {
    /// How token ids and rows get to the GPU and back.
    CudaCopies {
        /// What suits the device and the size of the batch.
        Auto = "auto",
        /// Copied by the copy engines.
        Copy = "copy",
        /// Read and written by the kernels where they are, in host memory.
        Mapped = "mapped",
    }
}

words! {
    /// What answers when no configured rung does.
    Fallback {
        /// A CPU worker, kept warm.
        Cpu = "cpu",
        /// Nothing: the level is `Down` until a rung is back.
        None = "none",
    }
}

words! {
    /// Whether the state of the devices is watched.
    DeviceMonitor {
        /// While there is a rung on a GPU.
        Auto = "auto",
        /// Never: no process for it is started.
        Off = "off",
    }
}

words! {
    /// How a stage waits for its next message.
    LaneWait {
        /// Sleeps until woken: no processor time while idle.
        Park = "park",
        /// Polls for `spin_us` first, then sleeps: lower latency for one busy core.
        Spin = "spin",
    }
}

words! {
    /// When the event log waits for the disk.
    EventSync {
        /// After each group of events that is written.
        Each = "each",
        /// Never: what the system has not written yet is lost with the power.
        None = "none",
    }
}

words! {
    /// The least severe event that is still logged.
    LogLevel {
        /// Nothing is logged.
        Off = "off",
        /// Failures that lost something or need a person.
        Error = "error",
        /// What was survived, such as a restarted worker.
        Warn = "warn",
        /// Start, stop and changes of level.
        Info = "info",
        /// Batches.
        Debug = "debug",
        /// Requests.
        Trace = "trace",
    }
}

words! {
    /// How a log line is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line, for collectors.
        Json = "json",
    }
}

words! {
    /// How traces are sent to a collector.
    OtlpProtocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP over HTTP, as protobuf.
        HttpProtobuf = "http/protobuf",
    }
}

/// A device that can hold a rung of the ladder: `cpu`, or `cuda:N` with N from 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The CUDA device with this index.
    Cuda(u32),
}

impl Device {
    /// Highest CUDA index that is accepted.
    pub const CUDA_INDEX_MAX: u32 = 63;
}

/// How fast a rung is, roughly: ordinary work goes to the serving rungs of the best tier only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Rungs on the processor.
    Cpu,
    /// Rungs on a GPU.
    Gpu,
}

impl Device {
    /// The tier of a rung on this device.
    #[must_use]
    pub const fn tier(self) -> Tier {
        match self {
            Self::Cpu => Tier::Cpu,
            Self::Cuda(_) => Tier::Gpu,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        text.strip_prefix("cuda:")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|index| *index <= Self::CUDA_INDEX_MAX)
            .map(Self::Cuda)
            .ok_or_else(|| {
                format!(
                    "`{text}` is not a device; write `cpu` or `cuda:N` with N from 0 to {}",
                    Self::CUDA_INDEX_MAX
                )
            })
    }
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The threads of a setting, of which 0 leaves the number to what the machine's cores are good for.
pub(super) fn thread_count(threads: u32, for_cores: fn(usize) -> usize) -> usize {
    match threads {
        0 => for_cores(std::thread::available_parallelism().map_or(1, usize::from)),
        threads => threads as usize,
    }
}

/// Which devices the ladder's rungs use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rungs {
    /// Every device that is found and that this build can drive.
    #[default]
    Auto,
    /// These, best first.
    Listed(Vec<Device>),
}

impl FromStr for Rungs {
    type Err = String;

    /// `auto`, or devices separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Self::Listed)
    }
}

impl Serialize for Rungs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Listed(devices) => devices.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Rungs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            List(Vec<Device>),
        }
        match Written::deserialize(deserializer)? {
            Written::Word(text) => text.parse().map_err(serde::de::Error::custom),
            Written::List(devices) => Ok(Self::Listed(devices)),
        }
    }
}

/// Where things are kept that can be made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CachePlace {
    /// `forebay` in the user's cache folder: `$XDG_CACHE_HOME`, else `~/.cache`.
    #[default]
    Auto,
    /// Nothing is kept.
    None,
    /// This folder.
    At(std::path::PathBuf),
}

impl Serialize for CachePlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::None => serializer.serialize_str(""),
            Self::At(path) => path_text::serialize(path, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CachePlace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match String::deserialize(deserializer)?.as_str() {
            "auto" => Self::Auto,
            "" => Self::None,
            path => Self::At(path.into()),
        })
    }
}

/// A path in TOML: text, with `""` for "not set". A name that is not UTF-8 can only come from code;
/// it is shown with replacement characters.
pub(super) mod path_text {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&path.to_string_lossy())
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        String::deserialize(deserializer).map(PathBuf::from)
    }
}

/// As [`path_text`], for a path that may be absent.
pub(super) mod optional_path_text {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::path_text::serialize(path.as_deref().unwrap_or(Path::new("")), serializer)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        String::deserialize(deserializer)
            .map(|text| if text.is_empty() { None } else { Some(PathBuf::from(text)) })
    }
}

/// A value that is written as text, with `""` for none.
pub(super) mod optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::config) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_str(""),
        }
    }

    pub(in crate::config) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value = (!text.is_empty()).then(|| text.parse());
        value.transpose().map_err(serde::de::Error::custom)
    }
}

/// As [`path_text`], for several paths.
pub(super) mod path_list_text {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::config) fn serialize<S: Serializer>(
        paths: &[PathBuf],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        Vec::<PathBuf>::deserialize(deserializer)
    }
}
