// Streams and events, and the thread that is the device.
//
// Whatever is enqueued runs later, in that thread. Where several streams could go on, one is drawn
// at random: two pieces of work whose order only luck decides will meet in both orders soon.

#include "fake.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct event {
    u32 alive;
    int timing;
    // How often it was recorded, and how often that was reached.
    u64 recorded;
    u64 reached;
    double reached_us;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct stream *streams;
static int started;
static u64 seed = 0x9e3779b97f4a7c15ull;

int stream_ok(const struct stream *stream) { return stream && stream->alive == ALIVE; }

static int is_runnable(const struct stream *stream) {
    const struct work *work = stream->first;
    if (!work) return 0;
    return work->kind != WAIT_WORK || work->event->reached >= work->ticket;
}

// One of the streams that can go on, drawn at random; NULL if none can.
static struct stream *draw(void) {
    u32 count = 0;
    struct stream *drawn = NULL;
    for (struct stream *stream = streams; stream; stream = stream->next) {
        if (!is_runnable(stream)) continue;
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        if (seed % ++count == 0) drawn = stream;
    }
    return drawn;
}

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void *device(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        struct stream *stream = device_state() ? NULL : draw();
        if (!stream) {
            pthread_cond_broadcast(&changed);
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        struct work *work = stream->first;
        stream->first = work->next;
        if (!stream->first) stream->last = NULL;
        stream->running = 1;
        pthread_mutex_unlock(&lock);
        run_work(work);
        pthread_mutex_lock(&lock);
        stream->running = 0;
        if (work->kind == RECORD_WORK && !device_state()) {
            work->event->reached = work->ticket;
            work->event->reached_us = now_us();
        }
        free(work);
        pthread_cond_broadcast(&changed);
    }
    return NULL;
}

static void run_launch(const struct launch *launch) {
    const char *name = launch->kernel->name;
    struct written written = {0};
    while (kernel_hangs(name)) {
        for (;;) pause();
    }
    int code = kernel_fault(name);
    if (!code) code = run_kernel(launch, &written);
    if (code) {
        trace("broken by", name);
        device_breaks(code);
    } else if (kernel_lies(name)) {
        // Wrong signs, so that lengths stay what they were.
        unsigned char *bytes = written.at;
        const size_t step = launch->kernel->kind == POOL ? sizeof(f32) : sizeof(u16);
        for (size_t at = step - 1; at < written.bytes; at += 3 * step) bytes[at] ^= 0x80;
    }
}

void run_work(const struct work *work) {
    if (device_state()) return;
    switch (work->kind) {
        case KERNEL_WORK: run_launch(&work->launch); break;
        case COPY_WORK: memcpy(work->to, work->from, work->bytes); break;
        case FILL_WORK: memset(work->to, work->value, work->bytes); break;
        case GRAPH_WORK:
            for (const struct work *node = work->graph->first; node; node = node->next) {
                run_work(node);
            }
            break;
        case RECORD_WORK:
        case WAIT_WORK: break;
    }
}

// Copies `work` to the end of the stream, or of what is being recorded.
int enqueue(struct stream *stream, const struct work *work) {
    if (!stream_ok(stream)) return INVALID_HANDLE;
    if (stream->recording) return record(stream, work);
    struct work *copied = malloc(sizeof *copied);
    if (!copied) return OUT_OF_MEMORY;
    *copied = *work;
    copied->next = NULL;
    pthread_mutex_lock(&lock);
    if (work->kind == RECORD_WORK) copied->ticket = ++work->event->recorded;
    if (work->kind == WAIT_WORK) copied->ticket = work->event->recorded;
    if (stream->last) {
        stream->last->next = copied;
    } else {
        stream->first = copied;
    }
    stream->last = copied;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static int is_busy(const struct stream *stream) { return stream->first || stream->running; }

// Waits until `stream`, or every one, is idle, or the device broken.
static int drained(const struct stream *only) {
    pthread_mutex_lock(&lock);
    for (int busy = 1; busy && !device_state();) {
        busy = 0;
        for (const struct stream *stream = streams; stream; stream = stream->next) {
            busy |= (!only || only == stream) && is_busy(stream);
        }
        if (busy) pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    return device_state();
}

int device_drained(void) { return drained(NULL); }

EXPORT int cuStreamCreate(struct stream **out, u32 flags) {
    ENTER_BOUND();
    // Streams that wait for the default one are never wanted.
    if (flags != 1) return INVALID_VALUE;
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream) return OUT_OF_MEMORY;
    stream->alive = ALIVE;
    pthread_mutex_lock(&lock);
    stream->next = streams;
    streams = stream;
    pthread_t thread;
    if (!started && !pthread_create(&thread, NULL, device, NULL)) {
        pthread_detach(thread);
        started = 1;
    }
    pthread_mutex_unlock(&lock);
    *out = stream;
    return started ? SUCCESS : OUT_OF_MEMORY;
}

// Handles are never used again, so that a late use of one is noticed.
EXPORT int cuStreamDestroy_v2(struct stream *stream) {
    ENTER_BOUND();
    if (!stream_ok(stream) || stream->recording) return INVALID_HANDLE;
    const int code = drained(stream);
    stream->alive = 0;
    return code;
}

EXPORT int cuStreamSynchronize(struct stream *stream) {
    ENTER_UNRECORDED();
    return stream_ok(stream) ? drained(stream) : INVALID_HANDLE;
}

EXPORT int cuStreamQuery(struct stream *stream) {
    ENTER_UNRECORDED();
    if (!stream_ok(stream)) return INVALID_HANDLE;
    pthread_mutex_lock(&lock);
    const int busy = is_busy(stream);
    pthread_mutex_unlock(&lock);
    return busy ? NOT_READY : SUCCESS;
}

static int event_ok(const struct event *event) { return event && event->alive == ALIVE; }

EXPORT int cuStreamWaitEvent(struct stream *stream, struct event *event, u32 flags) {
    ENTER_BOUND();
    if (!event_ok(event) || flags) return INVALID_HANDLE;
    const struct work work = {.kind = WAIT_WORK, .event = event};
    return enqueue(stream, &work);
}

EXPORT int cuEventCreate(struct event **out, u32 flags) {
    ENTER_BOUND();
    struct event *event = calloc(1, sizeof *event);
    if (!event) return OUT_OF_MEMORY;
    event->alive = ALIVE;
    event->timing = !(flags & 2);
    *out = event;
    return SUCCESS;
}

EXPORT int cuEventDestroy_v2(struct event *event) {
    ENTER_BOUND();
    if (!event_ok(event)) return INVALID_HANDLE;
    // Work may still wait for it.
    const int code = device_drained();
    event->alive = 0;
    return code;
}

EXPORT int cuEventRecord(struct event *event, struct stream *stream) {
    ENTER_BOUND();
    if (!event_ok(event)) return INVALID_HANDLE;
    const struct work work = {.kind = RECORD_WORK, .event = event};
    return enqueue(stream, &work);
}

static int is_reached(struct event *event) {
    pthread_mutex_lock(&lock);
    const int reached = event->reached >= event->recorded;
    pthread_mutex_unlock(&lock);
    return reached;
}

EXPORT int cuEventQuery(struct event *event) {
    ENTER_UNRECORDED();
    if (!event_ok(event)) return INVALID_HANDLE;
    return is_reached(event) ? SUCCESS : NOT_READY;
}

EXPORT int cuEventSynchronize(struct event *event) {
    ENTER_UNRECORDED();
    if (!event_ok(event)) return INVALID_HANDLE;
    pthread_mutex_lock(&lock);
    while (event->reached < event->recorded && !device_state()) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return device_state();
}

EXPORT int cuEventElapsedTime_v2(f32 *milliseconds, struct event *start, struct event *end) {
    ENTER_BOUND();
    if (!event_ok(start) || !event_ok(end) || !start->timing || !end->timing) return INVALID_HANDLE;
    if (!start->recorded || !end->recorded) return INVALID_HANDLE;
    if (!is_reached(start) || !is_reached(end)) return NOT_READY;
    *milliseconds = (f32)((end->reached_us - start->reached_us) / 1e3);
    return SUCCESS;
}
