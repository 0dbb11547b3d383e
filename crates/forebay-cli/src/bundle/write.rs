//! Writing a bundle: the same bytes for the same plan, whole or not at all. It is written beside its
//! place, with the process's number and `.partial` behind its name, and renamed.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::{Compression, GzBuilder};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::plan::{Content, Entry, Plan};
use super::sum::Summing;
use super::{FOLDER, MANIFEST};
use crate::failure::{Exit, Failure};

/// When every file was last changed: 1980, which no archiver complains about.
const MTIME_S: u64 = 315_532_800;

/// What a bundle is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Folder,
    Tar,
    TarGz,
}

impl Form {
    /// What the name asks for.
    fn of(path: &Path) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            Self::TarGz
        } else if name.ends_with(".tar") {
            Self::Tar
        } else {
            Self::Folder
        }
    }
}

/// Writes the bundle to `output`, in the form that its name asks for.
///
/// # Errors
/// `output` is there already and not to be replaced; a file has changed since the plan was made; or
/// what the operating system says.
pub(crate) fn write(plan: &Plan, output: &Path, replace: bool) -> Result<(), Failure> {
    let there = output.symlink_metadata().is_ok();
    if there && !replace {
        let message = format!("{} is there already", output.display());
        return Err(Failure::new(Exit::CannotCreate, message)
            .help("give another name, or --force to replace it"));
    }
    // What is replaced is removed, with everything in it.
    if there && output.is_dir() && !output.join(MANIFEST).is_file() {
        let message = format!("{} is a folder and no bundle", output.display());
        return Err(Failure::new(Exit::CannotCreate, message).help("give another name"));
    }
    let partial = Partial::beside(output)?;
    match Form::of(output) {
        Form::Folder => folder(plan, &partial.path)?,
        Form::Tar => {
            let writer = archive(plan, BufWriter::new(create(&partial.path)?), &partial.path)?;
            finish(writer, &partial.path)?;
        }
        Form::TarGz => {
            let file = BufWriter::new(create(&partial.path)?);
            let packed = GzBuilder::new().mtime(0).write(file, Compression::default());
            let packed = archive(plan, packed, &partial.path)?;
            let writer = packed
                .finish()
                .map_err(|error| Failure::writing(partial.path.display(), &error))?;
            finish(writer, &partial.path)?;
        }
    }
    partial.put(output, there)
}

/// Something half-written, which is removed unless it gets to its place.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn beside(output: &Path) -> Result<Self, Failure> {
        let Some(name) = output.file_name() else {
            let message = format!("{} names no file", output.display());
            return Err(Failure::new(Exit::Usage, message).help("give a name for the bundle"));
        };
        // Of this process alone: what another one writes, or somebody's own file, is not touched.
        let mut name = name.to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let path = output.with_file_name(name);
        if path.symlink_metadata().is_ok() {
            let message = format!("{} is there already", path.display());
            return Err(Failure::new(Exit::CannotCreate, message).help("remove it and try again"));
        }
        Ok(Self { path })
    }

    fn put(self, output: &Path, there: bool) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::writing(output.display(), &error);
        if there && (output.is_dir() || self.path.is_dir()) {
            // In one step; what was there is removed under the other name.
            renameat_with(CWD, &self.path, CWD, output, RenameFlags::EXCHANGE)
                .map_err(|error| failed(error.into()))?;
        } else {
            fs::rename(&self.path, output).map_err(failed)?;
        }
        let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Nothing more can be done about what a disk does not let go of.
        remove(&self.path).ok();
    }
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    File::create_new(path).map_err(|error| Failure::creating(path, &error))
}

fn mode(entry: &Entry) -> u32 {
    if entry.is_executable { 0o755 } else { 0o644 }
}

/// Reads an entry into `take`, and makes sure that it is still what the plan has.
fn pass<T>(
    path: &str,
    entry: &Entry,
    take: impl FnOnce(&mut dyn Read) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (taken, (sum, bytes), name) = match &entry.content {
        Content::Bytes(bytes) => {
            let mut reader = Summing::new(bytes.as_slice());
            (take(&mut reader)?, reader.finish(), path.to_owned())
        }
        Content::File(file) => {
            let open = File::open(file);
            let open = open.map_err(|error| Failure::reading(file.display(), &error))?;
            // Not more than was planned for: an archive has said how much it is.
            let mut reader = Summing::new(open.take(entry.bytes));
            (take(&mut reader)?, reader.finish(), file.display().to_string())
        }
    };
    if sum != entry.sum || bytes != entry.bytes {
        let message = format!("{name} has changed while it was bundled");
        return Err(Failure::new(Exit::Failed, message).help("bundle again when nothing writes it"));
    }
    Ok(taken)
}

fn folder(plan: &Plan, root: &Path) -> Result<(), Failure> {
    fs::create_dir(root).map_err(|error| Failure::creating(root, &error))?;
    for folder in folders(plan) {
        let folder = root.join(folder);
        fs::create_dir(&folder).map_err(|error| Failure::creating(&folder, &error))?;
        set_mode(&folder, 0o755)?;
    }
    set_mode(root, 0o755)?;
    let mtime = SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME_S);
    for (path, entry) in &plan.entries {
        let target = root.join(path);
        let mut file = create(&target)?;
        let failed = |error: io::Error| Failure::writing(target.display(), &error);
        pass(path, entry, |reader| io::copy(reader, &mut file).map_err(failed))?;
        file.set_modified(mtime).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        set_mode(&target, mode(entry))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|error| Failure::writing(path.display(), &error))
}

/// Every folder below the bundle's own, outer ones first.
fn folders(plan: &Plan) -> BTreeSet<&str> {
    plan.entries
        .keys()
        .flat_map(|path| path.match_indices('/').map(move |(at, _)| path.get(..at).unwrap_or("")))
        .collect()
}

fn archive<W: Write>(plan: &Plan, writer: W, partial: &Path) -> Result<W, Failure> {
    let failed = |error: io::Error| Failure::writing(partial.display(), &error);
    let mut archive = tar::Builder::new(writer);
    let own = std::iter::once(format!("{FOLDER}/"));
    for folder in own.chain(folders(plan).iter().map(|folder| format!("{FOLDER}/{folder}/"))) {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        archive.append_data(&mut header, folder, io::empty()).map_err(failed)?;
    }
    for (path, entry) in &plan.entries {
        let mut header = header(tar::EntryType::Regular, mode(entry), entry.bytes);
        pass(path, entry, |reader| {
            archive.append_data(&mut header, format!("{FOLDER}/{path}"), reader).map_err(failed)
        })?;
    }
    archive.into_inner().map_err(failed)
}

fn header(kind: tar::EntryType, mode: u32, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME_S);
    header.set_size(bytes);
    header
}

fn finish(writer: BufWriter<File>, partial: &Path) -> Result<(), Failure> {
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error);
    file.and_then(|file| file.sync_all())
        .map_err(|error| Failure::writing(partial.display(), &error))
}
