//! The kernel sources, embedded: which files there are, and what the compiler is given of each.

/// C++ standard and whatever else every compilation is given besides its architecture. Spills are
/// warned of because none is ever intended.
pub const OPTIONS: [&str; 3] = [
    "-std=c++17",
    "--ptxas-options=--warn-on-spills",
    "--ptxas-options=--warn-on-local-memory-usage",
];

const PRELUDE: (&str, &str) = ("prelude.cuh", include_str!("../../kernels/prelude.cuh"));
const HOPPER: (&str, &str) = ("hopper.cuh", include_str!("../../kernels/hopper.cuh"));

/// One compilation unit.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name without the folder, such as `attention.cu`.
    pub name: &'static str,
    /// What is compiled, in order: names and texts, headers first.
    parts: &'static [(&'static str, &'static str)],
    /// PTX of the same source for compute capability 8.0, which any newer driver can compile;
    /// `None` for a file that needs one architecture's own instructions.
    pub ptx: Option<&'static str>,
}

impl SourceFile {
    /// The whole text, with lines numbered as in the files.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, part) in self.parts {
            text.push_str(&format!("#line 1 \"{name}\"\n{part}\n"));
        }
        text
    }

    /// True if it can be compiled for any compute capability from 8.0 on.
    #[must_use]
    pub fn is_portable(&self) -> bool {
        self.ptx.is_some()
    }

    /// The architecture to compile for on a device, as NVRTC names it; `None` if the file's
    /// instructions do not exist there.
    #[must_use]
    pub fn architecture(&self, capability: (u32, u32)) -> Option<String> {
        match (self.is_portable(), capability) {
            (true, (major, minor)) if major >= 8 => Some(format!("sm_{major}{minor}")),
            // Instructions of 9.0 alone, which neither older nor newer devices have.
            (false, (9, 0)) => Some("sm_90a".to_owned()),
            _ => None,
        }
    }

    /// Name of the file with its PTX, below `kernels/ptx`.
    #[must_use]
    pub fn ptx_name(&self) -> String {
        format!("{}.ptx", self.name.trim_end_matches(".cu"))
    }
}

/// The architecture of the embedded PTX.
pub const PTX_ARCHITECTURE: &str = "compute_80";

macro_rules! portable {
    ($stem:literal) => {
        SourceFile {
            name: concat!($stem, ".cu"),
            parts: &[
                PRELUDE,
                (concat!($stem, ".cu"), include_str!(concat!("../../kernels/", $stem, ".cu"))),
            ],
            ptx: Some(include_str!(concat!("../../kernels/ptx/", $stem, ".ptx"))),
        }
    };
}

macro_rules! hopper {
    ($stem:literal) => {
        SourceFile {
            name: concat!($stem, ".cu"),
            parts: &[
                PRELUDE,
                HOPPER,
                (concat!($stem, ".cu"), include_str!(concat!("../../kernels/", $stem, ".cu"))),
            ],
            ptx: None,
        }
    };
}

/// Embeddings and their normalisation.
pub static EMBED_NORM: SourceFile = portable!("embed_norm");
/// Softmax attention.
pub static ATTENTION: SourceFile = portable!("attention");
/// Bias, residual and layer normalisation behind a library product.
pub static RESIDUAL_NORM: SourceFile = portable!("residual_norm");
/// Bias and activation behind a library product.
pub static BIAS_ACTIVATION: SourceFile = portable!("bias_activation");
/// Pooling and division by the length.
pub static POOL: SourceFile = portable!("pool");
/// Matrix products with bias and activation, on compute capability 9.0.
pub static GEMM_ROWS: SourceFile = hopper!("gemm_rows");
/// Matrix products with bias, residual and layer normalisation, on compute capability 9.0.
pub static GEMM_NORM: SourceFile = hopper!("gemm_norm");

/// Kernels that break on purpose.
pub static FAULTS: SourceFile = portable!("faults");

/// The kernels of an encoder besides its products, those first that take long to compile.
pub static ENCODER_FILES: [&SourceFile; 5] =
    [&ATTENTION, &EMBED_NORM, &RESIDUAL_NORM, &BIAS_ACTIVATION, &POOL];

/// All of them.
pub static FILES: [&SourceFile; 8] = [
    &EMBED_NORM,
    &ATTENTION,
    &RESIDUAL_NORM,
    &BIAS_ACTIVATION,
    &POOL,
    &GEMM_ROWS,
    &GEMM_NORM,
    &FAULTS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_needs_a_header_of_the_toolkit() {
        for file in FILES {
            let text = file.text();
            assert!(!text.contains("#include"), "{}", file.name);
            assert!(text.contains("extern \"C\" __global__"), "{}", file.name);
        }
    }

    #[test]
    fn lines_are_counted_from_the_start_of_each_file() {
        let text = POOL.text();
        assert!(text.starts_with("#line 1 \"prelude.cuh\"\n//"));
        assert!(text.contains("\n#line 1 \"pool.cu\"\n//"));
    }

    #[test]
    fn portable_files_are_compiled_for_the_device_itself_and_others_for_theirs_alone() {
        assert_eq!(POOL.architecture((8, 7)).as_deref(), Some("sm_87"));
        assert_eq!(POOL.architecture((9, 0)).as_deref(), Some("sm_90"));
        assert_eq!(POOL.architecture((12, 1)).as_deref(), Some("sm_121"));
        assert_eq!(POOL.architecture((7, 5)), None);
        assert_eq!(GEMM_ROWS.architecture((9, 0)).as_deref(), Some("sm_90a"));
        assert_eq!(GEMM_ROWS.architecture((10, 0)), None);
        assert_eq!(GEMM_ROWS.architecture((8, 0)), None);
    }

    #[test]
    fn the_embedded_ptx_is_for_the_oldest_device_and_has_every_kernel() {
        for file in FILES.into_iter().filter(|file| file.is_portable()) {
            let ptx = file.ptx.unwrap_or_default();
            assert!(ptx.contains(".target sm_80"), "{}", file.name);
            assert!(ptx.contains(".visible .entry"), "{}", file.name);
        }
    }
}
