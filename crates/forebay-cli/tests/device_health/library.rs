//! The fake management library of `tests/fake_nvml`, built once, in a folder of its own for each
//! test together with what it is to say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const FILE: &str = "libnvidia-ml.so.1";
const SETTINGS: &str = "fake_nvml.conf";

fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nvml/nvml.c");
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(root).expect("a folder for builds");
        // Each process builds its own: it takes no time, and tests run in processes side by side.
        let folder = tempfile::tempdir_in(root).expect("a folder for the build").keep();
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]);
        compiler.args(["-fvisibility=hidden", "-o"]).arg(folder.join(FILE)).arg(source).arg("-ldl");
        let output = compiler.output().unwrap_or_else(|error| {
            panic!("no C compiler for the fake library, install one as `cc`: {error}")
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the fake library does not compile: {said}");
        folder.join(FILE)
    })
}

/// A fake library whose answers can change while it is in use.
pub(crate) struct FakeNvml {
    folder: tempfile::TempDir,
}

impl FakeNvml {
    /// `settings` are lines as `fake_nvml/nvml.c` explains them.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let fake = Self { folder: tempfile::tempdir().expect("a folder") };
        fake.say(settings);
        fs::copy(built(), fake.path()).expect("copies");
        fake
    }

    /// The library.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// From now on it says this.
    pub(crate) fn say(&self, settings: &[&str]) {
        let new = self.folder.path().join("new");
        fs::write(&new, settings.join("\n") + "\n").expect("writes");
        // In one step: a reader sees the old or the new, not a part.
        fs::rename(&new, self.folder.path().join(SETTINGS)).expect("renames");
    }
}
