//! What there is to embed, in the shapes that clients send it: a text, texts, token ids, or lists of
//! token ids. Read in one pass; of a list that is longer than anybody may send only the length is
//! kept.

use std::borrow::Cow;
use std::fmt;

use forebay::EmbedInput;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{RefOr, schema::SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::error::{Kind, Problem};

/// Elements of a list that are kept at most; far above what the model takes of one text, and as many
/// as `limits.texts_per_request_max` may be. What comes after them is counted.
pub(crate) const KEPT_MAX: usize = 1 << 16;

/// One text, several, or token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    kept: Vec<EmbedInput>,
    /// How many there were.
    count: usize,
    /// Whether they came as a list of inputs rather than as one.
    is_list: bool,
}

impl Inputs {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The inputs, if there are any, none is empty, and there are no more than `texts_max`.
    pub(crate) fn take(
        self,
        texts_max: usize,
        field: &'static str,
    ) -> Result<Vec<EmbedInput>, Problem> {
        let is_empty = |input: &EmbedInput| match input {
            EmbedInput::Text(text) => text.is_empty(),
            EmbedInput::Ids(ids) => ids.is_empty(),
        };
        if self.count > texts_max {
            return Err(too_many(self.count, texts_max).about(field));
        }
        match self.kept.iter().position(is_empty) {
            Some(_) if !self.is_list => Err(empty(field)),
            Some(index) => {
                let message = format!("`{field}` cannot be empty: number {index} of the list is");
                Err(Problem::new(Kind::Empty, message).about(field))
            }
            None if self.kept.is_empty() => Err(empty(field)),
            None => Ok(self.kept),
        }
    }
}

impl Inputs {
    /// The same where only texts are meant.
    pub(crate) fn take_texts(
        self,
        texts_max: usize,
        field: &'static str,
    ) -> Result<Vec<String>, Problem> {
        let text = |input| match input {
            EmbedInput::Text(text) => Ok(text),
            EmbedInput::Ids(_) => Err(unexpected(field, "texts")),
        };
        self.take(texts_max, field)?.into_iter().map(text).collect()
    }

    /// The same where only lists of token ids are meant.
    pub(crate) fn take_ids(
        self,
        lists_max: usize,
        field: &'static str,
    ) -> Result<Vec<Vec<u32>>, Problem> {
        let ids = |input| match input {
            EmbedInput::Ids(ids) => Ok(ids),
            EmbedInput::Text(_) => Err(unexpected(field, "token ids")),
        };
        self.take(lists_max, field)?.into_iter().map(ids).collect()
    }
}

impl Inputs {
    /// The same where only a list is meant, even of one text.
    pub(crate) fn only_list(self, field: &'static str) -> Result<Self, Problem> {
        if self.is_list {
            return Ok(self);
        }
        Err(Problem::new(Kind::Validation, format!("`{field}` must be a list of texts"))
            .about(field))
    }
}

fn unexpected(field: &'static str, wanted: &str) -> Problem {
    Problem::new(Kind::Validation, format!("`{field}` must have {wanted} only")).about(field)
}

/// There is nothing to work on.
pub(crate) fn empty(field: &'static str) -> Problem {
    Problem::new(Kind::Empty, format!("`{field}` cannot be empty")).about(field)
}

/// There are more texts than a request may have.
pub(crate) fn too_many(count: usize, texts_max: usize) -> Problem {
    let message = format!(
        "batch size {count} > maximum allowed batch size {texts_max}; send several requests"
    );
    Problem::new(Kind::Validation, message)
}

/// Refuses lists of texts that are empty or too long.
pub(crate) fn check_count(
    count: usize,
    texts_max: usize,
    field: &'static str,
) -> Result<(), Problem> {
    match count {
        0 => Err(empty(field)),
        count if count > texts_max => Err(too_many(count, texts_max).about(field)),
        _ => Ok(()),
    }
}

/// One element of a list.
enum Item {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

const ITEM: &str = "a text, a token id or a list of token ids";

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ITEM)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Item, E> {
        Ok(Item::Text(text))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Item, E> {
        u32::try_from(id).map(Item::Id).map_err(|_| E::custom("a token id is below 2^32"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut ids = Vec::new();
        while ids.len() < KEPT_MAX {
            match list.next_element::<u32>()? {
                Some(id) => ids.push(id),
                None => return Ok(Item::Ids(ids)),
            }
        }
        match list.next_element::<IgnoredAny>()? {
            None => Ok(Item::Ids(ids)),
            Some(_) => Err(A::Error::custom(format_args!("more than {KEPT_MAX} token ids"))),
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list of texts, a list of token ids, or a list of such lists")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Inputs, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Inputs, E> {
        Ok(Inputs { kept: vec![EmbedInput::Text(text)], count: 1, is_list: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
        let mixed = || A::Error::custom("token ids and other inputs in one list; put each apart");
        let mut ids = Vec::new();
        let mut kept = Vec::new();
        let mut count = 0_usize;
        while count < KEPT_MAX {
            let Some(item) = list.next_element::<Item>()? else { break };
            match item {
                Item::Id(id) if kept.is_empty() => ids.push(id),
                Item::Text(text) if ids.is_empty() => kept.push(EmbedInput::Text(text)),
                Item::Ids(row) if ids.is_empty() => kept.push(EmbedInput::Ids(row)),
                _ => return Err(mixed()),
            }
            count += 1;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        if ids.is_empty() {
            return Ok(Inputs { kept, count, is_list: true });
        }
        if count > KEPT_MAX {
            return Err(A::Error::custom(format_args!("more than {KEPT_MAX} token ids")));
        }
        Ok(Inputs { kept: vec![EmbedInput::Ids(ids)], count: 1, is_list: false })
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputsVisitor)
    }
}

impl PartialSchema for Inputs {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let id = || {
            let format = SchemaFormat::Custom("uint32".to_owned());
            ObjectBuilder::new()
                .schema_type(Type::Integer)
                .format(Some(format))
                .minimum(Some(0))
                .maximum(Some(u32::MAX))
        };
        let ids = || ArrayBuilder::new().items(id()).min_items(Some(1));
        let one_of = OneOfBuilder::new()
            .item(text())
            .item(ArrayBuilder::new().items(text()).min_items(Some(1)))
            .item(ids())
            .item(ArrayBuilder::new().items(ids()).min_items(Some(1)))
            .description(Some(
                "A text, several texts, token ids of the model's vocabulary (special tokens \
                 included), or several lists of them.",
            ));
        RefOr::T(Schema::OneOf(one_of.build()))
    }
}

impl ToSchema for Inputs {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Inputs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Inputs, serde_json::Error> {
        serde_json::from_str(json)
    }

    fn taken(json: &str) -> Result<Vec<EmbedInput>, Problem> {
        read(json).expect("understood").take(3, "inputs")
    }

    #[test]
    fn every_shape_is_understood() {
        assert_eq!(taken(r#""a""#), Ok(vec!["a".into()]));
        assert_eq!(taken(r#"["a","\u00e4"]"#), Ok(vec!["a".into(), "ä".into()]));
        assert_eq!(taken("[1,2,3,4]"), Ok(vec![vec![1, 2, 3, 4].into()]));
        assert_eq!(taken("[[1],[2,3]]"), Ok(vec![vec![1].into(), vec![2, 3].into()]));
        assert_eq!(taken(r#"["a",[7]]"#), Ok(vec!["a".into(), vec![7].into()]));
        assert!(!read("[1]").expect("ids").is_list && read("[[1]]").expect("ids").is_list);
    }

    #[test]
    fn other_shapes_are_refused() {
        for json in [
            "null",
            "7",
            "{}",
            "true",
            r#"[1,"a"]"#,
            r#"["a",1]"#,
            "[-1]",
            "[4294967296]",
            "[1.5]",
            "[[[1]]]",
            "[null]",
            "[[1,\"a\"]]",
            "[[1],2]",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn what_is_empty_or_too_long_says_so() {
        for json in ["[]", r#""""#, r#"["a",""]"#, "[[]]", "[[1],[]]"] {
            let problem = taken(json).expect_err(json);
            assert_eq!(problem.kind, Kind::Empty, "{json}");
            assert!(problem.message.starts_with("`inputs` cannot be empty"), "{}", problem.message);
        }
        let problem = taken(r#"["a","b","c","d"]"#).expect_err("four");
        assert!(problem.message.starts_with("batch size 4 > maximum allowed batch size 3"));
    }

    #[test]
    fn where_only_one_kind_is_meant_the_other_is_refused() {
        let read = |json| read(json).expect("understood");
        assert_eq!(read(r#"["a","b"]"#).take_texts(3, "inputs"), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(read("[4,5]").take_ids(3, "ids"), Ok(vec![vec![4, 5]]));
        assert!(read("[4,5]").take_texts(3, "inputs").is_err());
        assert!(read(r#"[[1],"a"]"#).take_ids(3, "ids").is_err());
    }

    #[test]
    fn a_list_beyond_all_limits_is_counted_and_not_kept() {
        let json = format!("[{}\"\"]", "\"a\",".repeat(KEPT_MAX + 10));
        let inputs = read(&json).expect("understood");
        assert_eq!((inputs.count, inputs.kept.len()), (KEPT_MAX + 11, KEPT_MAX));
        assert!(read(&format!("[{}1]", "1,".repeat(KEPT_MAX))).is_err());
        assert!(read(&format!("[[{}1]]", "1,".repeat(KEPT_MAX))).is_err());
    }
}
