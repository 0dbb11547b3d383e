// Token ids to the first hidden states: the sum of the word, position and type embeddings, layer
// normalised. It also brings the row starts and the true sizes of the batch to where the captured
// graph looks for them.
//
// One warp per token. The batch may lie in host memory that is mapped into the device's address
// space; every value is read once per warp and nothing is written there.

template <class T, u32 HIDDEN>
__device__ __forceinline__ void embed_norm(const u32* ids, const u32* starts, u32 tokens, u32 rows,
                                           const T* word, const T* position, const T* type0,
                                           const f32* gamma, const f32* beta, f32 eps,
                                           u32 position_offset, T* x, u32* starts_out,
                                           Sizes* sizes_out) {
    // A grid of four tokens per 128 threads has at least as many threads as the batch has starts.
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread <= rows) starts_out[thread] = starts[thread];
    if (thread == 0) *sizes_out = {tokens, rows};

    const u32 token = blockIdx.x * (blockDim.x / WARP) + warp_id();
    if (token >= tokens) return;
    const u32 id = ids[token];
    const u32 row = find_row(starts, rows, token);
    const u32 place = token - starts[row] + position_offset;

    constexpr u32 VECTOR = norm_vector<HIDDEN>();
    f32 sum[HIDDEN / WARP / VECTOR][VECTOR];
#pragma unroll
    for (u32 i = 0; i < HIDDEN / WARP / VECTOR; ++i) {
        const u32 column = (i * WARP + lane_id()) * VECTOR;
        f32 words[VECTOR], positions[VECTOR], types[VECTOR];
        load_values(word + static_cast<u64>(id) * HIDDEN + column, words);
        load_values(position + static_cast<u64>(place) * HIDDEN + column, positions);
        load_values(type0 + column, types);
#pragma unroll
        for (u32 j = 0; j < VECTOR; ++j) sum[i][j] = words[j] + positions[j] + types[j];
    }
    f32 scale[HIDDEN / WARP / VECTOR][VECTOR], shift[HIDDEN / WARP / VECTOR][VECTOR];
    load_columns<HIDDEN>(gamma, scale);
    load_columns<HIDDEN>(beta, shift);
    layer_norm<HIDDEN>(sum, scale, shift, eps);
    store_columns<T, HIDDEN>(x + static_cast<u64>(token) * HIDDEN, sum);
}

#define EMBED_NORM(SUFFIX, T, HIDDEN)                                                             \
    extern "C" __global__ void __launch_bounds__(128) embed_norm_##SUFFIX##_h##HIDDEN(            \
        const u32* ids, const u32* starts, u32 tokens, u32 rows, const T* word, const T* position, \
        const T* type0, const f32* gamma, const f32* beta, f32 eps, u32 position_offset, T* x,    \
        u32* starts_out, Sizes* sizes_out) {                                                      \
        embed_norm<T, HIDDEN>(ids, starts, tokens, rows, word, position, type0, gamma, beta, eps, \
                              position_offset, x, starts_out, sizes_out);                         \
    }

EMBED_NORM(f16, F16, 384)
EMBED_NORM(f16, F16, 768)
EMBED_NORM(f16, F16, 1024)
EMBED_NORM(bf16, BF16, 384)
EMBED_NORM(bf16, BF16, 768)
EMBED_NORM(bf16, BF16, 1024)
