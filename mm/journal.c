// SPDX-License-Identifier: BSD-2-Clause
// The journal's rings, read in the order of all CPUs.
#include "mm/journal.h"

#include "lib/printk.h"
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "mm/vmap_internal.h"

enum {
    PAGE_EVENTS = 12, // that a panic prints
};

static struct journal_event boot_ring[JOURNAL_EVENTS] __attribute__((aligned(PAGE_SIZE)));
struct journal_event *journal_ring[JOURNAL_CPUS] = {boot_ring};

#ifdef KTF_HOST
uint64_t cpu_journal(void)
{
    return (uintptr_t)boot_ring;
}

static int probe_read(vaddr_t va, uint64_t *out)
{
    *out = *(const uint64_t *)vaddr_ptr(va);
    return 0;
}
#endif

// The frame's mapcount is still to lose these.
static uint64_t pending_refs(const frame_t *frame)
{
    uint64_t refs = 0;

    for (uint32_t i = mm.batch.records; i; i = mapping_at(i)->next)
        refs += mapping_at(i)->prev == frame_index(frame) ? mapping_at(i)->refs : 0;
    return refs;
}

void journal_part(enum journal_op op, const void *caller, space_t *space, vaddr_t va,
                  frame_t *frame, uint64_t offset, unsigned order)
{
    uint64_t counts = frame_counts(frame) - (pending_refs(frame) << COUNT_MAP_SHIFT);
    struct vlookup at;
    int err = vmap_lookup_locked(space, va, &at);

    journal(op, caller, va.v, part_word(frame, offset, order), counts, err ? 0 : at.refs);
}

void journal_mapped(enum journal_op op, const void *caller, space_t *space, vaddr_t va,
                    frame_t *frame)
{
    journal_part(op, caller, space, va, frame, 0, frame->order);
}

void journal_reset(void)
{
    for (unsigned c = 0; c < JOURNAL_CPUS; c++)
        if (journal_ring[c])
            memset(journal_ring[c], 0, JOURNAL_BYTES);
    mm.journal_seq = JOURNAL_STEP;
}

const char *journal_op_name(unsigned op)
{
    static const char *const name[JOURNAL_OP_COUNT] = {
        "none",       "get",        "ref",          "put",           "map",   "unmap",
        "protect",    "map range",  "put range",    "split",         "merge", "shootdown",
        "map frames", "put frames", "space create", "space destroy",
    };

    return op < JOURNAL_OP_COUNT ? name[op] : "?";
}

// The rings that can be read: a panic may be about this very memory.
struct rings {
    const struct journal_event *of[JOURNAL_CPUS]; // NULL: none
};

static struct rings find_rings(void)
{
    struct rings rings = {{NULL}};

    for (unsigned c = 0; c < JOURNAL_CPUS; c++) {
        const char *ring = (const char *)journal_ring[c];
        uint64_t word, at = 0;

        while (ring && at < JOURNAL_BYTES && !probe_read(ptr_vaddr(ring + at), &word))
            at += PAGE_SIZE;
        rings.of[c] = at == JOURNAL_BYTES ? journal_ring[c] : NULL;
    }
    return rings;
}

// The number that stands, or once stood, at the first place of the rings when the first event with
// a number in [from, end) was written; `end` if there is none.
static uint64_t next_lap(const struct rings *rings, uint64_t from, uint64_t end)
{
    uint64_t first = end;

    for (unsigned c = 0; c < JOURNAL_CPUS; c++) {
        for (unsigned i = 0; rings->of[c] && i < JOURNAL_EVENTS; i++) {
            uint64_t seq = rings->of[c][i].seq;

            if (seq >= from && seq < first)
                first = seq;
        }
    }
    return first == end ? end : first & ~(uint64_t)(JOURNAL_BYTES - 1);
}

// All rings once around: the events of a lap stand at their places in their order.
static int each_of_lap(const struct rings *rings, uint64_t lap, uint64_t end, event_fn fn,
                       void *arg)
{
    for (unsigned i = 0; i < JOURNAL_EVENTS && lap + i * JOURNAL_STEP < end; i++) {
        for (unsigned c = 0; c < JOURNAL_CPUS; c++) {
            const struct journal_event *e = rings->of[c] ? &rings->of[c][i] : NULL;
            int stop = e && e->seq && e->seq == lap + i * JOURNAL_STEP ? fn(e, c, arg) : 0;

            if (stop)
                return stop;
        }
    }
    return 0;
}

int journal_each(event_fn fn, void *arg)
{
    uint64_t end = mm.journal_seq; // the events that fn itself adds are left out
    struct rings rings = find_rings();
    uint64_t lap = next_lap(&rings, JOURNAL_STEP, end);
    int stop = 0;

    while (!stop && lap < end) {
        stop = each_of_lap(&rings, lap, end, fn, arg);
        if (lap + JOURNAL_BYTES < lap)
            break;
        lap = next_lap(&rings, lap + JOURNAL_BYTES, end);
    }
    return stop;
}

struct counting {
    unsigned total;
    unsigned skip;
};

static int count_event(const struct journal_event *event, unsigned cpu, void *arg)
{
    struct counting *c = arg;

    (void)event;
    (void)cpu;
    c->total++;
    return 0;
}

static void print_one(const struct journal_event *e, unsigned cpu)
{
    printk("%lu cpu%u %s mfn 0x%lx order %u", e->seq / JOURNAL_STEP, cpu, journal_op_name(e->op),
           (uint64_t)e->mfn, (unsigned)e->order);
    if (e->va)
        printk(" va 0x%lx", e->va);
    printk(" count %u: refcount %u mapcount %u, by 0x%lx\n", e->count, e->refcount, e->mapcount,
           e->caller);
}

static int print_event(const struct journal_event *e, unsigned cpu, void *arg)
{
    struct counting *c = arg;

    if (c->skip)
        c->skip--;
    else
        print_one(e, cpu);
    return 0;
}

// A page, the frame that was last seen there, and the last events that are about either.
struct about {
    uint64_t va;
    uint64_t mfn;
    uint64_t seen; // number of the event that named the frame, 0: it is not known
    unsigned total, kept;
    struct {
        const struct journal_event *event;
        unsigned cpu;
    } last[PAGE_EVENTS]; // newest first
};

static bool names_va(const struct journal_event *e, uint64_t va)
{
    bool range = e->op == JOURNAL_MAP_RANGE || e->op == JOURNAL_PUT_RANGE;
    uint64_t pages = range ? e->count : UINT64_C(1) << e->order;

    return e->va && va - e->va < pages * PAGE_SIZE;
}

static void find_frame(const struct journal_event *e, unsigned cpu, struct about *about)
{
    (void)cpu;
    if (e->seq > about->seen && e->kind && names_va(e, about->va)) {
        about->seen = e->seq;
        about->mfn = e->mfn;
    }
}

// Of a free page, which splits and merges many times between a put and a get: that would push out
// who mapped and unmapped it.
static bool only_moves(const struct journal_event *e)
{
    return (e->op == JOURNAL_SPLIT || e->op == JOURNAL_MERGE) && !e->refcount && !e->mapcount;
}

static void keep_last(const struct journal_event *e, unsigned cpu, struct about *about)
{
    unsigned at;

    if (only_moves(e))
        return;
    if (!names_va(e, about->va) && !(about->seen && e->kind && e->mfn == about->mfn))
        return;
    about->total++;
    if (about->kept < PAGE_EVENTS)
        about->kept++;
    else if (e->seq < about->last[PAGE_EVENTS - 1].event->seq)
        return;
    for (at = about->kept - 1; at && about->last[at - 1].event->seq < e->seq; at--)
        about->last[at] = about->last[at - 1];
    about->last[at].event = e;
    about->last[at].cpu = cpu;
}

// In no order, so that a panic does not take long, whatever the size of the rings.
static void scan(const struct rings *rings, struct about *about,
                 void (*fn)(const struct journal_event *e, unsigned cpu, struct about *about))
{
    for (unsigned c = 0; c < JOURNAL_CPUS; c++)
        for (unsigned i = 0; rings->of[c] && i < JOURNAL_EVENTS; i++)
            if (rings->of[c][i].seq)
                fn(&rings->of[c][i], c, about);
}

void journal_print_page(vaddr_t va)
{
    struct about about = {.va = va.v & ~(uint64_t)(PAGE_SIZE - 1)};
    struct rings rings = find_rings();

    scan(&rings, &about, find_frame);
    scan(&rings, &about, keep_last);
    printk("the journal has %u events of 0x%lx%s\n", about.total, about.va,
           about.total > PAGE_EVENTS ? ", the last ones are"
           : about.total             ? ":"
                                     : "");
    for (unsigned i = about.kept; i > 0; i--)
        print_one(about.last[i - 1].event, about.last[i - 1].cpu);
}

void journal_print(unsigned count)
{
    struct counting c = {0, 0};

    (void)journal_each(count_event, &c);
    c.skip = count && c.total > count ? c.total - count : 0;
    (void)journal_each(print_event, &c);
}
