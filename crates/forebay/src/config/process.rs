//! Settings of the model, of the worker processes and of who watches them.

use std::path::PathBuf;

use super::declare::Allowed::{
    Choice, Integer, IntegerList, Path, PathList, PathOr, Rungs as Devices, Switch,
};
use super::declare::group;
use super::value::{
    CachePlace, CudaCopies, CudaGemm, CudaKernels, CudaPrecision, Fallback, LogLevel, Precision,
    Rungs,
};

group! {
    /// Which model is served.
    ModelConfig as "model" {
        /// Model folder in the Hugging Face layout (config.json, tokenizer.json,
        /// model.safetensors).
        #[serde(with = "super::value::path_text")]
        path: PathBuf = PathBuf::new(), "", Path("the one that the program is given");
        /// Arithmetic on the CPU: int8 is faster and costs a little accuracy; cuda.precision is the
        /// GPU's.
        precision: Precision = Precision::F32, "", Choice(Precision::WORDS);
        /// If the folder has a manifest, check the sha256 of every file before using it.
        verify_manifest: bool = true, "", Switch;
    }
}

group! {
    /// Which rungs the ladder of service levels has.
    DevicesConfig as "devices" {
        /// Devices to serve on, best first; "auto" looks once, at the start, and takes every GPU,
        /// or the CPU if there is none. Where a GPU may come late, list it: a listed one is tried
        /// again.
        rungs: Rungs = Rungs::Auto, "", Devices;
        /// What keeps answering when no rung does; a CPU worker is started first and stays warm.
        fallback: Fallback = Fallback::Cpu, "", Choice(Fallback::WORDS);
    }
}

group! {
    /// The worker processes, one per rung: engines crash there and not in the program that asks.
    WorkerConfig as "worker" {
        /// Worker executable. Searched in this order: this key, the environment variable
        /// FOREBAY_WORKER, a file named `forebay` next to the running executable.
        #[serde(with = "super::value::optional_path_text")]
        program: Option<PathBuf> = None, "", Path("searching");
        /// Batches that a worker holds at once: one computed, one being filled, one being read.
        slots: u32 = 3, "slots", Integer(2, 16);
        /// From the start of the process to ready; large models on slow disks need more.
        start_deadline_ms: u32 = 120_000, "ms", Integer(1_000, 1_800_000);
        /// Time that any batch may take before its worker counts as hung. A batch that runs beside
        /// others on the CPU has a part of the cores and so many times as long.
        batch_deadline_ms: u32 = 5_000, "ms", Integer(10, 3_600_000);
        /// Time added for every 1,000 tokens of the batch, because long batches honestly take
        /// longer.
        batch_deadline_ms_per_1k_tokens: u32 = 1_000, "ms", Integer(0, 600_000);
        /// Time for a worker that is asked to stop to finish what it holds.
        drain_deadline_ms: u32 = 5_000, "ms", Integer(0, 600_000);
        /// Added to the worker's out-of-memory score: the kernel should take the process that can
        /// be restarted, not the controller.
        oom_score_adj: u32 = 500, "", Integer(0, 1_000);
        /// What workers log; their lines pass through the log of the program.
        log_level: LogLevel = LogLevel::Warn, "", Choice(LogLevel::WORDS);
    }
}

group! {
    /// The CPU engine, inside its worker process.
    CpuConfig as "cpu" {
        /// ONNX Runtime's shared library. Searched in this order: this key, the environment
        /// variable FOREBAY_ONNXRUNTIME, next to the worker executable, `lib` beside it,
        /// `.forebay/onnxruntime` of the current directory or of one above it.
        #[serde(with = "super::value::optional_path_text")]
        onnxruntime: Option<PathBuf> = None, "", Path("searching");
        /// Sessions, each of which computes one batch. 0: one with all threads for a batch that has
        /// the machine to itself, and two with half of them for batches side by side; only the first
        /// of these with fewer than 2 threads or more than 512 MiB of weights.
        sessions: u32 = 0, "sessions", Integer(0, 64);
        /// Threads of each session, or of all together where sessions is 0; 0 takes all cores, or
        /// shares them out among the sessions.
        threads_per_session: u32 = 0, "threads", Integer(0, 256);
        /// Let idle threads of a session look for work for 0.2 ms before they sleep: they are not
        /// woken anew for each layer, nor for each request of a busy caller.
        spinning: bool = true, "", Switch;
        /// Rows computed at once; rows are sorted by length so that little is padding.
        sub_batch_rows_max: u32 = 64, "rows", Integer(1, 4_096);
        /// Tokens computed at once, padding included; bounds the memory of intermediate results.
        sub_batch_tokens_max: u32 = 1_024, "tokens", Integer(16, 1_048_576);
    }
}

group! {
    /// The CUDA engine, inside its worker process; one worker per GPU.
    CudaConfig as "cuda" {
        /// Arithmetic on the GPU: f16 is more exact, bf16 has the range of 32-bit floating point;
        /// "auto" takes what fits the weights.
        precision: CudaPrecision = CudaPrecision::Auto, "", Choice(CudaPrecision::WORDS);
        /// Most tokens in a batch for a GPU: up to here the working set stays in a large cache.
        tokens_max: u32 = 8_192, "tokens", Integer(512, 131_072);
        /// Most texts in a batch for a GPU.
        rows_max: u32 = 1_024, "rows", Integer(1, 65_536);
        /// Device memory that one worker may take; 0 sets no limit. Where it is short, batches are
        /// split; a worker that does not fit even so does not start.
        memory_bytes_max: u64 = 0, "bytes", Integer(0, 1 << 50);
        /// Sequences of kernels that are kept ready to launch at once, made at the start: two for
        /// each batch size. Each takes some device memory; with fewer, and with larger batches,
        /// sizes are coarser and matrix libraries compute more padding.
        graphs_max: u32 = 48, "graphs", Integer(2, 4_096);
        /// Batches of up to this many tokens are read by the GPU from host memory: for few bytes a
        /// copy costs more than it saves.
        zero_copy_tokens_max: u32 = 512, "tokens", Integer(0, 1_048_576);
        /// How token ids and rows get to the GPU and back: "copy" always copies them, "mapped"
        /// never does, "auto" follows zero_copy_tokens_max.
        copies: CudaCopies = CudaCopies::Auto, "", Choice(CudaCopies::WORDS);
        /// Most time that a worker polls for the end of one batch, which answers sooner and keeps a
        /// core busy meanwhile. It sleeps until half of this before the end that it expects; once
        /// it has polled for all of it, it looks about every 50 us.
        spin_us: u32 = 200, "us", Integer(0, 100_000);
        /// Who multiplies matrices: NVIDIA's cuBLASLt library, or kernels of Forebay where they fit
        /// the device; "auto" takes the better one that is there.
        gemm: CudaGemm = CudaGemm::Auto, "", Choice(CudaGemm::WORDS);
        /// Where kernels come from: compiled for the device by NVIDIA's NVRTC library, or built in
        /// as PTX; "auto" compiles if NVRTC is there.
        kernels: CudaKernels = CudaKernels::Auto, "", Choice(CudaKernels::WORDS);
        /// Folders that are searched for CUDA's libraries before CUDA_PATH, CUDA_HOME and the usual
        /// places.
        #[serde(with = "super::value::path_list_text")]
        libraries: Vec<PathBuf> = Vec::new(), "", PathList(16);
        /// Folder for compiled kernels and tuned plans, without which each start makes them anew:
        /// "auto" is `forebay` in $XDG_CACHE_HOME or ~/.cache.
        cache: CachePlace = CachePlace::Auto, "", PathOr("auto", "keeping nothing");
        /// Time that any batch may take on a GPU before its worker counts as hung; takes the place of
        /// worker.batch_deadline_ms. A fault of a kernel takes most of a second to show, and ends the
        /// worker with a better reason than this.
        batch_deadline_ms: u32 = 1_500, "ms", Integer(10, 3_600_000);
        /// The same for worker.batch_deadline_ms_per_1k_tokens.
        batch_deadline_ms_per_1k_tokens: u32 = 50, "ms", Integer(0, 600_000);
        /// Time for the process that looks for devices, when devices.rungs is "auto"; drivers can
        /// take seconds to wake up.
        probe_deadline_ms: u32 = 20_000, "ms", Integer(10, 600_000);
        /// File into which a GPU worker writes a timeline of its stages, for tuning; with several
        /// GPUs each writes its own, with the device in its name.
        #[serde(with = "super::value::optional_path_text")]
        trace: Option<PathBuf> = None, "", Path("writing none");
    }
}

group! {
    /// What follows when a worker fails: a restart soon, never in a tight loop, and a way back up that
    /// is longer the more often it has failed.
    SupervisorConfig as "supervisor" {
        /// Wait before the first restart; it doubles with each further failure.
        backoff_min_ms: u32 = 200, "ms", Integer(1, 60_000);
        /// Longest wait between two restarts.
        backoff_max_ms: u32 = 30_000, "ms", Integer(1, 3_600_000);
        /// Longest wait before a restart while nothing serves; a rung in quarantine still waits for its
        /// probe.
        backoff_alone_max_ms: u32 = 1_000, "ms", Integer(1, 3_600_000);
        /// Restarts within the window after which the rung is quarantined.
        restarts_max: u32 = 5, "restarts", Integer(1, 1_000);
        /// The window in which restarts are counted.
        restart_window_ms: u32 = 60_000, "ms", Integer(1_000, 86_400_000);
        /// Waits between probes of a quarantined rung; the last one repeats.
        quarantine_probe_ms: Vec<u32> = vec![30_000, 60_000, 300_000], "ms",
            IntegerList(16, 100, 86_400_000);
        /// How long a worker that has failed before is on probation (`hedge.probation_share`) before
        /// it serves again; it doubles with each relapse. While nothing else serves, a
        /// probation is over at once.
        dwell_min_ms: u32 = 500, "ms", Integer(1, 3_600_000);
        /// The longest probation.
        dwell_max_ms: u32 = 900_000, "ms", Integer(1, 86_400_000);
        /// Batches, canaries included, that a worker on such a probation must do well.
        probation_batches: u32 = 8, "batches", Integer(1, 1_000_000);
        /// A worker that was late but has answered everything within this time has only lapsed: it
        /// serves again as soon as the known answers are right. 0 puts each on probation.
        lapse_ms: u32 = 100, "ms", Integer(0, 60_000);
        /// One that lapses again within this time goes on probation.
        lapse_gap_ms: u32 = 2_000, "ms", Integer(0, 3_600_000);
        /// Time of good service after which a worker's earlier failures are forgotten.
        clean_ms: u32 = 600_000, "ms", Integer(1, 86_400_000);
        /// Time for a worker that is to end to do so by itself before it is killed; some drivers
        /// take a killed process badly.
        kill_grace_ms: u32 = 100, "ms", Integer(0, 60_000);
        /// Time for the kernel to give a killed worker back before it is reported as stuck.
        reap_deadline_ms: u32 = 5_000, "ms", Integer(10, 600_000);
    }
}

group! {
    /// The graceful end.
    ShutdownConfig as "shutdown" {
        /// Time for accepted requests to finish after an end was asked for; the rest get an error.
        drain_ms: u32 = 10_000, "ms", Integer(0, 3_600_000);
    }
}
