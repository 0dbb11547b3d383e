//! `forebay config`: look at the configuration without starting anything.

use std::path::PathBuf;

use clap::Subcommand;
use forebay::Config;

use crate::failure::Failure;
use crate::out::say;
use crate::settings::Settings;

/// Check a configuration file, or print the configuration in effect
#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file and the environment
    ///
    /// Reads the file (or the one that --config or FOREBAY_CONFIG names) with the overrides of the
    /// environment, FOREBAY_GROUP__KEY. Every problem is printed with file, line, column, key
    /// and the allowed range; the exit code is 78 then. Paths are not followed: `forebay doctor`
    /// does that.
    #[command(after_long_help = "Example:\n  forebay config check config/forebay.toml")]
    Check {
        /// Configuration file
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print the configuration in effect, every key explained
    ///
    /// The output is a configuration file: it reads back as the same settings. File, environment
    /// and the options of this command are taken into account in this order.
    #[command(after_long_help = "\
Examples:
  forebay config show > forebay.toml
  forebay config show --config forebay.toml --precision int8")]
    Show,
}

/// Runs the command.
///
/// # Errors
/// Every problem of the configuration.
pub(crate) fn run(command: ConfigCommand, settings: &Settings) -> Result<(), Failure> {
    match command {
        ConfigCommand::Show => say!("{}", settings.config()?.describe()),
        ConfigCommand::Check { file } => match file.as_ref().or(settings.config.as_ref()) {
            Some(path) => {
                Config::load(path)?;
                say!("{}: ok\n", path.display())
            }
            None => {
                Config::from_env()?;
                say!("no file given; the environment is ok\n")
            }
        },
    }
}
