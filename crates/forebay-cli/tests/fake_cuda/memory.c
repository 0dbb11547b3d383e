// Memory of the fake device, which is the host's, and host memory that is registered with it. What
// the device touches must lie in one of these; fresh memory holds NaN in every floating-point type.

#include "fake.h"

#include <stdlib.h>
#include <string.h>

enum { REGIONS = 4096, ALIGNMENT = 4096 };
enum region_kind { FREE_REGION, DEVICE_REGION, PINNED_REGION, REGISTERED_REGION };

static struct {
    enum region_kind kind;
    char *base;
    size_t bytes;
} regions[REGIONS];
static size_t used;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int find(const void *at, size_t bytes) {
    const char *first = at;
    for (int i = 0; i < REGIONS; ++i) {
        const char *base = regions[i].base;
        if (regions[i].kind && first >= base && bytes <= regions[i].bytes &&
            (size_t)(first - base) <= regions[i].bytes - bytes) {
            return i;
        }
    }
    return -1;
}

int reaches(const void *at, size_t bytes) {
    pthread_mutex_lock(&lock);
    const int found = find(at, bytes);
    pthread_mutex_unlock(&lock);
    return found >= 0;
}

static int add(enum region_kind kind, void *base, size_t bytes) {
    for (int i = 0; i < REGIONS; ++i) {
        if (regions[i].kind) continue;
        regions[i].kind = kind;
        regions[i].base = base;
        regions[i].bytes = bytes;
        return SUCCESS;
    }
    return OUT_OF_MEMORY;
}

// Takes the region that begins at `base`; whether there is one.
static int take(enum region_kind kind, const void *base) {
    for (int i = 0; i < REGIONS; ++i) {
        if (regions[i].kind != kind || regions[i].base != base) continue;
        regions[i].kind = FREE_REGION;
        if (kind == DEVICE_REGION) used -= regions[i].bytes;
        return 1;
    }
    return 0;
}

EXPORT int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    ENTER_BOUND();
    pthread_mutex_lock(&lock);
    *total = setting("memory", 4ull << 30);
    *free_bytes = *total - used;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

EXPORT int cuMemAlloc_v2(u64 *address, size_t bytes) {
    ENTER_UNRECORDED();
    if (!bytes) return INVALID_VALUE;
    int code = OUT_OF_MEMORY;
    void *base = NULL;
    pthread_mutex_lock(&lock);
    if (bytes <= setting("memory", 4ull << 30) - used && !posix_memalign(&base, ALIGNMENT, bytes)) {
        memset(base, 0xff, bytes);
        used += bytes;
        code = add(DEVICE_REGION, base, bytes);
    }
    pthread_mutex_unlock(&lock);
    *address = (u64)(uintptr_t)base;
    return code;
}

static int release(enum region_kind kind, void *base) {
    // The device finishes first what uses it.
    const int state = device_drained();
    if (state) return state;
    pthread_mutex_lock(&lock);
    const int found = take(kind, base);
    pthread_mutex_unlock(&lock);
    if (!found) return kind == REGISTERED_REGION ? NOT_REGISTERED : INVALID_VALUE;
    if (kind != REGISTERED_REGION) free(base);
    return SUCCESS;
}

EXPORT int cuMemFree_v2(u64 address) {
    ENTER_UNRECORDED();
    return release(DEVICE_REGION, (void *)(uintptr_t)address);
}

EXPORT int cuMemHostAlloc(void **base, size_t bytes, u32 flags) {
    ENTER_UNRECORDED();
    if (!bytes || flags & ~7u || posix_memalign(base, ALIGNMENT, bytes)) return INVALID_VALUE;
    memset(*base, 0xff, bytes);
    pthread_mutex_lock(&lock);
    const int code = add(PINNED_REGION, *base, bytes);
    pthread_mutex_unlock(&lock);
    return code;
}

EXPORT int cuMemFreeHost(void *base) {
    ENTER_UNRECORDED();
    return release(PINNED_REGION, base);
}

EXPORT int cuMemHostRegister_v2(void *base, size_t bytes, u32 flags) {
    ENTER_UNRECORDED();
    if (!base || !bytes || flags & ~15u) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    const int code =
        find(base, 1) >= 0 ? ALREADY_REGISTERED : add(REGISTERED_REGION, base, bytes);
    pthread_mutex_unlock(&lock);
    return code;
}

EXPORT int cuMemHostUnregister(void *base) {
    ENTER_UNRECORDED();
    return release(REGISTERED_REGION, base);
}

EXPORT int cuMemHostGetDevicePointer_v2(u64 *address, void *host, u32 flags) {
    ENTER_BOUND();
    pthread_mutex_lock(&lock);
    const int found = find(host, 1);
    const int is_host = found >= 0 && regions[found].kind != DEVICE_REGION;
    pthread_mutex_unlock(&lock);
    *address = (u64)(uintptr_t)host;
    return is_host && !flags ? SUCCESS : INVALID_VALUE;
}

// Copies and fills. The host's side of a copy may be any memory.
static int copy(void *to, const void *from, size_t bytes, struct stream *stream) {
    const struct work work = {.kind = COPY_WORK, .to = to, .from = from, .bytes = bytes};
    return enqueue(stream, &work);
}

EXPORT int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, struct stream *stream) {
    ENTER_BOUND();
    if (!reaches((void *)(uintptr_t)to, bytes)) return INVALID_VALUE;
    return copy((void *)(uintptr_t)to, from, bytes, stream);
}

EXPORT int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, struct stream *stream) {
    ENTER_BOUND();
    if (!reaches((void *)(uintptr_t)from, bytes)) return INVALID_VALUE;
    return copy(to, (void *)(uintptr_t)from, bytes, stream);
}

EXPORT int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, struct stream *stream) {
    ENTER_BOUND();
    void *const target = (void *)(uintptr_t)to;
    const void *const source = (void *)(uintptr_t)from;
    if (!reaches(target, bytes) || !reaches(source, bytes)) return INVALID_VALUE;
    return copy(target, source, bytes, stream);
}

EXPORT int cuMemsetD8Async(u64 to, unsigned char value, size_t bytes, struct stream *stream) {
    ENTER_BOUND();
    const struct work work = {
        .kind = FILL_WORK, .to = (void *)(uintptr_t)to, .value = value, .bytes = bytes};
    return reaches(work.to, bytes) ? enqueue(stream, &work) : INVALID_VALUE;
}
