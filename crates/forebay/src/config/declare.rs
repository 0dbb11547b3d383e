//! How a group of settings is declared: one `group!` makes the struct, its defaults and the table
//! that loading, checking and rendering share. It holds no setting itself.

use std::fmt;

/// One table of the file, such as `[batch]`.
pub(super) struct Group {
    /// The table's name.
    pub(super) name: &'static str,
    /// What the group is about, one element per line of its doc comment.
    pub(super) about: &'static [&'static str],
    /// The keys, in the order they are written.
    pub(super) keys: &'static [Key],
}

/// One setting.
pub(super) struct Key {
    /// The name inside its group.
    pub(super) name: &'static str,
    /// Why the key exists, one element per line of its doc comment.
    pub(super) about: &'static [&'static str],
    /// Unit of the value; empty where it has none.
    pub(super) unit: &'static str,
    /// What may be written.
    pub(super) allowed: Allowed,
}

/// What a key accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Allowed {
    /// A whole number, both ends included.
    Integer(i64, i64),
    /// A number, both ends included.
    Number(f64, f64),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path; the text says what an empty one means.
    Path(&'static str),
    /// The word, or a path; the text says what an empty one means.
    PathOr(&'static str, &'static str),
    /// A name without spaces; the text says what an empty one means.
    Name(&'static str),
    /// At most this many such names.
    NameList(usize),
    /// At most this many SHA-256 sums in hexadecimal.
    HashList(usize),
    /// An IP address with a port; the text says what an empty one means.
    Address(&'static str),
    /// An `http://` address; the text says what an empty one means.
    Url(&'static str),
    /// `"auto"` or a list of devices.
    Rungs,
    /// At most this many paths.
    PathList(usize),
    /// At least one and at most this many whole numbers, each between the two bounds.
    IntegerList(usize, i64, i64),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(low, high) => write!(f, "{low} to {high}"),
            Self::Number(low, high) => write!(f, "{low} to {high}"),
            Self::Switch => f.write_str("true or false"),
            Self::Choice(words) => {
                for (nth, word) in words.iter().enumerate() {
                    if nth > 0 {
                        f.write_str(if nth + 1 == words.len() { " or " } else { ", " })?;
                    }
                    write!(f, "\"{word}\"")?;
                }
                Ok(())
            }
            Self::Path(empty) => write!(f, "a path in quotes, \"\" for {empty}"),
            Self::PathOr(word, empty) => {
                write!(f, "\"{word}\" or a path in quotes, \"\" for {empty}")
            }
            Self::Name(empty) => write!(f, "a name in quotes, \"\" for {empty}"),
            Self::NameList(count) => write!(f, "a list of at most {count} names"),
            Self::HashList(count) => {
                write!(f, "a list of at most {count} SHA-256 sums of 64 hexadecimal digits")
            }
            Self::Address(empty) => {
                write!(f, "an address with a port such as \"127.0.0.1:8080\", \"\" for {empty}")
            }
            Self::Url(empty) => write!(
                f,
                "an address such as \"http://127.0.0.1:4318\", without TLS, \"\" for {empty}"
            ),
            Self::Rungs => f.write_str("\"auto\" or a list such as [\"cuda:0\", \"cpu\"]"),
            Self::PathList(count) => write!(f, "a list of at most {count} paths"),
            Self::IntegerList(count, low, high) => {
                write!(f, "a list of 1 to {count} numbers, each {low} to {high}")
            }
        }
    }
}

impl Key {
    /// The allowed values with their unit, as error messages and comments show them.
    pub(super) fn allowed_text(&self) -> String {
        if self.unit.is_empty() {
            self.allowed.to_string()
        } else {
            format!("{} {}", self.allowed, self.unit)
        }
    }
}

/// Declares one group: `Struct as "table" { /// why  key: Type = default, "unit", allowed; }`.
macro_rules! group {
    (
        $(#[doc = $group_doc:literal])+
        $Name:ident as $table:literal {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde $serde:tt])?
                $key:ident: $Type:ty = $default:expr, $unit:literal, $allowed:expr;
            )+
        }
    ) => {
        $(#[doc = $group_doc])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $Name {
            $(
                $(#[doc = $doc])+
                #[doc = ""]
                #[doc = concat!(
                    " Default `", stringify!($default), "`; allowed `", stringify!($allowed),
                    "` ", $unit, "."
                )]
                $(#[serde $serde])?
                pub $key: $Type,
            )+
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $($key: $default),+ }
            }
        }

        impl $Name {
            pub(super) const GROUP: $crate::config::declare::Group =
                $crate::config::declare::Group {
                    name: $table,
                    about: &[$($group_doc),+],
                    keys: &[$(
                        $crate::config::declare::Key {
                            name: stringify!($key),
                            about: &[$($doc),+],
                            unit: $unit,
                            allowed: $allowed,
                        }
                    ),+],
                };
        }
    };
}

pub(super) use group;
