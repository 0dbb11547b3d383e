//! Small model folders, a plain reference encoder and the real model's place.

pub(crate) mod onnx_file;
pub(crate) mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_model::ModelFolder;
use forebay_onnx::{EngineOptions, Precision, SubBatchLimits};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

const SETUP: &str = "run `cargo xtask setup` first";

/// The real ONNX Runtime: `FOREBAY_ORT`, or where `cargo xtask setup` puts it.
pub(crate) fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("FOREBAY_ORT") {
        return PathBuf::from(path);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.forebay/onnxruntime");
    std::fs::read_dir(&folder)
        .ok()
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
        })
        .unwrap_or_else(|| panic!("no libonnxruntime.so in {}; {SETUP}", folder.display()))
}

/// The real all-MiniLM-L6-v2: `FOREBAY_MODEL`, or where `cargo xtask setup` puts it.
pub(crate) fn real_model() -> ModelFolder {
    let path = std::env::var_os("FOREBAY_MODEL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.forebay/models/all-MiniLM-L6-v2"),
        PathBuf::from,
    );
    ModelFolder::open_unverified(&path).unwrap_or_else(|error| panic!("{error}; {SETUP}"))
}

pub(crate) fn options(precision: Precision) -> EngineOptions {
    EngineOptions {
        library: library(),
        precision,
        intra_threads: 1,
        spinning: false,
        sub_batch: SubBatchLimits::default(),
    }
}

/// Geometry of a synthetic encoder.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    pub(crate) model_type: &'static str,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) vocab: usize,
    pub(crate) positions: usize,
    pub(crate) activation: &'static str,
}

impl Default for Geometry {
    fn default() -> Self {
        Self {
            model_type: "bert",
            hidden: 64,
            layers: 2,
            heads: 4,
            intermediate: 128,
            vocab: 97,
            positions: 70,
            activation: "gelu",
        }
    }
}

/// Tensors by name: shape and values.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A model folder in a temporary directory with seeded random weights.
pub(crate) struct Synthetic {
    directory: tempfile::TempDir,
    pub(crate) tensors: Tensors,
}

impl Synthetic {
    pub(crate) fn new(geometry: &Geometry, seed: u64) -> Self {
        let new = Self {
            directory: tempfile::tempdir().unwrap(),
            tensors: random_tensors(geometry, seed),
        };
        let config = json!({
            "model_type": geometry.model_type, "hidden_size": geometry.hidden,
            "num_hidden_layers": geometry.layers, "num_attention_heads": geometry.heads,
            "intermediate_size": geometry.intermediate, "vocab_size": geometry.vocab,
            "max_position_embeddings": geometry.positions, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "hidden_act": geometry.activation,
        });
        new.write("config.json", config.to_string());
        new.write_tensors();
        new
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn write_tensors(&self) {
        let views = self.tensors.iter().map(|(name, (shape, values))| {
            let bytes = bytemuck::cast_slice(values);
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        self.write("model.safetensors", safetensors::serialize(views, None).unwrap());
    }

    /// Replaces the weights by an exported graph.
    pub(crate) fn export(&self, graph: &[u8]) {
        std::fs::remove_file(self.directory.path().join("model.safetensors")).unwrap();
        self.write("onnx/model.onnx", graph);
    }

    pub(crate) fn open(&self) -> ModelFolder {
        ModelFolder::open(self.directory.path()).unwrap()
    }
}

fn random_tensors(geometry: &Geometry, seed: u64) -> Tensors {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut all = Tensors::new();
    let mut add = |name: String, shape: &[usize], centre: f32, spread: f32| {
        let count = shape.iter().product();
        let values =
            (0..count).map(|_| centre + spread * rng.random_range(-1.0_f32..1.0)).collect();
        all.insert(name, (shape.to_vec(), values));
    };
    let (hidden, intermediate) = (geometry.hidden, geometry.intermediate);
    for (table, rows) in
        [("word", geometry.vocab), ("position", geometry.positions), ("token_type", 2)]
    {
        add(format!("embeddings.{table}_embeddings.weight"), &[rows, hidden], 0.0, 1.0);
    }
    let mut norms = vec!["embeddings".to_owned()];
    for layer in 0..geometry.layers {
        let prefix = format!("encoder.layer.{layer}");
        for (name, outputs, inputs) in [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", intermediate, hidden),
            ("output.dense", hidden, intermediate),
        ] {
            // Scores of several units, so that attention is far from uniform.
            let spread = 3.0 / (inputs as f32).sqrt();
            add(format!("{prefix}.{name}.weight"), &[outputs, inputs], 0.0, spread);
            add(format!("{prefix}.{name}.bias"), &[outputs], 0.0, 0.5);
        }
        norms.extend(["attention.output", "output"].map(|name| format!("{prefix}.{name}")));
    }
    for norm in norms {
        add(format!("{norm}.LayerNorm.weight"), &[hidden], 1.0, 0.5);
        add(format!("{norm}.LayerNorm.bias"), &[hidden], 0.0, 0.5);
    }
    all
}

/// Rows of the given lengths with seeded ids, packed: ids and boundaries.
pub(crate) fn batch(lengths: &[usize], vocab: usize, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut boundaries = vec![0];
    let mut ids = Vec::new();
    for &length in lengths {
        ids.extend((0..length).map(|_| rng.random_range(0..vocab as u32)));
        boundaries.push(ids.len() as u32);
    }
    (ids, boundaries)
}

pub(crate) fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(&l, &r)| f64::from(l) * f64::from(r)).sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

/// The bits of the values, so that comparing is exact.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
