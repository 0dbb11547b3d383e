// The middle of an encoder's feed-forward on the cuBLASLt path: x = activation(x + bias), in place
// on [tokens, width]. The library's own GELU epilogue is the tanh form, which is another function.
//
// A CTA covers 64 vectors of 8 columns by 16 tokens; a thread keeps its columns' biases for four
// tokens. grid.x runs over tokens, grid.y over columns; `width` is a multiple of 8.

template <class T, class Activation>
__device__ __forceinline__ void bias_activation(T* x, const f32* bias, const Sizes* sizes,
                                                u32 width) {
    constexpr u32 COLUMNS = 64, TOKENS = 4, STRIDE = 256 / COLUMNS;
    let_next_kernel_start();
    const u32 column = 8 * (blockIdx.y * COLUMNS + threadIdx.x % COLUMNS);
    if (column >= width) return;
    f32 added[8];
    load_values(bias + column, added);
    // Written before the graph was launched, not by the kernel in front.
    const u32 tokens = sizes->tokens;
    wait_for_previous_kernel();

    const u32 first = blockIdx.x * (TOKENS * STRIDE) + threadIdx.x / COLUMNS;
    f32 values[TOKENS][8];
#pragma unroll
    for (u32 i = 0; i < TOKENS; ++i) {
        const u32 token = first + i * STRIDE;
        if (token < tokens) load_values(x + static_cast<u64>(token) * width + column, values[i]);
    }
#pragma unroll
    for (u32 i = 0; i < TOKENS; ++i) {
        const u32 token = first + i * STRIDE;
        if (token >= tokens) return;
#pragma unroll
        for (u32 j = 0; j < 8; ++j) values[i][j] = Activation::of(values[i][j] + added[j]);
        store_values(x + static_cast<u64>(token) * width + column, values[i]);
    }
}

#define BIAS_ACTIVATION(SUFFIX, T, NAME, ACTIVATION)                                  \
    extern "C" __global__ void __launch_bounds__(256) bias_activation_##SUFFIX##_##NAME( \
        T* x, const f32* bias, const Sizes* sizes, u32 width) {                       \
        bias_activation<T, ACTIVATION>(x, bias, sizes, width);                        \
    }

BIAS_ACTIVATION(f16, F16, gelu, GeluErf)
BIAS_ACTIVATION(f16, F16, gelu_tanh, GeluTanh)
BIAS_ACTIVATION(f16, F16, relu, Relu)
BIAS_ACTIVATION(bf16, BF16, gelu, GeluErf)
BIAS_ACTIVATION(bf16, BF16, gelu_tanh, GeluTanh)
BIAS_ACTIVATION(bf16, BF16, relu, Relu)
