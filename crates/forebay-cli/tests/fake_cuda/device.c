// Devices and their context. A fake device looks like one of compute capability 9.0, for which
// Forebay has its own matrix kernels: no other library is needed.

#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES_MAX = 16, DRIVER_VERSION = 13000 };

static int initialized;
static int visible[DEVICES_MAX];
static int visible_count;
static int retained[DEVICES_MAX];
static _Thread_local int bound;

// The devices that the environment leaves visible. Its list may be meant for the real devices of
// the machine, with names or high numbers: then each entry stands for some fake device.
static void look(void) {
    const int count = (int)setting("devices", 1);
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    visible_count = 0;
    if (!list) {
        while (visible_count < count && visible_count < DEVICES_MAX) {
            visible[visible_count] = visible_count;
            ++visible_count;
        }
        return;
    }
    while (count && *list && visible_count < DEVICES_MAX) {
        char *end;
        const long number = strtol(list, &end, 10);
        const size_t length = strcspn(list, ",");
        if (!length || number < 0) break;
        visible[visible_count] = (end == list ? visible_count : (int)number) % count;
        ++visible_count;
        list += length + (list[length] == ',');
    }
}

EXPORT int cuDriverGetVersion(int *version) {
    *version = DRIVER_VERSION;
    return SUCCESS;
}

EXPORT int cuInit(u32 flags) {
    ENTER();
    look();
    initialized = 1;
    return flags ? INVALID_VALUE : visible_count ? SUCCESS : NO_DEVICE;
}

EXPORT int cuDeviceGetCount(int *count) {
    ENTER();
    if (!initialized) return NOT_INITIALIZED;
    *count = visible_count;
    return SUCCESS;
}

EXPORT int cuDeviceGet(int *device, int ordinal) {
    ENTER();
    if (ordinal < 0 || ordinal >= visible_count) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

static int is_device(int device) { return initialized && device >= 0 && device < visible_count; }

EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER();
    if (!is_device(device)) return INVALID_DEVICE;
    switch (attribute) {
        case 16: *value = 132; return SUCCESS;         // multiprocessors
        case 18: *value = 0; return SUCCESS;           // shares the host's memory
        case 38: *value = 50 << 20; return SUCCESS;    // L2 cache
        case 75: *value = 9; return SUCCESS;           // compute capability, major
        case 76: *value = 0; return SUCCESS;           // minor
        case 97: *value = 227 << 10; return SUCCESS;   // shared memory of a block
        case 99: *value = 1; return SUCCESS;           // can register host memory
        case 100: *value = 0; return SUCCESS;          // uses the host's page tables
        default: return INVALID_VALUE;
    }
}

EXPORT int cuDeviceGetName(char *name, int length, int device) {
    ENTER();
    if (!is_device(device)) return INVALID_DEVICE;
    snprintf(name, (size_t)length, "Forebay fake GPU %d", visible[device]);
    return SUCCESS;
}

EXPORT int cuDeviceGetPCIBusId(char *name, int length, int device) {
    ENTER();
    if (!is_device(device)) return INVALID_DEVICE;
    snprintf(name, (size_t)length, "0000:%02x:00.0", 0x10 + visible[device]);
    return SUCCESS;
}

EXPORT int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    ENTER();
    if (!is_device(device)) return INVALID_DEVICE;
    memset(uuid, 0xfa, 16);
    uuid[15] = (unsigned char)visible[device];
    return SUCCESS;
}

EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    ENTER();
    if (!is_device(device)) return INVALID_DEVICE;
    *bytes = setting("memory", 4ull << 30);
    return SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
    ENTER();
    if (!is_device(device)) return INVALID_DEVICE;
    ++retained[device];
    *context = &retained[device];
    return SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER();
    if (!is_device(device) || !retained[device]) return INVALID_CONTEXT;
    --retained[device];
    return device_drained();
}

EXPORT int cuCtxSetCurrent(void *context) {
    ENTER();
    const int *counter = context;
    bound = counter >= retained && counter < retained + DEVICES_MAX && *counter > 0;
    return bound || !context ? SUCCESS : INVALID_CONTEXT;
}

EXPORT int cuCtxSynchronize(void) {
    ENTER_UNRECORDED();
    return device_drained();
}

int context_bound(void) { return bound; }
