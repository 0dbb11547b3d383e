// Put in front of every kernel source by the loader: types, conversions and warp-level primitives.
//
// Header-free on purpose: the runtime compiler needs no toolkit folder then. Whatever the language
// does not offer without headers (16-bit floats, tensor-core and asynchronous copy instructions) is
// written here as PTX, once. Everything is in the sm_80 subset unless a line says otherwise.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef float f32;

// A division by this many is a shift, and a ballot has this many bits.
constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// The real extent of a batch, written by embed_norm and read by every later kernel: a captured
// graph is launched for its capacity, and what lies past these counts has no work.
struct Sizes {
    u32 tokens;
    u32 rows;
};

// Storage types. Arithmetic is always done in f32; these only say how two values are packed into
// 32 bits (the lower half holds the first value), which is also how fragments hold them.
struct F16 {
    u16 bits;
};
struct BF16 {
    u16 bits;
};

template <class T> __device__ __forceinline__ u32 pack(f32 first, f32 second);
template <> __device__ __forceinline__ u32 pack<F16>(f32 first, f32 second) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
template <> __device__ __forceinline__ u32 pack<BF16>(f32 first, f32 second) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

template <class T> __device__ __forceinline__ float2 unpack(u32 pair);
template <> __device__ __forceinline__ float2 unpack<F16>(u32 pair) {
    float2 values;
    asm("{ .reg .b16 lo, hi;\n\t"
        "mov.b32 {lo, hi}, %2;\n\t"
        "cvt.f32.f16 %0, lo;\n\t"
        "cvt.f32.f16 %1, hi; }"
        : "=f"(values.x), "=f"(values.y)
        : "r"(pair));
    return values;
}
template <> __device__ __forceinline__ float2 unpack<BF16>(u32 pair) {
    // The bits of a bf16 are the upper half of the f32 of the same value.
    return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

// Two, four or eight consecutive values between memory (one 4-, 8- or 16-byte access) and f32.
template <class T> __device__ __forceinline__ void unpack_into(u32 pair, f32* values) {
    const float2 both = unpack<T>(pair);
    values[0] = both.x;
    values[1] = both.y;
}
template <class T, u32 COUNT>
__device__ __forceinline__ void load_values(const T* from, f32 (&values)[COUNT]) {
    static_assert(COUNT == 4 || COUNT == 8, "one 8- or 16-byte access");
    if constexpr (COUNT == 8) {
        const uint4 raw = *reinterpret_cast<const uint4*>(from);
        unpack_into<T>(raw.x, values);
        unpack_into<T>(raw.y, values + 2);
        unpack_into<T>(raw.z, values + 4);
        unpack_into<T>(raw.w, values + 6);
    } else {
        const uint2 raw = *reinterpret_cast<const uint2*>(from);
        unpack_into<T>(raw.x, values);
        unpack_into<T>(raw.y, values + 2);
    }
}
template <u32 COUNT>
__device__ __forceinline__ void load_values(const f32* from, f32 (&values)[COUNT]) {
    static_assert(COUNT % 4 == 0, "16-byte accesses");
#pragma unroll
    for (u32 i = 0; i < COUNT; i += 4) {
        const float4 raw = *reinterpret_cast<const float4*>(from + i);
        values[i] = raw.x;
        values[i + 1] = raw.y;
        values[i + 2] = raw.z;
        values[i + 3] = raw.w;
    }
}
template <class T, u32 COUNT>
__device__ __forceinline__ void store_values(T* to, const f32 (&values)[COUNT]) {
    static_assert(COUNT == 4 || COUNT == 8, "one 8- or 16-byte access");
    if constexpr (COUNT == 8) {
        *reinterpret_cast<uint4*>(to) =
            make_uint4(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]),
                       pack<T>(values[4], values[5]), pack<T>(values[6], values[7]));
    } else {
        *reinterpret_cast<uint2*>(to) =
            make_uint2(pack<T>(values[0], values[1]), pack<T>(values[2], values[3]));
    }
}

// One 16-byte store, however the compiler would rather arrange it.
__device__ __forceinline__ void store_16(void* to, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(a), "r"(b), "r"(c),
                 "r"(d)
                 : "memory");
}

// 2^x with about 2 ulp of error; -inf gives 0, NaN stays NaN.
__device__ __forceinline__ f32 ex2(f32 x) {
    f32 y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// 1/x with about 1 ulp of error.
__device__ __forceinline__ f32 rcp(f32 x) {
    f32 y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// 1/sqrt(x) with about 2 ulp of error.
__device__ __forceinline__ f32 rsqrt_fast(f32 x) {
    f32 y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// sqrt(x) with about 2 ulp of error; sqrt(0) is 0.
__device__ __forceinline__ f32 sqrt_fast(f32 x) {
    f32 y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// The larger value, and NaN if either is NaN: fmaxf would hide a fault of the model.
__device__ __forceinline__ f32 max_nan(f32 a, f32 b) {
    f32 y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

constexpr f32 LOG2_E = 1.4426950408889634f;

// Every lane gets the same sum, added up in the same order whatever the batch.
__device__ __forceinline__ f32 warp_sum(f32 x) {
#pragma unroll
    for (u32 distance = WARP / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    }
    return x;
}

__device__ __forceinline__ u32 lane_id() { return threadIdx.x % WARP; }
__device__ __forceinline__ u32 warp_id() {
    // Through a shuffle, so that the compiler knows it to be the same in all lanes.
    return __shfl_sync(ALL_LANES, threadIdx.x / WARP, 0);
}

// Among four neighbouring lanes: lane c gives x[j] to lane j and receives its x[c] in place j.
// Turns the tensor core's layout (two columns of every eighth) into 16 consecutive bytes, and back.
__device__ __forceinline__ void exchange_quad(u32& x0, u32& x1, u32& x2, u32& x3) {
    const bool odd = lane_id() & 1, high = lane_id() & 2;
    u32 a = odd ? x0 : x1, b = odd ? x2 : x3;
    a = __shfl_xor_sync(ALL_LANES, a, 1);
    b = __shfl_xor_sync(ALL_LANES, b, 1);
    if (odd) {
        x0 = a;
        x2 = b;
    } else {
        x1 = a;
        x3 = b;
    }
    a = high ? x0 : x2;
    b = high ? x1 : x3;
    a = __shfl_xor_sync(ALL_LANES, a, 2);
    b = __shfl_xor_sync(ALL_LANES, b, 2);
    if (high) {
        x0 = a;
        x1 = b;
    } else {
        x2 = a;
        x3 = b;
    }
}

// The sum over four neighbouring lanes, the same in each of them.
__device__ __forceinline__ f32 quad_sum(f32 x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// Programmatic dependent launch. A kernel launched with that attribute may start while the previous
// one still runs. Before the wait it may read only what was complete before the first of such a chain
// of kernels was launched (weights, sizes, starts of rows), and must write nothing. Both do nothing for
// kernels that were launched without the attribute, and do not exist before sm_90, where the attribute
// must not be used.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" :::);
#endif
}

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// 16 bytes from global to shared memory without passing through registers or the L1 cache.
__device__ __forceinline__ void copy_async_16(u32 shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}
__device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <u32 PENDING> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8x8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8. Lane l
// receives, of every matrix, the values (l / 4, 2 (l % 4)) and its right neighbour; `_transposed`
// gives the values of the transposed matrix at those places.
__device__ __forceinline__ void load_matrices(u32 (&out)[4], u32 shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(u32 (&out)[4], u32 shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared)
                 : "memory");
}

// d[16x8] += a[16x16] b[16x8] in f32. With g = lane / 4 and c = lane % 4, a holds rows g, g + 8 of
// columns 2c, then the same rows of columns 2c + 8; b holds rows 2c and 2c + 8 of column g; d holds
// columns 2c, 2c + 1 of row g, then of row g + 8.
template <class T>
__device__ __forceinline__ void multiply_add(f32 (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);
template <>
__device__ __forceinline__ void multiply_add<F16>(f32 (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ __forceinline__ void multiply_add<BF16>(f32 (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The row of the packed batch that holds `token`: the largest r with starts[r] <= token. All lanes
// must call it with the same arguments. Every step narrows the range 128-fold, as four loads per
// lane cost one latency: one step for up to 128 rows, two for up to 16384.
__device__ __forceinline__ u32 find_row(const u32* starts, u32 rows, u32 token) {
    constexpr u32 FAN = 4 * WARP;
    u32 low = 0;
    u32 count = rows;  // candidates are low .. low + count, and starts[low] <= token
    while (count > 1) {
        const u32 stride = (count + FAN - 1) / FAN;
        u32 passed = 0;
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            const u32 step = (i * WARP + lane_id()) * stride;
            const bool holds = step < count && starts[low + step] <= token;
            passed += __popc(__ballot_sync(ALL_LANES, holds));
        }
        const u32 skipped = (passed - 1) * stride;
        low += skipped;
        count = min(stride, count - skipped);
    }
    return low;
}

// x Phi(x), the GELU with the error function, as max(x, 0) - |x| 2^p(|x|): the upper tail of the
// normal distribution is 2 to the power of a smooth function, and a polynomial of degree 5 for that
// function leaves an error below 6e-7 for the result, at the price of a single special-function
// instruction. p(0) = -1 exactly; p falls everywhere and below any power for large arguments, so
// that nothing finite needs to be clamped; what is infinite has overflowed before and gives NaN.
__device__ __forceinline__ f32 gelu_erf(f32 x) {
    const f32 magnitude = fabsf(x);
    f32 p = -0.0004881172499153763f;
    p = fmaf(p, magnitude, 0.007198805455118418f);
    p = fmaf(p, magnitude, -0.052146803587675095f);
    p = fmaf(p, magnitude, -0.4595957100391388f);
    p = fmaf(p, magnitude, -1.1510006189346313f);
    p = fmaf(p, magnitude, -1.0f);
    return fmaf(-magnitude, ex2(p), max_nan(x, 0.0f));
}
// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, which is x times a logistic function.
__device__ __forceinline__ f32 gelu_tanh(f32 x) {
    const f32 scale = -2.0f * 0.7978845608028654f * LOG2_E;
    const f32 exponent = scale * x * fmaf(0.044715f * x, x, 1.0f);
    return x * rcp(1.0f + ex2(exponent));
}

// The activations as types, for kernels that are compiled once for each.
struct GeluErf {
    static __device__ __forceinline__ f32 of(f32 x) { return gelu_erf(x); }
};
struct GeluTanh {
    static __device__ __forceinline__ f32 of(f32 x) { return gelu_tanh(x); }
};
struct Relu {
    static __device__ __forceinline__ f32 of(f32 x) { return max_nan(x, 0.0f); }
};

// Layer normalisation of one token by one warp. The values of a token are dealt to the lanes as
// vectors in turn, 16 bytes each where the width is a multiple of 32 such vectors and 8 bytes
// otherwise, so that no lane idles; lane l holds the vectors l, l + 32, ...
template <u32 HIDDEN> __device__ constexpr u32 norm_vector() {
    return HIDDEN % (8 * WARP) == 0 ? 8 : 4;
}

template <u32 HIDDEN, u32 STEPS, u32 VECTOR>
__device__ __forceinline__ void load_columns(const f32* from, f32 (&values)[STEPS][VECTOR]) {
    static_assert(VECTOR == norm_vector<HIDDEN>() && STEPS * VECTOR * WARP == HIDDEN, "one token");
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) load_values(from + (i * WARP + lane_id()) * VECTOR, values[i]);
}
template <class T, u32 HIDDEN, u32 STEPS, u32 VECTOR>
__device__ __forceinline__ void store_columns(T* to, const f32 (&values)[STEPS][VECTOR]) {
    static_assert(VECTOR == norm_vector<HIDDEN>() && STEPS * VECTOR * WARP == HIDDEN, "one token");
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) store_values(to + (i * WARP + lane_id()) * VECTOR, values[i]);
}

// x = (x - mean) / sqrt(variance + eps) * scale + shift, the variance from the differences: the
// difference of two sums of squares would cancel, and eps may be as small as 1e-12.
template <u32 HIDDEN, u32 STEPS, u32 VECTOR>
__device__ __forceinline__ void layer_norm(f32 (&x)[STEPS][VECTOR],
                                           const f32 (&scale)[STEPS][VECTOR],
                                           const f32 (&shift)[STEPS][VECTOR], f32 eps) {
    static_assert(STEPS * VECTOR * WARP == HIDDEN, "one token");
    f32 sum = 0.0f;
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) {
#pragma unroll
        for (u32 j = 0; j < VECTOR; ++j) sum += x[i][j];
    }
    const f32 mean = warp_sum(sum) * (1.0f / HIDDEN);
    f32 squares = 0.0f;
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) {
#pragma unroll
        for (u32 j = 0; j < VECTOR; ++j) {
            x[i][j] -= mean;
            squares = fmaf(x[i][j], x[i][j], squares);
        }
    }
    const f32 inverse = rsqrt_fast(fmaf(warp_sum(squares), 1.0f / HIDDEN, eps));
#pragma unroll
    for (u32 i = 0; i < STEPS; ++i) {
#pragma unroll
        for (u32 j = 0; j < VECTOR; ++j) {
            x[i][j] = fmaf(x[i][j] * inverse, scale[i][j], shift[i][j]);
        }
    }
}
