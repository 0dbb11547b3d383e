//! Measured plans on disk: one small JSON file for each kind of device and set of libraries.
//!
//! A file that cannot be read or that says anything unexpected is not used at all. It is replaced
//! as a whole, by renaming a finished file over it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::GemmShape;
use super::tune::Tuned;
use crate::edge::DeviceInfo;
use crate::edge::lt::Algorithm;

/// Version of the file's form.
const FORMAT: u32 = 1;
/// Largest file that is read: some 20,000 plans.
const BYTES_MAX: u64 = 8 << 20;

/// What measured times hold for. Another device of the same kind may use the same file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeviceKey {
    name: String,
    capability: (u32, u32),
    multiprocessors: u32,
    driver: u32,
    cublaslt: String,
}

impl DeviceKey {
    pub(super) fn new(info: &DeviceInfo, driver: u32, cublaslt: &str) -> Self {
        Self {
            name: info.name.clone(),
            capability: info.capability,
            multiprocessors: info.multiprocessors,
            driver,
            cublaslt: cublaslt.to_owned(),
        }
    }

    /// The name of the file for this key.
    fn file_name(&self) -> String {
        let text = format!("{self:?}");
        let digest = Sha256::digest(text.as_bytes());
        let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("gemm-sm{}{}-{hash}.json", self.capability.0, self.capability.1)
    }
}

/// The plans of one key.
#[derive(Debug)]
pub(super) struct Store {
    path: Option<PathBuf>,
    key: DeviceKey,
    plans: BTreeMap<GemmShape, Tuned>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    device: DeviceKey,
    plans: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    shape: GemmShape,
    /// The algorithm's eight words, 16 hexadecimal digits each.
    algorithm: String,
    time_us: f64,
}

impl Store {
    /// The plans below `folder`, none if there is no file yet or it cannot be used: then the second
    /// value says why. With no folder nothing is kept.
    pub(super) fn open(folder: Option<&Path>, key: DeviceKey) -> (Self, Option<String>) {
        let path = folder.map(|folder| folder.join(key.file_name()));
        let mut store = Self { path, key, plans: BTreeMap::new() };
        let Some(path) = &store.path else { return (store, None) };
        let plans = match read(path) {
            Ok(None) => return (store, None),
            Ok(Some(text)) => parse(&text, &store.key),
            Err(reason) => Err(reason),
        };
        match plans {
            Ok(plans) => {
                store.plans = plans;
                (store, None)
            }
            Err(reason) => {
                let reason = format!("{}: {reason}", path.display());
                (store, Some(reason))
            }
        }
    }

    pub(super) fn get(&self, shape: GemmShape) -> Option<Tuned> {
        self.plans.get(&shape).copied()
    }

    pub(super) fn insert(&mut self, shape: GemmShape, tuned: Tuned) {
        self.plans.insert(shape, tuned);
    }

    /// Replaces the file.
    pub(super) fn save(&self) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let plans = self.plans.iter().map(|(shape, tuned)| Entry {
            shape: *shape,
            algorithm: to_hex(tuned.algorithm),
            time_us: tuned.time_us,
        });
        let file = File { format: FORMAT, device: self.key.clone(), plans: plans.collect() };
        let text = serde_json::to_string_pretty(&file).map_err(|error| error.to_string())?;
        replace(path, &text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// Writes `text` beside `path` and renames it over.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Another process may be writing the same file.
    let finished = path.with_extension(format!("{}.tmp", process::id()));
    fs::write(&finished, text).and_then(|()| fs::rename(&finished, path)).inspect_err(|_| {
        if let Err(error) = fs::remove_file(&finished) {
            tracing::debug!(%error, path = %finished.display(), "unfinished file left");
        }
    })
}

/// The file's text, or `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(metadata) if metadata.len() > BYTES_MAX => {
            return Err(format!("{} bytes, more than {BYTES_MAX}", metadata.len()));
        }
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(|error| error.to_string())
}

fn parse(text: &str, key: &DeviceKey) -> Result<BTreeMap<GemmShape, Tuned>, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.format != FORMAT {
        return Err(format!("format {}, this version reads {FORMAT}", file.format));
    }
    if file.device != *key {
        return Err(format!("made for {:?}, this is {key:?}", file.device));
    }
    let plan = |entry: Entry| {
        let algorithm = from_hex(&entry.algorithm)
            .ok_or_else(|| format!("{}: no algorithm in {:?}", entry.shape, entry.algorithm))?;
        let time_us = entry.time_us;
        if !(time_us.is_finite() && time_us >= 0.0 && entry.shape.is_possible()) {
            return Err(format!("{}: impossible, or its time {time_us} is", entry.shape));
        }
        Ok((entry.shape, Tuned { algorithm, time_us }))
    };
    file.plans.into_iter().map(plan).collect()
}

fn to_hex(algorithm: Algorithm) -> String {
    algorithm.0.iter().map(|word| format!("{word:016x}")).collect()
}

fn from_hex(text: &str) -> Option<Algorithm> {
    if text.len() != 128 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut words = [0; 8];
    for (index, word) in words.iter_mut().enumerate() {
        *word = u64::from_str_radix(text.get(index * 16..index * 16 + 16)?, 16).ok()?;
    }
    Some(Algorithm(words))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dtype::Dtype;

    fn key() -> DeviceKey {
        DeviceKey {
            name: "Test Device".to_owned(),
            capability: (9, 0),
            multiprocessors: 132,
            driver: 13_000,
            cublaslt: "13.1.0".to_owned(),
        }
    }

    fn shape(m_bucket: u32, dtype: Dtype, bias: bool) -> GemmShape {
        GemmShape { m_bucket, n: 1152, k: 384, dtype, bias }
    }

    fn opened(folder: &Path, key: DeviceKey) -> Store {
        let (store, problem) = Store::open(Some(folder), key);
        assert_eq!(problem, None);
        store
    }

    fn filled(folder: &Path) -> Store {
        let mut store = opened(folder, key());
        for (index, m_bucket) in (1_u64..).zip([16, 32, 8192]) {
            let words = std::array::from_fn(|word| u64::MAX / (index + word as u64));
            let tuned = Tuned { algorithm: Algorithm(words), time_us: index as f64 * 1.25 };
            store.insert(shape(m_bucket, Dtype::F16, true), tuned);
            store.insert(shape(m_bucket, Dtype::BF16, false), tuned);
        }
        store
    }

    #[test]
    fn what_is_saved_is_read_back_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let nested = folder.path().join("not/there/yet");
        let store = filled(&nested);
        store.save().unwrap();
        let again = opened(&nested, key());
        assert_eq!(again.plans, store.plans);
        assert_eq!(again.plans.len(), 6);
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1);
        assert_eq!(again.get(shape(16, Dtype::F16, false)), None);
        // A second save replaces the first.
        again.save().unwrap();
        assert_eq!(fs::read_dir(&nested).unwrap().count(), 1);
    }

    #[test]
    fn without_a_folder_nothing_is_kept() {
        let (mut store, problem) = Store::open(None, key());
        assert_eq!(problem, None);
        store.insert(
            shape(16, Dtype::F16, true),
            Tuned { algorithm: Algorithm([1; 8]), time_us: 1.0 },
        );
        assert_eq!(store.save(), Ok(()));
        assert!(store.get(shape(16, Dtype::F16, true)).is_some());
    }

    #[test]
    fn plans_of_another_device_or_library_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(folder.path());
        store.save().unwrap();
        let others = [
            DeviceKey { name: "Other".to_owned(), ..key() },
            DeviceKey { capability: (10, 0), ..key() },
            DeviceKey { multiprocessors: 78, ..key() },
            DeviceKey { driver: 13_010, ..key() },
            DeviceKey { cublaslt: "13.2.0".to_owned(), ..key() },
        ];
        let own = folder.path().join(key().file_name());
        for other in others {
            // They have their own file, and would not use this one under its name either.
            assert!(opened(folder.path(), other.clone()).plans.is_empty());
            fs::copy(&own, folder.path().join(other.file_name())).unwrap();
            let (empty, reason) = Store::open(Some(folder.path()), other);
            let reason = reason.unwrap();
            assert!(empty.plans.is_empty());
            assert!(reason.contains("made for"), "{reason}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_as_a_whole_and_then_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(folder.path());
        store.save().unwrap();
        let path = folder.path().join(key().file_name());
        let good = fs::read_to_string(&path).unwrap();
        let first = to_hex(store.plans.values().next().unwrap().algorithm);
        let damaged = [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replacen("\"format\": 1", "\"format\": 2", 1),
            good.replacen(&first, &first[1..], 1),
            good.replacen(&first, &format!("+{}", &first[1..]), 1),
            good.replacen("\"n\": 1152", "\"n\": 1151", 1),
            good.replacen("\"time_us\": 1.25", "\"time_us\": -1.0", 1),
            good.replacen("\"bias\"", "\"biases\"", 1),
        ];
        for text in damaged {
            assert_ne!(text, good);
            fs::write(&path, &text).unwrap();
            let (empty, reason) = Store::open(Some(folder.path()), key());
            let reason = reason.unwrap();
            assert!(empty.plans.is_empty(), "{text}");
            assert!(reason.contains(&path.display().to_string()), "{reason}");
        }
        store.save().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let store =
            Store { path: Some(file.join("gemm.json")), key: key(), plans: BTreeMap::new() };
        assert!(store.save().unwrap_err().contains("gemm.json"));
    }

    proptest! {
        #[test]
        fn an_algorithm_survives_its_text(words in prop::array::uniform8(any::<u64>())) {
            prop_assert_eq!(from_hex(&to_hex(Algorithm(words))), Some(Algorithm(words)));
        }

        #[test]
        fn other_text_is_no_algorithm(text in "\\PC{0,130}") {
            let hex = text.len() == 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assert_eq!(from_hex(&text).is_some(), hex);
        }
    }
}
