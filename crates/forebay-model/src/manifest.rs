//! The manifest of a model folder: size and sha256 of every file, and where the files came from.
//!
//! A manifest turns "some files in a folder" into one model that is the same on every machine. It
//! proves that files are unchanged since the manifest was written; it is not a signature and says
//! nothing about who wrote it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::ModelError;
use crate::files::{self, INDEX_BYTES_MAX};

/// Version of the JSON layout below.
const FORMAT: u32 = 1;

/// Folders nested deeper than this are not a model.
const DEPTH_MAX: usize = 8;

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// sha256 of the content, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// Size and digest of every file of a model folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Path relative to the folder, with `/` between its parts, to digest.
    pub files: BTreeMap<String, FileDigest>,
    /// Where the files came from, for people: a package with its version, a repository with its
    /// revision.
    pub source: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    format: u32,
    source: String,
    files: BTreeMap<String, FileDigest>,
}

impl Manifest {
    /// Name of the manifest inside a model folder.
    pub const FILE_NAME: &str = "manifest.json";

    /// Digests every regular file below `folder`, except the manifest itself and names that begin
    /// with a dot.
    ///
    /// # Errors
    /// [`ModelError::NotAFolder`], [`ModelError::Io`], or [`ModelError::OutsideFolder`] for a link
    /// that leads out of the folder.
    pub fn of_folder(folder: &Path, source: impl Into<String>) -> Result<Self, ModelError> {
        if !folder.is_dir() {
            return Err(ModelError::NotAFolder { path: folder.to_owned() });
        }
        let mut names = Vec::new();
        list(folder, "", DEPTH_MAX, &mut names)?;
        let mut digests = BTreeMap::new();
        for name in names {
            let path = files::join_inside(folder, &name, folder)?;
            digests.insert(name, digest_file(&path)?);
        }
        Ok(Self { files: digests, source: source.into() })
    }

    /// Writes the manifest as readable JSON to the file `path`. The file appears whole or not at
    /// all: it is written beside its place and renamed.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), action: "write", source };
        let text =
            self.to_json().map_err(|source| ModelError::Json { path: path.to_owned(), source })?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".partial");
        let beside = PathBuf::from(beside);
        let mut file = File::create(&beside).map_err(io)?;
        let written = file
            .write_all(&text)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|source| {
            // Nothing more can be done about a partial file on a disk that refuses writes.
            drop(std::fs::remove_file(&beside));
            io(source)
        })
    }

    /// The content of a manifest file: readable JSON, the same bytes for the same manifest.
    ///
    /// # Errors
    /// None that can be met with; JSON in general may not be writable.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let on_disk =
            OnDisk { format: FORMAT, source: self.source.clone(), files: self.files.clone() };
        let mut text = serde_json::to_vec_pretty(&on_disk)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the manifest file at `path` (the file itself, not its folder).
    ///
    /// # Errors
    /// [`ModelError::FileMissing`], [`ModelError::Io`], [`ModelError::Json`], or
    /// [`ModelError::Config`] for an unknown format or a digest that is none.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let remedy = "write it with the setup command, or use the folder without one";
        let on_disk: OnDisk = files::read_json(path, INDEX_BYTES_MAX, remedy)?;
        let refuse = |key, found, expected: &str| {
            let expected = expected.to_owned();
            Err(ModelError::Config { path: path.to_owned(), key, found, expected })
        };
        if on_disk.format != FORMAT {
            let expected = "1: this manifest was written by a newer version";
            return refuse("format", on_disk.format.to_string(), expected);
        }
        let is_digest = |text: &str| {
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if let Some((name, digest)) = on_disk.files.iter().find(|(_, d)| !is_digest(&d.sha256)) {
            let found = format!("{:?} for {name:?}", digest.sha256);
            return refuse("sha256", found, "64 lower-case hexadecimal digits");
        }
        Ok(Self { files: on_disk.files, source: on_disk.source })
    }

    /// Reads every listed file and compares its size and sha256. Files that are not listed are
    /// ignored.
    ///
    /// # Errors
    /// [`ModelError::DigestMismatch`] for the first file that differs, [`ModelError::FileMissing`]
    /// for one that is gone, [`ModelError::OutsideFolder`] for a name that leads elsewhere.
    pub fn verify(&self, folder: &Path) -> Result<(), ModelError> {
        let manifest = folder.join(Self::FILE_NAME);
        for (name, expected) in &self.files {
            let path = files::join_inside(folder, name, &manifest)?;
            let found = digest_file(&path)?;
            if found != *expected {
                return Err(ModelError::DigestMismatch {
                    path,
                    expected: expected.sha256.clone(),
                    found: found.sha256,
                    expected_bytes: expected.bytes,
                    found_bytes: found.bytes,
                });
            }
        }
        Ok(())
    }

    /// sha256 over the sorted names, sizes and digests: the same on every machine.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, digest) in &self.files {
            hasher.update(format!("{}\0{}\0{}\n", name, digest.bytes, digest.sha256));
        }
        hex(&hasher.finalize())
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|&byte| [digit(byte >> 4), digit(byte)]).collect()
}

fn list(
    folder: &Path,
    prefix: &str,
    depth: usize,
    names: &mut Vec<String>,
) -> Result<(), ModelError> {
    let io = |source| ModelError::Io { path: folder.to_owned(), action: "list", source };
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(io(std::io::Error::other("it has a file whose name is not UTF-8")));
        };
        if name.starts_with('.') || (prefix.is_empty() && name == Manifest::FILE_NAME) {
            continue;
        }
        let path = entry.path();
        let kind = std::fs::metadata(&path).map_err(io)?;
        if kind.is_file() {
            names.push(format!("{prefix}{name}"));
        } else if kind.is_dir() && depth > 0 {
            list(&path, &format!("{prefix}{name}/"), depth - 1, names)?;
        } else if kind.is_dir() {
            return Err(io(std::io::Error::other("its folders are nested too deeply")));
        }
    }
    Ok(())
}

fn digest_file(path: &Path) -> Result<FileDigest, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), action: "read", source };
    let remedy = "the manifest lists it: restore the file, or write the manifest again";
    let mut file = files::open_regular(path, remedy)?.0;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 17];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(io(source)),
        }
    }
    Ok(FileDigest { sha256: hex(&hasher.finalize()), bytes })
}
