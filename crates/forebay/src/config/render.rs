//! A configuration as commented TOML: what `forebay config show` prints and, for the defaults, the
//! committed `config/forebay.toml`.

use super::declare::Key;
use super::{Config, GROUPS};

/// The first lines of the file.
const HEAD: &str = "\
# Settings of Forebay. Every key is here with its default, so an empty file means the same.
#
# Unknown keys and values out of range are errors that name the line. The environment overrides a
# key as FOREBAY_<GROUP>__<KEY> (two underscores), for example FOREBAY_BATCH__TOKENS_MAX=4096.
# Relative paths in this file count from its own folder; those in the environment and on the command
# line from the current directory.
";

impl Config {
    /// Every setting in effect as a commented TOML file, which reads back as the same
    /// configuration.
    #[must_use]
    pub fn describe(&self) -> String {
        let values = self.to_table();
        let defaults = Self::default().to_table();
        let mut text = HEAD.to_owned();
        for group in GROUPS {
            text.push('\n');
            for line in group.about {
                text.push_str(&format!("#{line}\n"));
            }
            text.push_str(&format!("[{}]\n", group.name));
            for key in group.keys {
                let written = |table: &toml::Table| {
                    let value = table.get(group.name).and_then(|keys| keys.get(key.name));
                    value.map(toml::Value::to_string).unwrap_or_default()
                };
                push_key(&mut text, key, &written(&values), &written(&defaults));
            }
        }
        text
    }
}

fn push_key(text: &mut String, key: &Key, value: &str, default: &str) {
    for line in key.about {
        text.push_str(&format!("#{line}\n"));
    }
    let unit = if key.unit.is_empty() { String::new() } else { format!("{}; ", key.unit) };
    text.push_str(&format!("# ({unit}{}; default {default})\n", key.allowed));
    text.push_str(&format!("{} = {value}\n", key.name));
}
