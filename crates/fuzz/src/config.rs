//! A configuration file, and behind a line `---` environment variables, one per line.

use forebay::config::Config;

/// What parts file and environment.
const SEPARATOR: &str = "\n---\n";

/// Loads the settings; what was accepted must be valid, and must come back from its own description.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, variables) = text.split_once(SEPARATOR).unwrap_or((text, ""));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    match Config::from_toml_and_env(file, "fuzz.toml", variables) {
        Ok(config) => {
            assert_eq!(config.validate(), Ok(()));
            let described = config.describe();
            assert_eq!(Config::from_toml(&described, "described"), Ok(config), "{described}");
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                assert!(!problem.message.is_empty());
                let shown = problem.to_string();
                assert!(!shown.contains('\n'), "a problem takes several lines: {shown:?}");
            }
        }
    }
}
