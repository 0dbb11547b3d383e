// A fake of NVIDIA's management library, a test tool: the entry points that the device monitor
// calls, with answers from a file, so that every state of a device can be had without one.
//
// `fake_nvml.conf` lies beside the library, is read anew at every call, and has one setting a line;
// of two for the same thing the later counts. `-` stands for no device.
//
//   devices - 2                     how many there are
//   unsupported - 1                 every question about a device is answered "not supported"
//   fail - 9                        nvmlInit gives this code
//   hang - nvmlDeviceGetName        that call never returns
//   lost 0 1                        every question about device 0 is answered "GPU is lost"
//   temperature 0 60                a value; "none" for "not supported"
//   xid 0 79                        the driver reports an error; each such line is told once
//
// The names of values are those in the functions below.

// For dladdr.
#define _GNU_SOURCE

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef uint32_t u32;
typedef uint64_t u64;

// NVML's own numbers.
enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    RESET_REQUIRED = 16,
};
enum { XID_EVENT = 8, UNSIGNED_INT = 1 };
enum { DEVICES_MAX = 16, WORD = 64 };

#define EXPORT __attribute__((visibility("default")))

struct device {
    u32 index;
};
struct set {
    u32 registered[DEVICES_MAX];
};
struct pci {
    char legacy[16];
    u32 domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct field {
    u32 id, scope;
    int64_t timestamp, latency;
    u32 type;
    int code;
    union {
        double real;
        u64 whole;
    } value;
};
struct event {
    struct device *device;
    u64 type, data;
    u32 gpu_instance, compute_instance;
};
struct memory {
    u32 version;
    u64 total, reserved, free, used;
};
struct margin {
    u32 version;
    int celsius;
};
struct process {
    u32 pid;
    u64 bytes;
    u32 gpu_instance, compute_instance;
};
struct rates {
    u32 gpu, memory;
};

static struct device devices[DEVICES_MAX];
static u32 xids_told;

static FILE *open_settings(void) {
    Dl_info here;
    char path[4200];
    if (!dladdr((void *)open_settings, &here)) abort();
    snprintf(path, 4096, "%s", here.dli_fname);
    char *slash = strrchr(path, '/');
    if (!slash) abort();
    strcpy(slash, "/fake_nvml.conf");
    return fopen(path, "r");
}

// The setting's last value; whether there is one.
static int setting(const char *key, int device, char value[WORD]) {
    char line[256], name[WORD], whose[WORD], what[WORD], wanted[WORD];
    int found = 0;
    snprintf(wanted, WORD, device < 0 ? "-" : "%d", device);
    FILE *file = open_settings();
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "%63s %63s %63s", name, whose, what) != 3) continue;
        if (strcmp(name, key) || strcmp(whose, wanted)) continue;
        memcpy(value, what, WORD);
        found = 1;
    }
    if (file) fclose(file);
    return found;
}

static u64 number(const char *key, int device, u64 otherwise) {
    char value[WORD];
    return setting(key, device, value) ? strtoull(value, NULL, 0) : otherwise;
}

// An entry point begins with this: one that is told to hang does.
static void entered(const char *call) {
    char hanging[WORD];
    while (setting("hang", -1, hanging) && !strcmp(hanging, call)) pause();
}

// An entry point of a device begins with this.
static int asked(const char *call, const struct device *device) {
    entered(call);
    if (device < devices || device >= devices + DEVICES_MAX) return INVALID_ARGUMENT;
    if (number("lost", (int)device->index, 0)) return GPU_IS_LOST;
    if (number("unsupported", -1, 0)) return NOT_SUPPORTED;
    return SUCCESS;
}
#define ASKED(device)                                   \
    do {                                                \
        const int met = asked(__func__, device);        \
        if (met) return met;                            \
    } while (0)

// A value of a device as configured.
static int answer(const struct device *device, const char *key, u64 otherwise, u64 *value) {
    char text[WORD];
    *value = otherwise;
    if (!setting(key, (int)device->index, text)) return SUCCESS;
    if (!strcmp(text, "none")) return NOT_SUPPORTED;
    if (!strcmp(text, "reset_required")) return RESET_REQUIRED;
    *value = strtoull(text, NULL, 0);
    return SUCCESS;
}

static int answer_32(const struct device *device, const char *key, u32 otherwise, u32 *value) {
    u64 wide;
    const int code = answer(device, key, otherwise, &wide);
    *value = (u32)wide;
    return code;
}

EXPORT int nvmlInit_v2(void) {
    entered(__func__);
    for (u32 i = 0; i < DEVICES_MAX; ++i) devices[i].index = i;
    return (int)number("fail", -1, SUCCESS);
}

EXPORT int nvmlShutdown(void) { return SUCCESS; }

EXPORT int nvmlSystemGetDriverVersion(char *text, u32 length) {
    entered(__func__);
    snprintf(text, length, "600.1.2");
    return SUCCESS;
}

EXPORT int nvmlDeviceGetCount_v2(u32 *count) {
    entered(__func__);
    *count = (u32)number("devices", -1, 1);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(u32 index, struct device **device) {
    entered(__func__);
    if (index >= number("devices", -1, 1)) return NOT_FOUND;
    *device = &devices[index];
    return SUCCESS;
}

EXPORT int nvmlDeviceGetUUID(struct device *device, char *text, u32 length) {
    ASKED(device);
    snprintf(text, length, "GPU-fa4e0000-%u", device->index);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetName(struct device *device, char *text, u32 length) {
    ASKED(device);
    snprintf(text, length, "Forebay fake GPU");
    return SUCCESS;
}

// Numbered against the order of the bus.
EXPORT int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci *pci) {
    ASKED(device);
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x80 - device->index;
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetFieldValues(struct device *device, int count, struct field *fields) {
    ASKED(device);
    for (int i = 0; i < count; ++i) {
        static const struct {
            u32 id;
            const char *key;
        } known[] = {{230, "recovery_action"},
                     {142, "remapped_corrected"},
                     {143, "remapped_uncorrected"},
                     {144, "remapped_pending"},
                     {145, "remapped_failure"}};
        struct field *field = &fields[i];
        field->code = NOT_SUPPORTED;
        for (size_t k = 0; k < sizeof known / sizeof *known; ++k) {
            if (known[k].id != field->id) continue;
            field->type = UNSIGNED_INT;
            field->code = answer(device, known[k].key, 0, &field->value.whole);
        }
    }
    return SUCCESS;
}

EXPORT int nvmlDeviceGetTotalEccErrors(struct device *device, u32 type, u32 counter, u64 *count) {
    ASKED(device);
    // Uncorrected and volatile.
    return type == 1 && counter == 0 ? answer(device, "ecc", 0, count) : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetCurrentClocksEventReasons(struct device *device, u64 *reasons) {
    ASKED(device);
    return answer(device, "clocks", 1, reasons);
}

EXPORT int nvmlDeviceGetTemperature(struct device *device, u32 sensor, u32 *celsius) {
    ASKED(device);
    return sensor ? INVALID_ARGUMENT : answer_32(device, "temperature", 50, celsius);
}

EXPORT int nvmlDeviceGetTemperatureThreshold(struct device *device, u32 which, u32 *celsius) {
    ASKED(device);
    if (which > 1) return NOT_SUPPORTED;
    return answer_32(device, which ? "slowdown" : "shutdown", which ? 90 : 95, celsius);
}

EXPORT int nvmlDeviceGetMarginTemperature(struct device *device, struct margin *margin) {
    char text[WORD];
    ASKED(device);
    if (margin->version != (sizeof *margin | 1u << 24)) return INVALID_ARGUMENT;
    if (!setting("margin", (int)device->index, text)) return NOT_SUPPORTED;
    margin->celsius = atoi(text);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetPowerUsage(struct device *device, u32 *milliwatts) {
    ASKED(device);
    return answer_32(device, "power", 123456, milliwatts);
}

EXPORT int nvmlDeviceGetEnforcedPowerLimit(struct device *device, u32 *milliwatts) {
    ASKED(device);
    return answer_32(device, "power_limit", 700000, milliwatts);
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct memory *memory) {
    ASKED(device);
    if (memory->version != (sizeof *memory | 2u << 24)) return INVALID_ARGUMENT;
    memory->total = 1000000;
    memory->reserved = 1000;
    const int code = answer(device, "memory", 250000, &memory->used);
    memory->free = memory->total - memory->used;
    return code;
}

EXPORT int nvmlDeviceGetUtilizationRates(struct device *device, struct rates *rates) {
    ASKED(device);
    rates->memory = 1;
    return answer_32(device, "utilisation", 75, &rates->gpu);
}

EXPORT int nvmlDeviceGetPcieReplayCounter(struct device *device, u32 *count) {
    ASKED(device);
    return answer_32(device, "replays", 3, count);
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, u32 *count,
                                                   struct process *processes) {
    ASKED(device);
    const u32 there = (u32)number("processes", (int)device->index, 2), room = *count;
    *count = there;
    if (room < there) return INSUFFICIENT_SIZE;
    for (u32 i = 0; i < there; ++i) processes[i] = (struct process){.pid = 1000 + i};
    return SUCCESS;
}

EXPORT int nvmlDeviceGetSupportedEventTypes(struct device *device, u64 *types) {
    ASKED(device);
    return answer(device, "events", XID_EVENT, types);
}

EXPORT int nvmlDeviceRegisterEvents(struct device *device, u64 types, struct set *set) {
    ASKED(device);
    if (types != XID_EVENT || number("refuses_events", (int)device->index, 0)) return NOT_SUPPORTED;
    set->registered[device->index] = 1;
    return SUCCESS;
}

EXPORT int nvmlEventSetCreate(struct set **set) {
    entered(__func__);
    *set = calloc(1, sizeof **set);
    return *set ? SUCCESS : INVALID_ARGUMENT;
}

EXPORT int nvmlEventSetFree(struct set *set) {
    free(set);
    return SUCCESS;
}

// The next error that was not told yet.
static int next_xid(const struct set *set, struct event *event) {
    char line[256];
    u32 device = 0, seen = 0, found = 0;
    u64 xid = 0;
    FILE *file = open_settings();
    while (!found && file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "xid %u %lu", &device, &xid) == 2) found = seen++ == xids_told;
    }
    if (file) fclose(file);
    if (!found || device >= DEVICES_MAX || !set->registered[device]) return 0;
    ++xids_told;
    *event = (struct event){.device = &devices[device], .type = XID_EVENT, .data = xid};
    return 1;
}

EXPORT int nvmlEventSetWait_v2(struct set *set, struct event *event, u32 milliseconds) {
    entered(__func__);
    for (u32 waited = 0;; waited += 2) {
        if (next_xid(set, event)) return SUCCESS;
        if (waited >= milliseconds) return TIMEOUT;
        usleep(2000);
    }
}
