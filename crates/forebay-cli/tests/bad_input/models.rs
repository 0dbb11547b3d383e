//! Model folders that cannot be used, through the real engine. What the host reads itself is bad
//! input (65, 66); what only the worker reads, the weights, is a worker that does not start (69).

use std::fs;

use forebay_model::Manifest;
use serde_json::json;

use crate::Bench;
use crate::support::forebay_with_fake;
use crate::support::tiny::{config, tensors};

#[test]
fn no_model_folder_or_no_weights() {
    let bench = Bench::new();
    let mut command = forebay_with_fake(&["embed", "--model", "/nowhere/model"]);
    command.arg("--input").arg(bench.path("in.txt")).arg("--output").arg(bench.path("out.npy"));
    bench.assert_fails(&mut command, 66, &["model folder /nowhere/model does not exist"]);
    fs::remove_file(bench.model.file("model.safetensors")).expect("removes");
    bench.assert_fails(&mut bench.real(), 66, &["has no model.safetensors", "download"]);
    fs::remove_file(bench.model.file("config.json")).expect("removes");
    bench.assert_fails(&mut bench.real(), 66, &["config.json is missing"]);
}

#[test]
fn truncated_and_corrupt_weights() {
    let bench = Bench::new();
    let path = bench.model.file("model.safetensors");
    let whole = fs::read(&path).expect("reads");
    let said = ["model.safetensors", "not a complete safetensors file", "download it again"];
    fs::write(&path, &whole[..whole.len() / 2]).expect("writes");
    bench.assert_fails(&mut bench.real(), 69, &said);
    let mut corrupt = whole.clone();
    corrupt[9..200].fill(b'?');
    fs::write(&path, corrupt).expect("writes");
    bench.assert_fails(&mut bench.real(), 69, &said);
    fs::write(&path, b"").expect("writes");
    bench.assert_fails(&mut bench.real(), 69, &said);
}

#[test]
fn a_tensor_of_another_shape_or_none() {
    let bench = Bench::new();
    let name = "encoder.layer.1.intermediate.dense.weight";
    let mut wrong = tensors();
    wrong.get_mut(name).expect("it is there").0 = vec![32, 64];
    bench.model.tensors(&wrong);
    let shapes = "shape [32, 64], expected [64, 32]";
    // The remedy is the last thing said, with nothing of the worker's log behind it.
    let said = [name, shapes, "model.safetensors", "help:", "download both again\n"];
    bench.assert_fails(&mut bench.real(), 69, &said);
    wrong.remove(name);
    bench.model.tensors(&wrong);
    bench.assert_fails(&mut bench.real(), 69, &[name, "is not in", "model.safetensors"]);
}

#[test]
fn weights_that_are_no_numbers() {
    let bench = Bench::new();
    let name = "encoder.layer.0.attention.self.query.weight";
    for value in [f32::NAN, f32::INFINITY] {
        let mut wrong = tensors();
        wrong.get_mut(name).expect("it is there").1[7] = value;
        bench.model.tensors(&wrong);
        bench.assert_fails(&mut bench.real(), 69, &[name, "at element 7", "damaged"]);
    }
}

#[test]
fn an_architecture_that_is_not_supported() {
    let bench = Bench::new();
    let mut other = config();
    other["model_type"] = json!("gpt2");
    bench.model.json("config.json", &other);
    bench.assert_fails(&mut bench.real(), 65, &["model_type \"gpt2\" is not supported", "bert"]);
}

#[test]
fn no_tokenizer_or_a_broken_one() {
    let bench = Bench::new();
    fs::write(bench.model.file("tokenizer.json"), b"{\"version\":").expect("writes");
    bench.assert_fails(&mut bench.real(), 65, &["tokenizer.json is not valid"]);
    fs::remove_file(bench.model.file("tokenizer.json")).expect("removes");
    bench.assert_fails(&mut bench.real(), 66, &["tokenizer.json is missing", "save_pretrained"]);
}

#[test]
fn pooling_that_contradicts_the_model() {
    let bench = Bench::new();
    let pooling = json!({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": true});
    bench.model.json("1_Pooling/config.json", &pooling);
    let said = ["1_Pooling/config.json", "word_embedding_dimension is 64, expected 32"];
    bench.assert_fails(&mut bench.real(), 65, &said);
    let pooling = json!({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": true,
        "pooling_mode_max_tokens": true});
    bench.model.json("1_Pooling/config.json", &pooling);
    bench.assert_fails(&mut bench.real(), 65, &["1_Pooling/config.json", "exactly one"]);
}

#[test]
fn files_that_do_not_match_their_manifest() {
    let bench = Bench::new();
    let manifest = Manifest::of_folder(bench.model.path(), "made by a test").expect("digests");
    manifest.write(&bench.model.file(Manifest::FILE_NAME)).expect("writes");
    assert!(crate::output(&mut bench.real()).status.success());
    fs::remove_file(bench.path("out.npy")).expect("removes");
    let mut changed = tensors();
    changed.values_mut().next().expect("tensors").1[0] += 1.0;
    bench.model.tensors(&changed);
    let said = ["model.safetensors does not match its manifest", "restore it"];
    bench.assert_fails(&mut bench.real(), 65, &said);
}
