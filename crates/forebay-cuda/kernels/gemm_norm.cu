// Dense layer with residual and layer normalisation, on Hopper:
//   d[rows, n] = layer_norm(a[rows, k] . w[n, k]^T + bias[n] + residual[rows, n])
//
// The CTAs of a cluster share a tile of rows and divide its n columns among them. Each computes its
// part, then they exchange mean and squared deviation of every group of 64 columns through shared
// memory of the cluster, combine the groups in a fixed order (Chan, Golub and LeVeque 1979), and
// write normalised rows: the sum before normalisation never leaves the registers.
//
// The sum over k and the order of the groups are the same for every shape of tile: bits of a row do
// not depend on the number of rows, on N or on where the row lies. `d` may be `residual`.
//
// Launch: cluster n / N, block 128 * (WARPGROUPS + 1), grid (n / N) * ceil(bucket / tile rows).

constexpr u32 NORM_GROUP = 64;

template <class T, u32 N, u32 CLUSTER, u32 WARPGROUPS, u32 STAGES>
__device__ __forceinline__ void gemm_norm(const TensorMap& a_map, const TensorMap& w_map,
                                          const f32* __restrict__ bias, const T* residual,
                                          const f32* __restrict__ gamma,
                                          const f32* __restrict__ beta, f32 eps, T* d,
                                          const Sizes* sizes, u32 k_tiles) {
    constexpr u32 ROWS = 64 * WARPGROUPS;
    constexpr u32 COLUMNS = N * CLUSTER;
    constexpr u32 GROUPS = COLUMNS / NORM_GROUP;
    constexpr u32 LEFT_BYTES = ROWS * 128;
    constexpr u32 RIGHT_BYTES = N * 128;
    constexpr u32 STAGE_BYTES = LEFT_BYTES + RIGHT_BYTES;
    // Every CTA of the cluster needs the same rows of `a`: each fetches a share for all, if the
    // shares are whole groups of 8 rows.
    constexpr bool SHARED = ROWS % (CLUSTER * 8) == 0;
    constexpr u32 SHARE_ROWS = SHARED ? ROWS / CLUSTER : ROWS;

    extern __shared__ u8 dynamic_shared[];
    u8* const stages = dynamic_shared + ((1024 - (shared_address(dynamic_shared) & 1023)) & 1023);
    float2* const partials = reinterpret_cast<float2*>(stages + STAGES * STAGE_BYTES);
    f32* const bias_tile = reinterpret_cast<f32*>(partials + GROUPS * ROWS);
    f32* const gamma_tile = bias_tile + N;
    f32* const beta_tile = gamma_tile + N;
    u64* const full = reinterpret_cast<u64*>(beta_tile + N);
    u64* const empty = full + STAGES;

    const u32 warp = threadIdx.x / 32;
    const u32 lane = threadIdx.x % 32;
    const u32 rank = cluster_rank();
    const u32 first_row = (blockIdx.x / CLUSTER) * ROWS;
    const u32 first_column = rank * N;
    // Written before the graph was launched, not by the kernel in front. The same for the whole
    // cluster.
    const u32 tokens = sizes->tokens;
    if (first_row >= tokens) return;

    if (threadIdx.x == 0) {
        for (u32 i = 0; i < STAGES; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], 4 * WARPGROUPS * (SHARED ? CLUSTER : 1));
        }
        barrier_init_fence();
    }
    for (u32 i = threadIdx.x; i < N; i += blockDim.x) {
        bias_tile[i] = bias[first_column + i];
        gamma_tile[i] = gamma[first_column + i];
        beta_tile[i] = beta[first_column + i];
    }
    __syncthreads();
    cluster_arrive();
    cluster_wait();

    if (warp >= 4 * WARPGROUPS) {
        if constexpr (WARPGROUPS == 2) registers_shrink<40>();
        if (warp == 4 * WARPGROUPS && elect_one()) {
            // Weights do not depend on the previous kernel: the first travel while it still runs.
            const u32 ahead = min(k_tiles, STAGES);
            for (u32 k = 0; k < ahead; k++) {
                barrier_expect_bytes(&full[k], STAGE_BYTES);
                copy_box(stages + k * STAGE_BYTES + LEFT_BYTES, &w_map, &full[k],
                         k * TILE_COLUMNS, first_column);
            }
            wait_for_previous_kernel();
            for (u32 k = 0; k < k_tiles; k++) {
                const u32 stage = k % STAGES;
                u8* const left = stages + stage * STAGE_BYTES;
                if (k >= ahead) {
                    barrier_wait(&empty[stage], (k / STAGES + 1) & 1);
                    barrier_expect_bytes(&full[stage], STAGE_BYTES);
                    copy_box(left + LEFT_BYTES, &w_map, &full[stage], k * TILE_COLUMNS,
                             first_column);
                }
                if constexpr (SHARED) {
                    copy_box_to(left + rank * SHARE_ROWS * 128, &a_map, &full[stage],
                                k * TILE_COLUMNS, first_row + rank * SHARE_ROWS,
                                (1 << CLUSTER) - 1);
                } else {
                    copy_box(left, &a_map, &full[stage], k * TILE_COLUMNS, first_row);
                }
            }
        }
        __syncwarp();
        cluster_arrive();
        cluster_wait();
        return;
    }

    if constexpr (WARPGROUPS == 2) registers_grow<232>();
    const u32 upper = (warp / 4) * 64 + (warp % 4) * 16 + lane / 4;
    const u32 pair = lane % 4;
    wait_for_previous_kernel();
    const u64 upper_at = static_cast<u64>(first_row + upper) * COLUMNS + first_column;
    const u64 lower_at = upper_at + 8 * COLUMNS;
    const bool upper_real = first_row + upper < tokens;
    const bool lower_real = first_row + upper + 8 < tokens;

    // The residual travels while the products run.
    u32 residuals[N / 32][2][4];
#pragma unroll
    for (u32 part = 0; part < N / 32; part++) {
        const u32 column = (part * 4 + pair) * 8;
        uint4 up = make_uint4(0, 0, 0, 0);
        uint4 low = make_uint4(0, 0, 0, 0);
        if (upper_real) up = *reinterpret_cast<const uint4*>(residual + upper_at + column);
        if (lower_real) low = *reinterpret_cast<const uint4*>(residual + lower_at + column);
        residuals[part][0][0] = up.x;
        residuals[part][0][1] = up.y;
        residuals[part][0][2] = up.z;
        residuals[part][0][3] = up.w;
        residuals[part][1][0] = low.x;
        residuals[part][1][1] = low.y;
        residuals[part][1][2] = low.z;
        residuals[part][1][3] = low.w;
    }

    f32 sum[N / 2];
    for (u32 k = 0; k < k_tiles; k++) {
        const u32 stage = k % STAGES;
        barrier_wait(&full[stage], (k / STAGES) & 1);
        u8* const tile = stages + stage * STAGE_BYTES;
        const u64 left = tile_descriptor(tile + (warp / 4) * 64 * 128);
        const u64 right = tile_descriptor(tile + LEFT_BYTES);
        accumulators_fence(sum);
        products_fence();
#pragma unroll
        for (u32 part = 0; part < 4; part++) {
            Product<T, N>::run(sum, left + part * DESCRIPTOR_STEP, right + part * DESCRIPTOR_STEP,
                               (k | part) != 0);
        }
        products_commit();
        accumulators_fence(sum);
        if (k > 0) {
            products_wait<1>();
            u64* const barrier = &empty[(k - 1) % STAGES];
            if constexpr (SHARED) {
                if (lane < CLUSTER) barrier_arrive_at(barrier, lane);
            } else {
                if (lane == 0) barrier_arrive(barrier);
            }
        }
    }
    // Not before: the next kernel's CTAs would crowd on the multiprocessors that have room now.
    let_next_kernel_start();
    products_wait<0>();
    accumulators_fence(sum);

    // Bias and residual; then mean and squared deviation of each group of 64 columns of both rows.
#pragma unroll
    for (u32 part = 0; part < N / 32; part++) {
#pragma unroll
        for (u32 row = 0; row < 2; ++row) {
            u32(&words)[4] = residuals[part][row];
            exchange_quad(words[0], words[1], words[2], words[3]);
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 block = part * 4 + i;
            const float2 b = *reinterpret_cast<const float2*>(&bias_tile[block * 8 + pair * 2]);
            const float2 up = unpack<T>(residuals[part][0][i]);
            const float2 low = unpack<T>(residuals[part][1][i]);
            sum[block * 4] += b.x + up.x;
            sum[block * 4 + 1] += b.y + up.y;
            sum[block * 4 + 2] += b.x + low.x;
            sum[block * 4 + 3] += b.y + low.y;
        }
    }
#pragma unroll
    for (u32 group = 0; group < N / NORM_GROUP; group++) {
        const u32 first = group * (NORM_GROUP / 2);
        f32 mean_up = 0.f;
        f32 mean_low = 0.f;
#pragma unroll
        for (u32 j = 0; j < NORM_GROUP / 8; j++) {
            mean_up += sum[first + 4 * j] + sum[first + 4 * j + 1];
            mean_low += sum[first + 4 * j + 2] + sum[first + 4 * j + 3];
        }
        mean_up = quad_sum(mean_up) * (1.f / NORM_GROUP);
        mean_low = quad_sum(mean_low) * (1.f / NORM_GROUP);
        f32 square_up = 0.f;
        f32 square_low = 0.f;
#pragma unroll
        for (u32 j = 0; j < NORM_GROUP / 8; j++) {
            const f32 u0 = sum[first + 4 * j] - mean_up;
            const f32 u1 = sum[first + 4 * j + 1] - mean_up;
            const f32 l0 = sum[first + 4 * j + 2] - mean_low;
            const f32 l1 = sum[first + 4 * j + 3] - mean_low;
            square_up += u0 * u0 + u1 * u1;
            square_low += l0 * l0 + l1 * l1;
        }
        square_up = quad_sum(square_up);
        square_low = quad_sum(square_low);
        float2* const at = partials + (first_column / NORM_GROUP + group) * ROWS + upper;
        for (u32 to = pair; to < CLUSTER; to += 4) {
            store_at_rank(at, to, make_float2(mean_up, square_up));
            store_at_rank(at + 8, to, make_float2(mean_low, square_low));
        }
    }
    cluster_arrive();
    cluster_wait();

    f32 mean_up = 0.f;
    f32 mean_low = 0.f;
#pragma unroll
    for (u32 group = 0; group < GROUPS; group++) {
        mean_up += partials[group * ROWS + upper].x;
        mean_low += partials[group * ROWS + upper + 8].x;
    }
    mean_up *= 1.f / GROUPS;
    mean_low *= 1.f / GROUPS;
    f32 square_up = 0.f;
    f32 square_low = 0.f;
#pragma unroll
    for (u32 group = 0; group < GROUPS; group++) {
        const float2 up = partials[group * ROWS + upper];
        const float2 low = partials[group * ROWS + upper + 8];
        square_up += up.y + NORM_GROUP * ((up.x - mean_up) * (up.x - mean_up));
        square_low += low.y + NORM_GROUP * ((low.x - mean_low) * (low.x - mean_low));
    }
    const f32 scale_up = rsqrtf(square_up * (1.f / COLUMNS) + eps);
    const f32 scale_low = rsqrtf(square_low * (1.f / COLUMNS) + eps);

#pragma unroll
    for (u32 part = 0; part < N / 32; part++) {
        u32 up[4];
        u32 low[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 block = part * 4 + i;
            const u32 at = block * 8 + pair * 2;
            const float2 g = *reinterpret_cast<const float2*>(&gamma_tile[at]);
            const float2 b = *reinterpret_cast<const float2*>(&beta_tile[at]);
            up[i] = pack<T>((sum[block * 4] - mean_up) * scale_up * g.x + b.x,
                            (sum[block * 4 + 1] - mean_up) * scale_up * g.y + b.y);
            low[i] = pack<T>((sum[block * 4 + 2] - mean_low) * scale_low * g.x + b.x,
                             (sum[block * 4 + 3] - mean_low) * scale_low * g.y + b.y);
        }
        exchange_quad(up[0], up[1], up[2], up[3]);
        exchange_quad(low[0], low[1], low[2], low[3]);
        const u32 column = (part * 4 + pair) * 8;
        if (upper_real) {
            *reinterpret_cast<uint4*>(d + upper_at + column) =
                make_uint4(up[0], up[1], up[2], up[3]);
        }
        if (lower_real) {
            *reinterpret_cast<uint4*>(d + lower_at + column) =
                make_uint4(low[0], low[1], low[2], low[3]);
        }
    }
}

#define GEMM_NORM(T, TNAME, H, N, CLUSTER, WARPGROUPS, STAGES)                                    \
    extern "C" __global__ __launch_bounds__(128 * (WARPGROUPS + 1), 1) void                       \
        gemm_norm_##TNAME##_h##H##_n##N##_r##WARPGROUPS(                                          \
            const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap w,             \
            const f32* bias, const T* residual, const f32* gamma, const f32* beta, f32 eps, T* d, \
            const Sizes* sizes, u32 k_tiles) {                                                    \
        gemm_norm<T, N, CLUSTER, WARPGROUPS, STAGES>(a, w, bias, residual, gamma, beta, eps, d,   \
                                                     sizes, k_tiles);                             \
    }

#define GEMM_NORM_ALL(T, TNAME)            \
    GEMM_NORM(T, TNAME, 384, 192, 2, 2, 5) \
    GEMM_NORM(T, TNAME, 384, 64, 6, 1, 6)

GEMM_NORM_ALL(F16, f16)
GEMM_NORM_ALL(BF16, bf16)
