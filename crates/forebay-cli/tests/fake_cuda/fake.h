// What the parts of the fake CUDA driver share. It is a test tool: a shared library with the entry
// points that Forebay calls, which computes on the CPU, so that everything around a GPU can be
// tested without one. It is stricter than a real driver (it checks handles, ranges and shapes) and
// hastier (streams run in a random order wherever no event orders them).
//
// How it behaves is said by the file `fake_cuda.conf` beside the library; see fault.c.

#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t u32;
typedef uint64_t u64;
typedef uint16_t u16;
typedef float f32;

// CUDA's own numbers.
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    ALREADY_REGISTERED = 712,
    NOT_REGISTERED = 713,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

// fault.c: the configuration, and what goes wrong on demand.
u64 setting(const char *key, u64 otherwise);
int entered(const char *call);
int kernel_fault(const char *name);
int kernel_hangs(const char *name);
int kernel_lies(const char *name);
int device_state(void);
int device_breaks(int code);
void trace(const char *call, const char *detail);

// An entry point begins with one of these: a call on a broken device, or one that was told to fail,
// goes no further; most calls need a context on their thread, and some may not be recorded.
#define ENTER()                            \
    do {                                   \
        const int met = entered(__func__); \
        if (met) return met;               \
    } while (0)
#define ENTER_BOUND()                                  \
    do {                                               \
        ENTER();                                       \
        if (!context_bound()) return INVALID_CONTEXT;  \
    } while (0)
#define ENTER_UNRECORDED()                                        \
    do {                                                          \
        ENTER_BOUND();                                            \
        if (capture_is_disturbed()) return CAPTURE_UNSUPPORTED;   \
    } while (0)

#define EXPORT __attribute__((visibility("default")))

// device.c
int context_bound(void);

// memory.c: whether the device may touch a range, and how much is left.
int reaches(const void *at, size_t bytes);

// Kernels, module.c: one by its name.
enum kind {
    EMBED_NORM,
    ATTENTION,
    RESIDUAL_NORM,
    BIAS_ACTIVATION,
    POOL,
    GEMM_ROWS,
    GEMM_NORM,
    FAULT_TRAP,
    FAULT_ADDRESS,
    FAULT_ENDLESS,
};
enum activation { NONE, GELU, GELU_TANH, RELU };

struct kernel {
    char name[64];
    enum kind kind;
    int bf16;
    u32 hidden;
    u32 head;
    u32 columns;
    u32 warpgroups;
    enum activation activation;
    u32 shared_bytes_max;
};

// A launch with its arguments copied, as the driver does.
struct launch {
    const struct kernel *kernel;
    u32 grid[3];
    u32 block;
    u32 shared_bytes;
    u32 cluster;
    _Alignas(16) unsigned char values[640];
    u16 offsets[32];
};

// The matrix that a 128-byte tensor map describes here.
struct matrix {
    const u16 *base;
    u64 rows;
    u64 columns;
    u64 row_bytes;
    u32 box_rows;
    u32 box_columns;
    u32 bf16;
};

// kernels.c and products.c: computing. Each gives a CUDA code, and tells what it wrote.
struct written {
    void *at;
    size_t bytes;
};
int run_kernel(const struct launch *launch, struct written *written);
int run_gemm_rows(const struct launch *launch, struct written *written);
int run_gemm_norm(const struct launch *launch, struct written *written);

const void *argument(const struct launch *launch, u32 index);
#define ARGUMENT(type, launch, index) (*(type const *)argument(launch, index))
f32 activate(enum activation activation, f32 x);
void layer_norm(f32 *x, u32 width, const f32 *gamma, const f32 *beta, f32 eps);

// values.c: 16-bit floating point.
const f32 *widening(int bf16);
u16 narrow(f32 value, int bf16);

// stream.c: work in streams, and the thread that is the device.
enum work_kind { KERNEL_WORK, COPY_WORK, FILL_WORK, GRAPH_WORK, RECORD_WORK, WAIT_WORK };

struct work {
    struct work *next;
    enum work_kind kind;
    struct launch launch;
    void *to;
    const void *from;
    size_t bytes;
    int value;
    struct graph *graph;
    struct event *event;
    u64 ticket;
};

struct stream {
    u32 alive;
    struct stream *next;
    struct work *first;
    struct work *last;
    int running;
    // While it is being recorded: by whom, and what.
    int recording;
    int disturbed;
    pthread_t recorder;
    struct graph *graph;
};

struct graph {
    u32 alive;
    size_t count;
    struct work *first;
    struct work *last;
};

int enqueue(struct stream *stream, const struct work *work);
int stream_ok(const struct stream *stream);
int device_drained(void);
void run_work(const struct work *work);

// graph.c
int capture_is_disturbed(void);
int record(struct stream *stream, const struct work *work);

#define ALIVE 0x0F0E0B0Au

#endif
