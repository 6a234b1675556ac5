// SPDX-License-Identifier: BSD-2-Clause
// The journal's rings, read in the order of all CPUs.
#include "mm/journal.h"

#include "lib/printk.h"
#include "lib/string.h"
#include "mm/internal.h"

enum {
    PAGE_EVENTS = 12, // that a panic prints
};

struct journal_ring journal_ring[JOURNAL_CPUS];

#ifdef KTF_HOST
uint64_t cpu_journal(void)
{
    return (uintptr_t)&journal_ring[0];
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
    memset(journal_ring, 0, sizeof(journal_ring));
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

// The event with the lowest number of at least `from`; NULL if there is none. *cpu: whose it is.
static const struct journal_event *event_from(uint64_t from, unsigned *cpu)
{
    const struct journal_event *first = NULL;

    for (unsigned c = 0; c < JOURNAL_CPUS; c++) {
        for (unsigned i = 0; i < JOURNAL_EVENTS; i++) {
            const struct journal_event *e = &journal_ring[c].event[i];

            if (e->seq < from || (first && e->seq >= first->seq))
                continue;
            first = e;
            *cpu = c;
        }
    }
    return first;
}

int journal_each(int (*fn)(const struct journal_event *event, unsigned cpu, void *arg), void *arg)
{
    uint64_t end = mm.journal_seq; // what fn itself adds is not told
    const struct journal_event *event;
    unsigned cpu = 0;
    int stop = 0;

    for (uint64_t from = JOURNAL_STEP; !stop && (event = event_from(from, &cpu));) {
        if (event->seq >= end)
            break;
        from = event->seq + JOURNAL_STEP;
        stop = fn(event, cpu, arg);
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

// A page, and the frame that was last seen there.
struct about {
    uint64_t va;
    uint64_t mfn;
    bool known; // the frame
    struct counting counting;
};

static bool names_va(const struct journal_event *e, uint64_t va)
{
    bool range = e->op == JOURNAL_MAP_RANGE || e->op == JOURNAL_PUT_RANGE;
    uint64_t pages = range ? e->count : UINT64_C(1) << e->order;

    return e->va && va - e->va < pages * PAGE_SIZE;
}

static int find_frame(const struct journal_event *e, unsigned cpu, void *arg)
{
    struct about *about = arg;

    (void)cpu;
    if (names_va(e, about->va) && e->kind) {
        about->mfn = e->mfn;
        about->known = true;
    }
    return 0;
}

static bool is_about(const struct journal_event *e, const struct about *about)
{
    return names_va(e, about->va) || (about->known && e->kind && e->mfn == about->mfn);
}

static int count_about(const struct journal_event *e, unsigned cpu, void *arg)
{
    struct about *about = arg;

    return is_about(e, about) ? count_event(e, cpu, &about->counting) : 0;
}

static int print_about(const struct journal_event *e, unsigned cpu, void *arg)
{
    struct about *about = arg;

    return is_about(e, about) ? print_event(e, cpu, &about->counting) : 0;
}

void journal_print_page(vaddr_t va)
{
    struct about about = {.va = va.v & ~(uint64_t)(PAGE_SIZE - 1)};
    unsigned total;

    (void)journal_each(find_frame, &about);
    (void)journal_each(count_about, &about);
    total = about.counting.total;
    about.counting.skip = total > PAGE_EVENTS ? total - PAGE_EVENTS : 0;
    printk("the journal has %u events of 0x%lx%s\n", total, about.va,
           about.counting.skip ? ", the last ones are"
           : total             ? ":"
                               : "");
    (void)journal_each(print_about, &about);
}

void journal_print(unsigned count)
{
    struct counting c = {0, 0};

    (void)journal_each(count_event, &c);
    c.skip = count && c.total > count ? c.total - count : 0;
    (void)journal_each(print_event, &c);
}
