//! From the elements of a file to those of the device, a piece at a time.
//!
//! A whole tensor in f32 would take twice the memory of the largest table; here no more than one
//! piece exists besides the file itself.

use forebay_model::{ModelError, WeightType, WeightView};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::Dtype;

/// Elements of `view` from `start` on, as many as `out` holds, in f32.
///
/// # Errors
/// [`ModelError::TensorNotFinite`] if one of them is NaN or infinite.
pub(crate) fn read(view: &WeightView<'_>, start: usize, out: &mut [f32]) -> Result<(), ModelError> {
    match view.dtype {
        WeightType::F32 => {
            let (values, _) = view.bytes.as_chunks::<4>();
            fill(out, &values[start..], f32::from_le_bytes);
        }
        WeightType::F16 => {
            let (values, _) = view.bytes.as_chunks::<2>();
            fill(out, &values[start..], |bytes| f16::from_le_bytes(bytes).to_f32());
        }
        WeightType::BF16 => {
            let (values, _) = view.bytes.as_chunks::<2>();
            fill(out, &values[start..], |bytes| bf16::from_le_bytes(bytes).to_f32());
        }
    }
    if out.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    // The model's own conversion names file, tensor and element.
    view.to_f32().map(|_| ())
}

fn fill<const N: usize>(out: &mut [f32], values: &[[u8; N]], of: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(values) {
        *out = of(bytes);
    }
}

/// Writes `values`, rounded to the nearest of `dtype`, as little-endian bytes into `out`, which has
/// two bytes for each.
pub(crate) fn write_half(values: &[f32], dtype: Dtype, out: &mut [u8], bits: &mut Vec<u16>) {
    debug_assert_eq!(out.len(), values.len() * Dtype::BYTES);
    bits.clear();
    bits.resize(values.len(), 0);
    match dtype {
        Dtype::F16 => {
            let halves: &mut [f16] =
                half::slice::HalfBitsSliceExt::reinterpret_cast_mut(&mut **bits);
            halves.convert_from_f32_slice(values);
        }
        Dtype::BF16 => {
            let halves: &mut [bf16] =
                half::slice::HalfBitsSliceExt::reinterpret_cast_mut(&mut **bits);
            halves.convert_from_f32_slice(values);
        }
    }
    let (out, _) = out.as_chunks_mut::<2>();
    for (out, bits) in out.iter_mut().zip(bits) {
        *out = bits.to_le_bytes();
    }
}

/// Writes `values` as little-endian bytes into `out`, which has four bytes for each.
pub(crate) fn write_float(values: &[f32], out: &mut [u8]) {
    debug_assert_eq!(out.len(), size_of_val(values));
    let (out, _) = out.as_chunks_mut::<4>();
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use forebay_model::{ModelFolder, Weights};

    use super::*;

    const CONFIG: &str = r#"{"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 1,
        "num_attention_heads": 12, "intermediate_size": 64, "vocab_size": 8,
        "max_position_embeddings": 16}"#;

    /// Tensors of one dimension as a model folder holds them: name, type, bytes.
    fn weights(tensors: &[(&str, &str, usize, Vec<u8>)]) -> Weights {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, dtype, elements, bytes) in tensors {
            let start = data.len();
            data.extend_from_slice(bytes);
            let entry = serde_json::json!({
                "dtype": dtype, "shape": [elements], "data_offsets": [start, data.len()],
            });
            header.insert((*name).to_owned(), entry);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&header);
        file.extend_from_slice(&data);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
        ModelFolder::open(folder.path()).unwrap().weights().unwrap()
    }

    #[test]
    fn pieces_of_every_stored_type_are_what_the_model_gives_whole() {
        let values: Vec<f32> = (0..1000_u16).map(|i| f32::from(i) * 0.37 - 185.0).collect();
        let bytes = |of: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|&v| of(v)).collect();
        let weights = weights(&[
            ("single", "F32", 1000, bytes(&|v| v.to_le_bytes().to_vec())),
            ("half", "F16", 1000, bytes(&|v| f16::from_f32(v).to_le_bytes().to_vec())),
            ("brain", "BF16", 1000, bytes(&|v| bf16::from_f32(v).to_le_bytes().to_vec())),
        ]);
        for name in ["single", "half", "brain"] {
            let view = weights.get(name).unwrap();
            let whole = view.to_f32().unwrap();
            for piece in [1, 7, 256, 1000] {
                for start in (0..1000).step_by(piece) {
                    let mut out = vec![0.0; piece.min(1000 - start)];
                    read(&view, start, &mut out).unwrap();
                    assert_eq!(out, whole[start..start + out.len()], "{name} from {start}");
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_not_finite_is_reported_with_its_tensor_and_place() {
        let mut values = [1.0_f32; 40];
        values[33] = f32::NAN;
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let weights = weights(&[("broken.weight", "F32", 40, bytes)]);
        let view = weights.get("broken.weight").unwrap();
        read(&view, 0, &mut [0.0; 32]).unwrap();
        let error = read(&view, 32, &mut [0.0; 8]).unwrap_err().to_string();
        assert!(error.contains("broken.weight") && error.contains("33"), "{error}");
    }

    #[test]
    fn halves_are_rounded_to_nearest() {
        let values = [0.0, -0.0, 1.0, 1.0 + 1.0 / 4096.0, 65_504.0, 65_536.0, -1e-8, 3.0e38];
        let mut bits = Vec::new();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let mut out = vec![0; values.len() * 2];
            write_half(&values, dtype, &mut out, &mut bits);
            for (value, bytes) in values.iter().zip(out.as_chunks::<2>().0) {
                let expected = match dtype {
                    Dtype::F16 => f16::from_f32(*value).to_le_bytes(),
                    Dtype::BF16 => bf16::from_f32(*value).to_le_bytes(),
                };
                assert_eq!(*bytes, expected, "{value} as {dtype}");
            }
        }
    }

    #[test]
    fn floats_keep_their_bits() {
        let values = [1.5_f32, -0.0, f32::MIN_POSITIVE, f32::MAX];
        let mut out = [0; 16];
        write_float(&values, &mut out);
        let back: Vec<u32> =
            out.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        assert_eq!(back, values.map(f32::to_bits));
    }
}
