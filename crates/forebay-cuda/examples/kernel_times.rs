//! How long each kernel of an encoder layer takes on this device, alone and in its chain: what to look
//! at before and after a kernel is changed. The geometry is that of all-MiniLM-L6-v2, in F16.
//!
//! Usage: `cargo run --release -p forebay-cuda --example kernel_times -- [TOKENS,...] [ROW_TOKENS]`
//!
//! Each figure is the median over replays of a graph that holds the kernel many times, so launch
//! costs are those within a graph. The clock of a device under a short load like this one is higher
//! than under a lasting one. `chain` is a layer's five kernels in their order, over six layers'
//! weights; what it takes beyond their sum is what they cost each other.

#![expect(clippy::print_stdout, reason = "a report for whoever runs it")]

use std::error::Error;
use std::sync::Arc;

use forebay_cuda::edge::{
    Carver, Context, DeviceMemory, DevicePtr, Event, Graph, Stream, load_nvrtc, upload,
};
use forebay_cuda::kernels::hopper::{GemmNorm, GemmRows, HopperGemms};
use forebay_cuda::kernels::{Attention, KernelOptions, KernelSet};
use forebay_cuda::{CudaError, Dtype, load};
use forebay_model::Activation;
use half::f16;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const HIDDEN: u32 = 384;
const INTERMEDIATE: u32 = 1536;
const HEADS: u32 = 12;
const LAYERS: usize = 6;
/// Launches in a graph, and replays of it.
const LAUNCHES: usize = 30;
const REPLAYS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let buckets = arguments.next().unwrap_or_else(|| "32,256,512,1024,2048,4096,8192".to_owned());
    let row_tokens: u32 = arguments.next().unwrap_or_else(|| "128".to_owned()).parse()?;
    load(&[])?;
    load_nvrtc(&[])?;
    let context = Context::open(0)?;
    let stream = Stream::new(&context)?;
    let options = KernelOptions::default();
    let kernels = KernelSet::load(&context, &options, Dtype::F16, HIDDEN, 32, Activation::GeluErf)?;
    let Some(products) = HopperGemms::new(&context, &options, Dtype::F16)? else {
        return Err("this device has no fused products".into());
    };
    println!("{}, rows of {row_tokens} tokens, microseconds", context.info().name);
    println!(
        "{:>7} {:>7} {:>9} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "tokens", "qkv", "attention", "joined", "up", "down", "sum", "chain"
    );
    for bucket in buckets.split(',') {
        let layer = Layer::new(&context, &stream, bucket.parse()?, row_tokens)?;
        let bench = Bench { context: &context, stream: &stream };
        let mut times = Vec::new();
        for step in 0..5 {
            times.push(bench.time(LAUNCHES, |index| {
                layer.step(&kernels, &products, &stream, step, index % LAYERS)
            })?);
        }
        let chain = bench.time(LAYERS, |index| {
            (0..5).try_for_each(|step| layer.step(&kernels, &products, &stream, step, index))
        })?;
        let sum: f64 = times.iter().sum();
        print!("{bucket:>7}");
        for (time, width) in times.iter().zip([7, 9, 7, 7, 7]) {
            print!(" {time:>width$.2}");
        }
        println!(" {sum:>7.2} {chain:>7.2}");
    }
    Ok(())
}

struct Bench<'a> {
    context: &'a Arc<Context>,
    stream: &'a Stream,
}

impl Bench<'_> {
    /// Median time of one of `launches` launches in a graph, in microseconds.
    fn time(
        &self,
        launches: usize,
        launch: impl Fn(usize) -> Result<(), CudaError>,
    ) -> Result<f64, CudaError> {
        let graph = Graph::capture(self.stream, |_| (0..launches).try_for_each(&launch))?;
        let (start, end) = (Event::new(self.context, true)?, Event::new(self.context, true)?);
        graph.launch(self.stream)?;
        let mut times = Vec::new();
        for _ in 0..REPLAYS {
            start.record(self.stream)?;
            graph.launch(self.stream)?;
            end.record(self.stream)?;
            end.synchronize()?;
            times.push(start.elapsed_us(&end)? / launches as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[REPLAYS / 2])
    }
}

/// Operands of six layers over one set of activations.
struct Layer {
    _memory: DeviceMemory,
    bucket: u32,
    x: DevicePtr,
    qkv: DevicePtr,
    ctx: DevicePtr,
    up: DevicePtr,
    cu: DevicePtr,
    sizes: DevicePtr,
    vector: DevicePtr,
    /// Per layer: projections, joined, up, down.
    weights: Vec<[DevicePtr; 4]>,
}

impl Layer {
    fn new(
        context: &Arc<Context>,
        stream: &Stream,
        bucket: u32,
        row_tokens: u32,
    ) -> Result<Self, CudaError> {
        let (h, i, tokens) = (HIDDEN as usize, INTERMEDIATE as usize, bucket as usize);
        let weights = [3 * h * h, h * h, i * h, h * i];
        let elements = tokens * (5 * h + i) + LAYERS * weights.iter().sum::<usize>();
        let memory = DeviceMemory::allocate(context, 2 * elements + (4 << 20), "kernel times")?;
        let mut carver = Carver::new(&memory);
        let mut rng = SmallRng::seed_from_u64(1);
        let mut matrix = |elements: usize, scale: f32| -> Result<DevicePtr, CudaError> {
            let place = carver.take(2 * elements)?;
            let values: Vec<f16> =
                (0..elements).map(|_| f16::from_f32(rng.random_range(-scale..scale))).collect();
            upload(stream, place, bytemuck::cast_slice(&values))?;
            Ok(place)
        };
        let x = matrix(tokens * h, 1.0)?;
        let (qkv, ctx) = (matrix(tokens * 3 * h, 1.0)?, matrix(tokens * h, 1.0)?);
        let up = matrix(tokens * i, 1.0)?;
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            let [a, b, c, d] = weights;
            layers.push([matrix(a, 0.1)?, matrix(b, 0.1)?, matrix(c, 0.1)?, matrix(d, 0.1)?]);
        }
        let mut boundaries: Vec<u32> = (0..bucket).step_by(row_tokens.max(1) as usize).collect();
        boundaries.push(bucket);
        let rows = boundaries.len() as u32 - 1;
        let words = |carver: &mut Carver<'_>, words: &[u32]| -> Result<DevicePtr, CudaError> {
            let place = carver.take(size_of_val(words))?;
            upload(stream, place, bytemuck::cast_slice(words))?;
            Ok(place)
        };
        let cu = words(&mut carver, &boundaries)?;
        let sizes = words(&mut carver, &[bucket, rows])?;
        // One vector serves as bias, scale and shift: its values do not change the time.
        let vector = words(&mut carver, &vec![0.5_f32.to_bits(); i])?;
        Ok(Self { _memory: memory, bucket, x, qkv, ctx, up, cu, sizes, vector, weights: layers })
    }

    /// Enqueues one of the five kernels of a layer.
    fn step(
        &self,
        kernels: &KernelSet,
        products: &HopperGemms,
        stream: &Stream,
        step: usize,
        layer: usize,
    ) -> Result<(), CudaError> {
        let Self { bucket, sizes, vector, x, .. } = *self;
        let weights = self.weights[layer];
        let rows = |a, w, d, n, activation| GemmRows {
            a,
            a_rows: bucket,
            w,
            bias: vector,
            d,
            n,
            k: HIDDEN,
            activation,
            sizes,
            bucket,
        };
        let norm = |a, w, k| GemmNorm {
            a,
            a_rows: bucket,
            w,
            bias: vector,
            residual: x,
            gamma: vector,
            beta: vector,
            eps: 1e-12,
            d: x,
            n: HIDDEN,
            k,
            sizes,
            bucket,
        };
        match step {
            0 => products.rows(stream, &rows(x, weights[0], self.qkv, 3 * HIDDEN, None)),
            1 => {
                let (qkv, cu, ctx) = (self.qkv, self.cu, self.ctx);
                kernels.attention(stream, &Attention { qkv, cu, sizes, ctx, heads: HEADS, bucket })
            }
            2 => products.norm(stream, &norm(self.ctx, weights[1], HIDDEN)),
            3 => {
                let activation = Some(Activation::GeluErf);
                products.rows(stream, &rows(x, weights[2], self.up, INTERMEDIATE, activation))
            }
            _ => products.norm(stream, &norm(self.up, weights[3], INTERMEDIATE)),
        }
    }
}
