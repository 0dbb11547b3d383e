// Images, the kernels in them, and launches. A kernel is known by its name; its shape is checked
// against what the real one is compiled for, as a real launch would fail or compute nonsense.

#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

enum { SHARED_DEFAULT = 48 << 10, SHARED_MAX = 227 << 10, NAMES = 64 };

// By kind: threads of a block, and the parameters (p pointer, u u32, f f32, m tensor map).
static const struct {
    const char *file;
    u32 threads;
    const char *parameters;
} KINDS[] = {
    [EMBED_NORM] = {"embed_norm", 128, "ppuupppppfuppp"},
    [ATTENTION] = {"attention", 128, "ppppu"},
    [RESIDUAL_NORM] = {"residual_norm", 128, "pppppfpp"},
    [BIAS_ACTIVATION] = {"bias_activation", 256, "pppu"},
    [POOL] = {"pool", 384, "ppuuup"},
    [GEMM_ROWS] = {"gemm_rows", 384, "mmpppuu"},
    [GEMM_NORM] = {"gemm_norm", 0, "mmppppfppu"},
    [FAULT_TRAP] = {"faults", 1, ""},
    [FAULT_ADDRESS] = {"faults", 1, "p"},
    [FAULT_ENDLESS] = {"faults", 1, ""},
};
static const char *const ACTIVATIONS[] = {"none", "gelu", "gelu_tanh", "relu"};

static struct kernel known[NAMES];
static int known_count;
static pthread_once_t listed = PTHREAD_ONCE_INIT;

static struct kernel *add(enum kind kind, int bf16) {
    struct kernel *kernel = &known[known_count++];
    kernel->kind = kind;
    kernel->bf16 = bf16;
    kernel->shared_bytes_max = SHARED_DEFAULT;
    return kernel;
}

#define NAMED(kernel, ...) snprintf((kernel)->name, sizeof (kernel)->name, __VA_ARGS__)

// Every kernel that the sources define.
static void list(void) {
    static const u32 hidden[] = {384, 768, 1024}, heads[] = {32, 64}, columns[] = {64, 192};
    static const u32 slices[] = {64, 96, 192};
    for (int bf16 = 0; bf16 < 2; ++bf16) {
        const char *type = bf16 ? "bf16" : "f16";
        for (int i = 0; i < 3; ++i) {
            struct kernel *embed = add(EMBED_NORM, bf16), *norm = add(RESIDUAL_NORM, bf16);
            embed->hidden = norm->hidden = hidden[i];
            NAMED(embed, "embed_norm_%s_h%u", type, hidden[i]);
            NAMED(norm, "residual_norm_%s_h%u", type, hidden[i]);
        }
        for (int i = 0; i < 2; ++i) {
            struct kernel *attention = add(ATTENTION, bf16);
            attention->head = heads[i];
            NAMED(attention, "attention_%s_d%u", type, heads[i]);
        }
        for (enum activation form = NONE; form <= RELU; ++form) {
            if (form != NONE) {
                struct kernel *activation = add(BIAS_ACTIVATION, bf16);
                activation->activation = form;
                NAMED(activation, "bias_activation_%s_%s", type, ACTIVATIONS[form]);
            }
            for (int i = 0; i < 3; ++i) {
                struct kernel *rows = add(GEMM_ROWS, bf16);
                rows->activation = form;
                rows->columns = slices[i];
                NAMED(rows, "gemm_rows_%s_n%u_%s", type, slices[i], ACTIVATIONS[form]);
            }
        }
        for (int i = 0; i < 2; ++i) {
            struct kernel *norm = add(GEMM_NORM, bf16);
            norm->hidden = 384;
            norm->columns = columns[i];
            norm->warpgroups = (u32)i + 1;
            NAMED(norm, "gemm_norm_%s_h384_n%u_r%u", type, columns[i], norm->warpgroups);
        }
        NAMED(add(POOL, bf16), "pool_%s", type);
    }
    NAMED(add(FAULT_TRAP, 0), "fault_trap");
    NAMED(add(FAULT_ADDRESS, 0), "fault_illegal_address");
    NAMED(add(FAULT_ENDLESS, 0), "fault_endless");
}

struct module {
    u32 alive;
    // The source's name without its ending, or the whole text of PTX.
    char file[NAMES];
    char *ptx;
};

EXPORT int cuModuleLoadDataEx(struct module **out, const char *image, u32 count, int *options,
                              void **values) {
    (void)count, (void)options, (void)values;
    ENTER_UNRECORDED();
    struct module *module = calloc(1, sizeof *module);
    if (!module) return OUT_OF_MEMORY;
    char architecture[NAMES];
    if (sscanf(image, IMAGE_FORMAT, architecture, module->file) == 2) {
        const int fits = !strcmp(architecture, "sm_90") || !strcmp(architecture, "sm_90a");
        char *const ending = strstr(module->file, ".cu");
        if (!fits || !ending) return NO_BINARY_FOR_GPU;
        *ending = 0;
    } else if (strstr(image, ".target sm_80")) {
        module->ptx = strdup(image);
    } else {
        return INVALID_IMAGE;
    }
    module->alive = ALIVE;
    *out = module;
    return SUCCESS;
}

EXPORT int cuModuleUnload(struct module *module) {
    ENTER_UNRECORDED();
    if (!module || module->alive != ALIVE) return INVALID_HANDLE;
    module->alive = 0;
    return device_drained();
}

EXPORT int cuModuleGetFunction(struct kernel **out, struct module *module, const char *name) {
    ENTER_BOUND();
    pthread_once(&listed, list);
    if (!module || module->alive != ALIVE) return INVALID_HANDLE;
    for (int i = 0; i < known_count; ++i) {
        if (strcmp(known[i].name, name)) continue;
        char entry[NAMES + 16];
        snprintf(entry, sizeof entry, ".entry %s(", name);
        const int in_it = module->ptx ? strstr(module->ptx, entry) != NULL
                                      : !strcmp(module->file, KINDS[known[i].kind].file);
        if (!in_it) return NOT_FOUND;
        *out = malloc(sizeof **out);
        if (!*out) return OUT_OF_MEMORY;
        **out = known[i];
        return SUCCESS;
    }
    return NOT_FOUND;
}

EXPORT int cuFuncSetAttribute(struct kernel *kernel, int attribute, int value) {
    ENTER_BOUND();
    if (attribute != 8 || value < 0 || value > SHARED_MAX) return INVALID_VALUE;
    kernel->shared_bytes_max = (u32)value;
    return SUCCESS;
}

EXPORT int cuFuncGetAttribute(int *value, int attribute, struct kernel *kernel) {
    ENTER_BOUND();
    // Registers, local and shared bytes: nothing is compiled here.
    *value = attribute == 4 ? 32 : 0;
    return kernel ? SUCCESS : INVALID_HANDLE;
}

EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, struct kernel *kernel,
                                                       int threads, size_t shared_bytes) {
    ENTER_BOUND();
    *blocks = 3;
    return kernel && threads > 0 && shared_bytes <= SHARED_MAX ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuTensorMapEncodeTiled(void *map, int type, u32 rank, void *base, const u64 *sizes,
                                  const u64 *strides, const u32 *box, const u32 *steps,
                                  int interleave, int swizzle, int promotion, int fill) {
    ENTER();
    (void)promotion;
    const int is_bf16 = type == 9, is_f16 = type == 6;
    const int is_ours = (is_bf16 || is_f16) && rank == 2 && steps[0] == 1 && steps[1] == 1 &&
                        !interleave && swizzle == 3 && !fill && box[0] * 2 <= 128 && box[1] <= 256;
    if (!is_ours || (uintptr_t)map % 64 || (uintptr_t)base % 16) return INVALID_VALUE;
    const struct matrix matrix = {base, sizes[1], sizes[0], strides[0], box[1], box[0],
                                  (u32)is_bf16};
    memcpy(map, &matrix, sizeof matrix);
    return SUCCESS;
}

// The driver's launch configuration.
struct launch_attribute {
    u32 id;
    char unused[4];
    union {
        u32 cluster[3];
        int programmatic;
        char room[64];
    } value;
};
struct launch_config {
    u32 grid[3];
    u32 block[3];
    u32 shared_bytes;
    struct stream *stream;
    struct launch_attribute *attributes;
    u32 attribute_count;
};

static size_t size_of(char parameter) {
    return parameter == 'm' ? 128 : parameter == 'p' ? 8 : 4;
}

EXPORT int cuLaunchKernelEx(const struct launch_config *config, struct kernel *kernel,
                            void **parameters, void **extra) {
    ENTER_BOUND();
    struct work work = {.kind = KERNEL_WORK};
    struct launch *launch = &work.launch;
    if (!kernel || !parameters || extra) return INVALID_VALUE;
    launch->kernel = kernel;
    memcpy(launch->grid, config->grid, sizeof launch->grid);
    launch->block = config->block[0];
    launch->shared_bytes = config->shared_bytes;
    launch->cluster = 1;
    for (u32 i = 0; i < config->attribute_count; ++i) {
        const struct launch_attribute *attribute = &config->attributes[i];
        if (attribute->id == 4) launch->cluster = attribute->value.cluster[0];
        else if (attribute->id != 6) return INVALID_VALUE;
    }
    const u32 threads =
        kernel->kind == GEMM_NORM ? 128 * (kernel->warpgroups + 1) : KINDS[kernel->kind].threads;
    const u32 cluster = kernel->kind == GEMM_NORM ? kernel->hidden / kernel->columns : 1;
    if (launch->block != threads || config->block[1] != 1 || config->block[2] != 1 ||
        launch->cluster != cluster || launch->grid[0] == 0 || launch->grid[0] % cluster ||
        launch->grid[1] == 0 || launch->grid[2] != 1 ||
        launch->shared_bytes > kernel->shared_bytes_max) {
        return INVALID_VALUE;
    }
    size_t used = 0;
    const char *kinds = KINDS[kernel->kind].parameters;
    for (u32 i = 0; kinds[i]; ++i) {
        const size_t bytes = size_of(kinds[i]);
        used = (used + bytes - 1) / bytes * bytes;
        if (!parameters[i]) return INVALID_VALUE;
        memcpy(launch->values + used, parameters[i], bytes);
        launch->offsets[i] = (u16)used;
        used += bytes;
    }
    trace("kernel", kernel->name);
    return enqueue(config->stream, &work);
}

const void *argument(const struct launch *launch, u32 index) {
    return launch->values + launch->offsets[index];
}
