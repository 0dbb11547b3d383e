// The fake run-time compiler: it accepts every program and makes an image with its name and
// architecture, from which the fake driver knows the kernels.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, IMAGE = 256 };

struct program {
    char name[64];
    char image[IMAGE];
};

EXPORT int nvrtcVersion(int *major, int *minor) {
    *major = 13;
    *minor = 0;
    return SUCCESS;
}

EXPORT const char *nvrtcGetErrorString(int code) { return code ? "the fake refuses" : "success"; }

EXPORT int nvrtcCreateProgram(struct program **out, const char *source, const char *name,
                              int header_count, const char *const *headers,
                              const char *const *header_names) {
    (void)headers, (void)header_names;
    if (header_count || !strstr(source, "extern \"C\" __global__")) return INVALID_INPUT;
    struct program *program = calloc(1, sizeof *program);
    if (!program) return INVALID_INPUT;
    snprintf(program->name, sizeof program->name, "%s", name);
    *out = program;
    return SUCCESS;
}

EXPORT int nvrtcCompileProgram(struct program *program, int count, const char *const *options) {
    for (int i = 0; i < count; ++i) {
        if (strncmp(options[i], "-arch=", 6)) continue;
        snprintf(program->image, IMAGE, IMAGE_FORMAT, options[i] + 6, program->name);
        return SUCCESS;
    }
    return INVALID_OPTION;
}

EXPORT int nvrtcDestroyProgram(struct program **program) {
    free(*program);
    *program = NULL;
    return SUCCESS;
}

EXPORT int nvrtcGetCUBINSize(struct program *program, size_t *bytes) {
    *bytes = strlen(program->image) + 1;
    return *bytes > 1 ? SUCCESS : INVALID_PROGRAM;
}

EXPORT int nvrtcGetCUBIN(struct program *program, char *image) {
    strcpy(image, program->image);
    return SUCCESS;
}

EXPORT int nvrtcGetPTXSize(struct program *program, size_t *bytes) {
    (void)program, (void)bytes;
    return INVALID_PROGRAM;
}

EXPORT int nvrtcGetPTX(struct program *program, char *image) {
    (void)program, (void)image;
    return INVALID_PROGRAM;
}

EXPORT int nvrtcGetProgramLogSize(struct program *program, size_t *bytes) {
    (void)program;
    *bytes = 1;
    return SUCCESS;
}

EXPORT int nvrtcGetProgramLog(struct program *program, char *log) {
    (void)program;
    *log = 0;
    return SUCCESS;
}
