//! A bundle: one folder or archive with everything that a machine without a network needs, and a
//! manifest of it. Here are the names inside; `plan` says what goes in, `write` makes it, `read`
//! finds what is wrong with one. Nothing here starts a process.

mod manifest;
mod plan;
mod read;
mod sum;
mod write;

pub(crate) use manifest::Manifest;
pub(crate) use plan::plan;
pub(crate) use read::{Opened, open};
pub(crate) use write::write;

/// The manifest.
pub(crate) const MANIFEST: &str = "MANIFEST.sha256";
/// The program.
pub(crate) const PROGRAM: &str = "bin/forebay";
/// The configuration; relative paths in it count from the bundle's folder.
pub(crate) const CONFIG: &str = "forebay.toml";
/// The folder that an archive unpacks to.
pub(crate) const FOLDER: &str = "forebay";

/// Most files of a bundle.
const FILES_MAX: usize = 10_000;

/// The machines that a bundle made by this program is for.
pub(crate) fn target() -> String {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{}-unknown-{}-{libc}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Whether a path is relative, leads nowhere else, and can stand in a line of the manifest.
fn is_plain(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(is_part) && !path.contains(|c: char| c.is_control() || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_are_plain() {
        for path in ["a", "a/b.c", "1_Pooling/config.json", ".gitattributes", "a/..b", "ä"] {
            assert!(is_plain(path), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\nb", "a\\b"] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
