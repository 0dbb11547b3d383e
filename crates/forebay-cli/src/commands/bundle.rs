//! `forebay bundle`: everything that a machine without a network needs, in one folder or archive.

use std::path::PathBuf;

use clap::Args;
use forebay::Config;

use crate::bundle::{plan, write};
use crate::failure::Failure;
use crate::out::say;
use crate::settings::Settings;

/// Put program, library, model, configuration and unit into one folder or archive
///
/// The bundle has this program, ONNX Runtime's library, the model, the settings in effect as
/// forebay.toml, the systemd unit with its drop-ins, documentation, the licence, and a manifest with
/// the SHA-256 of every file, which `sha256sum --check` reads too. The same inputs give the same
/// bytes. It appears whole or not at all. `forebay doctor --bundle` checks one.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  forebay bundle --model models/all-MiniLM-L6-v2 --output forebay.tar.gz
  forebay bundle --config vehicle.toml --output /srv/forebay --prefix /srv/forebay")]
pub(crate) struct BundleArgs {
    /// Where to: an archive if the name ends in .tar.gz, .tgz or .tar, else a folder
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// Replace what is there, if it is a file or a bundle
    #[arg(long)]
    force: bool,
    /// Folder from which the unit in the bundle starts it
    #[arg(long, value_name = "DIR", default_value = "/opt/forebay")]
    prefix: String,
}

/// The settings as they are written: relative paths stay relative.
fn written(settings: &Settings) -> Result<Config, Failure> {
    let Some(path) = &settings.config else { return Ok(Config::from_env()?) };
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure::reading(path.display(), &error))?;
    let origin = path.display().to_string();
    Ok(Config::from_toml_and_env(&text, &origin, std::env::vars_os())?)
}

/// Runs the command.
///
/// # Errors
/// Something is missing, damaged or changes meanwhile, or the output cannot be written.
pub(crate) fn run(args: &BundleArgs, settings: &Settings) -> Result<(), Failure> {
    let plan = plan(&settings.runtime_config()?, &written(settings)?, &args.prefix)?;
    write(&plan, &args.output, args.force)?;
    let manifest = &plan.manifest;
    say!(
        "{}: {} files, {} bytes before packing\nforebay {} for {}\nmodel {}\n",
        args.output.display(),
        manifest.files.len() + 1,
        plan.bytes(),
        manifest.version,
        manifest.target,
        manifest.model_fingerprint,
    )
}
