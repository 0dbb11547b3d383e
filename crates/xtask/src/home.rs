//! The git-ignored folder that fetched files live in, and how a component gets into it whole.
//!
//! Everything is first put together under `.staging` and takes its place by one rename, so an
//! interrupted run leaves either nothing or a whole component. One task at a time holds the folder;
//! what it finds in `.staging` is left over from a run that died, and is removed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use forebay_model::Manifest;

use crate::console::say;

/// How long a task waits for another one that holds the folder.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// What stands in a component's place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Complete and unchanged: the manifest's source.
    Verified(String),
    /// Nothing at all.
    Absent,
    /// Files that do not match their manifest, or have none: why.
    Unverified(String),
}

/// The folder, held by this process until dropped.
#[derive(Debug)]
pub(crate) struct Home {
    root: PathBuf,
    _lock: File,
}

impl Home {
    /// Creates the folder if need be, waits until no other task holds it and clears leftovers.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| {
            format!("cannot create {}: choose another with --into", root.display())
        })?;
        let lock_path = root.join(".lock");
        let lock = File::create(&lock_path)
            .with_context(|| format!("cannot create {}", lock_path.display()))?;
        wait_for(&lock, root)?;
        let home = Self { root: root.to_path_buf(), _lock: lock };
        home.clear_staging()?;
        Ok(home)
    }

    /// The place of a component, given by its path below the folder.
    pub(crate) fn path(&self, component: &str) -> PathBuf {
        self.root.join(component)
    }

    /// A fresh, empty staging folder.
    pub(crate) fn staging(&self) -> Result<PathBuf> {
        self.clear_staging()?;
        let staging = self.root.join(".staging");
        fs::create_dir(&staging).with_context(|| format!("cannot create {}", staging.display()))?;
        Ok(staging)
    }

    /// Removes the staging folder with all that is in it.
    pub(crate) fn clear_staging(&self) -> Result<()> {
        remove(&self.root.join(".staging"))
    }

    /// Verifies every file of a component against its manifest.
    pub(crate) fn state(&self, component: &str) -> State {
        let folder = self.path(component);
        if !folder.exists() {
            return State::Absent;
        }
        let checked = Manifest::read(&folder.join(Manifest::FILE_NAME))
            .and_then(|manifest| manifest.verify(&folder).map(|()| manifest.source));
        match checked {
            Ok(source) => State::Verified(source),
            Err(error) => State::Unverified(error.to_string()),
        }
    }

    /// Writes the manifest of the `staged` folder and moves it to the component's place, instead
    /// of whatever is there.
    pub(crate) fn install(&self, staged: &Path, component: &str, source: &str) -> Result<PathBuf> {
        Manifest::of_folder(staged, source)
            .and_then(|manifest| manifest.write(&staged.join(Manifest::FILE_NAME)))
            .with_context(|| format!("cannot write the manifest of {}", staged.display()))?;
        let place = self.path(component);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        if place.exists() {
            let aside = self.root.join(".staging").join("replaced");
            remove(&aside)?;
            fs::rename(&place, &aside)
                .with_context(|| format!("cannot move {} aside", place.display()))?;
        }
        fs::rename(staged, &place)
            .with_context(|| format!("cannot move {} to {}", staged.display(), place.display()))?;
        Ok(place)
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn wait_for(lock: &File, root: &Path) -> Result<()> {
    let started = Instant::now();
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).context(format!("cannot lock {}", root.display()));
            }
        }
        if !told {
            say(&format!("another task holds {}, waiting for it", root.display()));
            told = true;
        }
        if started.elapsed() > LOCK_WAIT_MAX {
            bail!("another task still holds {}: end it and try again", root.display());
        }
        thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(home: &Home, content: &str) -> PathBuf {
        let folder = home.staging().unwrap().join("component");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), content).unwrap();
        folder
    }

    #[test]
    fn an_installed_component_is_verified_and_a_changed_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        assert_eq!(home.state("models/m"), State::Absent);

        let place = home.install(&staged(&home, "one"), "models/m", "test 1").unwrap();
        assert_eq!(home.state("models/m"), State::Verified("test 1".to_owned()));

        fs::write(place.join("file"), "two").unwrap();
        assert!(matches!(home.state("models/m"), State::Unverified(_)));
        fs::remove_file(place.join(Manifest::FILE_NAME)).unwrap();
        assert!(matches!(home.state("models/m"), State::Unverified(_)));
    }

    #[test]
    fn installing_again_replaces_the_whole_component() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let place = home.install(&staged(&home, "old"), "c", "test 1").unwrap();
        fs::write(place.join("stray"), "left by someone").unwrap();

        home.install(&staged(&home, "new"), "c", "test 2").unwrap();
        assert_eq!(home.state("c"), State::Verified("test 2".to_owned()));
        assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "new");
        assert!(!place.join("stray").exists());
    }

    #[test]
    fn leftovers_of_a_dead_run_are_removed_and_are_never_a_component() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        staged(&home, "half");
        drop(home);

        let home = Home::open(folder.path()).unwrap();
        assert!(!folder.path().join(".staging").exists());
        assert_eq!(home.state("component"), State::Absent);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Home::open(&file.join("below")).unwrap_err();
        assert!(error.to_string().contains("--into"), "{error}");
    }
}
