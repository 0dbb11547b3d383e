// The end of an encoder block on the cuBLASLt path: out = layer_norm(y + bias + residual).
//
// One warp per token. `out` may be `residual`: a warp has read the whole of its token's row before
// it writes any of it, and no other warp touches that row.

template <class T, u32 HIDDEN>
__device__ __forceinline__ void residual_norm(const T* y, const f32* bias, const T* residual,
                                              const f32* gamma, const f32* beta, f32 eps,
                                              const Sizes* sizes, T* out) {
    constexpr u32 VECTOR = norm_vector<HIDDEN>();
    constexpr u32 STEPS = HIDDEN / WARP / VECTOR;
    let_next_kernel_start();
    // Weights do not depend on the previous kernel: they are fetched while it still runs.
    f32 sum[STEPS][VECTOR], scale[STEPS][VECTOR], shift[STEPS][VECTOR];
    load_columns<HIDDEN>(bias, sum);
    load_columns<HIDDEN>(gamma, scale);
    load_columns<HIDDEN>(beta, shift);
    // Sizes were written before the graph was launched, not by the kernel in front.
    const u32 token = blockIdx.x * (blockDim.x / WARP) + warp_id();
    if (token >= sizes->tokens) return;
    wait_for_previous_kernel();

    const u64 offset = static_cast<u64>(token) * HIDDEN;
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) {
        const u64 place = offset + (i * WARP + lane_id()) * VECTOR;
        f32 added[VECTOR], kept[VECTOR];
        load_values(y + place, added);
        load_values(residual + place, kept);
#pragma unroll
        for (u32 j = 0; j < VECTOR; ++j) sum[i][j] += added[j] + kept[j];
    }
    layer_norm<HIDDEN>(sum, scale, shift, eps);
    store_columns<T, HIDDEN>(out + offset, sum);
}

#define RESIDUAL_NORM(SUFFIX, T, HIDDEN)                                                          \
    extern "C" __global__ void __launch_bounds__(128) residual_norm_##SUFFIX##_h##HIDDEN(         \
        const T* y, const f32* bias, const T* residual, const f32* gamma, const f32* beta,        \
        f32 eps, const Sizes* sizes, T* out) {                                                    \
        residual_norm<T, HIDDEN>(y, bias, residual, gamma, beta, eps, sizes, out);                \
    }

RESIDUAL_NORM(f16, F16, 384)
RESIDUAL_NORM(f16, F16, 768)
RESIDUAL_NORM(f16, F16, 1024)
RESIDUAL_NORM(bf16, BF16, 384)
RESIDUAL_NORM(bf16, BF16, 768)
RESIDUAL_NORM(bf16, BF16, 1024)
