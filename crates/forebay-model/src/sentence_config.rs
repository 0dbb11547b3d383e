//! What sentence-transformers puts around the encoder: `modules.json`, the pooling and normalise
//! modules, the token limit and the model-wide defaults.
//!
//! A folder without `modules.json` is a plain transformers model. For these, sentence-transformers
//! uses mean pooling, no normalisation and the tokenizer's own limit; so does this module, and
//! `sentence_bert_config.json` is then not read. Features that would change embeddings and are not
//! computed here (dense layers, several pooling modes, default prompts, a default output width) are
//! errors, never ignored.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::ModelError;
use crate::files::{self, CONFIG_BYTES_MAX};
use crate::pooling::{PoolingMode, PoolingSpec};

/// The names under which releases of sentence-transformers have saved the Transformer module.
const TRANSFORMER_CONFIGS: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Pooling modes in both spellings: the flags up to release 5 and the word since then.
const MODES: [(&str, &str, Option<PoolingMode>); 6] = [
    ("pooling_mode_cls_token", "cls", Some(PoolingMode::Cls)),
    ("pooling_mode_max_tokens", "max", Some(PoolingMode::Max)),
    ("pooling_mode_mean_tokens", "mean", Some(PoolingMode::Mean)),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Some(PoolingMode::MeanSqrtLen)),
    ("pooling_mode_weightedmean_tokens", "weightedmean", None),
    ("pooling_mode_lasttoken", "lasttoken", Some(PoolingMode::LastToken)),
];
const MODES_SUPPORTED: &str = "exactly one of mean, cls, max, mean_sqrt_len_tokens and lasttoken";

/// What `modules.json` and the files it leads to say.
#[derive(Debug)]
pub(crate) struct SentenceConfig {
    /// Folder of the Transformer module, relative to the model folder; empty for the folder itself.
    pub(crate) transformer: String,
    /// How hidden rows become an embedding.
    pub(crate) pooling: PoolingSpec,
    /// Token limit, special tokens included, before the position limit is applied.
    pub(crate) tokens_max: Option<usize>,
    /// Whether text is put in lower case before the tokenizer's own normalisation.
    pub(crate) lowercase: bool,
    /// The files read, relative to the model folder.
    pub(crate) files: Vec<String>,
}

#[derive(Deserialize)]
struct RawModule {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
struct RawTransformer {
    max_seq_length: Option<u64>,
    do_lower_case: Option<bool>,
}

/// Reads files of one folder and notes which.
struct Reader<'a> {
    folder: &'a Path,
    files: Vec<String>,
}

impl SentenceConfig {
    /// Reads `modules.json` of `folder` and everything it leads to but the encoder's `config.json`:
    /// `hidden` is called with the Transformer module's folder to learn the encoder's width, which
    /// the pooling has to agree with.
    pub(crate) fn read(
        folder: &Path,
        hidden: impl FnOnce(&Path) -> Result<usize, ModelError>,
    ) -> Result<Self, ModelError> {
        let mut reader = Reader { folder, files: Vec::new() };
        reader.refuse_model_defaults()?;
        let Some(modules) = reader.json::<Vec<RawModule>>("modules.json")? else {
            return reader.plain_transformer(hidden);
        };
        let modules_path = folder.join("modules.json");
        let is = |module: &RawModule, class| class_of(&module.kind) == class;
        let (transformer, pooling, normalize) = match &modules[..] {
            [t, p] if is(t, "Transformer") && is(p, "Pooling") => (t, p, None),
            [t, p, n] if is(t, "Transformer") && is(p, "Pooling") && is(n, "Normalize") => {
                (t, p, Some(n))
            }
            _ => {
                let found = modules.iter().map(|m| m.kind.as_str()).collect::<Vec<_>>();
                let found = format!("[{}]", found.join(", "));
                return Err(ModelError::UnsupportedModules { path: modules_path, found });
            }
        };
        for module in &modules {
            files::join_inside(folder, &module.path, &modules_path)?;
        }
        let transformer = transformer.path.clone();
        let hidden = hidden(&folder.join(&transformer))?;
        let mode = reader.pooling(&pooling.path, hidden)?;
        if let Some(module) = normalize {
            reader.check_normalize(&module.path)?;
        }
        let (mut tokens_max, lowercase) = reader.transformer(&transformer)?;
        let tokenizer_limit = reader.tokenizer_limit(&transformer)?;
        if tokens_max.is_none() {
            tokens_max = tokenizer_limit;
        }
        let pooling = PoolingSpec { mode, normalize: normalize.is_some() };
        Ok(Self { transformer, pooling, tokens_max, lowercase, files: reader.files })
    }
}

/// The class name of one of the library's own modules, whichever release saved it; else empty.
fn class_of(kind: &str) -> &str {
    match kind.strip_prefix("sentence_transformers.") {
        Some(class) => class.rsplit('.').next().unwrap_or_default(),
        None => "",
    }
}

impl Reader<'_> {
    /// Reads a JSON file that may be absent and notes its name when it is there.
    fn json<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, ModelError> {
        let value = files::read_json_if_present(&self.folder.join(name), CONFIG_BYTES_MAX)?;
        if value.is_some() {
            self.files.push(name.to_owned());
        }
        Ok(value)
    }

    fn refuse<T>(
        &self,
        name: &str,
        key: &'static str,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Result<T, ModelError> {
        Err(ModelError::Config {
            path: self.folder.join(name),
            key,
            found: found.to_string(),
            expected: expected.into(),
        })
    }

    /// Mean pooling, not normalised, limit of the tokenizer: the convention for a folder that was
    /// never saved by sentence-transformers.
    fn plain_transformer(
        mut self,
        hidden: impl FnOnce(&Path) -> Result<usize, ModelError>,
    ) -> Result<SentenceConfig, ModelError> {
        if self.folder.join("1_Pooling").exists() {
            return Err(ModelError::FileMissing {
                path: self.folder.join("modules.json"),
                remedy: "the folder has 1_Pooling, so it is incomplete: download it again",
            });
        }
        hidden(self.folder)?;
        Ok(SentenceConfig {
            transformer: String::new(),
            pooling: PoolingSpec { mode: PoolingMode::Mean, normalize: false },
            tokens_max: self.tokenizer_limit("")?,
            lowercase: false,
            files: self.files,
        })
    }

    /// `config_sentence_transformers.json` may ask for a prompt before every text or for fewer
    /// output values; both change embeddings.
    fn refuse_model_defaults(&mut self) -> Result<(), ModelError> {
        const NAME: &str = "config_sentence_transformers.json";
        let Some(config) = self.json::<Value>(NAME)? else {
            return Ok(());
        };
        if let Some(prompt_name) = config.get("default_prompt_name").and_then(Value::as_str) {
            let prompt = config.get("prompts").and_then(|prompts| prompts.get(prompt_name));
            if prompt.and_then(Value::as_str) != Some("") {
                let expected =
                    "null: put the prompt before each text yourself, then remove the key";
                return self.refuse(
                    NAME,
                    "default_prompt_name",
                    format!("{prompt_name:?}"),
                    expected,
                );
            }
        }
        match config.get("truncate_dim") {
            None | Some(Value::Null) => Ok(()),
            Some(width) => {
                let expected = "null: ask for fewer dimensions with each request instead";
                self.refuse(NAME, "truncate_dim", width, expected)
            }
        }
    }

    fn pooling(&mut self, path: &str, hidden: usize) -> Result<PoolingMode, ModelError> {
        let name = join(path, "config.json");
        let Some(config) = self.json::<serde_json::Map<String, Value>>(&name)? else {
            return Err(ModelError::FileMissing {
                path: self.folder.join(name),
                remedy: "modules.json names it: download the model again",
            });
        };
        let (key, width) = match config.get("embedding_dimension") {
            Some(width) => ("embedding_dimension", Some(width)),
            None => ("word_embedding_dimension", config.get("word_embedding_dimension")),
        };
        if width.and_then(Value::as_u64) != Some(hidden as u64) {
            let found = width.map_or("missing".to_owned(), Value::to_string);
            let expected =
                format!("{hidden}, the hidden_size of config.json: the files are not of one model");
            return self.refuse(&name, key, found, expected);
        }
        let (key, modes): (_, Vec<String>) = match config.get("pooling_mode") {
            Some(Value::String(mode)) => ("pooling_mode", vec![mode.clone()]),
            Some(Value::Array(modes)) => {
                let text = |mode: &Value| mode.as_str().map_or(mode.to_string(), str::to_owned);
                ("pooling_mode", modes.iter().map(text).collect())
            }
            Some(other) => return self.refuse(&name, "pooling_mode", other, MODES_SUPPORTED),
            None => {
                let mut modes = Vec::new();
                for (flag, value) in
                    config.iter().filter(|(key, _)| key.starts_with("pooling_mode_"))
                {
                    let known = MODES.iter().find(|(known, ..)| known == flag);
                    match (value, known) {
                        (Value::Bool(false), _) => {}
                        (Value::Bool(true), Some((_, mode, _))) => modes.push((*mode).to_owned()),
                        (Value::Bool(true), None) => modes.push(flag.clone()),
                        (other, _) => {
                            let found = format!("{flag}: {other}");
                            return self.refuse(&name, "pooling_mode_*", found, "true or false");
                        }
                    }
                }
                ("pooling_mode_*", modes)
            }
        };
        let mode = match &modes[..] {
            [mode] => MODES.iter().find(|(_, known, _)| known == mode).and_then(|(.., mode)| *mode),
            _ => None,
        };
        match mode {
            Some(mode) => Ok(mode),
            None => self.refuse(&name, key, format!("[{}]", modes.join(", ")), MODES_SUPPORTED),
        }
    }

    /// Since release 6 the module can be told to normalise something else.
    fn check_normalize(&mut self, path: &str) -> Result<(), ModelError> {
        let name = join(path, "config.json");
        let Some(config) = self.json::<Value>(&name)? else {
            return Ok(());
        };
        for key in ["module_input_name", "module_output_name"] {
            match config.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::String(value)) if value == "sentence_embedding" => {}
                Some(other) => return self.refuse(&name, key, other, "\"sentence_embedding\""),
            }
        }
        Ok(())
    }

    /// `max_seq_length` and `do_lower_case` of the Transformer module.
    fn transformer(&mut self, path: &str) -> Result<(Option<usize>, bool), ModelError> {
        for file in TRANSFORMER_CONFIGS {
            let name = join(path, file);
            if let Some(config) = self.json::<RawTransformer>(&name)? {
                let tokens_max = match config.max_seq_length {
                    Some(0) => {
                        return self.refuse(&name, "max_seq_length", 0, "at least 1, or null");
                    }
                    limit => limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
                };
                return Ok((tokens_max, config.do_lower_case.unwrap_or(false)));
            }
        }
        Ok((None, false))
    }

    /// `model_max_length` of `tokenizer_config.json`; "no limit" is published as 1e30.
    fn tokenizer_limit(&mut self, path: &str) -> Result<Option<usize>, ModelError> {
        let name = join(path, "tokenizer_config.json");
        let Some(config) = self.json::<Value>(&name)? else {
            return Ok(None);
        };
        if let Some(side) = config.get("truncation_side").and_then(Value::as_str)
            && side != "right"
        {
            let expected = "\"right\": texts are cut at their end";
            return self.refuse(&name, "truncation_side", format!("{side:?}"), expected);
        }
        match config.get("model_max_length") {
            None | Some(Value::Null) => Ok(None),
            Some(limit) => match limit.as_f64() {
                Some(limit) if limit >= 1.0 => Ok(Some(limit as usize)),
                _ => self.refuse(&name, "model_max_length", limit, "a number from 1 up"),
            },
        }
    }
}

/// A file name relative to the model folder.
pub(crate) fn join(path: &str, name: &str) -> String {
    let path: PathBuf = [path, name].iter().collect();
    path.to_string_lossy().into_owned()
}
