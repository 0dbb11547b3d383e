//! A model folder, opened: every configuration file read once and checked against the others.
//!
//! This is the only way into the crate's other parts, so whoever holds a [`ModelFolder`] knows that
//! the geometry, pooling, limits and files agree. Weights and tokenizer are read when asked for.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::encoder_config::EncoderConfig;
use crate::error::ModelError;
use crate::files::{self, TOKENIZER_BYTES_MAX};
use crate::manifest::{Manifest, hex};
use crate::pooling::PoolingSpec;
use crate::sentence_config::{SentenceConfig, join};
use crate::tokenizer::TextTokenizer;
use crate::weights::{self, Weights};

const INDEX: &str = "model.safetensors.index.json";

/// Where the encoder's graph comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GraphSource {
    /// Tensors only; the engine builds the graph from [`EncoderConfig`].
    Safetensors {
        /// The single file, or all shards in order of name.
        files: Vec<PathBuf>,
    },
    /// A graph exported to ONNX, for folders that have no safetensors.
    Onnx {
        /// `model.onnx` or `onnx/model.onnx`.
        file: PathBuf,
    },
}

/// A model folder whose configuration files have been read and agree.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    name: String,
    encoder: EncoderConfig,
    sentence: std::sync::Arc<SentenceConfig>,
    tokens_max: usize,
    graph: GraphSource,
    /// The file a missing tensor is reported against.
    weights_origin: PathBuf,
    fingerprint: String,
}

impl ModelFolder {
    /// Verifies every file against `manifest.json` if the folder has one, then reads and checks
    /// the configuration files. The weights' values are not looked at.
    ///
    /// # Errors
    /// A [`ModelError`] that names the file, what is wrong with it and the remedy.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::open_with(path, true)
    }

    /// [`open`](Self::open) without comparing digests, for a process whose parent has just done so.
    /// The rule that a manifest lists every file used still applies.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_unverified(path: &Path) -> Result<Self, ModelError> {
        Self::open_with(path, false)
    }

    fn open_with(path: &Path, verify: bool) -> Result<Self, ModelError> {
        if !path.is_dir() {
            return Err(ModelError::NotAFolder { path: path.to_owned() });
        }
        let manifest_path = path.join(Manifest::FILE_NAME);
        let manifest = match Manifest::read(&manifest_path) {
            Ok(manifest) => Some(manifest),
            Err(ModelError::FileMissing { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(manifest) = manifest.as_ref().filter(|_| verify) {
            manifest.verify(path)?;
        }

        let mut encoder = None;
        let mut sentence = SentenceConfig::read(path, |transformer| {
            let config = EncoderConfig::read(&transformer.join("config.json"))?;
            let hidden = config.hidden;
            encoder = Some(config);
            Ok(hidden)
        })?;
        let transformer = path.join(&sentence.transformer);
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => EncoderConfig::read(&transformer.join("config.json"))?,
        };
        let limit = encoder.position_limit();
        let tokens_max = sentence.tokens_max.map_or(limit, |tokens| tokens.min(limit));

        let Graph { source: graph, origin: weights_origin, names } = find_graph(&transformer)?;
        sentence.files.push(join(&sentence.transformer, "config.json"));
        sentence.files.push(join(&sentence.transformer, "tokenizer.json"));
        let weight_files: Vec<String> =
            names.iter().map(|name| join(&sentence.transformer, name)).collect();

        let fingerprint = match &manifest {
            Some(manifest) => {
                let used = sentence.files.iter().chain(&weight_files);
                // A tokenizer.json that is missing is reported when the tokenizer is opened.
                let mut present = used.filter(|name| path.join(name).exists());
                if let Some(file) = present.find(|name| !manifest.files.contains_key(*name)) {
                    let file = file.clone();
                    return Err(ModelError::NotInManifest { path: manifest_path, file });
                }
                manifest.fingerprint()
            }
            None => local_fingerprint(path, &sentence.files, &weight_files)?,
        };
        let name = path
            .canonicalize()
            .ok()
            .and_then(|full| full.file_name().map(|name| name.to_string_lossy().into_owned()));
        Ok(Self {
            path: path.to_owned(),
            name: name.unwrap_or_else(|| path.display().to_string()),
            encoder,
            sentence: std::sync::Arc::new(sentence),
            tokens_max,
            graph,
            weights_origin,
            fingerprint,
        })
    }

    /// The folder as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's own name, for logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The encoder's geometry.
    pub fn encoder(&self) -> &EncoderConfig {
        &self.encoder
    }

    /// How hidden rows become an embedding.
    pub fn pooling(&self) -> &PoolingSpec {
        &self.sentence.pooling
    }

    /// Values in one embedding.
    pub fn width(&self) -> usize {
        self.encoder.hidden
    }

    /// Most tokens of one text, special tokens included: `max_seq_length` (or the tokenizer's
    /// `model_max_length` where there is none), and never more than the position table has rows.
    pub fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// Where the encoder's graph comes from.
    pub fn graph(&self) -> &GraphSource {
        &self.graph
    }

    /// Reads the tensors into memory.
    ///
    /// # Errors
    /// [`ModelError::OnnxOnly`] if the folder has no safetensors; [`ModelError::Safetensors`] and
    /// its neighbours if a file is damaged.
    pub fn weights(&self) -> Result<Weights, ModelError> {
        match &self.graph {
            GraphSource::Safetensors { files } => Weights::read(&self.weights_origin, files),
            GraphSource::Onnx { file } => Err(ModelError::OnnxOnly { path: file.clone() }),
        }
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// As for [`TextTokenizer::open`].
    pub fn tokenizer(&self) -> Result<TextTokenizer, ModelError> {
        TextTokenizer::open(self)
    }

    /// sha256 that tells models apart, in hex. With a manifest it covers every listed file's digest
    /// and is the same on every machine; without one it covers the configuration files' contents
    /// and the weights' names, sizes and modification times, so it only holds for this copy.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(crate) fn tokenizer_path(&self) -> PathBuf {
        self.path.join(&self.sentence.transformer).join("tokenizer.json")
    }

    pub(crate) fn lowercase(&self) -> bool {
        self.sentence.lowercase
    }
}

struct Graph {
    source: GraphSource,
    origin: PathBuf,
    /// Every file the graph is read from, relative to the folder searched.
    names: Vec<String>,
}

/// Safetensors before ONNX, single before sharded, as transformers chooses.
fn find_graph(folder: &Path) -> Result<Graph, ModelError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(Graph {
            source: GraphSource::Safetensors { files: vec![single.clone()] },
            origin: single,
            names: vec!["model.safetensors".to_owned()],
        });
    }
    let index = folder.join(INDEX);
    if index.exists() {
        let mut names: Vec<String> = weights::shard_names(&index)?.into_iter().collect();
        let files = names
            .iter()
            .map(|name| files::join_inside(folder, name, &index))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(missing) = files.iter().find(|file| !file.exists()) {
            return Err(ModelError::FileMissing {
                path: missing.clone(),
                remedy: "model.safetensors.index.json names it: download the model again",
            });
        }
        names.push(INDEX.to_owned());
        return Ok(Graph { source: GraphSource::Safetensors { files }, origin: index, names });
    }
    for name in ["model.onnx", "onnx/model.onnx"] {
        let file = folder.join(name);
        if file.exists() {
            return Ok(Graph {
                source: GraphSource::Onnx { file: file.clone() },
                origin: file,
                names: vec![name.to_owned()],
            });
        }
    }
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        if folder.join(name).exists() {
            return Err(ModelError::PickleOnly { path: folder.join(name) });
        }
    }
    Err(ModelError::NoWeights { path: folder.to_owned() })
}

fn local_fingerprint(
    folder: &Path,
    configs: &[String],
    weights: &[String],
) -> Result<String, ModelError> {
    let mut hasher = Sha256::new();
    for name in configs {
        let content = match files::read_capped(&folder.join(name), TOKENIZER_BYTES_MAX, "") {
            Ok(content) => content,
            // Only tokenizer.json can be absent here; opening the tokenizer reports it.
            Err(ModelError::FileMissing { .. }) => continue,
            Err(error) => return Err(error),
        };
        hasher.update(format!("{name}\0{}\0", content.len()));
        hasher.update(content);
    }
    for name in weights {
        let path = folder.join(name);
        let io = |source| ModelError::Io { path: path.clone(), action: "read", source };
        let metadata = std::fs::metadata(&path).map_err(io)?;
        let modified = metadata.modified().map_err(io)?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        hasher.update(format!("{name}\0{}\0{}\0", metadata.len(), since.as_nanos()));
    }
    Ok(hex(&hasher.finalize()))
}
