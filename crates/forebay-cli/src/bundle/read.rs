//! Opening a bundle, folder or archive, and finding everything that is wrong with its files. An
//! archive is unpacked into a temporary folder, never beyond it. Nothing in it is run.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use tempfile::TempDir;

use super::manifest::ManifestError;
use super::sum::{Summing, sum_of};
use super::{FILES_MAX, FOLDER, MANIFEST, Manifest, is_plain};
use crate::failure::Failure;

/// Most bytes that an archive may unpack to.
const UNPACKED_BYTES_MAX: u64 = 1 << 36;

/// Folders nested deeper than this are no bundle.
const DEPTH_MAX: usize = 16;

/// How a compressed archive begins.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Something wrong with a bundle.
#[derive(Debug)]
pub(crate) enum Finding {
    /// A listed file is not there.
    Missing { path: String },
    /// A file is there that is not listed.
    Unlisted { path: String },
    /// A file is not what it was.
    Changed { path: String },
    /// A link; a bundle has none.
    Link { path: String, target: String },
    /// A path that leads out of the bundle, or is none.
    Outside { path: String },
    /// Neither file nor folder, or there twice.
    Odd { path: String },
    /// It cannot be read.
    Unreadable { path: String, reason: String },
    /// The archive is damaged or goes beyond a limit.
    Archive { reason: String },
    /// The manifest is none.
    Manifest(ManifestError),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "{path} is listed and not there"),
            Self::Unlisted { path } => write!(f, "{path} is there and not listed"),
            Self::Changed { path } => write!(f, "{path} is not what it was: its sum differs"),
            Self::Link { path, target } => write!(f, "{path} is a link to {target}"),
            Self::Outside { path } => write!(f, "{path:?} is not a plain path inside the bundle"),
            Self::Odd { path } => write!(f, "{path} is there twice, or no file"),
            Self::Unreadable { path, reason } => write!(f, "{path} cannot be read: {reason}"),
            Self::Archive { reason } => write!(f, "the archive is damaged: {reason}"),
            Self::Manifest(error) => write!(f, "{MANIFEST} cannot be used: {error}"),
        }
    }
}

impl Finding {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Changed { .. } | Self::Manifest(_) => {
                "copy the bundle here again; if it is damaged there too, make it again"
            }
            Self::Archive { .. } => "copy the archive here again, whole; or make it again",
            Self::Unlisted { .. } => {
                "remove it, or unpack the bundle into an empty folder: settings of this machine \
                 belong elsewhere"
            }
            Self::Link { .. } | Self::Outside { .. } | Self::Odd { .. } => {
                "do not use this bundle: `forebay bundle` never makes the like"
            }
            Self::Unreadable { .. } => "give a folder that this user may read, on a sound disk",
        }
    }
}

/// A bundle that was looked through.
pub(crate) struct Opened {
    /// The folder that has it.
    pub(crate) root: PathBuf,
    /// What it says of itself, if that can be read.
    pub(crate) manifest: Option<Manifest>,
    /// Everything that is wrong, in the order of the paths.
    pub(crate) findings: Vec<Finding>,
    /// Where an archive was unpacked; removed with this.
    _scratch: Option<TempDir>,
}

/// Looks through the bundle at `path`.
///
/// # Errors
/// There is nothing at `path`, or no room to unpack it.
pub(crate) fn open(path: &Path) -> Result<Opened, Failure> {
    let kind = fs::metadata(path).map_err(|error| {
        Failure::reading(path.display(), &error).help("give the folder or archive of a bundle")
    })?;
    let mut look = Look::default();
    let (root, scratch) = if kind.is_dir() {
        look.folder(path, "", DEPTH_MAX);
        (path.to_owned(), None)
    } else {
        let scratch = tempfile::Builder::new().prefix("forebay-bundle-").tempdir();
        let scratch = scratch.map_err(|error| Failure::creating(&std::env::temp_dir(), &error))?;
        look.archive(path, scratch.path())?;
        (scratch.path().to_owned(), Some(scratch))
    };
    let manifest = look.judge(&root);
    Ok(Opened { root, manifest, findings: look.findings, _scratch: scratch })
}

/// Entries of an archive at most: every file may have a folder of its own.
const ENTRIES_MAX: usize = 2 * FILES_MAX;

#[derive(Default)]
struct Look {
    /// Path to sum of every file that could be read.
    sums: BTreeMap<String, String>,
    findings: Vec<Finding>,
}

impl Look {
    /// Compares what was found with what the manifest lists.
    fn judge(&mut self, root: &Path) -> Option<Manifest> {
        if self.sums.remove(MANIFEST).is_none() {
            self.findings.push(Finding::Missing { path: MANIFEST.to_owned() });
            return None;
        }
        let manifest = match fs::read_to_string(root.join(MANIFEST)) {
            Ok(text) => Manifest::parse(&text),
            Err(error) => {
                let (path, reason) = (MANIFEST.to_owned(), error.to_string());
                self.findings.push(Finding::Unreadable { path, reason });
                return None;
            }
        };
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(error) => {
                self.findings.push(Finding::Manifest(error));
                return None;
            }
        };
        for (path, sum) in &manifest.files {
            match self.sums.remove(path) {
                Some(found) if found == *sum => {}
                Some(_) => self.findings.push(Finding::Changed { path: path.clone() }),
                None => self.findings.push(Finding::Missing { path: path.clone() }),
            }
        }
        let unlisted = std::mem::take(&mut self.sums).into_keys();
        self.findings.extend(unlisted.map(|path| Finding::Unlisted { path }));
        Some(manifest)
    }

    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) {
        let unreadable = |path: &str, error: &io::Error| Finding::Unreadable {
            path: if path.is_empty() { ".".to_owned() } else { path.to_owned() },
            reason: error.to_string(),
        };
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.findings.push(unreadable(prefix, &error)),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let place = entry.path();
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if !is_plain(&path) || entry.file_name().to_str().is_none() {
                self.findings.push(Finding::Outside { path });
                continue;
            }
            if self.sums.len() > FILES_MAX {
                let reason = format!("more than {FILES_MAX} files");
                return self.findings.push(Finding::Archive { reason });
            }
            match entry.file_type() {
                Err(error) => self.findings.push(unreadable(&path, &error)),
                Ok(kind) if kind.is_symlink() => self.link(path, fs::read_link(place).ok()),
                Ok(kind) if kind.is_dir() && depth > 0 => {
                    self.folder(&place, &format!("{path}/"), depth - 1);
                }
                Ok(kind) if kind.is_file() => match File::open(&place).and_then(sum_of) {
                    Ok((sum, _)) => drop(self.sums.insert(path, sum)),
                    Err(error) => self.findings.push(unreadable(&path, &error)),
                },
                Ok(_) => self.findings.push(Finding::Odd { path }),
            }
        }
    }

    fn link(&mut self, path: String, target: Option<PathBuf>) {
        let target = target.map_or("nowhere".to_owned(), |target| target.display().to_string());
        self.findings.push(Finding::Link { path, target });
    }

    /// Unpacks an archive; what is damaged becomes a finding.
    fn archive(&mut self, path: &Path, scratch: &Path) -> Result<(), Failure> {
        let open = || File::open(path).map(BufReader::new);
        let unreadable = |error: io::Error| Failure::reading(path.display(), &error);
        let mut start = Vec::new();
        open().and_then(|file| file.take(2).read_to_end(&mut start)).map_err(unreadable)?;
        let file = open().map_err(unreadable)?;
        if start == GZIP_MAGIC {
            let rest = self.entries(GzDecoder::new(file), scratch)?;
            // A second archive behind the first is nothing that anybody would see.
            if rest.is_some_and(|rest| rest.into_inner().bytes().next().is_some()) {
                self.damaged("there is more behind its end");
            }
        } else {
            self.entries(file, scratch)?;
        }
        Ok(())
    }

    fn damaged(&mut self, reason: impl fmt::Display) {
        self.findings.push(Finding::Archive { reason: reason.to_string() });
    }

    /// Unpacks every entry; gives the reader back, read to its end, if that was reached.
    fn entries<R: Read>(&mut self, reader: R, scratch: &Path) -> Result<Option<R>, Failure> {
        let mut archive = tar::Archive::new(reader);
        let entries = match archive.entries() {
            Ok(entries) => entries,
            Err(error) => {
                self.damaged(error);
                return Ok(None);
            }
        };
        let mut bytes_left = UNPACKED_BYTES_MAX;
        for (count, entry) in entries.enumerate() {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.damaged(error);
                    return Ok(None);
                }
            };
            // Folders and what is refused count, too.
            if entry.size() > bytes_left || count > ENTRIES_MAX {
                self.damaged(format_args!(
                    "more than {UNPACKED_BYTES_MAX} bytes or {ENTRIES_MAX} entries"
                ));
                return Ok(None);
            }
            bytes_left -= entry.size();
            if let Err(reason) = self.entry(&mut entry, scratch)? {
                self.damaged(reason);
                return Ok(None);
            }
        }
        let mut reader = archive.into_inner();
        if let Err(error) = io::copy(&mut reader, &mut io::sink()) {
            self.damaged(error);
            return Ok(None);
        }
        Ok(Some(reader))
    }

    /// Unpacks one entry. The inner error is one of the archive, the outer one of this machine.
    fn entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        scratch: &Path,
    ) -> Result<Result<(), String>, Failure> {
        let full = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        let own = format!("{FOLDER}/");
        if kind.is_dir() && full == own {
            return Ok(Ok(()));
        }
        let path = full.strip_prefix(&own).filter(|path| is_plain(path.trim_end_matches('/')));
        let Some(path) = path.map(str::to_owned) else {
            self.findings.push(Finding::Outside { path: full });
            return Ok(Ok(()));
        };
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes();
            let target = target.map(|bytes| String::from_utf8_lossy(&bytes).into_owned().into());
            self.link(path, target);
            return Ok(Ok(()));
        }
        let target = scratch.join(&path);
        let failed = |error: io::Error| {
            Failure::writing(target.display(), &error)
                .help("set TMPDIR to a folder with room for the unpacked bundle")
        };
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(failed)?;
            return Ok(Ok(()));
        }
        if !kind.is_file() || !is_plain(&path) || self.sums.contains_key(&path) {
            self.findings.push(Finding::Odd { path });
            return Ok(Ok(()));
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let size = entry.size();
        let is_executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
        let mut summing = Summing::new(entry);
        let mut file = File::create_new(&target).map_err(failed)?;
        let copied = io::copy(&mut summing, &mut file);
        let (sum, bytes) = summing.finish();
        match copied {
            Ok(_) if bytes == size => {}
            Ok(_) => return Ok(Err(format!("it ends in the middle of {path}"))),
            Err(error) if is_of_disk(&error) => return Err(failed(error)),
            Err(error) => return Ok(Err(format!("in {path}: {error}"))),
        }
        let mode = if is_executable { 0o755 } else { 0o644 };
        fs::set_permissions(&target, Permissions::from_mode(mode)).map_err(failed)?;
        self.sums.insert(path, sum);
        Ok(Ok(()))
    }
}

/// Whether copying failed for want of room here, and not for what was read.
fn is_of_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
