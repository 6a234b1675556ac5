// SPDX-License-Identifier: BSD-2-Clause
// The stress test's parts: what a worker is, and what it does.
#pragma once

#include "mm/mm.h"
#include "mm/vmap.h"

enum {
    WORKERS_MAX = 16,
    FRAMES = 24,
    SLOTS = 32,
    OBJECTS = 16,
    SHARED_FRAMES = 16,
    SHARED_SPACES = 2,
};

// One place where a worker may map something.
struct slot {
    space_t *space; // NULL: the kernel's
    frame_t *frame; // NULL: nothing is mapped
    uint32_t refs;
    bool own; // no other worker maps the frame: its tag is there
};

// Something of kmalloc's; every byte of it holds `fill`.
struct object {
    uint8_t *at; // NULL: there is none
    uint32_t bytes;
    uint8_t fill;
};

struct worker {
    uint64_t random;
    uint32_t number;
    uint32_t ops;
    frame_t *frame[FRAMES];
    struct slot slot[SLOTS];
    struct object object[OBJECTS];
    space_t *own_space, *loaded;
    uint32_t watched; // counts up; odd while the watched page may be mapped
    uint32_t seen;    // the watcher's answer: it has read the page, or (even) could not any more
    uint64_t done;
};

// What all workers and the watcher share.
struct stress {
    struct worker worker[WORKERS_MAX];
    space_t *space[SHARED_SPACES];
    frame_t *frame[SHARED_FRAMES];
    uint32_t workers;
    uint32_t watcher;   // number of the CPU that watches, 0 if none does
    uint32_t failures;  // the first one:
    const char *failed; // what failed
    int error;
    uint32_t shortages; // -ENOMEM was the answer
    uint32_t confirmed; // watched pages that the watcher read before, and faulted on after
};
extern struct stress stress;

/* Something went wrong: all workers end. */
void stress_fail(const char *what, int err);

/* Where the page is that a worker shows to the watcher. */
vaddr_t stress_watched_va(const struct worker *w);

/* Gives it a space of its own. */
void stress_begin(struct worker *w);
/* One operation, chosen at random. */
void stress_one(struct worker *w);
/* Takes all memory that there is, works on without any, and gives it back. */
void stress_exhaust(struct worker *w);
/* Gives back all that the worker has. */
void stress_end(struct worker *w);

static inline uint32_t stress_load(const uint32_t *at)
{
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
