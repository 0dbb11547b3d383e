//! What goes into a bundle: every file with its place, its source and its sum. Nothing is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use forebay::config::{CachePlace, Device, Fallback, Rungs};
use forebay::{Config, onnxruntime_library};
use forebay_model::{Manifest as ModelManifest, ModelFolder};

use super::sum::{sum_of, sum_of_bytes};
use super::{CONFIG, FILES_MAX, MANIFEST, Manifest, PROGRAM, is_plain, target};
use crate::failure::{Exit, Failure};

/// Files that are the same in every bundle.
const FIXED: [(&str, &str); 13] = [
    ("LICENSE", include_str!("../../../../LICENSE")),
    ("docs/api.md", include_str!("../../../../docs/api.md")),
    ("docs/daemon.md", include_str!("../../../../docs/daemon.md")),
    ("docs/device-health.md", include_str!("../../../../docs/device-health.md")),
    ("docs/event-log.md", include_str!("../../../../docs/event-log.md")),
    ("docs/http-metrics.md", include_str!("../../../../docs/http-metrics.md")),
    ("docs/metrics.md", include_str!("../../../../docs/metrics.md")),
    ("docs/reliability.md", include_str!("../../../../docs/reliability.md")),
    ("systemd/forebay.service", include_str!("../../../../config/systemd/forebay.service")),
    (
        "systemd/forebay.service.d/gpu.conf",
        include_str!("../../../../config/systemd/forebay.service.d/gpu.conf"),
    ),
    (
        "systemd/forebay.service.d/tcp.conf",
        include_str!("../../../../config/systemd/forebay.service.d/tcp.conf"),
    ),
    ("systemd/sysusers.conf", include_str!("../../../../config/systemd/sysusers.conf")),
    ("systemd/tmpfiles.conf", include_str!("../../../../config/systemd/tmpfiles.conf")),
];

/// The drop-in that makes the unit start the bundle's own program.
const DROP_IN: &str = "systemd/forebay.service.d/bundle.conf";

/// What the manifest of a model says of its origin if the model came without one.
const MODEL_SOURCE: &str = "the folder that was bundled, which had no manifest";

/// Where a file comes from.
#[derive(Debug)]
pub(super) enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// One file of a bundle.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) content: Content,
    pub(super) is_executable: bool,
    /// What it had when the plan was made.
    pub(super) sum: String,
    pub(super) bytes: u64,
}

/// Everything that goes in, by path: always in the same order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) entries: BTreeMap<String, Entry>,
    /// What is written about it.
    pub(crate) manifest: Manifest,
}

impl Plan {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes).sum()
    }

    fn add_bytes(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let (sum, length) = (sum_of_bytes(&bytes), bytes.len() as u64);
        let content = Content::Bytes(bytes);
        let entry = Entry { content, is_executable: false, sum, bytes: length };
        self.entries.insert(path.to_owned(), entry);
    }

    fn add_file(&mut self, path: &str, file: &Path, is_executable: bool) -> Result<(), Failure> {
        let read = File::open(file).and_then(sum_of);
        let (sum, bytes) = read.map_err(|error| Failure::reading(file.display(), &error))?;
        let content = Content::File(file.to_owned());
        self.entries.insert(path.to_owned(), Entry { content, is_executable, sum, bytes });
        Ok(())
    }

    fn add_model(&mut self, config: &Config) -> Result<String, Failure> {
        let source = &config.model.path;
        let folder = ModelFolder::open(source)?;
        let inside = format!("models/{}", folder.name());
        let found = ModelManifest::of_folder(source, MODEL_SOURCE)?;
        let own = source.join(ModelManifest::FILE_NAME);
        let mut files = found.files.clone();
        if own.is_file() {
            // Checked by opening the folder; it may list names that begin with a dot.
            files.extend(ModelManifest::read(&own)?.files);
            self.manifest.model_fingerprint = folder.fingerprint().to_owned();
            self.add_file(&format!("{inside}/{}", ModelManifest::FILE_NAME), &own, false)?;
        } else {
            let json = found.to_json().map_err(|error| {
                Failure::new(Exit::Failed, format!("the model's manifest cannot be made: {error}"))
            })?;
            self.manifest.model_fingerprint = found.fingerprint();
            self.add_bytes(&format!("{inside}/{}", ModelManifest::FILE_NAME), json);
        }
        for (name, digest) in files {
            let content = Content::File(source.join(&name));
            let (sum, bytes) = (digest.sha256, digest.bytes);
            let entry = Entry { content, is_executable: false, sum, bytes };
            self.entries.insert(format!("{inside}/{name}"), entry);
        }
        Ok(inside)
    }
}

/// Looks at everything that a bundle of these settings needs. The unit in it starts the bundle from
/// the folder `prefix`. `written` are the settings before relative paths were joined to a folder of this
/// machine.
///
/// # Errors
/// What is missing, damaged or cannot be named in a manifest.
pub(crate) fn plan(config: &Config, written: &Config, prefix: &str) -> Result<Plan, Failure> {
    if let Some((key, path)) = relative(written) {
        let message = format!("{key} is {:?}, a place on this machine only", path.display());
        return Err(Failure::new(Exit::Config, message)
            .help("a bundle has no such file: name the absolute path that it has on the vehicle"));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { version, target: target(), ..Manifest::default() };
    let mut plan = Plan { entries: BTreeMap::new(), manifest };
    for (path, text) in FIXED {
        plan.add_bytes(path, text);
    }
    plan.add_bytes(DROP_IN, drop_in(prefix)?);
    let program = std::env::current_exe()
        .map_err(|error| Failure::reading("the name of this program", &error))?;
    plan.add_file(PROGRAM, &program, true)?;
    let mut config = config.clone();
    config.cpu.onnxruntime = match wants_cpu(&config) {
        true => Some(add_library(&mut plan, &config, &program)?),
        false => None,
    };
    config.model.path = plan.add_model(&config)?.into();
    config.worker.program = None;
    plan.add_bytes(CONFIG, config.describe());
    if let Some(path) = plan.entries.keys().find(|path| !is_plain(path)) {
        let message = format!("{path:?} cannot be listed in a manifest");
        return Err(Failure::new(Exit::BadInput, message)
            .help("rename the file: no control characters and no backslash"));
    }
    if plan.entries.len() > FILES_MAX {
        let count = plan.entries.len();
        let message = format!("there are {count} files; a bundle has at most {FILES_MAX}");
        return Err(Failure::new(Exit::BadInput, message)
            .help("give the model's own folder, not one with others in it"));
    }
    let sums = plan.entries.iter().map(|(path, entry)| (path.clone(), entry.sum.clone()));
    plan.manifest.files = sums.collect();
    plan.add_bytes(MANIFEST, plan.manifest.to_text());
    Ok(plan)
}

/// The first setting that names something by a relative path and is not put into a bundle.
fn relative(config: &Config) -> Option<(&'static str, &Path)> {
    let Config { events, metrics, health, cuda, server, tls, auth, .. } = config;
    let mut named: Vec<(&str, &Path)> = vec![
        ("events.folder", &events.folder),
        ("server.socket", &server.socket),
        ("server.admin_socket", &server.admin_socket),
        ("tls.certificate", &tls.certificate),
        ("tls.key", &tls.key),
        ("tls.client_ca", &tls.client_ca),
        ("auth.key_hashes_file", &auth.key_hashes_file),
    ];
    let optional = [
        ("metrics.prometheus_file", &metrics.prometheus_file),
        ("health.nvml", &health.nvml),
        ("cuda.trace", &cuda.trace),
    ];
    named.extend(optional.iter().filter_map(|(key, path)| Some((*key, path.as_deref()?))));
    named.extend(cuda.libraries.iter().map(|path| ("cuda.libraries", path.as_path())));
    if let CachePlace::At(path) = &cuda.cache {
        named.push(("cuda.cache", path));
    }
    named.into_iter().find(|(_, path)| path.is_relative() && !path.as_os_str().is_empty())
}

/// Whether the settings have a rung that computes on the CPU.
fn wants_cpu(config: &Config) -> bool {
    config.devices.fallback == Fallback::Cpu
        || match &config.devices.rungs {
            Rungs::Auto => true,
            Rungs::Listed(devices) => devices.contains(&Device::Cpu),
        }
}

/// Puts ONNX Runtime in; gives its place.
fn add_library(plan: &mut Plan, config: &Config, program: &Path) -> Result<PathBuf, Failure> {
    let library = onnxruntime_library(config, program)?;
    let name = library.file_name().map(|name| name.to_string_lossy().into_owned());
    let path = format!("lib/{}", name.unwrap_or_default());
    plan.add_file(&path, &library, true)?;
    Ok(path.into())
}

fn drop_in(prefix: &str) -> Result<String, Failure> {
    let is_ordinary = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !prefix.starts_with('/') || !prefix.chars().all(is_ordinary) {
        let message = format!("{prefix:?} cannot be the folder of a bundle in a unit");
        return Err(Failure::new(Exit::Usage, message)
            .help("give an absolute path of letters, digits and ._- such as /opt/forebay"));
    }
    let prefix = prefix.trim_end_matches('/');
    Ok(format!(
        "# Starts the program of the bundle, unpacked to {prefix}.\n\n[Service]\nExecStart=\n\
         ExecStart={prefix}/{PROGRAM} serve --config {prefix}/{CONFIG}\n"
    ))
}
