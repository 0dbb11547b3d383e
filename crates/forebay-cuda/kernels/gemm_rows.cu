// Dense layer for many rows and a short inner dimension, on Hopper:
//   d[rows, n] = activation(a[rows, k] . w[n, k]^T + bias[n])
//
// A CTA keeps its slice of the weights (N columns of d, all of k) in shared memory for its whole
// life and streams the rows of `a` past it, so the weights cross the chip once per CTA and not once
// per tile. Each of the warpgroups that compute has its own tiles of 64 rows. They take turns at
// the matrix units: while one rounds, activates and stores, the next one multiplies. One thread per
// warpgroup feeds it.
//
// The sum over k runs in one fixed order for every element: the bits of a row do not depend on N,
// on the number of rows or on where the row lies.
//
// Launch: block 384, grid slices * groups with slices = n / N; dynamic shared memory
// for k / 64 tiles of weights, the rings, the bias and the barriers, and 1024 bytes to align.

constexpr u32 ROWS_TILE = 64;
constexpr u32 ROWS_STAGE_BYTES = ROWS_TILE * 128;
constexpr u32 ROWS_CONSUMERS = 2;
// Stages of a ring. The middle width has few rounds, and leaves room for a CTA of the kernel before
// or behind it on the same multiprocessor.
template <u32 N> __device__ constexpr u32 rows_stages() { return N == 96 ? 2 : 4; }
// Threads that meet at a turn: one warpgroup waits for it, the other passes it on.
constexpr u32 ROWS_TURN_THREADS = 256;

struct Plain {
    static __device__ __forceinline__ f32 of(f32 x) { return x; }
};

template <class T, u32 N, class ACTIVATION>
__device__ __forceinline__ void gemm_rows(const TensorMap& a_map, const TensorMap& w_map,
                                          const f32* __restrict__ bias, T* __restrict__ d,
                                          const Sizes* sizes, u32 n, u32 k_tiles) {
    constexpr u32 ROWS_STAGES = rows_stages<N>();
    // Only wide sums need more registers than an even share; the others leave some to neighbours.
    constexpr bool WIDE = N == 192;
    extern __shared__ u8 dynamic_shared[];
    u8* const weights = dynamic_shared + ((1024 - (shared_address(dynamic_shared) & 1023)) & 1023);
    u8* const rings = weights + k_tiles * N * 128;
    f32* const bias_tile =
        reinterpret_cast<f32*>(rings + ROWS_CONSUMERS * ROWS_STAGES * ROWS_STAGE_BYTES);
    u64* const full = reinterpret_cast<u64*>(bias_tile + N);
    u64* const empty = full + ROWS_CONSUMERS * ROWS_STAGES;
    u64* const weights_full = empty + ROWS_CONSUMERS * ROWS_STAGES;

    const u32 lane = lane_id();
    const u32 warp = warp_id();
    const u32 slices = n / N;
    const u32 slice = blockIdx.x % slices;
    const u32 group = blockIdx.x / slices;
    // Tile t goes to group t % groups, so that few tiles meet many CTAs.
    const u32 groups = gridDim.x / slices;
    const u32 stride = groups * ROWS_CONSUMERS;
    // Written before the graph was launched, not by the kernel in front.
    const u32 tokens = sizes->tokens;
    const u32 tiles = (tokens + ROWS_TILE - 1) / ROWS_TILE;

    if (threadIdx.x == 0) {
        for (u32 i = 0; i < ROWS_CONSUMERS * ROWS_STAGES; ++i) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], 4);
        }
        for (u32 i = 0; i < k_tiles; ++i) barrier_init(&weights_full[i], 1);
        barrier_init_fence();
    }
    for (u32 i = threadIdx.x; i < N; i += blockDim.x) bias_tile[i] = bias[slice * N + i];
    __syncthreads();
    // Narrower slices are for few rows: this kernel leaves room for the whole next one. Otherwise the
    // next one's CTAs would crowd on the multiprocessors that have room now.
    if constexpr (!WIDE) let_next_kernel_start();

    if (warp >= 4 * ROWS_CONSUMERS) {
        if constexpr (WIDE) registers_shrink<40>();
        const u32 consumer = warp - 4 * ROWS_CONSUMERS;
        if (consumer >= ROWS_CONSUMERS || !elect_one()) return;
        // Weights do not depend on the previous kernel: they travel while it still runs.
        if (consumer == 0) {
            prefetch_map(&a_map);
            for (u32 k = 0; k < k_tiles; ++k) {
                barrier_expect_bytes(&weights_full[k], N * 128);
                copy_box(weights + k * N * 128, &w_map, &weights_full[k], k * TILE_COLUMNS,
                         slice * N);
            }
        }
        wait_for_previous_kernel();
        u8* const ring = rings + consumer * ROWS_STAGES * ROWS_STAGE_BYTES;
        u32 step = 0;
        for (u32 tile = group + consumer * groups; tile < tiles; tile += stride) {
            for (u32 k = 0; k < k_tiles; ++k, ++step) {
                const u32 stage = step % ROWS_STAGES;
                const u32 at = consumer * ROWS_STAGES + stage;
                barrier_wait(&empty[at], (step / ROWS_STAGES + 1) & 1);
                barrier_expect_bytes(&full[at], ROWS_STAGE_BYTES);
                copy_box(ring + stage * ROWS_STAGE_BYTES, &a_map, &full[at], k * TILE_COLUMNS,
                         tile * ROWS_TILE);
            }
        }
        // Shared memory may not be given back while copies into it are under way.
        if (consumer == 0) {
            for (u32 k = 0; k < k_tiles; ++k) barrier_wait(&weights_full[k], 0);
        }
        return;
    }

    if constexpr (WIDE) registers_grow<232>();
    const u32 consumer = warp / 4;
    // What it multiplies comes through barriers, but what it writes the kernel in front may read.
    wait_for_previous_kernel();
    u8* const ring = rings + consumer * ROWS_STAGES * ROWS_STAGE_BYTES;
    u64* const my_full = full + consumer * ROWS_STAGES;
    u64* const my_empty = empty + consumer * ROWS_STAGES;
    // Named barrier 1 + c is the turn of warpgroup c; the one before it passes it on. All make the
    // same number of rounds, the last one perhaps without a tile.
    const u32 turn = 1 + consumer;
    const u32 next_turn = 1 + (consumer + 1) % ROWS_CONSUMERS;
    if (consumer == ROWS_CONSUMERS - 1) barrier_join(next_turn, ROWS_TURN_THREADS);
    u32 step = 0;
    for (u32 first = group; first < tiles; first += stride) {
        const u32 tile = first + consumer * groups;
        const bool last_turn = first + stride >= tiles && consumer == ROWS_CONSUMERS - 1;
        barrier_sync(turn, ROWS_TURN_THREADS);
        if (tile >= tiles) {
            if (!last_turn) barrier_join(next_turn, ROWS_TURN_THREADS);
            continue;
        }
        f32 sum[N / 2];
        for (u32 k = 0; k < k_tiles; ++k, ++step) {
            const u32 stage = step % ROWS_STAGES;
            if (first == group) barrier_wait(&weights_full[k], 0);
            barrier_wait(&my_full[stage], (step / ROWS_STAGES) & 1);
            const u64 left = tile_descriptor(ring + stage * ROWS_STAGE_BYTES);
            const u64 right = tile_descriptor(weights + k * N * 128);
            accumulators_fence(sum);
            products_fence();
#pragma unroll
            for (u32 part = 0; part < 4; ++part) {
                Product<T, N>::run(sum, left + part * DESCRIPTOR_STEP,
                                   right + part * DESCRIPTOR_STEP, (k | part) != 0);
            }
            products_commit();
            accumulators_fence(sum);
            // The products before these have read their tile: it may be overwritten.
            if (k > 0) {
                products_wait<1>();
                if (lane == 0) barrier_arrive(&my_empty[(step - 1) % ROWS_STAGES]);
            }
        }
        if (!last_turn) barrier_join(next_turn, ROWS_TURN_THREADS);
        if (WIDE && first + stride >= tiles) let_next_kernel_start();
        products_wait<0>();
        accumulators_fence(sum);
        if (lane == 0) barrier_arrive(&my_empty[(step - 1) % ROWS_STAGES]);

        const u32 upper = tile * ROWS_TILE + warp % 4 * 16 + lane / 4;
        const u32 lower = upper + 8;
        const u32 pair = lane % 4;
        T* const upper_row = d + static_cast<u64>(upper) * n + slice * N;
        T* const lower_row = d + static_cast<u64>(lower) * n + slice * N;
#pragma unroll
        for (u32 part = 0; part < N / 32; ++part) {
            u32 up[4];
            u32 low[4];
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const u32 block = part * 4 + i;
                const float2 b = *reinterpret_cast<const float2*>(&bias_tile[block * 8 + pair * 2]);
                up[i] = pack<T>(ACTIVATION::of(sum[block * 4] + b.x),
                                ACTIVATION::of(sum[block * 4 + 1] + b.y));
                low[i] = pack<T>(ACTIVATION::of(sum[block * 4 + 2] + b.x),
                                 ACTIVATION::of(sum[block * 4 + 3] + b.y));
            }
            exchange_quad(up[0], up[1], up[2], up[3]);
            exchange_quad(low[0], low[1], low[2], low[3]);
            const u32 column = (part * 4 + pair) * 8;
            if (upper < tokens) {
                *reinterpret_cast<uint4*>(upper_row + column) =
                    make_uint4(up[0], up[1], up[2], up[3]);
            }
            if (lower < tokens) {
                *reinterpret_cast<uint4*>(lower_row + column) =
                    make_uint4(low[0], low[1], low[2], low[3]);
            }
        }
    }
}

#define GEMM_ROWS(SUFFIX, T, N, NAME, ACTIVATION)                                                \
    extern "C" __global__ void __launch_bounds__(128 * (ROWS_CONSUMERS + 1), 1)                  \
        gemm_rows_##SUFFIX##_n##N##_##NAME(const __grid_constant__ TensorMap a,                  \
                                           const __grid_constant__ TensorMap w, const f32* bias, \
                                           T* d, const Sizes* sizes, u32 n, u32 k_tiles) {       \
        gemm_rows<T, N, ACTIVATION>(a, w, bias, d, sizes, n, k_tiles);                           \
    }

#define GEMM_ROWS_ALL(SUFFIX, T, N)              \
    GEMM_ROWS(SUFFIX, T, N, none, Plain)         \
    GEMM_ROWS(SUFFIX, T, N, gelu, GeluErf)       \
    GEMM_ROWS(SUFFIX, T, N, gelu_tanh, GeluTanh) \
    GEMM_ROWS(SUFFIX, T, N, relu, Relu)

GEMM_ROWS_ALL(f16, F16, 64)
GEMM_ROWS_ALL(f16, F16, 96)
GEMM_ROWS_ALL(f16, F16, 192)
GEMM_ROWS_ALL(bf16, BF16, 64)
GEMM_ROWS_ALL(bf16, BF16, 96)
GEMM_ROWS_ALL(bf16, BF16, 192)
