//! From text to token ids, over the `tokenizers` crate.
//!
//! `tokenizer.json` describes the vocabulary and the text normalisation; its padding and truncation
//! sections are switched off, because the limit belongs to the model folder (256 tokens for
//! all-MiniLM-L6-v2, whose `tokenizer.json` says 128) and batches are packed or padded later. The
//! text is encoded without special tokens by the crate's allocation-free entry point, cut, and
//! framed here. Limits on the length of a text in bytes are the caller's business.
//!
//! Ids are the same as Hugging Face `tokenizers` 0.22 gives with `max_length` truncation from the
//! right, but for one case: that version splits words at the punctuation of Unicode 8, this one at
//! that of current Unicode. 141 scalars (such as U+061D, U+2E52, and marks of historic scripts) are
//! punctuation here only, U+166D and U+111C9 there only; in a text with one of them, the word
//! around it is split differently. The scalar itself is the unknown token either way.

use std::sync::Arc;

use serde_json::{Value, json};
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

use crate::error::{ModelError, TokenizeError};
use crate::files::{self, TOKENIZER_BYTES_MAX};
use crate::folder::ModelFolder;
use crate::places::{Places, Token};

/// Ids a scratch buffer keeps room for between texts (256 KiB); one long text does not pin more.
const SCRATCH_IDS_KEPT: usize = 1 << 16;

/// A model's tokenizer. Cheap to clone; clones share the vocabulary and can be used by any number
/// of threads at once, each with its own [`Scratch`].
#[derive(Clone)]
pub struct TextTokenizer {
    pipeline: PipelineTokenizer,
    options: Arc<EncodeOptions>,
    prefix: Arc<[u32]>,
    suffix: Arc<[u32]>,
    vocab: usize,
    /// Made when it is first asked for.
    pub(crate) places: Arc<Places>,
}

/// The end at which a text of too many tokens is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CutFrom {
    /// Its start is lost.
    Left,
    /// Its end is lost.
    #[default]
    Right,
}

/// Reusable buffers for one thread.
#[derive(Debug, Default)]
pub struct Scratch {
    tokens: Vec<PipelineToken>,
}

/// How many tokens a text came out as. Special tokens are counted in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Ids that were appended.
    pub tokens: usize,
    /// Ids there would have been without the limit.
    pub tokens_before_cut: usize,
}

impl Encoded {
    /// Whether the text was cut.
    pub fn truncated(&self) -> bool {
        self.tokens < self.tokens_before_cut
    }
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("prefix", &self.prefix)
            .field("suffix", &self.suffix)
            .field("vocab", &self.vocab)
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Reads the folder's `tokenizer.json`, of this or any earlier version of the format.
    ///
    /// # Errors
    /// [`ModelError::FileMissing`], [`ModelError::Json`], or [`ModelError::Tokenizer`] when the
    /// file uses something unsupported, knows more tokens than the model has embeddings, or gives
    /// single texts a token type other than 0.
    pub fn open(folder: &ModelFolder) -> Result<Self, ModelError> {
        let path = folder.tokenizer_path();
        let refuse = |reason: String| ModelError::Tokenizer { path: path.clone(), reason };
        let remedy = "models without it cannot be used; save the model's fast tokenizer with \
                      `AutoTokenizer.from_pretrained(model).save_pretrained(folder)`";
        let mut json: Value = files::read_json(&path, TOKENIZER_BYTES_MAX, remedy)?;
        let places = Arc::new(Places::new(path.clone(), folder.lowercase()));

        let vocab = folder.encoder().vocab;
        if let Some(id) = largest_model_id(&json).filter(|&id| id >= vocab as u64) {
            return Err(refuse(format!(
                "it has token id {id}, but vocab_size in config.json is {vocab}"
            )));
        }
        if folder.lowercase() {
            lowercase_first(&mut json);
        }
        tokenizers::canonicalize_value(&mut json).map_err(|error| refuse(error.to_string()))?;
        let pipeline =
            tokenizers::from_json(&json.to_string()).map_err(|error| refuse(error.to_string()))?;

        let template = &pipeline.get_post_processor().single;
        if template.has_type_ids() {
            return Err(refuse("it gives tokens of a single text a type other than 0".to_owned()));
        }
        let ids = |run: &[(PipelineToken, u8)]| run.iter().map(|(token, _)| token.id()).collect();
        let (prefix, suffix): (Arc<[u32]>, Arc<[u32]>) =
            (ids(&template.prefix), ids(&template.suffix));
        if let Some(id) = prefix.iter().chain(&*suffix).find(|&&id| id as usize >= vocab) {
            return Err(refuse(format!(
                "it frames texts with token id {id}, but vocab_size in config.json is {vocab}"
            )));
        }
        let options = EncodeOptions {
            add_special_tokens: false,
            encode_special_tokens: false,
            padding: Override::Off,
            truncation: Override::Off,
        };
        Ok(Self { pipeline, options: Arc::new(options), prefix, suffix, vocab, places })
    }

    /// [`TextTokenizer::encode_cut`] from the right.
    ///
    /// # Errors
    /// Those of [`TextTokenizer::encode_cut`].
    pub fn encode(
        &self,
        text: &str,
        tokens_max: usize,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<Encoded, TokenizeError> {
        self.encode_cut(text, tokens_max, CutFrom::Right, scratch, ids)
    }

    /// Appends the ids of `text` to `ids`, special tokens included and kept, the text's own tokens
    /// cut from one end so that at most `tokens_max` ids are appended. On an error `ids` is
    /// unchanged.
    ///
    /// The whole text is tokenized even if little of it is kept: the count before the cut is part
    /// of the answer, and a token can depend on what follows.
    ///
    /// # Errors
    /// [`TokenizeError::LimitTooSmall`] if the special tokens alone are more than `tokens_max`;
    /// [`TokenizeError::NoTokens`] for an empty result; [`TokenizeError::IdOutOfRange`];
    /// [`TokenizeError::Refused`].
    pub fn encode_cut(
        &self,
        text: &str,
        tokens_max: usize,
        cut_from: CutFrom,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<Encoded, TokenizeError> {
        let special = self.special_tokens();
        let Some(text_tokens_max) = tokens_max.checked_sub(special) else {
            return Err(TokenizeError::LimitTooSmall { tokens_max, special });
        };
        scratch.tokens.clear();
        scratch.tokens.shrink_to(SCRATCH_IDS_KEPT);
        self.pipeline.encode_into(text, &self.options, &mut scratch.tokens).map_err(|error| {
            TokenizeError::Refused { bytes: text.len(), reason: error.to_string() }
        })?;
        let all = PipelineToken::cast_slice(&scratch.tokens);
        let beyond = all.len().saturating_sub(text_tokens_max);
        let kept = match cut_from {
            CutFrom::Left => &all[beyond..],
            CutFrom::Right => &all[..all.len() - beyond],
        };
        if let Some(&id) = kept.iter().find(|&&id| id as usize >= self.vocab) {
            return Err(TokenizeError::IdOutOfRange { id, vocab: self.vocab });
        }
        if kept.len() + special == 0 {
            return Err(TokenizeError::NoTokens);
        }
        ids.reserve(kept.len() + special);
        ids.extend_from_slice(&self.prefix);
        ids.extend_from_slice(kept);
        ids.extend_from_slice(&self.suffix);
        Ok(Encoded { tokens: kept.len() + special, tokens_before_cut: all.len() + special })
    }

    /// Every id is below this: the rows of the model's table of embeddings.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The text that these ids stand for, as far as the tokenizer keeps it (case and white space
    /// may be lost). Ids that it does not know are left out; `skip_special_tokens` leaves out those
    /// that are put around texts, too, whether or not `tokenizer.json` lists them as special.
    ///
    /// # Errors
    /// [`TokenizeError::Undecodable`].
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizeError> {
        let is_framing = |id: &u32| self.prefix.contains(id) || self.suffix.contains(id);
        let ids: Vec<u32> = match skip_special_tokens {
            true => ids.iter().copied().filter(|id| !is_framing(id)).collect(),
            false => ids.to_vec(),
        };
        self.pipeline
            .decode(&ids, skip_special_tokens)
            .map_err(|error| TokenizeError::Undecodable { reason: error.to_string() })
    }

    /// Each token of `text` and where it stands there, uncut, with the special tokens that are put
    /// around a text if those are wanted. For people and tools: it costs several times what
    /// [`TextTokenizer::encode`] does, and reads `tokenizer.json` once more the first time.
    ///
    /// # Errors
    /// [`TokenizeError::Refused`], or [`TokenizeError::Places`] if the file cannot be read again.
    pub fn tokenize(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<Token>, TokenizeError> {
        let mut tokens = Vec::new();
        self.pipeline.encode_into(text, &self.options, &mut tokens).map_err(|error| {
            TokenizeError::Refused { bytes: text.len(), reason: error.to_string() }
        })?;
        let places = self.places.of(text, PipelineToken::cast_slice(&tokens))?;
        let name = |id: u32| self.pipeline.decode_tokens(&[id], false).concat();
        let framing = |ids: &[u32]| match add_special_tokens {
            true => ids.iter().map(|&id| Token::special(id, name(id))).collect(),
            false => Vec::new(),
        };
        let mut all = framing(&self.prefix);
        for (index, token) in tokens.iter().enumerate() {
            let place = places.as_ref().and_then(|places| places.get(index));
            all.push(Token::of(text, token.id(), place, || name(token.id())));
        }
        all.extend(framing(&self.suffix));
        Ok(all)
    }

    /// Special tokens put around every text.
    pub fn special_tokens(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }
}

/// The largest id of the model's own vocabulary. Added tokens are left to each text: some published
/// models list tokens there that they have no embedding for and that no ordinary text contains.
fn largest_model_id(json: &Value) -> Option<u64> {
    match json.get("model")?.get("vocab")? {
        Value::Object(vocab) => vocab.values().filter_map(Value::as_u64).max(),
        Value::Array(vocab) => (vocab.len() as u64).checked_sub(1),
        _ => None,
    }
}

/// Puts a lower-casing step first, unless the tokenizer already has one: what
/// sentence-transformers does for `do_lower_case`.
pub(crate) fn lowercase_first(json: &mut Value) {
    fn lowercases(normalizer: &Value) -> bool {
        let members = normalizer.get("normalizers").and_then(Value::as_array);
        match normalizer.get("type").and_then(Value::as_str) {
            Some("Lowercase") => true,
            Some("BertNormalizer") => normalizer.get("lowercase") != Some(&Value::Bool(false)),
            _ => members.is_some_and(|members| members.iter().any(lowercases)),
        }
    }
    let normalizer = json.get("normalizer").cloned().unwrap_or_default();
    if lowercases(&normalizer) || !json.is_object() {
        return;
    }
    let mut chain = vec![json!({ "type": "Lowercase" })];
    if !normalizer.is_null() {
        chain.push(normalizer);
    }
    json["normalizer"] = json!({ "type": "Sequence", "normalizers": chain });
}
