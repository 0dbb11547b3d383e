// The kernels besides the matrix products, one token or text at a time in f32. Each computes what
// its grid covers and no more, and checks that the memory it is given reaches as far as it goes.

#include "fake.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sizes {
    u32 tokens;
    u32 rows;
};

static u32 least(u32 a, u32 b) { return a < b ? a : b; }

static void widen(f32 *to, const u16 *from, size_t count, int bf16) {
    const f32 *table = widening(bf16);
    for (size_t i = 0; i < count; ++i) to[i] = table[from[i]];
}

static void store(u16 *to, const f32 *from, size_t count, int bf16) {
    for (size_t i = 0; i < count; ++i) to[i] = narrow(from[i], bf16);
}

f32 activate(enum activation activation, f32 x) {
    switch (activation) {
        case NONE: return x;
        case GELU: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
        case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
        case RELU: return x < 0.0f ? 0.0f : x;
    }
    abort();
}

void layer_norm(f32 *x, u32 width, const f32 *gamma, const f32 *beta, f32 eps) {
    f32 mean = 0.0f, variance = 0.0f;
    for (u32 i = 0; i < width; ++i) mean += x[i];
    mean /= (f32)width;
    for (u32 i = 0; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const f32 scale = 1.0f / sqrtf(variance / (f32)width + eps);
    for (u32 i = 0; i < width; ++i) x[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
}

static int embed_norm(const struct launch *launch, struct written *written) {
    const struct kernel *kernel = launch->kernel;
    const u32 *ids = ARGUMENT(u32 *, launch, 0), *starts = ARGUMENT(u32 *, launch, 1);
    const u32 tokens = ARGUMENT(u32, launch, 2), rows = ARGUMENT(u32, launch, 3);
    const u16 *word = ARGUMENT(u16 *, launch, 4), *position = ARGUMENT(u16 *, launch, 5);
    const u16 *type = ARGUMENT(u16 *, launch, 6);
    const f32 *gamma = ARGUMENT(f32 *, launch, 7), *beta = ARGUMENT(f32 *, launch, 8);
    const f32 eps = ARGUMENT(f32, launch, 9);
    const u32 offset = ARGUMENT(u32, launch, 10), hidden = kernel->hidden;
    u16 *x = ARGUMENT(u16 *, launch, 11);
    u32 *starts_out = ARGUMENT(u32 *, launch, 12);
    struct sizes *sizes = ARGUMENT(struct sizes *, launch, 13);
    const size_t row_bytes = hidden * sizeof(u16);
    if (!reaches(ids, tokens * sizeof(u32)) || !reaches(starts, (rows + 1) * sizeof(u32)) ||
        !reaches(x, tokens * row_bytes) || !reaches(starts_out, (rows + 1) * sizeof(u32)) ||
        !reaches(sizes, sizeof *sizes) || !reaches(type, row_bytes) ||
        !reaches(gamma, hidden * sizeof(f32)) || !reaches(beta, hidden * sizeof(f32))) {
        return ILLEGAL_ADDRESS;
    }
    memcpy(starts_out, starts, (rows + 1) * sizeof(u32));
    *sizes = (struct sizes){tokens, rows};
    f32 sum[1024], part[1024];
    for (u32 row = 0; row < rows; ++row) {
        const u32 end = least(starts[row + 1], launch->grid[0] * 4);
        for (u32 token = starts[row]; token < end; ++token) {
            const u32 place = token - starts[row] + offset;
            const u16 *from[] = {word + (size_t)ids[token] * hidden,
                                 position + (size_t)place * hidden, type};
            if (token >= tokens || !reaches(from[0], row_bytes) || !reaches(from[1], row_bytes)) {
                return ILLEGAL_ADDRESS;
            }
            memset(sum, 0, sizeof sum);
            for (int i = 0; i < 3; ++i) {
                widen(part, from[i], hidden, kernel->bf16);
                for (u32 j = 0; j < hidden; ++j) sum[j] += part[j];
            }
            layer_norm(sum, hidden, gamma, beta, eps);
            store(x + (size_t)token * hidden, sum, hidden, kernel->bf16);
        }
    }
    *written = (struct written){x, tokens * row_bytes};
    return SUCCESS;
}

// One head of one text: `qkv` points to its first query.
static void attend(const struct kernel *kernel, const u16 *qkv, u16 *ctx, u32 tokens, u32 hidden,
                   u32 covered, f32 *room) {
    const u32 d = kernel->head;
    f32 *keys = room, *values = keys + (size_t)tokens * d, *scores = values + (size_t)tokens * d;
    f32 query[64], out[64];
    for (u32 key = 0; key < tokens; ++key) {
        const u16 *from = qkv + (size_t)key * 3 * hidden;
        widen(keys + (size_t)key * d, from + hidden, d, kernel->bf16);
        widen(values + (size_t)key * d, from + 2 * hidden, d, kernel->bf16);
    }
    for (u32 token = 0; token < covered; ++token) {
        widen(query, qkv + (size_t)token * 3 * hidden, d, kernel->bf16);
        f32 largest = -INFINITY, total = 0.0f;
        for (u32 key = 0; key < tokens; ++key) {
            f32 score = 0.0f;
            for (u32 j = 0; j < d; ++j) score += query[j] * keys[(size_t)key * d + j];
            scores[key] = score / sqrtf((f32)d);
            if (!(scores[key] <= largest)) largest = scores[key];
        }
        memset(out, 0, sizeof out);
        for (u32 key = 0; key < tokens; ++key) {
            const f32 weight = expf(scores[key] - largest);
            total += weight;
            for (u32 j = 0; j < d; ++j) out[j] += weight * values[(size_t)key * d + j];
        }
        for (u32 j = 0; j < d; ++j) out[j] /= total;
        store(ctx + (size_t)token * hidden, out, d, kernel->bf16);
    }
}

static int attention(const struct launch *launch, struct written *written) {
    const u16 *qkv = ARGUMENT(u16 *, launch, 0);
    const u32 *starts = ARGUMENT(u32 *, launch, 1);
    const struct sizes *sizes = ARGUMENT(struct sizes *, launch, 2);
    u16 *ctx = ARGUMENT(u16 *, launch, 3);
    const u32 heads = ARGUMENT(u32, launch, 4), hidden = heads * launch->kernel->head;
    if (!reaches(sizes, sizeof *sizes)) return ILLEGAL_ADDRESS;
    const u32 tokens = sizes->tokens, rows = sizes->rows, covered = launch->grid[0] * 128;
    const size_t bytes = (size_t)tokens * hidden * sizeof(u16);
    if (!reaches(qkv, 3 * bytes) || !reaches(ctx, bytes) ||
        !reaches(starts, (rows + 1) * sizeof(u32))) {
        return ILLEGAL_ADDRESS;
    }
    f32 *room = malloc(((size_t)tokens * (2 * launch->kernel->head + 1) + 1) * sizeof(f32));
    if (!room) abort();
    for (u32 row = 0; row < rows; ++row) {
        const u32 first = starts[row], end = least(starts[row + 1], tokens);
        for (u32 head = 0; head < heads && first < least(end, covered); ++head) {
            const size_t column = head * launch->kernel->head;
            attend(launch->kernel, qkv + (size_t)first * 3 * hidden + column,
                   ctx + (size_t)first * hidden + column, end - first, hidden,
                   least(end, covered) - first, room);
        }
    }
    free(room);
    *written = (struct written){ctx, bytes};
    return SUCCESS;
}

static int residual_norm(const struct launch *launch, struct written *written) {
    const struct kernel *kernel = launch->kernel;
    const u16 *y = ARGUMENT(u16 *, launch, 0), *residual = ARGUMENT(u16 *, launch, 2);
    const f32 *bias = ARGUMENT(f32 *, launch, 1), *gamma = ARGUMENT(f32 *, launch, 3);
    const f32 *beta = ARGUMENT(f32 *, launch, 4);
    const f32 eps = ARGUMENT(f32, launch, 5);
    const struct sizes *sizes = ARGUMENT(struct sizes *, launch, 6);
    u16 *out = ARGUMENT(u16 *, launch, 7);
    const u32 hidden = kernel->hidden;
    if (!reaches(sizes, sizeof *sizes)) return ILLEGAL_ADDRESS;
    const u32 tokens = least(sizes->tokens, launch->grid[0] * 4);
    const size_t bytes = (size_t)tokens * hidden * sizeof(u16);
    if (!reaches(y, bytes) || !reaches(residual, bytes) || !reaches(out, bytes)) {
        return ILLEGAL_ADDRESS;
    }
    f32 sum[1024], part[1024];
    for (u32 token = 0; token < tokens; ++token) {
        widen(sum, y + (size_t)token * hidden, hidden, kernel->bf16);
        widen(part, residual + (size_t)token * hidden, hidden, kernel->bf16);
        for (u32 j = 0; j < hidden; ++j) sum[j] += part[j] + bias[j];
        layer_norm(sum, hidden, gamma, beta, eps);
        store(out + (size_t)token * hidden, sum, hidden, kernel->bf16);
    }
    *written = (struct written){out, bytes};
    return SUCCESS;
}

static int bias_activation(const struct launch *launch, struct written *written) {
    const struct kernel *kernel = launch->kernel;
    u16 *x = ARGUMENT(u16 *, launch, 0);
    const f32 *bias = ARGUMENT(f32 *, launch, 1), *table = widening(kernel->bf16);
    const struct sizes *sizes = ARGUMENT(struct sizes *, launch, 2);
    const u32 width = ARGUMENT(u32, launch, 3);
    if (!reaches(sizes, sizeof *sizes)) return ILLEGAL_ADDRESS;
    const u32 tokens = least(sizes->tokens, launch->grid[0] * 16);
    const u32 columns = least(width, launch->grid[1] * 512);
    const size_t bytes = (size_t)tokens * width * sizeof(u16);
    if (!reaches(x, bytes) || !reaches(bias, width * sizeof(f32))) return ILLEGAL_ADDRESS;
    for (u32 token = 0; token < tokens; ++token) {
        u16 *row = x + (size_t)token * width;
        for (u32 j = 0; j < columns; ++j) {
            row[j] = narrow(activate(kernel->activation, table[row[j]] + bias[j]), kernel->bf16);
        }
    }
    *written = (struct written){x, bytes};
    return SUCCESS;
}

enum { MEAN, CLS, MAX, LAST, MEAN_SQRT_LENGTH };

static int pool(const struct launch *launch, struct written *written) {
    const u16 *x = ARGUMENT(u16 *, launch, 0);
    const u32 *starts = ARGUMENT(u32 *, launch, 1);
    const u32 rows = least(ARGUMENT(u32, launch, 2), launch->grid[0]);
    const u32 hidden = ARGUMENT(u32, launch, 3), mode = ARGUMENT(u32, launch, 4);
    f32 *out = ARGUMENT(f32 *, launch, 5);
    const size_t bytes = (size_t)rows * (hidden + 1) * sizeof(f32);
    if (hidden > 1024 || !reaches(starts, (rows + 1) * sizeof(u32)) || !reaches(out, bytes) ||
        !reaches(x, (size_t)starts[rows] * hidden * sizeof(u16))) {
        return ILLEGAL_ADDRESS;
    }
    f32 part[1024];
    for (u32 row = 0; row < rows; ++row, out += hidden + 1) {
        u32 first = starts[row], end = starts[row + 1];
        const u32 length = end - first;
        if (mode == CLS) end = least(end, first + 1);
        if (mode == LAST && length) first = end - 1;
        for (u32 j = 0; j < hidden; ++j) out[j] = mode == MAX && length ? -INFINITY : 0.0f;
        for (u32 token = first; token < end; ++token) {
            widen(part, x + (size_t)token * hidden, hidden, launch->kernel->bf16);
            for (u32 j = 0; j < hidden; ++j) {
                if (mode != MAX) out[j] += part[j];
                else if (!(part[j] <= out[j])) out[j] = part[j];
            }
        }
        const f32 count = (f32)(length ? length : 1);
        const f32 factor = mode == MEAN               ? 1.0f / count
                           : mode == MEAN_SQRT_LENGTH ? 1.0f / sqrtf(count)
                                                      : 1.0f;
        f32 square = 0.0f;
        for (u32 j = 0; j < hidden; ++j) {
            out[j] *= factor;
            square += out[j] * out[j];
        }
        const f32 norm = sqrtf(square), inverse = 1.0f / (norm < 1e-12f ? 1e-12f : norm);
        for (u32 j = 0; j < hidden; ++j) out[j] *= inverse;
        out[hidden] = norm;
    }
    *written = (struct written){ARGUMENT(f32 *, launch, 5), bytes};
    return SUCCESS;
}

int run_kernel(const struct launch *launch, struct written *written) {
    switch (launch->kernel->kind) {
        case EMBED_NORM: return embed_norm(launch, written);
        case ATTENTION: return attention(launch, written);
        case RESIDUAL_NORM: return residual_norm(launch, written);
        case BIAS_ACTIVATION: return bias_activation(launch, written);
        case POOL: return pool(launch, written);
        case GEMM_ROWS: return run_gemm_rows(launch, written);
        case GEMM_NORM: return run_gemm_norm(launch, written);
        // Those that break on purpose.
        case FAULT_TRAP: return LAUNCH_FAILED;
        case FAULT_ADDRESS:
            return reaches(ARGUMENT(void *, launch, 0), sizeof(u32)) ? SUCCESS : ILLEGAL_ADDRESS;
        case FAULT_ENDLESS:
            for (;;) pause();
    }
    abort();
}
