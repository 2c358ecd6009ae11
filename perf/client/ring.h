/* An io_uring of which only one-shot polls are asked, without liburing. Set up as portcullis' own: one issuer, which runs
 * completions when it asks for them (io_uring_setup(2), DEFER_TASKRUN). */
#ifndef PERF_RING_H
#define PERF_RING_H

#include "sockets.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { RING_ENTRIES = 1024 };

struct ring {
    int descriptor;
    unsigned filled; /* entries that the kernel has not been told of */
    unsigned *submit_tail, submit_mask;
    unsigned *complete_head, *complete_tail, complete_mask;
    struct io_uring_sqe *submissions;
    struct io_uring_cqe *completions;
};

static void *ring_map(struct ring *ring, size_t bytes, off_t offset)
{
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->descriptor, offset);
    if (mapped == MAP_FAILED)
        fail("mmap of the ring");
    return mapped;
}

static void ring_open(struct ring *ring)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    ring->descriptor = (int)syscall(SYS_io_uring_setup, RING_ENTRIES, &params);
    if (ring->descriptor < 0)
        fail("io_uring_setup");
    size_t submit_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t complete_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    char *submit = ring_map(ring, submit_bytes, IORING_OFF_SQ_RING);
    char *complete = ring_map(ring, complete_bytes, IORING_OFF_CQ_RING);
    ring->submissions = ring_map(ring, params.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
    ring->submit_tail = (unsigned *)(submit + params.sq_off.tail);
    ring->submit_mask = *(unsigned *)(submit + params.sq_off.ring_mask);
    ring->complete_head = (unsigned *)(complete + params.cq_off.head);
    ring->complete_tail = (unsigned *)(complete + params.cq_off.tail);
    ring->complete_mask = *(unsigned *)(complete + params.cq_off.ring_mask);
    ring->completions = (struct io_uring_cqe *)(complete + params.cq_off.cqes);
    ring->filled = 0;
    unsigned *indices = (unsigned *)(submit + params.sq_off.array);
    for (unsigned index = 0; index < params.sq_entries; index++)
        indices[index] = index;
}

/* Hands the kernel what was filled in, and waits for `least` completions. */
static void ring_enter(struct ring *ring, unsigned least)
{
    long done = syscall(SYS_io_uring_enter, ring->descriptor, ring->filled, least, IORING_ENTER_GETEVENTS, NULL, 0);
    if (done < 0 && errno != EINTR)
        fail("io_uring_enter");
    if (done > 0)
        ring->filled -= (unsigned)done;
}

/* Asks for one event; `data` comes back with it. */
static void ring_poll(struct ring *ring, int descriptor, uint32_t events, uint64_t data)
{
    while (ring->filled == RING_ENTRIES)
        ring_enter(ring, 0);
    unsigned tail = *ring->submit_tail;
    ring->submissions[tail & ring->submit_mask] = (struct io_uring_sqe){
        .opcode = IORING_OP_POLL_ADD, .fd = descriptor, .poll32_events = events, .user_data = data};
    __atomic_store_n(ring->submit_tail, tail + 1, __ATOMIC_RELEASE);
    ring->filled++;
}

/* Takes one completion, if there is one. */
static int ring_next(struct ring *ring, uint64_t *data)
{
    unsigned head = *ring->complete_head;
    if (head == __atomic_load_n(ring->complete_tail, __ATOMIC_ACQUIRE))
        return 0;
    *data = ring->completions[head & ring->complete_mask].user_data;
    __atomic_store_n(ring->complete_head, head + 1, __ATOMIC_RELEASE);
    return 1;
}

#endif
