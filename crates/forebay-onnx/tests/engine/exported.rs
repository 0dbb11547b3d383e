//! Folders that have only an exported graph.

use forebay_onnx::{OnnxError, Precision, Session};

use crate::support::onnx_file::{LookUp, look_up};
use crate::support::{self, Geometry, Synthetic};

const ALL_INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// The folder, and the table that the graph looks ids up in.
fn folder(change: impl FnOnce(&mut LookUp<'_>)) -> (Synthetic, Vec<f32>) {
    let geometry = Geometry::default();
    let synthetic = Synthetic::new(&geometry, 5);
    let table = synthetic.tensors["embeddings.word_embeddings.weight"].1.clone();
    let mut wanted = LookUp {
        table: &table,
        hidden: geometry.hidden,
        inputs: &ALL_INPUTS,
        output: "last_hidden_state",
        pooled: false,
        external: false,
    };
    change(&mut wanted);
    synthetic.export(&look_up(&wanted));
    (synthetic, table)
}

fn load(synthetic: &Synthetic) -> Result<Session, OnnxError> {
    Session::load(&synthetic.open(), &support::options(Precision::F32))
}

fn refusal(change: impl FnOnce(&mut LookUp<'_>)) -> String {
    let error = load(&folder(change).0).unwrap_err();
    assert!(matches!(error, OnnxError::ExportedGraph { .. }), "{error:?}");
    assert!(!error.is_input());
    error.to_string()
}

#[test]
fn states_come_back_row_by_row_without_padding() {
    let inputs: [&[&str]; 2] = [&ALL_INPUTS, &ALL_INPUTS[..2]];
    for (inputs, output) in inputs.into_iter().zip(["last_hidden_state", "token_embeddings"]) {
        let (synthetic, table) = folder(|wanted| {
            wanted.inputs = inputs;
            wanted.output = output;
        });
        let lengths = [5, 17, 1, 16, 33, 2];
        let (ids, boundaries) = support::batch(&lengths, 97, 1);
        let states = load(&synthetic).unwrap().encode(&ids, &boundaries).unwrap();
        for (row, pair) in boundaries.windows(2).enumerate() {
            let expected: Vec<f32> = ids[pair[0] as usize..pair[1] as usize]
                .iter()
                .flat_map(|&id| table[id as usize * 64..][..64].to_vec())
                .collect();
            assert_eq!(states.row(row), expected);
        }
        assert_eq!(states.tokens(), lengths.iter().sum::<usize>());
        assert_eq!(states.padded_tokens(), 8 + 24 + 8 + 16 + 40 + 8);
        assert_eq!(states.sub_batches(), 4);
    }
}

#[test]
fn int8_is_refused_with_the_remedy() {
    let error = Session::load(&folder(|_| {}).0.open(), &support::options(Precision::Int8));
    let error = error.unwrap_err();
    assert!(matches!(error, OnnxError::ExportedPrecision { .. }), "{error:?}");
    assert!(error.to_string().contains("safetensors"), "{error}");
}

#[test]
fn a_graph_with_only_pooled_output_is_refused() {
    assert!(refusal(|wanted| wanted.pooled = true).contains("only pooled ones"));
}

#[test]
fn weights_in_other_files_are_refused() {
    assert!(refusal(|wanted| wanted.external = true).contains("other files"));
}

#[test]
fn inputs_are_the_known_ones() {
    let message = refusal(|wanted| wanted.inputs = &["input_ids"]);
    assert!(message.contains("no input attention_mask"), "{message}");
    let message = refusal(|wanted| wanted.inputs = &["input_ids", "attention_mask", "pixels"]);
    assert!(message.contains("pixels"), "{message}");
}

#[test]
fn another_width_than_the_configuration_is_refused() {
    let message = refusal(|wanted| {
        wanted.table = &wanted.table[..64];
        wanted.hidden = 32;
    });
    assert!(message.contains("32 wide"), "{message}");
}

#[test]
fn a_damaged_file_is_refused() {
    let synthetic = folder(|_| {}).0;
    synthetic.write("onnx/model.onnx", b"not a graph");
    let error = load(&synthetic).unwrap_err();
    assert!(matches!(error, OnnxError::ExportedGraph { .. }), "{error:?}");
}
