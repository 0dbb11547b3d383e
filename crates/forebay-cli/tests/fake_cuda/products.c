// The fused matrix products, fast enough for tests: a panel of 16 columns of the weights at a time,
// against 6 rows. Rows are filled up with zeros to whole blocks, so that there is one way to
// compute a row and its bits do not depend on its neighbours.

#include "fake.h"

#include <stdlib.h>
#include <string.h>

enum { PANEL = 16, BLOCK = 6, LANES = 8 };

typedef f32 lanes __attribute__((vector_size(LANES * sizeof(f32)), aligned(4)));

// out[6][16] = a[6][k] panel[k][16]
static inline __attribute__((always_inline)) void block_body(const f32 *a, const f32 *panel, u32 k,
                                                             f32 *out) {
    lanes sum[BLOCK][2];
    memset(sum, 0, sizeof sum);
    for (u32 i = 0; i < k; ++i) {
        const lanes left = *(const lanes *)(panel + i * PANEL);
        const lanes right = *(const lanes *)(panel + i * PANEL + LANES);
#pragma GCC unroll 6
        for (u32 row = 0; row < BLOCK; ++row) {
            const f32 value = a[row * k + i];
            sum[row][0] += left * value;
            sum[row][1] += right * value;
        }
    }
    memcpy(out, sum, sizeof sum);
}

static void block_plain(const f32 *a, const f32 *panel, u32 k, f32 *out) {
    block_body(a, panel, k, out);
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void block_wide(const f32 *a, const f32 *panel, u32 k,
                                                           f32 *out) {
    block_body(a, panel, k, out);
}

static int has_wide(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#else
#define block_wide block_plain

static int has_wide(void) { return 0; }
#endif

static f32 *room_for(size_t values) {
    f32 *room = malloc((values ? values : 1) * sizeof(f32));
    if (!room) abort();
    return room;
}

// out[rows][n] = a[rows][k] w[n][k]^T, in memory that the caller frees. n is a multiple of 16.
static f32 *multiply(const struct matrix *a, const struct matrix *w, u32 rows, int bf16) {
    const u32 k = (u32)a->columns, n = (u32)w->rows, whole = (rows + BLOCK - 1) / BLOCK * BLOCK;
    const f32 *table = widening(bf16);
    const int wide = has_wide();
    f32 *left = room_for((size_t)whole * k), *panel = room_for((size_t)k * PANEL);
    f32 *out = room_for((size_t)whole * n), block[BLOCK * PANEL];
    for (size_t i = 0; i < (size_t)rows * k; ++i) left[i] = table[a->base[i]];
    memset(left + (size_t)rows * k, 0, (size_t)(whole - rows) * k * sizeof(f32));
    for (u32 column = 0; column < n; column += PANEL) {
        for (u32 j = 0; j < PANEL; ++j) {
            const u16 *from = w->base + (size_t)(column + j) * k;
            for (u32 i = 0; i < k; ++i) panel[i * PANEL + j] = table[from[i]];
        }
        for (u32 row = 0; row < whole; row += BLOCK) {
            (wide ? block_wide : block_plain)(left + (size_t)row * k, panel, k, block);
            for (u32 i = 0; i < BLOCK; ++i) {
                memcpy(out + (size_t)(row + i) * n + column, block + i * PANEL,
                       PANEL * sizeof(f32));
            }
        }
    }
    free(left);
    free(panel);
    return out;
}

// Whether both maps are of the shape that the kernel reads, over memory that reaches so far.
static int maps_fit(const struct kernel *kernel, const struct matrix *a, const struct matrix *w,
                    u32 n, u32 k_tiles, u32 a_box, u32 w_box) {
    const struct matrix *maps[] = {a, w};
    for (int i = 0; i < 2; ++i) {
        const struct matrix *map = maps[i];
        if (map->columns != (u64)k_tiles * 64 || map->row_bytes != map->columns * sizeof(u16) ||
            map->box_columns != 64 || map->bf16 != (u32)kernel->bf16 ||
            !reaches(map->base, map->rows * map->row_bytes)) {
            return 0;
        }
    }
    return w->rows == n && a->box_rows == a_box && w->box_rows == w_box && n % PANEL == 0;
}

int run_gemm_rows(const struct launch *launch, struct written *written) {
    const struct kernel *kernel = launch->kernel;
    const struct matrix *a = argument(launch, 0), *w = argument(launch, 1);
    const f32 *bias = ARGUMENT(f32 *, launch, 2);
    u16 *d = ARGUMENT(u16 *, launch, 3);
    const u32 *tokens = ARGUMENT(u32 *, launch, 4);
    const u32 n = ARGUMENT(u32, launch, 5), k_tiles = ARGUMENT(u32, launch, 6);
    if (!maps_fit(kernel, a, w, n, k_tiles, 64, kernel->columns) || n % kernel->columns ||
        launch->grid[0] % (n / kernel->columns)) {
        return LAUNCH_FAILED;
    }
    if (!reaches(tokens, 2 * sizeof(u32)) || *tokens > a->rows ||
        !reaches(bias, n * sizeof(f32)) || !reaches(d, (size_t)*tokens * n * sizeof(u16))) {
        return ILLEGAL_ADDRESS;
    }
    const size_t count = (size_t)*tokens * n;
    f32 *product = multiply(a, w, *tokens, kernel->bf16);
    for (size_t i = 0; i < count; ++i) {
        d[i] = narrow(activate(kernel->activation, product[i] + bias[i % n]), kernel->bf16);
    }
    free(product);
    *written = (struct written){d, count * sizeof(u16)};
    return SUCCESS;
}

int run_gemm_norm(const struct launch *launch, struct written *written) {
    const struct kernel *kernel = launch->kernel;
    const struct matrix *a = argument(launch, 0), *w = argument(launch, 1);
    const f32 *bias = ARGUMENT(f32 *, launch, 2), *gamma = ARGUMENT(f32 *, launch, 4);
    const f32 *beta = ARGUMENT(f32 *, launch, 5);
    const u16 *residual = ARGUMENT(u16 *, launch, 3);
    const f32 eps = ARGUMENT(f32, launch, 6);
    u16 *d = ARGUMENT(u16 *, launch, 7);
    const u32 *tokens = ARGUMENT(u32 *, launch, 8);
    const u32 k_tiles = ARGUMENT(u32, launch, 9), n = kernel->hidden;
    // A cluster shares its rows of `a` where the shares are whole groups of 8.
    const u32 tile = 64 * kernel->warpgroups, shares = launch->cluster;
    const u32 fetched = tile % (8 * shares) ? tile : tile / shares;
    if (!maps_fit(kernel, a, w, n, k_tiles, fetched, kernel->columns)) return LAUNCH_FAILED;
    if (!reaches(tokens, 2 * sizeof(u32))) return ILLEGAL_ADDRESS;
    const u32 covered = launch->grid[0] / shares * tile;
    const u32 rows = *tokens < covered ? *tokens : covered;
    const size_t bytes = (size_t)rows * n * sizeof(u16);
    if (*tokens > a->rows || !reaches(residual, bytes) || !reaches(d, bytes) ||
        !reaches(bias, n * sizeof(f32)) || !reaches(gamma, n * sizeof(f32)) ||
        !reaches(beta, n * sizeof(f32))) {
        return ILLEGAL_ADDRESS;
    }
    const f32 *table = widening(kernel->bf16);
    f32 *product = multiply(a, w, rows, kernel->bf16);
    for (u32 row = 0; row < rows; ++row) {
        const size_t at = (size_t)row * n;
        f32 *sum = product + at;
        for (u32 j = 0; j < n; ++j) sum[j] += bias[j] + table[residual[at + j]];
        layer_norm(sum, n, gamma, beta, eps);
        for (u32 j = 0; j < n; ++j) d[at + j] = narrow(sum[j], kernel->bf16);
    }
    free(product);
    *written = (struct written){d, bytes};
    return SUCCESS;
}
