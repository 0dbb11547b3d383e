// Softmax attention within each text of a packed batch: ctx = softmax(q k^T / sqrt(d)) v, for qkv
// [tokens, 3 h] (q | k | v) and ctx [tokens, h], a head being d consecutive columns.
//
// A CTA of four warps owns 128 tokens, a warp 32 of them, and takes the heads blockIdx.y,
// blockIdx.y + gridDim.y and so on one after the other: as many as the launch has too few rows of
// CTAs for. While it computes one head, the keys and values of the next one travel. The keys and values of every
// text that meets the CTA's tokens come to shared memory a tile at a time; each warp goes through
// the texts that meet its own tokens, one after another, in blocks of 32 keys counted from the
// text's start. It computes all its 32 tokens against a text's keys and stores only those of that
// text, so a token's bits depend on its own text alone: not on where in the batch that lies, nor on
// what lies beside it.
//
// The special-function unit (one exponential per score) is the bound on large chips, shared memory
// is next: 32 tokens per warp, and not 16, halve the reads of keys and values.

constexpr u32 ATTENTION_WARPS = 4;
constexpr u32 ATTENTION_THREADS = ATTENTION_WARPS * WARP;
// Two row tiles of the tensor-core instruction.
constexpr u32 WARP_TOKENS = 32;
constexpr u32 CTA_TOKENS = ATTENTION_WARPS * WARP_TOKENS;
constexpr u32 KEY_BLOCK = 32;
// The scores may exceed the running maximum by this many powers of two before the sums are
// rescaled: the weights then stay below 256, far inside the range of f16, and for nearly every
// block after a text's first there is nothing to rescale.
constexpr f32 HEADROOM = 8.0f;

// Tiles in shared memory: with two, one is filled while the other is used.
template <u32 D> __device__ constexpr u32 tile_count() { return D == 32 ? 2 : 1; }
// Keys of a tile, chosen so that all keys and values stay within 48 KB.
template <u32 D> __device__ constexpr u32 tile_keys() { return D == 32 ? 176 : 160; }
// The last block of a tile may be rounded up to 16 keys past its end.
template <u32 D> __device__ constexpr u32 tile_bytes() { return (tile_keys<D>() + 16) * D * 2; }

// Where the 16-byte piece `piece` of a key's row lies. Eight consecutive rows fall into different
// banks whatever row is the first, which matters as texts start anywhere.
template <u32 D> __device__ __forceinline__ u32 swizzled(u32 key, u32 piece) {
    const u32 mixed = D == 32 ? piece ^ ((key >> 1) & 3) : piece ^ (key & 7);
    return key * (D * 2) + mixed * 16;
}

__device__ __forceinline__ f32 quad_max(f32 x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// What a warp carries along a text for its 32 tokens. [m][r] stands for the token
// 16 m + 8 r + lane / 4; sums are of this lane's keys only until the end.
template <u32 D> struct Running {
    f32 out[2][D / 8][4];
    f32 maximum[2][2];  // in units of log2, after scaling
    f32 sum[2][2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (u32 m = 0; m < 2; ++m) {
#pragma unroll
            for (u32 j = 0; j < D / 8; ++j) {
#pragma unroll
                for (u32 i = 0; i < 4; ++i) out[m][j][i] = 0.0f;
            }
            sum[m][0] = sum[m][1] = 0.0f;
        }
    }
};

// Adds a block of keys. GROUPS is the number of 16-key groups that are looked at; with MASKED, only
// the first `count` keys belong to the text, and at least one key of the last group does.
template <class T, u32 D, u32 GROUPS, bool MASKED>
__device__ __forceinline__ void attend(Running<D>& running, const u32 (&query)[2][D / 16][4],
                                       u32 keys, u32 values, u32 key, u32 count, bool is_first) {
    const f32 NONE = __uint_as_float(0xff800000u);  // minus infinity
    const f32 scale = LOG2_E * (D == 32 ? 0.17677669529663689f : 0.125f);
    const u32 lane = lane_id();
    const u32 place = 2 * (lane % 4);  // of this lane's first score among eight

    f32 score[2][2 * GROUPS][4];
#pragma unroll
    for (u32 n = 0; n < 2 * GROUPS; ++n) {
#pragma unroll
        for (u32 m = 0; m < 2; ++m) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) score[m][n][i] = 0.0f;
        }
#pragma unroll
        for (u32 k = 0; k < D / 32; ++k) {
            u32 fragment[4];
            load_matrices(fragment, keys + swizzled<D>(key + 8 * n + lane % 8, 4 * k + lane / 8));
#pragma unroll
            for (u32 m = 0; m < 2; ++m) {
                multiply_add<T>(score[m][n], query[m][2 * k], fragment[0], fragment[1]);
                multiply_add<T>(score[m][n], query[m][2 * k + 1], fragment[2], fragment[3]);
            }
        }
    }
    if constexpr (MASKED) {
#pragma unroll
        for (u32 n = 2 * GROUPS - 2; n < 2 * GROUPS; ++n) {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const bool is_valid = 8 * n + place + i % 2 < count;
#pragma unroll
                for (u32 m = 0; m < 2; ++m) score[m][n][i] = is_valid ? score[m][n][i] : NONE;
            }
        }
    }

    f32 largest[2][2];
    bool exceeds = false;
#pragma unroll
    for (u32 m = 0; m < 2; ++m) {
#pragma unroll
        for (u32 r = 0; r < 2; ++r) {
            f32 top = fmaxf(score[m][0][2 * r], score[m][0][2 * r + 1]);
#pragma unroll
            for (u32 n = 1; n < 2 * GROUPS; ++n) {
                top = fmaxf(top, fmaxf(score[m][n][2 * r], score[m][n][2 * r + 1]));
            }
            largest[m][r] = top * scale;
            exceeds |= largest[m][r] > running.maximum[m][r] + HEADROOM;
        }
    }
    // All branches below are taken by the whole warp. The factor of a token that does not exceed is
    // exactly 1, so its bits do not depend on whether a neighbour made the warp go in here.
    if (is_first) {
#pragma unroll
        for (u32 m = 0; m < 2; ++m) {
#pragma unroll
            for (u32 r = 0; r < 2; ++r) running.maximum[m][r] = quad_max(largest[m][r]);
        }
    } else if (__any_sync(ALL_LANES, exceeds)) {
#pragma unroll
        for (u32 m = 0; m < 2; ++m) {
#pragma unroll
            for (u32 r = 0; r < 2; ++r) {
                const f32 before = running.maximum[m][r];
                const f32 top = quad_max(largest[m][r]);
                const f32 after = top > before + HEADROOM ? top : before;
                const f32 factor = ex2(before - after);
                running.maximum[m][r] = after;
                running.sum[m][r] *= factor;
#pragma unroll
                for (u32 j = 0; j < D / 8; ++j) {
                    running.out[m][j][2 * r] *= factor;
                    running.out[m][j][2 * r + 1] *= factor;
                }
            }
        }
    }

    // The scores' layout is that of a left factor: weights go on to the product with the values
    // without leaving their lanes.
    u32 weight[2][GROUPS][4];
#pragma unroll
    for (u32 m = 0; m < 2; ++m) {
#pragma unroll
        for (u32 n = 0; n < 2 * GROUPS; ++n) {
#pragma unroll
            for (u32 r = 0; r < 2; ++r) {
                const f32 shift = running.maximum[m][r];
                const f32 first = ex2(fmaf(score[m][n][2 * r], scale, -shift));
                const f32 second = ex2(fmaf(score[m][n][2 * r + 1], scale, -shift));
                running.sum[m][r] += first + second;
                weight[m][n / 2][2 * (n % 2) + r] = pack<T>(first, second);
            }
        }
    }

#pragma unroll
    for (u32 group = 0; group < GROUPS; ++group) {
        // Weights of masked keys are zero, but zero times a NaN of a neighbouring text, or of
        // shared memory that was never written, would be NaN: such values are cleared.
        u32 mask_low = ALL_LANES, mask_high = ALL_LANES;
        if constexpr (MASKED) {
            if (group + 1 == GROUPS) {
                const u32 at = 16 * group + place;
                mask_low = at + 1 < count ? 0xffffffffu : at < count ? 0x0000ffffu : 0u;
                mask_high = at + 9 < count ? 0xffffffffu : at + 8 < count ? 0x0000ffffu : 0u;
            }
        }
#pragma unroll
        for (u32 j = 0; j < D / 8; j += 2) {
            u32 fragment[4];
            load_matrices_transposed(
                fragment, values + swizzled<D>(key + 16 * group + lane % 16, j + lane / 16));
            if constexpr (MASKED) {
                fragment[0] &= mask_low;
                fragment[1] &= mask_high;
                fragment[2] &= mask_low;
                fragment[3] &= mask_high;
            }
#pragma unroll
            for (u32 m = 0; m < 2; ++m) {
                multiply_add<T>(running.out[m][j], weight[m][group], fragment[0], fragment[1]);
                multiply_add<T>(running.out[m][j + 1], weight[m][group], fragment[2], fragment[3]);
            }
        }
    }
}

// The queries of 32 tokens as left factors. Tokens past the batch are replaced by its last one.
template <class T, u32 D>
__device__ __forceinline__ void load_queries(u32 (&query)[2][D / 16][4], const T* q, u64 stride,
                                             u32 first, u32 tokens) {
#pragma unroll
    for (u32 m = 0; m < 2; ++m) {
#pragma unroll
        for (u32 r = 0; r < 2; ++r) {
            const u32 token = min(first + 16 * m + 8 * r + lane_id() / 4, tokens - 1);
#pragma unroll
            for (u32 k = 0; k < D / 32; ++k) {
                uint4 raw = *reinterpret_cast<const uint4*>(q + token * stride + 32 * k +
                                                            8 * (lane_id() % 4));
                exchange_quad(raw.x, raw.y, raw.z, raw.w);
                query[m][2 * k][r] = raw.x;
                query[m][2 * k][2 + r] = raw.y;
                query[m][2 * k + 1][r] = raw.z;
                query[m][2 * k + 1][2 + r] = raw.w;
            }
        }
    }
}

// Divides by the sums and stores the tokens of [begin, end) among the 32 from `first` on.
template <class T, u32 D>
__device__ __forceinline__ void store_context(const Running<D>& running, T* ctx, u64 stride,
                                              u32 first, u32 begin, u32 end) {
#pragma unroll
    for (u32 m = 0; m < 2; ++m) {
#pragma unroll
        for (u32 r = 0; r < 2; ++r) {
            const f32 inverse = rcp(quad_sum(running.sum[m][r]));
            const u32 token = first + 16 * m + 8 * r + lane_id() / 4;
#pragma unroll
            for (u32 k = 0; k < D / 32; ++k) {
                u32 pairs[4];
#pragma unroll
                for (u32 j = 0; j < 4; ++j) {
                    pairs[j] = pack<T>(running.out[m][4 * k + j][2 * r] * inverse,
                                       running.out[m][4 * k + j][2 * r + 1] * inverse);
                }
                exchange_quad(pairs[0], pairs[1], pairs[2], pairs[3]);
                if (token >= begin && token < end) {
                    store_16(ctx + token * stride + 32 * k + 8 * (lane_id() % 4), pairs[0],
                             pairs[1], pairs[2], pairs[3]);
                }
            }
        }
    }
}

// A stretch of packed tokens that is in one tile: keys from `first` to `end`. The next tile begins at
// `next`, where a block of keys does, so that no block lies in two tiles.
struct Stretch {
    u32 first, end, next;
};

template <u32 D>
__device__ __forceinline__ Stretch stretch_from(const u32* starts, u32 rows, u32 first, u32 key_end) {
    const u32 end = min(first + tile_keys<D>(), key_end);
    if (end == key_end) return {first, end, end};
    const u32 text = starts[find_row(starts, rows, end)];
    return {first, end, text + (end - text) / KEY_BLOCK * KEY_BLOCK};
}

// Starts to fetch keys and values of a head; all threads of the CTA take part.
template <class T, u32 D>
__device__ __forceinline__ void fetch(u32 keys, const T* head, u32 hidden, const Stretch& stretch) {
    constexpr u32 PIECES = D / 8;  // 16-byte pieces of a head of one token
    const u64 stride = 3 * hidden;
    const T* source = head + hidden + stretch.first * stride;
    const u32 pieces = (stretch.end - stretch.first) * PIECES;
    for (u32 i = threadIdx.x; i < pieces; i += ATTENTION_THREADS) {
        const u32 key = i / PIECES, piece = i % PIECES;
        const T* from = source + key * stride + 8 * piece;
        const u32 to = keys + swizzled<D>(key, piece);
        copy_async_16(to, from);
        copy_async_16(to + tile_bytes<D>(), from + hidden);
    }
    copy_async_commit();
}

template <class T, u32 D>
__device__ __forceinline__ void attention(const T* qkv, const u32* starts, const Sizes* sizes,
                                          T* ctx, u32 heads) {
    constexpr u32 TILES = tile_count<D>();
    // Values lie behind the keys of their tile.
    __shared__ __align__(128) u8 tiles[TILES * 2 * tile_bytes<D>()];
    const u32 shared = shared_address(tiles);

    // Sizes and starts were written before the graph was launched, not by the kernel in front.
    const u32 tokens = sizes->tokens;
    const u32 rows = sizes->rows;
    const u32 cta_first = blockIdx.x * CTA_TOKENS;
    if (cta_first >= tokens) return;
    const u32 cta_end = min(cta_first + CTA_TOKENS, tokens);
    const u32 first = cta_first + warp_id() * WARP_TOKENS;
    const u32 warp_end = min(first + WARP_TOKENS, tokens);

    const u32 hidden = heads * D;
    const u64 stride = 3 * hidden;
    u32 head = blockIdx.y;

    // The texts of the CTA: 128 tokens meet at most 128 of them, so the starts of all that begin
    // after the CTA's first token, and the end of the last one, are among the next 128 entries.
    const u32 cta_row = find_row(starts, rows, cta_first);
    const u32 key_first = starts[cta_row];
    u32 key_end = tokens;
    u32 warp_row = cta_row;  // the text of the warp's first token
#pragma unroll
    for (u32 i = 0; i < CTA_TOKENS / WARP; ++i) {
        const u32 entry = min(cta_row + 1 + i * WARP + lane_id(), rows);
        const u32 start = starts[entry];
        warp_row += __popc(__ballot_sync(ALL_LANES, start <= first && entry < rows));
        key_end = min(key_end, __reduce_min_sync(ALL_LANES, start >= cta_end ? start : tokens));
    }
    const Stretch first_stretch = stretch_from<D>(starts, rows, key_first, key_end);
    Stretch stretch = first_stretch;
    u32 tile = 0;
    wait_for_previous_kernel();
    fetch<T, D>(shared, qkv + head * D, hidden, stretch);
    u32 query[2][D / 16][4];
    load_queries<T, D>(query, qkv + head * D, stride, first, tokens);

    Running<D> running;
    while (true) {
        // One head; a warp past the batch has no text.
        u32 row = warp_row;
        u32 begin = first < tokens ? starts[row] : tokens;
        u32 end = first < tokens ? starts[row + 1] : tokens;
        u32 block = begin;
        running.clear();
        const u32 next_head = head + gridDim.y;
        while (true) {
            copy_async_wait<0>();
            // Behind this, every thread's part of the tile is there, and nobody reads the other one.
            __syncthreads();
            const u32 keys = shared + tile * 2 * tile_bytes<D>();
            const u32 values = keys + tile_bytes<D>();
            const u32 tile_first = stretch.first, tile_next = stretch.next;
            const bool last = tile_next >= key_end;
            const bool more = !last || next_head < heads;
            const u32 coming = TILES == 2 ? tile ^ 1 : 0;
            if (more) {
                stretch = last ? first_stretch : stretch_from<D>(starts, rows, tile_next, key_end);
                if (TILES == 2) {
                    const u32 of = last ? next_head : head;
                    fetch<T, D>(shared + coming * 2 * tile_bytes<D>(), qkv + of * D, hidden, stretch);
                }
            }
            if (last && next_head >= heads) let_next_kernel_start();

            while (begin < warp_end && block < tile_next) {
                const u32 key = block - tile_first;
                const u32 count = end - block;
                const bool is_first = block == begin;
                if (count >= KEY_BLOCK) {
                    attend<T, D, 2, false>(running, query, keys, values, key, count, is_first);
                } else if (count > 16) {
                    attend<T, D, 2, true>(running, query, keys, values, key, count, is_first);
                } else {
                    attend<T, D, 1, true>(running, query, keys, values, key, count, is_first);
                }
                block += KEY_BLOCK;
                if (block >= end) {
                    store_context<T, D>(running, ctx + head * D, hidden, first, begin, end);
                    running.clear();
                    begin = end;
                    block = end;
                    if (begin < warp_end) end = starts[++row + 1];
                }
            }
            if (TILES == 1 && more) {
                __syncthreads();
                const u32 of = last ? next_head : head;
                fetch<T, D>(shared, qkv + of * D, hidden, stretch);
            }
            tile = coming;
            if (last) break;
        }
        if (next_head >= heads) return;
        head = next_head;
        load_queries<T, D>(query, qkv + head * D, stride, first, tokens);
    }
}

// CTAs that share a multiprocessor with 32 dimensions a head; for sm_80 the compiler would spill two
// registers with three.
#if __CUDA_ARCH__ < 870
#define ATTENTION_CTAS 2
#else
#define ATTENTION_CTAS 3
#endif

#define ATTENTION(SUFFIX, T, D, CTAS)                                                          \
    extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, CTAS)                      \
        attention_##SUFFIX##_d##D(const T* qkv, const u32* starts, const Sizes* sizes, T* ctx, \
                                  u32 heads) {                                                 \
        attention<T, D>(qkv, starts, sizes, ctx, heads);                                       \
    }

ATTENTION(f16, F16, 32, ATTENTION_CTAS)
ATTENTION(f16, F16, 64, 2)
ATTENTION(bf16, BF16, 32, ATTENTION_CTAS)
ATTENTION(bf16, BF16, 64, 2)
