//! Where CUDA's libraries may be: toolkits, drivers, containers, environments of Python.
//!
//! Only names are made here, and folders listed; nothing is opened.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Existing folders below what the caller names and what `$CUDA_PATH` and `$CUDA_HOME` name.
pub(super) fn asked_for(search: &[PathBuf]) -> Vec<PathBuf> {
    let variables = ["CUDA_PATH", "CUDA_HOME"];
    let named = variables.iter().filter_map(env::var_os).filter(|value| !value.is_empty());
    let roots: Vec<PathBuf> = search.iter().cloned().chain(named.map(PathBuf::from)).collect();
    below(&roots)
}

/// Existing folders where drivers and toolkits usually put their libraries.
pub(super) fn usual() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = [
        "/usr/local/nvidia",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu/nvidia",
        "/usr/lib64",
        "/usr/local/cuda",
        "/usr/local/cuda-13",
    ]
    .into_iter()
    .map(PathBuf::from)
    .collect();
    roots.extend(files(Path::new("/usr/local"), "cuda-13."));
    below(&roots)
}

/// Files or folders of `folder` whose names begin with `prefix`, sorted.
pub(super) fn files(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// The folders that exist at and below `roots`, in order, each once.
fn below(roots: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for root in roots {
        let mut candidates = vec![root.clone(), root.join("lib64"), root.join("lib")];
        // A toolkit.
        candidates.extend(files(&root.join("targets"), "").into_iter().map(|t| t.join("lib")));
        // `site-packages` itself, a folder of wheels, or an environment.
        candidates.push(root.join("nvidia/cu13/lib"));
        candidates.extend(
            files(&root.join("lib"), "python3")
                .into_iter()
                .flat_map(|python| {
                    ["site-packages", "dist-packages"].map(|packages| python.join(packages))
                })
                .map(|packages| packages.join("nvidia/cu13/lib")),
        );
        for folder in candidates {
            if folder.is_dir() && !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolkits_and_environments_are_looked_into() {
        let root = tempfile::tempdir().unwrap();
        let made = [
            "toolkit/lib64",
            "toolkit/targets/x86_64-linux/lib",
            "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
            "packages/nvidia/cu13/lib",
        ];
        for folder in made {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let roots =
            ["toolkit", "venv", "packages", "absent", "toolkit"].map(|name| root.path().join(name));
        let found = below(&roots);
        for folder in made {
            let path = root.path().join(folder);
            assert_eq!(found.iter().filter(|f| **f == path).count(), 1, "{folder}: {found:?}");
        }
        assert_eq!(found[0], root.path().join("toolkit"), "as given comes first");
        assert!(found.iter().all(|folder| folder.is_dir()));
    }

    #[test]
    fn files_are_found_by_how_they_begin() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libx-builtins.so.13.1", "libx-builtins.so.13.0", "libx.so.13"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = files(folder.path(), "libx-builtins.so.13");
        let expected = ["libx-builtins.so.13.0", "libx-builtins.so.13.1"];
        assert_eq!(found, expected.map(|name| folder.path().join(name)));
        assert!(files(&folder.path().join("absent"), "").is_empty());
    }
}
