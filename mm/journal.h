// SPDX-License-Identifier: BSD-2-Clause
// The journal: what was last done with frames and mappings, for the debugger and for a post-mortem.
#pragma once

#include "arch/x86/layout.h"
#include "arch/x86/percpu.h"
#include "mm/frame_word.h"
#include "mm/mm.h"

#ifndef JOURNAL_EVENTS
#define JOURNAL_EVENTS 4096 // that each CPU's ring holds; a power of two, 64 to 8192 (Makefile)
#endif

enum {
    JOURNAL_CPUS = CPU_MAX,
};

enum journal_op {
    JOURNAL_NONE = 0,          // never written
    JOURNAL_GET = 1,           // get_frame(), get_device_frame()
    JOURNAL_REF = 2,           // ref_frame()
    JOURNAL_PUT = 3,           // put_frame()
    JOURNAL_MAP = 4,           // count: refs of the mapping afterwards
    JOURNAL_UNMAP = 5,         // count: refs afterwards, 0 when it is unmapped
    JOURNAL_PROTECT = 6,       // count: refs
    JOURNAL_MAP_RANGE = 7,     // count: pages, consecutive from mfn on; the counts are the first's
    JOURNAL_PUT_RANGE = 8,     // the same; what its flush takes off the counts may still be on them
    JOURNAL_SPLIT = 9,         // a block: the frame is the lower half, after the split; count: the
                               // pages that it was split into at once, if it was
    JOURNAL_MERGE = 10,        // two blocks: the frame is what they became
    JOURNAL_SHOOTDOWN = 11,    // count: pages flushed, va: the first; no frame
    JOURNAL_MAP_FRAMES = 12,   // count: pages of frames from anywhere, of which this is the first
    JOURNAL_PUT_FRAMES = 13,   // the same
    JOURNAL_SPACE_CREATE = 14, // the frame is its root table; count: its id
    JOURNAL_SPACE_DESTROY = 15, // the same
    JOURNAL_OP_COUNT = 16,
};

// One event. Those of all CPUs have one order, that of seq, which goes up by the size of an event.
// The frame is noted as the first word of its descriptor, with the same fields; where a part of
// it is meant, mfn and order are those of the part.
struct journal_event {
    uint64_t seq; // JOURNAL_STEP, 2 * JOURNAL_STEP, ...; 0: there is no event here
    uint64_t caller;
    uint64_t va; // 0 where none is meant
    uint64_t kind : 4;
    uint64_t order : 5;
    uint64_t level : 3;
    uint64_t mfn : 40;
    uint64_t zero : 5;
    uint64_t tail : 7;
    uint32_t refcount; // of the frame, afterwards
    uint32_t mapcount;
    uint32_t op; // enum journal_op
    uint32_t count;
    uint64_t zero2[2];
};
_Static_assert(sizeof(struct journal_event) == 64, "a place is found by a mask");

enum {
    JOURNAL_STEP = sizeof(struct journal_event),
    JOURNAL_BYTES = JOURNAL_EVENTS * JOURNAL_STEP,
};
_Static_assert((JOURNAL_BYTES & (JOURNAL_BYTES - 1)) == 0, "a place is found by a mask");
_Static_assert(JOURNAL_EVENTS >= 64, "a ring is whole pages");
_Static_assert(JOURNAL_BYTES *JOURNAL_CPUS <= VA_JOURNALS_SIZE, "all rings have their place");

// Invariant: an event with number seq stands at byte seq % JOURNAL_BYTES of the ring of the CPU
// that wrote it. So the rings together hold each of the last JOURNAL_EVENTS events of all CPUs, and
// of a CPU that does little also older ones. The boot CPU's ring is part of the image, so that
// there is one from the first operation on; the others' are frames of their own (percpu.h). NULL:
// that CPU was never started.
extern struct journal_event *journal_ring[JOURNAL_CPUS];

/* Writes an event, if mm.journal_on: no lock, some 15 instructions. word and counts: the frame's,
 * as they shall stand in it. */
static always_inline void journal(enum journal_op op, const void *caller, uint64_t va,
                                  uint64_t word, uint64_t counts, uint32_t count)
{
    struct journal_event *event;
    uint64_t seq;

    if (unlikely(mm.journal_on != 1))
        return;
    seq = __atomic_fetch_add(&mm.journal_seq, JOURNAL_STEP, __ATOMIC_RELAXED);
    event = (struct journal_event *)cpu_journal_at(seq & (JOURNAL_BYTES - 1));
    event->seq = seq;
    event->caller = (uintptr_t)caller;
    event->va = va;
    __builtin_memcpy((char *)event + offsetof(struct journal_event, va) + 8, &word, sizeof(word));
    __builtin_memcpy(&event->refcount, &counts, sizeof(counts));
    event->op = op;
    event->count = count;
}

/* An event of a mapping of the frame at va, for code that is not in a hurry: what is left of its
 * refs. map_lock is held, what the operation released has not been committed. */
void journal_mapped(enum journal_op op, const void *caller, struct space *space, vaddr_t va,
                    frame_t *frame);
/* The same of pages [offset, offset + 2^order) of the frame. */
void journal_part(enum journal_op op, const void *caller, struct space *space, vaddr_t va,
                  frame_t *frame, uint64_t offset, unsigned order);

/* Who called the function that this stands in. */
#define CALLER __builtin_return_address(0)
/* In what is inlined in a public function `caller` is NULL: its return address is read when it is
 * needed, for a register kept for it all the way would have to be saved. */
#define CALLER_OF(caller) ((caller) ? (caller) : CALLER)

/* Empties the rings; the next event is the first. */
void journal_reset(void);
/* Calls fn for the events, oldest first, until it returns non-zero, which is returned. A ring that
 * can't be read is left out. */
typedef int (*event_fn)(const struct journal_event *event, unsigned cpu, void *arg);
int journal_each(event_fn fn, void *arg);
/* Prints the last events that name va's page, or the frame that was last mapped there. */
void journal_print_page(vaddr_t va);
/* Prints the last `count` events (0: all), oldest first. */
void journal_print(unsigned count);
/* "get", "put", ...; "?" for a number that is no operation. */
const char *journal_op_name(unsigned op);
