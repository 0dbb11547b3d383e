//! The first thing to run on a device that is new to this crate: does each part of the edge work,
//! and how fast is it? Nothing of the engine is needed.
//!
//! Usage: `cargo run --release -p forebay-cuda --example edge_probe -- [FOLDER...]`, where each
//! folder is searched for CUDA's libraries first. Every step says OK or FAIL and the next follows.

#![expect(clippy::print_stdout, reason = "a report for whoever runs it")]

use std::error::Error;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use forebay_cuda::edge::{
    Carver, Context, DeviceMemory, DevicePtr, Event, Graph, HostPages, PinnedBuffer, Stream,
    aligned, download, upload,
};
use forebay_cuda::gemm::{GemmPlans, GemmShape};
use forebay_cuda::{CudaError, Dtype, devices, first_fault, load, load_cublaslt, load_nvrtc};
use half::{bf16, f16};
use memmap2::{MmapMut, MmapOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

type Outcome = Result<String, Box<dyn Error>>;

const WORKSPACE_BYTES: usize = 32 << 20;
const MIB: usize = 1 << 20;

fn main() {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let search: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    step("nvrtc", || Ok(format!("{:?}", load_nvrtc(&search)?)));
    step("cublaslt", || Ok(format!("{:?}", load_cublaslt(&search)?)));
    step("load", || Ok(format!("{:#?}", load(&search)?)));
    step("devices", || Ok(format!("{:#?}", devices()?)));
    let mut opened = None;
    step("context and stream", || {
        let started = Instant::now();
        let context = Context::open(0)?;
        let stream = Stream::new(&context)?;
        let (free, total) = context.memory_free()?;
        opened = Some((context, stream));
        let took = started.elapsed();
        Ok(format!("{took:?}; {} of {} MiB free", free >> 20, total >> 20))
    });
    let Some((context, stream)) = opened else { return };
    step("memory round trip", || memory(&context, &stream));
    step("events", || events(&context, &stream));
    step("host pages, memfd", || host_pages(&context, &stream, memfd(64 * MIB)?));
    step("host pages, anonymous", || host_pages(&context, &stream, MmapMut::map_anon(64 * MIB)?));
    step("pinned buffer", || pinned(&context, &stream));
    step("graph", || graph(&context, &stream));
    step("capture that fails", || capture_that_fails(&context, &stream));
    let cache = tempfile::tempdir();
    for (dtype, tolerance) in [(Dtype::F16, 1e-3), (Dtype::BF16, 8e-3)] {
        for source in ["measured", "from disk"] {
            step(&format!("gemm {dtype}, {source}"), || {
                let folder = cache.as_ref().map_err(|error| error.to_string())?.path();
                let matrices = Matrices::new(&context, 1024, 1152, 384)?;
                let mut plans = matrices.plans(&context, Some(folder))?;
                let shape = GemmShape { m_bucket: 1024, n: 1152, k: 384, dtype, bias: true };
                let outcome = matrices.compare(&mut plans, shape, &stream, tolerance)?;
                plans.save();
                let counts = plans.counts();
                let from_disk = counts.restored == 1 && counts.tuned == 0;
                if from_disk != (source == "from disk") || counts.save_failures > 0 {
                    return Err(format!("{outcome}; but {counts:?}").into());
                }
                Ok(format!("{outcome}; {counts:?}"))
            });
        }
    }
    step("gemm times", || gemm_times(&context, &stream));
    println!("first fault: {:?}", first_fault());
}

/// Runs one step and says how it went.
fn step(name: &str, work: impl FnOnce() -> Outcome) {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("panicked".into()));
    let took = started.elapsed().as_secs_f64() * 1e3;
    match outcome {
        Ok(detail) => println!("OK   {name} [{took:.1} ms]: {detail}"),
        Err(error) => println!("FAIL {name} [{took:.1} ms]: {error}"),
    }
}

fn memory(context: &Arc<Context>, stream: &Stream) -> Outcome {
    let memory = DeviceMemory::allocate(context, 8 * MIB, "the probe")?;
    memory.zero(stream)?;
    let mut carver = Carver::new(&memory);
    let (first, second) = (carver.take(1000)?, carver.take(5 * MIB)?);
    let sent = pattern(5 * MIB, 1);
    upload(stream, second, &sent)?;
    let mut received = vec![1; sent.len()];
    download(stream, second, &mut received)?;
    same(&received, &sent)?;
    let mut zeros = vec![1; 1000];
    download(stream, first, &mut zeros)?;
    same(&zeros, &[0; 1000])?;
    let most = DeviceMemory::allocate(context, 1 << 44, "far too much").err();
    let refused = most.ok_or("16 TiB were allocated")?;
    Ok(format!("{first:?} {second:?}; too much is refused: {:?}, {refused}", refused.kind))
}

fn events(context: &Arc<Context>, stream: &Arc<Stream>) -> Outcome {
    let bytes = 256 * MIB;
    let memory = DeviceMemory::allocate(context, 2 * bytes, "the copy")?;
    let (src, dst) = (memory.base(), memory.base().offset(bytes));
    memory.zero(stream)?;
    let us = timed(context, stream, 10, || stream.copy_within_device(src, dst, bytes))?;
    let other = Stream::new(context)?;
    let done = Event::new(context, false)?;
    stream.copy_within_device(src, dst, bytes)?;
    done.record(stream)?;
    other.wait(&done)?;
    let at_once = done.is_complete()?;
    other.synchronize()?;
    if !(done.is_complete()? && other.is_idle()?) {
        return Err("the second stream did not wait".into());
    }
    let untimed = done.elapsed_us(&done).is_err();
    let gbs = 2.0 * bytes as f64 / us / 1e3;
    Ok(format!(
        "copy of 256 MiB {us:.1} us, {gbs:.0} GB/s read and write; complete at once: {at_once}; \
         untimed events are refused: {untimed}"
    ))
}

fn memfd(bytes: usize) -> Result<MmapMut, Box<dyn Error>> {
    let file = File::from(memfd_create("forebay-probe", MemfdFlags::CLOEXEC)?);
    ftruncate(&file, bytes as u64)?;
    // SAFETY: no other process knows the file.
    Ok(unsafe { MmapOptions::new().len(bytes).map_mut(&file) }?)
}

fn host_pages(context: &Arc<Context>, stream: &Stream, mut map: MmapMut) -> Outcome {
    let (bytes, half) = (map.len(), map.len() / 2);
    let sent = pattern(half, 2);
    map[..half].copy_from_slice(&sent);
    let started = Instant::now();
    // SAFETY: the map outlives the pages, and is only looked at while no copy is under way.
    let pages = unsafe { HostPages::register(context, map.as_mut_ptr(), bytes) }?;
    let took = started.elapsed();
    let memory = DeviceMemory::allocate(context, half, "the pages' copy")?;
    pages.copy_in(0, memory.base(), half, stream)?;
    pages.copy_out(memory.base(), half, half, stream)?;
    stream.synchronize()?;
    same(&map[half..], &sent)?;
    let (base, middle) = (memory.base(), half);
    let up = timed(context, stream, 5, || pages.copy_in(0, base, middle, stream))?;
    let down = timed(context, stream, 5, || pages.copy_out(base, middle, middle, stream))?;
    let outside = pages.copy_in(middle, base, middle + 1, stream).is_err();
    let rate = |us: f64| half as f64 / us / 1e3;
    Ok(format!(
        "registered {} MiB in {took:?}, locked: {}, host {:p} device {:?}; in {:.1} GB/s, out {:.1} \
         GB/s; outside is refused: {outside}",
        bytes / MIB,
        pages.is_page_locked(),
        map.as_ptr(),
        pages.device_ptr(0),
        rate(up),
        rate(down),
    ))
}

fn pinned(context: &Arc<Context>, stream: &Stream) -> Outcome {
    let bytes = 16 * MIB;
    let sent = pattern(bytes, 3);
    let mut buffer = PinnedBuffer::new(context, bytes)?;
    buffer.as_mut_bytes()?.copy_from_slice(&sent);
    let memory = DeviceMemory::allocate(context, bytes, "the buffer's copy")?;
    buffer.copy_in(0, memory.base(), bytes, stream)?;
    let refused = buffer.as_bytes().is_err();
    stream.synchronize()?;
    buffer.as_mut_bytes()?.fill(0);
    buffer.copy_out(memory.base(), 0, bytes, stream)?;
    stream.synchronize()?;
    let started = Instant::now();
    same(buffer.as_bytes()?, &sent)?;
    let gbs = bytes as f64 / started.elapsed().as_secs_f64() / 1e9;
    Ok(format!("read at {gbs:.1} GB/s; refused during a copy: {refused}"))
}

fn graph(context: &Arc<Context>, stream: &Arc<Stream>) -> Outcome {
    let memory = DeviceMemory::allocate(context, 2 * MIB, "the graph's data")?;
    let (src, dst) = (memory.base(), memory.base().offset(MIB));
    memory.zero(stream)?;
    let graph = Graph::capture(stream, |stream| {
        stream.fill(src, 0x5a, MIB)?;
        stream.copy_within_device(src, dst, MIB)
    })?;
    let mut received = vec![1; MIB];
    download(stream, dst, &mut received)?;
    same(&received, &vec![0; MIB]).map_err(|error| format!("ran while captured: {error}"))?;
    graph.launch(stream)?;
    download(stream, dst, &mut received)?;
    same(&received, &vec![0x5a; MIB])?;
    let many = Graph::capture(stream, |stream| {
        (0..100).try_for_each(|index| stream.fill(src.offset(index * 64), 1, 64))
    })?;
    let us = timed(context, stream, 5, || many.launch(stream))?;
    let started = Instant::now();
    for _ in 0..100 {
        graph.launch(stream)?;
        stream.synchronize()?;
    }
    let round = started.elapsed().as_secs_f64() * 1e4;
    Ok(format!(
        "{} nodes; {:.2} us for each of {} nodes; launch and wait {round:.1} us",
        graph.nodes(),
        us / 100.0,
        many.nodes()
    ))
}

fn capture_that_fails(context: &Arc<Context>, stream: &Stream) -> Outcome {
    let memory = DeviceMemory::allocate(context, 4096, "the failed capture")?;
    let failed = Graph::capture(stream, |stream| {
        stream.fill(memory.base(), 1, 4096)?;
        Err(CudaError::usage("work", "fails on purpose"))
    });
    let error = failed.err().ok_or("a failed capture gave a graph")?;
    memory.zero(stream)?;
    stream.synchronize()?;
    Ok(format!("{error}; the stream works on"))
}

/// Places on the device for the operands of products up to a size.
struct Matrices {
    memory: DeviceMemory,
    a: DevicePtr,
    w: DevicePtr,
    bias: DevicePtr,
    d: DevicePtr,
    workspace: DevicePtr,
}

impl Matrices {
    fn new(context: &Arc<Context>, m: usize, n: usize, k: usize) -> Result<Self, CudaError> {
        let sizes = [m * k * 2, n * k * 2, n * 2, m * n * 2, WORKSPACE_BYTES];
        let total = sizes.iter().map(|bytes| aligned(*bytes)).sum();
        let memory = DeviceMemory::allocate(context, total, "matrices")?;
        let mut carver = Carver::new(&memory);
        let [a, w, bias, d, workspace] = sizes.map(|bytes| carver.take(bytes));
        let (a, w, bias, d, workspace) = (a?, w?, bias?, d?, workspace?);
        Ok(Self { memory, a, w, bias, d, workspace })
    }

    fn plans(
        &self,
        context: &Arc<Context>,
        folder: Option<&std::path::Path>,
    ) -> Result<GemmPlans, CudaError> {
        GemmPlans::new(context, folder, self.workspace, WORKSPACE_BYTES)
    }

    /// Compares one product with sums in f64 and tells its time.
    fn compare(
        &self,
        plans: &mut GemmPlans,
        shape: GemmShape,
        stream: &Stream,
        tolerance: f64,
    ) -> Outcome {
        let (m, n, k) = (shape.m_bucket as usize, shape.n as usize, shape.k as usize);
        let mut rng = SmallRng::seed_from_u64(7);
        let mut operand = |place: DevicePtr, count: usize| {
            let values: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
            let (bytes, rounded) = encode(shape.dtype, &values);
            upload(stream, place, &bytes).map(|()| rounded)
        };
        let a = operand(self.a, m * k)?;
        let w = operand(self.w, n * k)?;
        let bias = operand(self.bias, n)?;
        plans.prepare(shape, stream, self.a, self.w, self.d)?;
        plans.run(shape, self.a, self.w, Some(self.bias), self.d, stream)?;
        let mut bytes = vec![0; m * n * 2];
        download(stream, self.d, &mut bytes)?;
        let d = decode(shape.dtype, &bytes);
        let mut worst = (0.0, 0, 0);
        for (row, (a, d)) in a.chunks_exact(k).zip(d.chunks_exact(n)).enumerate() {
            for (column, (w, d)) in w.chunks_exact(k).zip(d).enumerate() {
                let sum: f64 = a.iter().zip(w).map(|(a, w)| a * w).sum();
                let expected = sum + bias[column];
                // A NaN must not pass as small.
                let error = (d - expected).abs() / expected.abs().max(1.0);
                let error = if error.is_nan() { f64::INFINITY } else { error };
                if error > worst.0 {
                    worst = (error, row, column);
                }
            }
        }
        let time = plans.time_us(shape).unwrap_or(f64::NAN);
        let text = format!("{shape}: {time:.2} us, worst error {:.2e} at {:?}", worst.0, worst);
        if worst.0 <= tolerance { Ok(text) } else { Err(text.into()) }
    }
}

fn gemm_times(context: &Arc<Context>, stream: &Stream) -> Outcome {
    let matrices = Matrices::new(context, 8192, 1536, 1536)?;
    matrices.memory.zero(stream)?;
    // Zeros would draw less power and so run faster than real values.
    let values: Vec<f32> =
        (0..8192 * 1536).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let (bytes, _) = encode(Dtype::F16, &values);
    upload(stream, matrices.a, &bytes)?;
    upload(stream, matrices.w, &bytes[..1536 * 1536 * 2])?;
    let mut plans = matrices.plans(context, None)?;
    let mut report = String::new();
    for m_bucket in [32, 1024, 4096, 8192] {
        let mut layer_us = 0.0;
        report.push_str(&format!("\n  m {m_bucket:5}"));
        for (n, k) in [(1152, 384), (384, 384), (1536, 384), (384, 1536)] {
            let shape = GemmShape { m_bucket, n, k, dtype: Dtype::F16, bias: true };
            plans.prepare(shape, stream, matrices.a, matrices.w, matrices.d)?;
            let us = plans.time_us(shape).unwrap_or(f64::NAN);
            layer_us += us;
            let rate = shape.operations() / us / 1e6;
            report.push_str(&format!(" | {n:4} x {k:4}: {us:6.2} us {rate:4.0} TFLOP/s"));
        }
        report.push_str(&format!(" | layer {layer_us:.2} us"));
    }
    Ok(format!("{:?}{report}", plans.counts()))
}

/// Device time of one run of `work`, the mean of `runs` after a first.
fn timed(
    context: &Arc<Context>,
    stream: &Stream,
    runs: u32,
    work: impl Fn() -> Result<(), CudaError>,
) -> Result<f64, CudaError> {
    let (start, end) = (Event::new(context, true)?, Event::new(context, true)?);
    work()?;
    start.record(stream)?;
    (0..runs).try_for_each(|_| work())?;
    end.record(stream)?;
    end.synchronize()?;
    Ok(start.elapsed_us(&end)? / f64::from(runs))
}

/// The elements' bytes, and their values after rounding.
fn encode(dtype: Dtype, values: &[f32]) -> (Vec<u8>, Vec<f64>) {
    let bytes: Vec<u8> = match dtype {
        Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
    };
    let rounded = decode(dtype, &bytes);
    (bytes, rounded)
}

fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let pairs = bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match dtype {
        Dtype::F16 => pairs.map(|pair| f16::from_le_bytes(pair).to_f64()).collect(),
        Dtype::BF16 => pairs.map(|pair| bf16::from_le_bytes(pair).to_f64()).collect(),
    }
}

fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut pattern = vec![0; bytes];
    SmallRng::seed_from_u64(seed).fill(pattern.as_mut_slice());
    pattern
}

fn same(received: &[u8], sent: &[u8]) -> Result<(), Box<dyn Error>> {
    match received.iter().zip(sent).position(|(a, b)| a != b) {
        None if received.len() == sent.len() => Ok(()),
        at => Err(format!("content differs, first at {at:?} of {}", sent.len()).into()),
    }
}
