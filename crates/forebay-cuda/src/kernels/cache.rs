//! Compiled kernels on disk, so that only a machine's first start compiles.
//!
//! An entry is named by the digest of everything that went into it and begins with the digest of
//! what it holds. A damaged or foreign file is no entry; it is replaced. Entries appear by one rename,
//! so several processes may share a folder. A folder that cannot be written costs time only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"FBYCUBIN";
const DIGEST_BYTES: usize = 32;
const VERSION_PREFIX: &str = "nvrtc-";

/// What an image was compiled from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe<'a> {
    /// The whole source.
    pub source: &'a str,
    /// The architecture, such as `sm_90a`.
    pub architecture: &'a str,
    /// All other options.
    pub options: &'a [&'a str],
}

/// What the cache has for a recipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The image, unchanged since it was written.
    Found(Vec<u8>),
    /// Nothing.
    Absent,
    /// A file that does not hold what it should: its path.
    Damaged(PathBuf),
}

/// The folder of compiled kernels.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// A cache below `folder`; nothing is made before the first image is kept.
    pub(crate) fn below(folder: &Path) -> Self {
        Self { folder: folder.join("kernels") }
    }

    /// Looks for an image compiled by `version` of NVRTC.
    pub(crate) fn read(&self, recipe: &Recipe<'_>, version: &str) -> Lookup {
        let path = self.path(recipe, version);
        match fs::read(&path) {
            Ok(bytes) => match payload(&bytes) {
                Some(image) => Lookup::Found(image.to_vec()),
                None => Lookup::Damaged(path),
            },
            Err(_) => Lookup::Absent,
        }
    }

    /// Whether there is an entry, good or damaged: no image is read for the answer.
    pub(crate) fn contains(&self, recipe: &Recipe<'_>, version: &str) -> bool {
        self.path(recipe, version).exists()
    }

    /// Looks for an image compiled by any version, the newest first: without a compiler, an older
    /// one's work is better than none.
    pub(crate) fn read_any(&self, recipe: &Recipe<'_>) -> Lookup {
        let mut versions: Vec<(Vec<u32>, String)> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter_map(|name| name.strip_prefix(VERSION_PREFIX).map(ToOwned::to_owned))
            .map(|version| {
                (version.split('.').map(|part| part.parse().unwrap_or(0)).collect(), version)
            })
            .collect();
        versions.sort();
        let mut worst = Lookup::Absent;
        for (_, version) in versions.iter().rev() {
            match self.read(recipe, version) {
                Lookup::Absent => {}
                Lookup::Damaged(path) => worst = Lookup::Damaged(path),
                found @ Lookup::Found(_) => return found,
            }
        }
        worst
    }

    /// Keeps an image.
    ///
    /// # Errors
    /// The file system's failure; nothing is left behind then, and an earlier entry stays.
    pub(crate) fn write(&self, recipe: &Recipe<'_>, version: &str, image: &[u8]) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let path = self.path(recipe, version);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut bytes = Vec::with_capacity(MAGIC.len() + DIGEST_BYTES + image.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&Sha256::digest(image));
        bytes.extend_from_slice(image);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let new = path.with_extension(format!("{}-{number}.new", process::id()));
        let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            // Best effort: the failure to write is what matters.
            drop(fs::remove_file(&new));
        }
        written
    }

    fn path(&self, recipe: &Recipe<'_>, version: &str) -> PathBuf {
        let Recipe { source, architecture, options } = recipe;
        let mut digest = Sha256::new();
        // Each part with its length, so that no two recipes run together into the same bytes.
        for part in [source, architecture, version].into_iter().chain(options.iter().copied()) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        let name: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{VERSION_PREFIX}{version}")).join(format!("{name}.cubin"))
    }
}

/// The image in an entry, if it is whole.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, image) = bytes.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
    (!image.is_empty() && Sha256::digest(image).as_slice() == digest).then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: Recipe<'_> =
        Recipe { source: "s", architecture: "sm_90", options: &["-a", "-b"] };

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![folder.to_path_buf()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { open.push(path) } else { found.push(path) }
            }
        }
        found
    }

    #[test]
    fn an_image_is_found_by_its_own_recipe_only() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(folder.path());
        assert_eq!(cache.read(&RECIPE, "13.0"), Lookup::Absent);
        assert!(!cache.contains(&RECIPE, "13.0"));
        cache.write(&RECIPE, "13.0", b"image").unwrap();
        assert_eq!(cache.read(&RECIPE, "13.0"), Lookup::Found(b"image".to_vec()));
        assert!(cache.contains(&RECIPE, "13.0") && !cache.contains(&RECIPE, "13.1"));

        assert_eq!(cache.read(&RECIPE, "13.1"), Lookup::Absent);
        for other in [
            Recipe { source: "t", ..RECIPE },
            Recipe { architecture: "sm_90a", ..RECIPE },
            Recipe { options: &["-a"], ..RECIPE },
            Recipe { options: &["-a-b"], ..RECIPE },
            Recipe { options: &["-b", "-a"], ..RECIPE },
            Recipe { source: "ss", architecture: "m_90", ..RECIPE },
        ] {
            assert_eq!(cache.read(&other, "13.0"), Lookup::Absent, "{other:?}");
        }
    }

    #[test]
    fn every_kind_of_damage_is_noticed_and_repaired_by_writing_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(folder.path());
        cache.write(&RECIPE, "13.0", b"some image").unwrap();
        let [path] = &entries(folder.path())[..] else { panic!("one entry") };
        let whole = fs::read(path).unwrap();

        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut renamed = whole.clone();
        renamed[0] = b'X';
        let cut = whole[..whole.len() - 1].to_vec();
        let headed = whole[..MAGIC.len() + DIGEST_BYTES].to_vec();
        for damaged in [flipped, renamed, cut, headed, b"FBYCUBIN".to_vec(), Vec::new()] {
            fs::write(path, damaged).unwrap();
            assert_eq!(cache.read(&RECIPE, "13.0"), Lookup::Damaged(path.clone()));
            assert_eq!(cache.read_any(&RECIPE), Lookup::Damaged(path.clone()));
        }
        cache.write(&RECIPE, "13.0", b"some image").unwrap();
        assert_eq!(cache.read(&RECIPE, "13.0"), Lookup::Found(b"some image".to_vec()));
        assert_eq!(entries(folder.path()).len(), 1, "nothing else is left");
    }

    #[test]
    fn without_a_version_the_newest_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::below(folder.path());
        assert_eq!(cache.read_any(&RECIPE), Lookup::Absent);
        for version in ["13.9", "13.10", "12.8"] {
            cache.write(&RECIPE, version, version.as_bytes()).unwrap();
        }
        assert_eq!(cache.read_any(&RECIPE), Lookup::Found(b"13.10".to_vec()));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernels"), "a file in the way").unwrap();
        let cache = Cache::below(folder.path());
        assert!(cache.write(&RECIPE, "13.0", b"image").is_err());
        assert_eq!(cache.read(&RECIPE, "13.0"), Lookup::Absent);
        assert_eq!(cache.read_any(&RECIPE), Lookup::Absent);
    }
}
