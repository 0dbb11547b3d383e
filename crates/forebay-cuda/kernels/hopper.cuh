// Hopper's own instructions (sm_90a): bulk tensor copies that complete on barriers in shared
// memory, and matrix products of a warpgroup (wgmma). Nothing here knows what is computed.
//
// Layout rule used throughout: a tile of 64 columns (128 bytes a row) lies in shared memory with
// the 128-byte swizzle, its first row at a multiple of 1024 bytes. Groups of 8 rows are 1024 bytes
// apart, and 16 columns further along the inner dimension are 32 bytes further in the address.

// Columns of one swizzled tile.
constexpr u32 TILE_COLUMNS = 64;

// What cuTensorMapEncodeTiled fills in: where a matrix lies and how it is cut into boxes.
struct alignas(64) TensorMap {
    u64 words[16];
};

// ---- barriers in shared memory -----------------------------------------------------------------

__device__ __forceinline__ void barrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

// Makes initialised barriers visible to the copy engine and to the other CTAs of the cluster.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void barrier_expect_bytes(u64* barrier, u32 bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

__device__ __forceinline__ void barrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}

// Arrives at the barrier with the same offset in the CTA `rank` of the cluster.
__device__ __forceinline__ void barrier_arrive_at(u64* barrier, u32 rank) {
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
        "}\n" ::"r"(shared_address(barrier)),
        "r"(rank)
        : "memory");
}

// Waits until the phase with this parity has completed.
__device__ __forceinline__ void barrier_wait(u64* barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "WAIT:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra DONE;\n"
        "bra WAIT;\n"
        "DONE:\n"
        "}\n" ::"r"(shared_address(barrier)),
        "r"(parity)
        : "memory");
}

// ---- cluster -----------------------------------------------------------------------------------

__device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ void cluster_arrive() {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Stores two floats at the same shared-memory offset of the CTA `rank`.
__device__ __forceinline__ void store_at_rank(float2* pointer, u32 rank, float2 value) {
    asm volatile(
        "{\n"
        ".reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "st.shared::cluster.v2.f32 [remote], {%2, %3};\n"
        "}\n" ::"r"(shared_address(pointer)),
        "r"(rank), "f"(value.x), "f"(value.y)
        : "memory");
}

// ---- bulk tensor copies ------------------------------------------------------------------------

// Copies the box at (column, row) to shared memory; its bytes count towards `barrier`.
__device__ __forceinline__ void copy_box(void* to, const TensorMap* map, u64* barrier, u32 column,
                                         u32 row) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
        "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row)
        : "memory");
}

// The same into every CTA of `ranks` (a bit each), at the same offset, on the same barrier of each.
__device__ __forceinline__ void copy_box_to(void* to, const TensorMap* map, u64* barrier,
                                            u32 column, u32 row, u32 ranks) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(to)),
        "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row),
        "h"(static_cast<unsigned short>(ranks))
        : "memory");
}

__device__ __forceinline__ void prefetch_map(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// ---- warpgroups --------------------------------------------------------------------------------

template <u32 REGISTERS>
__device__ __forceinline__ void registers_grow() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

template <u32 REGISTERS>
__device__ __forceinline__ void registers_shrink() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Named barriers of the CTA: `barrier_sync` waits until `threads` threads have come to it by either
// call, `barrier_join` comes to it without waiting.
__device__ __forceinline__ void barrier_sync(u32 name, u32 threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}
__device__ __forceinline__ void barrier_join(u32 name, u32 threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// One thread of a warp that all reach this together.
__device__ __forceinline__ bool elect_one() {
    u32 elected;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "elect.sync _|p, 0xffffffff;\n"
        "selp.u32 %0, 1, 0, p;\n"
        "}\n"
        : "=r"(elected));
    return elected != 0;
}

// ---- matrix products ---------------------------------------------------------------------------

// Descriptor of a swizzled tile for wgmma: address / 16, distance of 8-row groups (1024 / 16 = 64)
// in bits 32 to 45, and layout 1 (128-byte swizzle) in bits 62 and 63. The other distance is
// unused with this swizzle and customarily 1.
__device__ __forceinline__ u64 tile_descriptor(const void* tile) {
    return static_cast<u64>((shared_address(tile) & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) |
           (1ull << 62);
}

// Step of a descriptor to the next 16 columns: 32 bytes / 16.
constexpr u64 DESCRIPTOR_STEP = 2;

__device__ __forceinline__ void products_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most `PENDING` groups are under way.
template <u32 PENDING>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Keeps the compiler from moving reads or writes of an accumulator across a product.
template <u32 COUNT>
__device__ __forceinline__ void accumulators_fence(f32 (&sum)[COUNT]) {
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) asm volatile("" : "+f"(sum[i])::"memory");
}

// d (64 x N, f32) = a (64 x 16) . b (N x 16)^T, plus d if `add` is not 0. A thread's values: row
// lane / 4 of its warp's 16 and the row 8 below, columns 8 j + 2 (lane % 4) and the next one, in
// the order d[4 j], d[4 j + 1] (upper row), d[4 j + 2], d[4 j + 3] (lower row).
template <class T, u32 N>
struct Product;

#define FOREBAY_PRODUCT_64(T, TYPE)                                                             \
    template <>                                                                                 \
    struct Product<T, 64> {                                                                     \
        static __device__ __forceinline__ void run(f32 (&d)[32], u64 a, u64 b, u32 add) {       \
            asm volatile(                                                                       \
                "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"                                \
                "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                     \
                " {"                                                                            \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "                            \
                "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "                  \
                "%24, %25, %26, %27, %28, %29, %30, %31"                                        \
                "}, %32, %33, add, 1, 1, 0, 0;\n}\n"                                            \
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),       \
                  "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),     \
                  "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), \
                  "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
                  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), \
                  "+f"(d[30]), "+f"(d[31])                                                      \
                : "l"(a), "l"(b), "r"(add));                                                    \
        }                                                                                       \
    };

#define FOREBAY_PRODUCT_96(T, TYPE)                                                             \
    template <>                                                                                 \
    struct Product<T, 96> {                                                                     \
        static __device__ __forceinline__ void run(f32 (&d)[48], u64 a, u64 b, u32 add) {       \
            asm volatile(                                                                       \
                "{\n.reg .pred add;\nsetp.ne.b32 add, %50, 0;\n"                                \
                "wgmma.mma_async.sync.aligned.m64n96k16.f32." TYPE "." TYPE                     \
                " {"                                                                            \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "                            \
                "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "                  \
                "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "                  \
                "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"                    \
                "}, %48, %49, add, 1, 1, 0, 0;\n}\n"                                            \
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),       \
                  "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),     \
                  "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), \
                  "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
                  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), \
                  "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), \
                  "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), \
                  "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])  \
                : "l"(a), "l"(b), "r"(add));                                                    \
        }                                                                                       \
    };

#define FOREBAY_PRODUCT_192(T, TYPE)                                                            \
    template <>                                                                                 \
    struct Product<T, 192> {                                                                    \
        static __device__ __forceinline__ void run(f32 (&d)[96], u64 a, u64 b, u32 add) {       \
            asm volatile(                                                                       \
                "{\n.reg .pred add;\nsetp.ne.b32 add, %98, 0;\n"                                \
                "wgmma.mma_async.sync.aligned.m64n192k16.f32." TYPE "." TYPE                    \
                " {"                                                                            \
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "                            \
                "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "                  \
                "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "                  \
                "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                  \
                "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, "                  \
                "%60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, "                  \
                "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "                  \
                "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"                    \
                "}, %96, %97, add, 1, 1, 0, 0;\n}\n"                                            \
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),       \
                  "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),     \
                  "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), \
                  "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
                  "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), \
                  "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), \
                  "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), \
                  "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
                  "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), \
                  "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), \
                  "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), "+f"(d[64]), "+f"(d[65]), \
                  "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), \
                  "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), \
                  "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), \
                  "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), \
                  "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])  \
                : "l"(a), "l"(b), "r"(add));                                                    \
        }                                                                                       \
    };

FOREBAY_PRODUCT_64(F16, "f16")
FOREBAY_PRODUCT_64(BF16, "bf16")
FOREBAY_PRODUCT_96(F16, "f16")
FOREBAY_PRODUCT_96(BF16, "bf16")
FOREBAY_PRODUCT_192(F16, "f16")
FOREBAY_PRODUCT_192(BF16, "bf16")
