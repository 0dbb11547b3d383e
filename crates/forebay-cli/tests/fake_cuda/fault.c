// The fake's configuration, and what goes wrong on demand.
//
// `fake_cuda.conf` lies beside the library and has one setting a line:
//
//   devices 2                      how many there are; CUDA_VISIBLE_DEVICES chooses among them
//   memory 1000000000              bytes of each
//   trace 1                        append every call to `fake_cuda.trace`, with the process id
//   fault cuGraphLaunch 20 719     the 20th such call of a process gives 719
//   fault kernel:pool 3 700        the 3rd kernel whose name begins so breaks the device as it runs
//   hang kernel:attention 5        the 5th such kernel never ends
//   lie kernel:gemm_norm 5         the 5th such kernel and those after it write wrong numbers
//   once 1                         each fault, hang or lie is met by one process only, which leaves
//                                  `fake_cuda.met` with the rule's number (from 0)
//
// After a code that the real driver never recovers from, every call gives that code.

// For dladdr.
#define _GNU_SOURCE

#include "fake.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RULES = 16, NAME = 64, PATH = 4096 };

struct rule {
    char what[8];
    char name[NAME];
    u64 at;
    u64 code;
    u64 seen;
};

static struct rule rules[RULES];
static int rule_count;
static struct rule settings[RULES];
static int setting_count;
static char folder[PATH];
static pthread_once_t read_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int state;
static int trace_file = -1;

static void beside(char *path, const char *name) {
    snprintf(path, PATH + NAME, "%s/%s", folder, name);
}

static void read_line(char *line) {
    struct rule rule = {0};
    if (sscanf(line, "%7s", rule.what) != 1) return;
    const int is_rule = !strcmp(rule.what, "fault") || !strcmp(rule.what, "hang") ||
                        !strcmp(rule.what, "lie");
    if (is_rule && rule_count < RULES &&
        sscanf(line, "%*s %63s %lu %lu", rule.name, &rule.at, &rule.code) >= 2) {
        rules[rule_count++] = rule;
    } else if (!is_rule && setting_count < RULES && sscanf(line, "%*s %lu", &rule.at) == 1) {
        settings[setting_count++] = rule;
    } else {
        fprintf(stderr, "fake_cuda.conf: not understood: %s", line);
        abort();
    }
}

static void read_all(void) {
    Dl_info here;
    char path[PATH + NAME], line[256];
    if (!dladdr((void *)read_all, &here)) abort();
    snprintf(folder, PATH, "%s", here.dli_fname);
    char *slash = strrchr(folder, '/');
    if (!slash) abort();
    *slash = 0;
    beside(path, "fake_cuda.conf");
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) read_line(line);
    if (file) fclose(file);
    for (int i = 0; i < setting_count; ++i) {
        if (strcmp(settings[i].what, "trace") || !settings[i].at) continue;
        beside(path, "fake_cuda.trace");
        trace_file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    }
}

u64 setting(const char *key, u64 otherwise) {
    pthread_once(&read_once, read_all);
    for (int i = 0; i < setting_count; ++i) {
        if (!strcmp(settings[i].what, key)) return settings[i].at;
    }
    return otherwise;
}

void trace(const char *call, const char *detail) {
    char line[160];
    if (trace_file < 0) return;
    const int bytes = snprintf(line, sizeof line, "%d %s %s\n", (int)getpid(), call, detail);
    // In one piece, as threads and processes share the file.
    if (bytes > 0 && write(trace_file, line, (size_t)bytes) != bytes) abort();
}

// Whether a rule of the kind `what` meets `name` now; with `from_then_on` also later. The code.
static u64 rule_met(const char *what, const char *name, int from_then_on) {
    u64 code = 0;
    char path[PATH + NAME];
    pthread_once(&read_once, read_all);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < rule_count; ++i) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->what, what)) continue;
        const char *kernel = !strncmp(rule->name, "kernel:", 7) ? rule->name + 7 : NULL;
        const int same =
            kernel ? !strncmp(name, kernel, strlen(kernel)) : !strcmp(name, rule->name);
        if (!same) continue;
        ++rule->seen;
        if (rule->seen != rule->at && !(from_then_on && rule->seen > rule->at)) continue;
        if (setting("once", 0)) {
            char mark_name[NAME];
            snprintf(mark_name, sizeof mark_name, "fake_cuda.met%d", i);
            beside(path, mark_name);
            const int mark = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
            if (mark < 0) continue;
            close(mark);
        }
        code = rule->code ? rule->code : 1;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

static int is_for_ever(u64 code) {
    return code == INVALID_CONTEXT || code == 214 || code == 709 || (code >= 714 && code <= 719) ||
           code == 700 || code == 702 || code == 710 || code == 46 || code == 999;
}

int device_state(void) { return __atomic_load_n(&state, __ATOMIC_SEQ_CST); }

int device_breaks(int code) {
    int healthy = 0;
    __atomic_compare_exchange_n(&state, &healthy, code, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return device_state();
}

int entered(const char *call) {
    pthread_once(&read_once, read_all);
    if (device_state()) return device_state();
    const int code = (int)rule_met("fault", call, 0);
    // Asking is done in a loop, and binding everywhere.
    if (strcmp(call, "cuEventQuery") && strcmp(call, "cuCtxSetCurrent")) trace(call, "");
    return is_for_ever((u64)code) ? device_breaks(code) : code;
}

int kernel_fault(const char *name) { return (int)rule_met("fault", name, 0); }

int kernel_hangs(const char *name) { return rule_met("hang", name, 0) != 0; }

int kernel_lies(const char *name) { return rule_met("lie", name, 1) != 0; }
