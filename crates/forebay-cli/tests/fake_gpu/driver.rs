//! The fake CUDA driver of `tests/fake_cuda`: built once, put into a folder of its own for each
//! test together with how it is to behave.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// File names of the libraries, the names by which the dynamic linker then knows them, and their
/// sources. The binding asks for the names without a version first, so those are theirs: with the
/// fake loaded, no driver of the machine is looked for any more.
const LIBRARIES: [(&str, &str, &[&str]); 2] = [
    (
        "libcuda.so.1",
        "libcuda.so",
        &[
            "device.c",
            "fault.c",
            "graph.c",
            "kernels.c",
            "memory.c",
            "module.c",
            "products.c",
            "stream.c",
            "values.c",
        ],
    ),
    ("libnvrtc.so.13", "libnvrtc.so", &["nvrtc.c"]),
];
const HEADERS: [&str; 2] = ["fake.h", "image.h"];
const OPTIONS: [&str; 7] =
    ["-std=gnu11", "-O3", "-Wall", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_cuda")
}

/// The folder of the built libraries; built anew if a source has changed.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut digest = DefaultHasher::new();
        OPTIONS.hash(&mut digest);
        let names = LIBRARIES.iter().flat_map(|(_, _, names)| names.iter()).chain(&HEADERS);
        for name in names {
            std::fs::read(sources().join(name)).expect("a source").hash(&mut digest);
        }
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = root.join(format!("fake-cuda-{:016x}", digest.finish()));
        if !folder.is_dir() {
            std::fs::create_dir_all(root).expect("a folder for builds");
            let new = tempfile::tempdir_in(root).expect("a folder for the build");
            LIBRARIES.iter().for_each(|library| compile(new.path(), library));
            // Another process may have been faster, with the same result.
            if std::fs::rename(new.path(), &folder).is_err() {
                assert!(folder.is_dir(), "{} cannot be made", folder.display());
            }
        }
        folder
    })
}

fn compile(folder: &Path, (file, name, sources_of): &(&str, &str, &[&str])) {
    let mut compiler = Command::new("cc");
    compiler.current_dir(sources()).args(OPTIONS).arg(format!("-Wl,-soname,{name}"));
    compiler.arg("-o").arg(folder.join(file)).args(*sources_of).args(["-lm", "-ldl"]);
    let output = compiler.output().unwrap_or_else(|error| {
        panic!("no C compiler for the fake driver, install one as `cc`: {error}")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the fake driver does not compile: {said}");
}

/// A fake driver that behaves in one way.
pub(crate) struct FakeDriver {
    folder: tempfile::TempDir,
}

impl FakeDriver {
    /// `settings` are lines as `fake_cuda/fault.c` explains them.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (file, _, _) in LIBRARIES {
            std::fs::copy(built().join(file), folder.path().join(file)).expect("copies");
        }
        let settings = settings.join("\n") + "\n";
        std::fs::write(folder.path().join("fake_cuda.conf"), settings).expect("writes");
        Self { folder }
    }

    /// The folder with the libraries, for `cuda.libraries`.
    pub(crate) fn folder(&self) -> PathBuf {
        // As the dynamic linker will tell it.
        self.folder.path().canonicalize().expect("a folder")
    }

    /// A file beside the libraries.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Whether the fault that is number `rule` among those in the settings has happened, with
    /// `once 1`.
    pub(crate) fn has_failed(&self, rule: usize) -> bool {
        self.file(&format!("fake_cuda.met{rule}")).exists()
    }

    /// The calls so far: process id and call, with `trace 1` in the settings.
    pub(crate) fn calls(&self) -> Vec<(u32, String)> {
        let text = std::fs::read_to_string(self.file("fake_cuda.trace")).expect("a trace");
        let call = |line: &str| {
            let (pid, call) = line.split_once(' ').expect("two parts");
            (pid.parse().expect("a process id"), call.trim_end().to_owned())
        };
        text.lines().map(call).collect()
    }
}
