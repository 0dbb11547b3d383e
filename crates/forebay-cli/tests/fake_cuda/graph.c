// Recording what a stream is given, and running the record as one piece of work.
//
// Only kernels, copies and fills may be recorded, by the thread that began; whatever else that
// thread does which the real driver forbids meanwhile spoils the record.

#include "fake.h"

#include <stdio.h>
#include <stdlib.h>

static _Thread_local struct stream *recorded;

int capture_is_disturbed(void) {
    if (recorded) recorded->disturbed = 1;
    return recorded != NULL;
}

int record(struct stream *stream, const struct work *work) {
    const int is_kind = work->kind == KERNEL_WORK || work->kind == COPY_WORK ||
                        work->kind == FILL_WORK;
    struct graph *graph = stream->graph;
    struct work *node = malloc(sizeof *node);
    if (!node) return OUT_OF_MEMORY;
    if (!is_kind || !pthread_equal(stream->recorder, pthread_self())) {
        free(node);
        stream->disturbed = 1;
        return CAPTURE_UNSUPPORTED;
    }
    *node = *work;
    node->next = NULL;
    if (graph->last) {
        graph->last->next = node;
    } else {
        graph->first = node;
    }
    graph->last = node;
    ++graph->count;
    return SUCCESS;
}

EXPORT int cuStreamBeginCapture_v2(struct stream *stream, int mode) {
    ENTER_BOUND();
    // Local to the thread: other threads go on with what they do.
    if (!stream_ok(stream) || stream->recording || recorded || mode != 1) return INVALID_VALUE;
    struct graph *graph = calloc(1, sizeof *graph);
    if (!graph) return OUT_OF_MEMORY;
    graph->alive = ALIVE;
    stream->graph = graph;
    stream->recorder = pthread_self();
    stream->disturbed = 0;
    stream->recording = 1;
    recorded = stream;
    return SUCCESS;
}

EXPORT int cuStreamEndCapture(struct stream *stream, struct graph **out) {
    ENTER_BOUND();
    if (!stream_ok(stream) || !stream->recording || recorded != stream) return INVALID_VALUE;
    stream->recording = 0;
    recorded = NULL;
    *out = stream->disturbed ? NULL : stream->graph;
    return stream->disturbed ? CAPTURE_INVALIDATED : SUCCESS;
}

static int graph_ok(const struct graph *graph) { return graph && graph->alive == ALIVE; }

EXPORT int cuGraphGetNodes(struct graph *graph, void **nodes, size_t *count) {
    ENTER_BOUND();
    if (!graph_ok(graph) || nodes) return INVALID_VALUE;
    *count = graph->count;
    return SUCCESS;
}

EXPORT int cuGraphDestroy(struct graph *graph) {
    ENTER_BOUND();
    if (!graph_ok(graph)) return INVALID_VALUE;
    graph->alive = 0;
    return SUCCESS;
}

// The executable form is a copy, so that the recorded one may go.
EXPORT int cuGraphInstantiateWithFlags(struct graph **out, struct graph *graph, u64 flags) {
    ENTER_UNRECORDED();
    if (!graph_ok(graph) || flags) return INVALID_VALUE;
    struct graph *made = malloc(sizeof *made);
    if (!made) return OUT_OF_MEMORY;
    *made = *graph;
    char nodes[32];
    snprintf(nodes, sizeof nodes, "%zu", made->count);
    trace("graph of", nodes);
    *out = made;
    return SUCCESS;
}

EXPORT int cuGraphUpload(struct graph *graph, struct stream *stream) {
    ENTER_UNRECORDED();
    return graph_ok(graph) && stream_ok(stream) ? SUCCESS : INVALID_HANDLE;
}

EXPORT int cuGraphLaunch(struct graph *graph, struct stream *stream) {
    ENTER_UNRECORDED();
    if (!graph_ok(graph)) return INVALID_HANDLE;
    const struct work work = {.kind = GRAPH_WORK, .graph = graph};
    return enqueue(stream, &work);
}

EXPORT int cuGraphExecDestroy(struct graph *graph) {
    ENTER_UNRECORDED();
    if (!graph_ok(graph)) return INVALID_HANDLE;
    const int code = device_drained();
    graph->alive = 0;
    return code;
}
