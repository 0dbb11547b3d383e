//! Where rows go: a `.npy` file, a `.jsonl` file, or JSON lines on standard output.
//!
//! A file is written beside its final name, as `NAME.partial`, and takes that name only when it is
//! whole and on the disk. Whatever ends the command before that removes the partial file. Two
//! commands never write the same one: it is locked.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use forebay::Embedding;
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::npy::NpyWriter;

const BUFFER_BYTES: usize = 256 * 1024;

/// The partial file that exists now, for an end that skips destructors.
static PARTIAL: Mutex<Option<PathBuf>> = Mutex::new(None);

/// What the command line names as output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A NumPy array.
    Npy(PathBuf),
    /// One JSON object per row.
    Jsonl(PathBuf),
    /// The same on standard output.
    Stdout,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if text == "-" => Ok(Self::Stdout),
            Some("npy") => Ok(Self::Npy(path)),
            Some("jsonl") => Ok(Self::Jsonl(path)),
            _ => Err("the name must end in .npy or .jsonl, or be - for standard output".into()),
        }
    }
}

impl Target {
    /// The file, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Npy(path) | Self::Jsonl(path) => Some(path),
            Self::Stdout => None,
        }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> String {
        self.path().map_or("standard output".to_owned(), |path| path.display().to_string())
    }
}

/// An output that can be written to, before its width is known.
pub(crate) struct Output {
    target: Target,
    partial: Option<Partial>,
}

impl Output {
    /// Creates the partial file, so that an unwritable place is known before any work.
    ///
    /// # Errors
    /// The file cannot be created, or another command is writing it.
    pub(crate) fn create(target: Target) -> Result<Self, Failure> {
        let partial = target.path().map(Partial::create).transpose()?;
        Ok(Self { target, partial })
    }

    /// Begins to write rows of `width` values.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn begin(self, width: usize) -> Result<RowWriter, Failure> {
        let name = self.target.name();
        let failed = |error| Failure::writing(&name, &error);
        let (encoder, partial) = match (self.target, self.partial) {
            (Target::Npy(_), Some(partial)) => {
                let file = partial.file.try_clone().map_err(failed)?;
                let npy = NpyWriter::new(BufWriter::with_capacity(BUFFER_BYTES, file), width);
                (Encoder::Npy(npy.map_err(failed)?), Some(partial))
            }
            (_, Some(partial)) => {
                let file = partial.file.try_clone().map_err(failed)?;
                (
                    Encoder::Json(BufWriter::with_capacity(BUFFER_BYTES, Box::new(file))),
                    Some(partial),
                )
            }
            (_, None) => {
                let stdout = Box::new(io::stdout());
                (Encoder::Json(BufWriter::with_capacity(BUFFER_BYTES, stdout)), None)
            }
        };
        Ok(RowWriter { name, encoder, partial, rows: 0 })
    }
}

enum Encoder {
    Npy(NpyWriter<BufWriter<File>>),
    Json(BufWriter<Box<dyn Write + Send>>),
}

/// Writes rows in the order given. Dropped unfinished, it leaves no file.
pub(crate) struct RowWriter {
    name: String,
    encoder: Encoder,
    partial: Option<Partial>,
    rows: u64,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    index: u64,
    embedding: &'a [f32],
    tokens: usize,
    truncated: bool,
}

impl RowWriter {
    /// Appends rows. On standard output they are visible to its reader at once.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn push(&mut self, rows: &[Embedding]) -> Result<(), Failure> {
        let to_stdout = self.partial.is_none();
        let mut write = || {
            for row in rows {
                match &mut self.encoder {
                    Encoder::Npy(npy) => npy.push(&row.vector)?,
                    Encoder::Json(stream) => {
                        let line = JsonRow {
                            index: self.rows,
                            embedding: &row.vector,
                            tokens: row.tokens,
                            truncated: row.truncated(),
                        };
                        serde_json::to_writer(&mut *stream, &line)?;
                        stream.write_all(b"\n")?;
                    }
                }
                self.rows += 1;
            }
            match &mut self.encoder {
                Encoder::Json(stream) if to_stdout => stream.flush(),
                _ => Ok(()),
            }
        };
        write().map_err(|error: io::Error| Failure::writing(&self.name, &error))
    }

    /// Completes the output: after this it is there, whole, under its name.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Self { name, encoder, partial, .. } = self;
        let finish = || {
            match encoder {
                Encoder::Npy(npy) => npy.finish().map(drop)?,
                Encoder::Json(mut stream) => stream.flush()?,
            }
            partial.map_or(Ok(()), Partial::publish)
        };
        finish().map_err(|error| Failure::writing(name, &error))
    }
}

/// The file beside the final name; removed when dropped.
struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Partial {
    fn create(target: &Path) -> Result<Self, Failure> {
        if target.is_dir() {
            return Err(Failure::creating(target, &io::ErrorKind::IsADirectory.into()));
        }
        let path = partial_path(target);
        let failed = |error: io::Error| Failure::creating(&path, &error);
        let file = loop {
            // Not truncated yet: until it is locked it may be another command's.
            let mut options = OpenOptions::new();
            let file =
                options.write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let message = format!("another command is writing {}", path.display());
                    return Err(Failure::new(Exit::CannotCreate, message)
                        .help("wait for it to end, or write to another file"));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Its owner may have put it in place or removed it before we got the lock.
            let ours = file.metadata().map_err(failed)?;
            let there = std::fs::metadata(&path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                break file;
            }
        };
        *PARTIAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        let partial = Self { file, path, target: target.to_owned(), published: false };
        partial.file.set_len(0).map_err(|error| Failure::creating(&partial.path, &error))?;
        Ok(partial)
    }

    fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, &self.target)?;
        self.published = true;
        // The name is in the folder now; whether it survives a crash is up to the file system.
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
            folder.sync_all().ok();
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        *PARTIAL.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if !self.published {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// The name under which a file is written until it is whole.
pub(crate) fn partial_path(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(".partial");
    path.into()
}

/// Removes the partial file, if there is one: for an end of the process that drops nothing.
pub(crate) fn remove_partial() {
    if let Some(path) = PARTIAL.lock().unwrap_or_else(PoisonError::into_inner).take() {
        std::fs::remove_file(path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Embedding {
        Embedding {
            vector: values.to_vec(),
            tokens: 3,
            tokens_before_cut: 4,
            times: Default::default(),
        }
    }

    #[test]
    fn the_name_says_the_form() {
        assert_eq!("-".parse(), Ok(Target::Stdout));
        assert_eq!("a/b.npy".parse(), Ok(Target::Npy("a/b.npy".into())));
        assert_eq!("b.jsonl".parse(), Ok(Target::Jsonl("b.jsonl".into())));
        assert!("b.csv".parse::<Target>().is_err());
        assert!("".parse::<Target>().is_err());
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.jsonl");
        std::fs::write(partial_path(&path), "left behind by a killed command").unwrap();
        let output = Output::create(Target::Jsonl(path.clone())).unwrap();
        let mut writer = output.begin(2).unwrap();
        writer.push(&[row(&[0.5, -1.0]), row(&[0.1, 0.0])]).unwrap();
        assert!(!path.exists());
        writer.finish().unwrap();
        assert!(!partial_path(&path).exists());
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "{\"index\":0,\"embedding\":[0.5,-1.0],\"tokens\":3,\"truncated\":true}\n\
                        {\"index\":1,\"embedding\":[0.1,0.0],\"tokens\":3,\"truncated\":true}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_unfinished_output_leaves_nothing_and_spares_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        std::fs::write(&path, "earlier").unwrap();
        let mut writer = Output::create(Target::Npy(path.clone())).unwrap().begin(1).unwrap();
        writer.push(&[row(&[1.0])]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "earlier");
        assert!(!partial_path(&path).exists());
    }

    #[test]
    fn one_file_has_one_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let first = Output::create(Target::Npy(path.clone())).unwrap();
        let failure = Output::create(Target::Npy(path.clone())).err().expect("refused");
        assert_eq!(failure.exit, Exit::CannotCreate);
        drop(first);
        assert!(Output::create(Target::Npy(path)).is_ok());
    }

    #[test]
    fn a_folder_that_is_missing_or_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("no/x.npy"), folder.path().to_owned()] {
            let failure = Output::create(Target::Npy(path)).err().expect("refused");
            assert_eq!(failure.exit, Exit::CannotCreate);
            let shown = folder.path().display().to_string();
            assert!(failure.message.contains(&shown), "{}", failure.message);
        }
    }
}
