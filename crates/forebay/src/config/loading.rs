//! From TOML text and environment variables to a checked [`Config`], collecting every problem on
//! the way instead of stopping at the first.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::check::{based, check, from_variable, plain, with_article};
use super::declare::{Group, Key};
use super::near::{unknown_at_top, unknown_group, unknown_key};
use super::{Config, ConfigError, GROUPS, Problem, cross};

/// What an environment variable that overrides a setting begins with.
const ENV_PREFIX: &str = "FOREBAY_";

/// What parts group and key in such a variable.
const ENV_SEPARATOR: &str = "__";

/// Larger files are refused unread: a configuration has some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Config {
    /// Reads the file at `path` and applies the overrides of this process's environment. Relative
    /// paths in the file count from its folder, those in variables from the current directory.
    ///
    /// # Errors
    /// Every problem of the file and of the variables; see [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let text =
            read(path, &origin).map_err(|problem| ConfigError { problems: vec![problem] })?;
        // Absolute, so that what is described later means the same from everywhere.
        let base = std::path::absolute(path).ok().and_then(|path| Some(path.parent()?.to_owned()));
        Self::from_parts(&text, &origin, base.as_deref(), std::env::vars_os())
    }

    /// Takes the defaults with the overrides of this process's environment: for programs that were
    /// given no file.
    ///
    /// # Errors
    /// Every problem of the variables; see [`ConfigError`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_toml_and_env("", "", std::env::vars_os())
    }

    /// Parses `text`, without any environment. `origin` names it in messages: a path or the like.
    ///
    /// # Errors
    /// Every problem of the text; see [`ConfigError`].
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Self::from_toml_and_env(text, origin, std::iter::empty::<(OsString, OsString)>())
    }

    /// Parses `text` and applies those of the given variables that are named
    /// `FOREBAY_<GROUP>__<KEY>`; all others are ignored. Values are written as in TOML, but words
    /// and paths without quotes, and devices as `auto` or `cuda:0,cpu`.
    ///
    /// # Errors
    /// Every problem of both; see [`ConfigError`].
    pub fn from_toml_and_env<N, V>(
        text: &str,
        origin: &str,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        Self::from_parts(text, origin, None, variables)
    }

    /// The same with the folder from which relative paths in `text` count; `None` leaves them.
    fn from_parts<N, V>(
        text: &str,
        origin: &str,
        base: Option<&Path>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let mut draft = Draft { base: base.map(Path::to_owned), ..Draft::default() };
        draft.read_toml(text, origin);
        // The order of the environment is arbitrary; messages should not be.
        let variables: BTreeMap<OsString, OsString> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        for (name, value) in variables {
            if let Some(name) = name.to_str() {
                draft.read_variable(name, &value);
            }
        }
        draft.finish()
    }

    /// Checks a configuration that was built in code against the ranges and the rules between keys.
    ///
    /// # Errors
    /// Every key that is out of range or contradicts another; the problems have no line.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut draft = Draft::default();
        let table = self.to_table();
        for group in GROUPS {
            for key in group.keys {
                if let Some(value) = table.get(group.name).and_then(|keys| keys.get(key.name)) {
                    draft.set(group, key, value.clone(), Place::default());
                }
            }
        }
        draft.finish().map(|_| ())
    }

    /// This configuration as the tables of the file.
    #[expect(clippy::expect_used, reason = "every field is a number, word, list or UTF-8 text")]
    pub(super) fn to_table(&self) -> Table {
        Table::try_from(self).expect("settings have a TOML form")
    }
}

/// Reads a configuration file as text.
fn read(path: &Path, origin: &str) -> Result<String, Problem> {
    let problem = |line, message| Problem {
        file: origin.to_owned(),
        line,
        column: None,
        key: String::new(),
        message,
    };
    let unreadable =
        |error| problem(None, format!("cannot read the configuration: {error}; check the path"));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        let message = format!(
            "the file has {size} bytes, more than the {FILE_BYTES_MAX} that a configuration may \
             have; check the path"
        );
        return Err(problem(None, message));
    }
    String::from_utf8(std::fs::read(path).map_err(unreadable)?).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        problem(Some(line), "the text is not UTF-8; save the file as UTF-8".to_owned())
    })
}

/// Where a value was written.
#[derive(Clone, Debug)]
struct Place {
    file: String,
    line: Option<usize>,
    column: Option<usize>,
}

impl Default for Place {
    fn default() -> Self {
        Self { file: "configuration".to_owned(), line: None, column: None }
    }
}

impl Place {
    /// The place of the byte at `offset` in `text`.
    fn in_text(text: &str, origin: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let in_line = before.get(line_start..).unwrap_or_default();
        Self {
            file: origin.to_owned(),
            line: Some(1 + before.matches('\n').count()),
            column: Some(1 + in_line.chars().count()),
        }
    }
}

/// A configuration being put together.
#[derive(Default)]
struct Draft {
    /// From where relative paths of the text count; `None` leaves them as they are.
    base: Option<PathBuf>,
    /// The values that passed their checks, as the tables of the file.
    values: Table,
    /// Where each key (`group.key`) was last set.
    places: BTreeMap<String, Place>,
    /// Keys with a problem, which rules between keys leave out.
    bad: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Draft {
    fn report(&mut self, place: Place, key: &str, message: String) {
        self.bad.insert(key.to_owned());
        let Place { file, line, column } = place;
        self.problems.push(Problem { file, line, column, key: key.to_owned(), message });
    }

    fn read_toml(&mut self, text: &str, origin: &str) {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What was recovered around a syntax error may not be what was meant.
            for error in errors {
                let offset = error.span().map_or(0, |span| span.start);
                let message = format!("not valid TOML: {}", error.message());
                self.report(Place::in_text(text, origin, offset), "", message);
            }
            return;
        }
        let place = |offset| Place::in_text(text, origin, offset);
        for (name, value) in root.get_ref() {
            let group = GROUPS.into_iter().find(|group| group.name == name.get_ref().as_ref());
            match (group, value.get_ref()) {
                (Some(group), DeValue::Table(keys)) => self.read_group(group, keys, &place),
                (Some(group), other) => {
                    let message = format!(
                        "`{0}` is {1}, but it is a group; write [{0}] and its keys below",
                        group.name,
                        with_article(other.type_str()),
                    );
                    self.report(place(name.span().start), group.name, message);
                }
                (None, written) => {
                    let is_table = matches!(written, DeValue::Table(_));
                    let message = unknown_at_top(name.get_ref(), is_table);
                    self.report(place(name.span().start), name.get_ref(), message);
                }
            }
        }
    }

    fn read_group(
        &mut self,
        group: &'static Group,
        keys: &DeTable<'_>,
        place: &dyn Fn(usize) -> Place,
    ) {
        for (name, value) in keys {
            let Some(key) = group.keys.iter().find(|key| key.name == name.get_ref().as_ref())
            else {
                let message = unknown_key(group, name.get_ref());
                let full = format!("{}.{}", group.name, name.get_ref());
                self.report(place(name.span().start), &full, message);
                continue;
            };
            let place = place(value.span().start);
            match plain(value).and_then(|value| based(key.allowed, value, self.base.as_deref())) {
                Ok(value) => self.set(group, key, value, place),
                Err(what) => self.refuse(group, key, &what, place),
            }
        }
    }

    fn read_variable(&mut self, name: &str, value: &OsString) {
        let Some((group_name, key_name)) =
            name.strip_prefix(ENV_PREFIX).and_then(|rest| rest.split_once(ENV_SEPARATOR))
        else {
            return;
        };
        let place = Place { file: format!("environment variable {name}"), ..Place::default() };
        // Only the upper-case form is a setting, so that one setting has one variable.
        let group = GROUPS.into_iter().find(|group| group.name.to_uppercase() == group_name);
        let Some(group) = group else {
            let message = unknown_group(&group_name.to_lowercase());
            return self.report(place, name, message);
        };
        let key = group.keys.iter().find(|key| key.name.to_uppercase() == key_name);
        let Some(key) = key else {
            let message = unknown_key(group, &key_name.to_lowercase());
            return self.report(place, name, message);
        };
        let Some(text) = value.to_str() else {
            return self.refuse(group, key, "not UTF-8", place);
        };
        match from_variable(key.allowed, text) {
            Ok(value) => self.set(group, key, value, place),
            Err(what) => self.refuse(group, key, &what, place),
        }
    }

    /// Checks one value and keeps it.
    fn set(&mut self, group: &'static Group, key: &'static Key, value: Value, place: Place) {
        match check(key.allowed, &value) {
            Ok(()) => {
                self.places.insert(format!("{}.{}", group.name, key.name), place);
                let keys =
                    self.values.entry(group.name).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(keys) = keys {
                    keys.insert(key.name.to_owned(), value);
                }
            }
            Err(what) => self.refuse(group, key, &what, place),
        }
    }

    /// Reports that the value of `key` is `what`, which is not allowed.
    fn refuse(&mut self, group: &Group, key: &Key, what: &str, place: Place) {
        let full = format!("{}.{}", group.name, key.name);
        let message = format!("`{full}` is {what}; allowed: {}", key.allowed_text());
        self.report(place, &full, message);
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        let values = std::mem::take(&mut self.values);
        match Config::deserialize(values) {
            Ok(config) => {
                for clash in cross::clashes(&config) {
                    if clash.keys.iter().any(|key| self.bad.contains(*key)) {
                        continue;
                    }
                    let set =
                        clash.keys.iter().find_map(|key| Some((*key, self.places.get(*key)?)));
                    let (key, place) = set
                        .map_or((clash.keys[0], Place::default()), |(key, place)| {
                            (key, place.clone())
                        });
                    self.report(place, key, clash.message);
                }
                if self.problems.is_empty() {
                    return Ok(config);
                }
            }
            Err(error) => {
                let message = format!("cannot use the configuration: {}", error.message());
                self.report(Place::default(), "", message);
            }
        }
        self.problems.sort_by_key(|problem| {
            (problem.line.unwrap_or(usize::MAX), problem.column.unwrap_or(usize::MAX))
        });
        Err(ConfigError { problems: self.problems })
    }
}
