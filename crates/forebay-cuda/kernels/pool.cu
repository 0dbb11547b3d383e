// Hidden states to one vector per text: pooled over its tokens, then divided by its length. An
// output row holds the unit vector and, behind it, the length it had before.
//
// One CTA per row. Each thread adds up 8 columns over every GROUPS-th token, the partial results
// meet in shared memory, and the sum of squares is reduced warp by warp: the order of additions
// depends on the text's own length only. A NaN anywhere in a text reaches the length.

constexpr u32 POOL_THREADS = 384;
constexpr u32 POOL_HIDDEN_MAX = 1024;
// Loads of one thread that are under way together.
constexpr u32 POOL_AHEAD = 4;

constexpr u32 POOL_MEAN = 0, POOL_CLS = 1, POOL_MAX = 2, POOL_LAST = 3, POOL_MEAN_SQRT_LEN = 4;

template <class T>
__device__ __forceinline__ void pool(const T* x, const u32* starts, u32 rows, u32 hidden, u32 mode,
                                     f32* out) {
    __shared__ f32 partial[POOL_THREADS * 8];
    __shared__ f32 squares[POOL_THREADS / WARP];

    const u32 row = blockIdx.x;
    if (row >= rows) return;
    u32 begin = starts[row];
    u32 end = starts[row + 1];
    const u32 length = end - begin;
    if (mode == POOL_CLS) end = min(end, begin + 1);
    if (mode == POOL_LAST && length > 0) begin = end - 1;

    const u32 columns = hidden / 8;
    const u32 groups = POOL_THREADS / columns;
    const u32 group = threadIdx.x / columns;
    const u32 column = 8 * (threadIdx.x % columns);
    const bool is_max = mode == POOL_MAX;
    const f32 neutral = is_max && length > 0 ? __uint_as_float(0xff800000u) : 0.0f;

    if (group < groups) {
        f32 total[8];
#pragma unroll
        for (u32 j = 0; j < 8; ++j) total[j] = neutral;
        for (u32 token = begin + group; token < end; token += POOL_AHEAD * groups) {
            f32 values[POOL_AHEAD][8];
#pragma unroll
            for (u32 i = 0; i < POOL_AHEAD; ++i) {
                const u32 place = token + i * groups;
                if (place < end) {
                    load_values(x + static_cast<u64>(place) * hidden + column, values[i]);
                } else {
#pragma unroll
                    for (u32 j = 0; j < 8; ++j) values[i][j] = neutral;
                }
            }
#pragma unroll
            for (u32 i = 0; i < POOL_AHEAD; ++i) {
#pragma unroll
                for (u32 j = 0; j < 8; ++j) {
                    total[j] = is_max ? max_nan(total[j], values[i][j]) : total[j] + values[i][j];
                }
            }
        }
        f32* place = partial + group * hidden + column;
        *reinterpret_cast<float4*>(place) = make_float4(total[0], total[1], total[2], total[3]);
        *reinterpret_cast<float4*>(place + 4) = make_float4(total[4], total[5], total[6], total[7]);
    }
    __syncthreads();

    const f32 count = static_cast<f32>(max(length, 1u));
    f32 factor = 1.0f;
    if (mode == POOL_MEAN) factor = rcp(count);
    if (mode == POOL_MEAN_SQRT_LEN) factor = rsqrt_fast(count);

    constexpr u32 STEPS = (POOL_HIDDEN_MAX + POOL_THREADS - 1) / POOL_THREADS;
    f32 pooled[STEPS];
    f32 square = 0.0f;
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) {
        const u32 place = i * POOL_THREADS + threadIdx.x;
        if (place < hidden) {
            f32 total = partial[place];
#pragma unroll 4
            for (u32 other = 1; other < groups; ++other) {
                const f32 value = partial[other * hidden + place];
                total = is_max ? max_nan(total, value) : total + value;
            }
            pooled[i] = total * factor;
            square = fmaf(pooled[i], pooled[i], square);
        }
    }
    square = warp_sum(square);
    if (lane_id() == 0) squares[threadIdx.x / WARP] = square;
    __syncthreads();
    f32 sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < POOL_THREADS / WARP; ++i) sum += squares[i];
    const f32 norm = sqrt_fast(sum);
    // Written so that a NaN divides: a comparison with it is false.
    const f32 inverse = rcp(norm < 1e-12f ? 1e-12f : norm);

    f32* to = out + static_cast<u64>(row) * (hidden + 1);
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) {
        const u32 place = i * POOL_THREADS + threadIdx.x;
        if (place < hidden) to[place] = pooled[i] * inverse;
    }
    if (threadIdx.x == 0) to[hidden] = norm;
}

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
    pool_f16(const F16* x, const u32* starts, u32 rows, u32 hidden, u32 mode, f32* out) {
    pool(x, starts, rows, hidden, mode, out);
}
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
    pool_bf16(const BF16* x, const u32* starts, u32 rows, u32 hidden, u32 mode, f32* out) {
    pool(x, starts, rows, hidden, mode, out);
}
