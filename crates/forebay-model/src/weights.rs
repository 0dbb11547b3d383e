//! The tensors of a model: one `model.safetensors`, or shards named by an index.
//!
//! The files are read into memory rather than mapped. A mapping saves one copy of at most a few
//! hundred megabytes at start, but a file that is replaced or truncated while it is mapped changes
//! weights under a running engine or kills the process with SIGBUS, and neither can be turned into
//! an error. Values are not looked at before they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::ModelError;
use crate::files::{self, INDEX_BYTES_MAX};

const REMEDY: &str = "download the model again, all of its safetensors files";

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16: the upper half of a single.
    BF16,
}

/// The tensors of a model, held in memory.
#[derive(Debug)]
pub struct Weights {
    /// What a missing tensor is reported against: the single file, or the index.
    origin: PathBuf,
    files: Vec<WeightFile>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    content: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

/// One tensor: its shape and its little-endian bytes in row-major order.
#[derive(Debug, Clone)]
pub struct WeightView<'a> {
    /// The tensor's name in the file.
    pub name: &'a str,
    /// Element type.
    pub dtype: WeightType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements, little-endian, not necessarily aligned.
    pub bytes: &'a [u8],
    path: &'a Path,
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

/// The shard files an index names, each once, in order of name.
pub(crate) fn shard_names(index: &Path) -> Result<BTreeSet<String>, ModelError> {
    let raw: RawIndex = files::read_json(index, INDEX_BYTES_MAX, REMEDY)?;
    if raw.weight_map.is_empty() {
        return Err(ModelError::Config {
            path: index.to_owned(),
            key: "weight_map",
            found: "empty".to_owned(),
            expected: "a file for every tensor: download it again".to_owned(),
        });
    }
    Ok(raw.weight_map.into_values().collect())
}

impl Weights {
    /// Reads `files` and checks that their headers describe exactly what follows. `origin` is the
    /// file to blame for a tensor that none of them holds.
    pub(crate) fn read(origin: &Path, paths: &[PathBuf]) -> Result<Self, ModelError> {
        let mut weights =
            Self { origin: origin.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for path in paths {
            weights.add(path)?;
        }
        Ok(weights)
    }

    fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        let content = files::read_capped(path, u64::MAX - 1, REMEDY)?;
        let (header, metadata) = SafeTensors::read_metadata(&content).map_err(|source| {
            ModelError::Safetensors { path: path.to_owned(), bytes: content.len(), source }
        })?;
        // The header's length comes first, in eight bytes; offsets count from the header's end.
        let data = header + 8;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: data + start..data + end,
            };
            if let Some(other) = self.tensors.insert(name.clone(), entry) {
                return Err(ModelError::TensorTwice {
                    tensor: name,
                    first: self.files[other.file].path.clone(),
                    second: path.to_owned(),
                });
            }
        }
        self.files.push(WeightFile { path: path.to_owned(), content });
        Ok(())
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`ModelError::TensorMissing`], or [`ModelError::TensorType`] if its elements are not F32,
    /// F16 or BF16.
    pub fn get(&self, name: &str) -> Result<WeightView<'_>, ModelError> {
        let Some((name, entry)) = self.tensors.get_key_value(name) else {
            return Err(ModelError::TensorMissing {
                path: self.origin.clone(),
                tensor: name.to_owned(),
            });
        };
        let file = &self.files[entry.file];
        let dtype = match entry.dtype {
            Dtype::F32 => WeightType::F32,
            Dtype::F16 => WeightType::F16,
            Dtype::BF16 => WeightType::BF16,
            other => {
                return Err(ModelError::TensorType {
                    path: file.path.clone(),
                    tensor: name.clone(),
                    found: format!("{other:?}"),
                });
            }
        };
        Ok(WeightView {
            name,
            dtype,
            shape: entry.shape.clone(),
            bytes: &file.content[entry.range.clone()],
            path: &file.path,
        })
    }

    /// Whether a tensor of this name exists, of whatever type.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

impl WeightView<'_> {
    /// The elements as f32, in row-major order.
    ///
    /// # Errors
    /// [`ModelError::TensorNotFinite`] naming the first element that is NaN or infinite.
    pub fn to_f32(&self) -> Result<Vec<f32>, ModelError> {
        let values: Vec<f32> = match self.dtype {
            WeightType::F32 => {
                let (values, _) = self.bytes.as_chunks::<4>();
                values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
            }
            WeightType::F16 => {
                let (values, _) = self.bytes.as_chunks::<2>();
                values.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
            }
            WeightType::BF16 => {
                let (values, _) = self.bytes.as_chunks::<2>();
                values.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()
            }
        };
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(element) => Err(ModelError::TensorNotFinite {
                path: self.path.to_owned(),
                tensor: self.name.to_owned(),
                element,
                value: values[element],
            }),
        }
    }

    /// The view itself if its shape is `expected`.
    ///
    /// # Errors
    /// [`ModelError::TensorShape`] with both shapes.
    pub fn expect_shape(&self, expected: &[usize]) -> Result<&Self, ModelError> {
        if self.shape == expected {
            return Ok(self);
        }
        Err(ModelError::TensorShape {
            path: self.path.to_owned(),
            tensor: self.name.to_owned(),
            expected: expected.to_vec(),
            found: self.shape.clone(),
        })
    }
}
