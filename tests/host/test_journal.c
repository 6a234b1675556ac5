// SPDX-License-Identifier: BSD-2-Clause
// The journal: one event per operation, in order, the last ones kept, and none while it is off.
#include "mm/journal.h"

#include "tests/host/support.h"

struct seen {
    unsigned count;
    uint64_t last_seq;
    bool ordered;
    struct journal_event last;
};

static int see(const struct journal_event *event, unsigned cpu, void *arg)
{
    struct seen *s = arg;

    s->ordered &= cpu == 0 && event->seq > s->last_seq;
    s->last_seq = event->seq;
    if (event->op != JOURNAL_SPLIT && event->op != JOURNAL_MERGE) // of the manager's own frames
        s->last = *event;
    s->count++;
    return 0;
}

static struct seen look(void)
{
    struct seen s = {.ordered = true};

    CHECK(journal_each(see, &s) == 0);
    CHECK(s.ordered);
    return s;
}

static struct journal_event last(enum journal_op op, const frame_t *frame)
{
    struct journal_event e = look().last;

    SAME(e.op, op);
    SAME(e.mfn, frame->mfn);
    SAME(e.order, frame->order);
    CHECK(e.caller);
    return e;
}

static void counts(const struct journal_event *e, uint32_t refcount, uint32_t mapcount,
                   uint32_t count)
{
    SAME(e->refcount, refcount);
    SAME(e->mapcount, mapcount);
    SAME(e->count, count);
}

static void contents(void)
{
    struct journal_event e;
    frame_t *f, *g;

    machine_boot(64 * MIB);
    OK(get_frame(0, &g));
    OK(get_frame(0, &f));
    e = last(JOURNAL_GET, f);
    counts(&e, 1, 0, 0);
    OK(ref_frame(f));
    e = last(JOURNAL_REF, f);
    counts(&e, 2, 0, 0);
    for (uint32_t i = 1; i <= 3; i++) { // slow, then fast
        OK(vmap_4k(NULL, VADDR(VA_DEVICES), f, VATTR_W));
        e = last(JOURNAL_MAP, f);
        counts(&e, 2, i, i);
        SAME(e.va, VA_DEVICES);
    }
    OK(vput(NULL, VADDR(VA_DEVICES), f));
    e = last(JOURNAL_UNMAP, f);
    counts(&e, 2, 2, 2);
    OK(vunmap(NULL, VADDR(VA_DEVICES), f));
    e = last(JOURNAL_UNMAP, f);
    counts(&e, 2, 0, 0);
    SAME(e.va, VA_DEVICES);
    OK(put_frame(f));
    e = last(JOURNAL_PUT, f);
    counts(&e, 1, 0, 0);
}

// Parts and ranges are noted as the pages that they are.
static void parts(void)
{
    frame_t *f, *small[2];
    struct journal_event e;

    machine_boot(64 * MIB);
    OK(get_frame(4, &f));
    OK(vmap_part(NULL, VADDR(VA_DEVICES), f, 6, 1, VATTR_W));
    e = look().last;
    SAME(e.op, JOURNAL_MAP);
    SAME(e.mfn, f->mfn + 6);
    SAME(e.order, 1);
    counts(&e, 1, 1, 1);
    OK(vunmap_part(NULL, VADDR(VA_DEVICES), f, 6, 1));
    e = look().last;
    SAME(e.op, JOURNAL_UNMAP);
    SAME(e.mfn, f->mfn + 6);
    SAME(e.order, 1);
    OK(vmap_range(NULL, VADDR(VA_DEVICES), f, 3, 5, VATTR_W));
    e = look().last;
    SAME(e.op, JOURNAL_MAP_RANGE);
    SAME(e.mfn, f->mfn + 3);
    SAME(e.count, 5);
    OK(vunmap_range(NULL, VADDR(VA_DEVICES), f, 3, 5));
    SAME(look().last.op, JOURNAL_PUT_RANGE);
    SAME(look().last.mfn, f->mfn + 3);
    OK(get_frame(1, &small[0]));
    OK(get_frame(2, &small[1]));
    OK(vmap_frames(NULL, VADDR(VA_DEVICES), small, 2, VATTR_W));
    e = last(JOURNAL_MAP_FRAMES, small[0]);
    SAME(e.count, 6); // pages
    OK(vput_frames(NULL, VADDR(VA_DEVICES), small, 2));
    e = last(JOURNAL_PUT_FRAMES, small[0]);
    SAME(e.count, 6);
}

static void wraps(void)
{
    uint64_t seq;
    frame_t *f;

    machine_boot(64 * MIB);
    OK(get_frame(0, &f));
    seq = look().last_seq;
    for (unsigned i = 0; i < 3 * JOURNAL_EVENTS + 5; i++)
        OK(ref_frame(f));
    SAME(look().count, JOURNAL_EVENTS);
    SAME(look().last_seq, seq + (3 * JOURNAL_EVENTS + 5) * (uint64_t)JOURNAL_STEP);
}

static void off(void)
{
    uint64_t seq;
    frame_t *f;

    machine_boot(64 * MIB);
    mm.journal_on = 0;
    seq = look().last_seq;
    OK(get_frame(0, &f));
    OK(vmap_4k(NULL, VADDR(VA_DEVICES), f, VATTR_W));
    OK(vunmap(NULL, VADDR(VA_DEVICES), f));
    SAME(look().last_seq, seq);
    journal_reset();
    SAME(look().count, 0);
    mm.journal_on = 1;
    OK(put_frame(f));
    SAME(look().count > 0, 1);
}

static void refusals_leave_none(void)
{
    uint64_t seq;
    frame_t *f;

    machine_boot(64 * MIB);
    OK(get_frame(0, &f));
    seq = look().last_seq;
    RETURNS(-EALIGN, vmap_4k(NULL, VADDR(VA_DEVICES + 1), f, VATTR_W));
    RETURNS(-ENOENT, vput(NULL, VADDR(VA_DEVICES), f));
    SAME(look().last_seq, seq);
}

// What a panic prints of a page: who unmapped it, however often its frame has split and merged
// since.
static void page(void)
{
    vaddr_t va = VADDR(VA_DEVICES);
    uint64_t mfn;
    frame_t *f;

    machine_boot(64 * MIB);
    do
        OK(get_frame(0, &f));
    while (f->mfn % 64); // the others of the block are free
    mfn = f->mfn;
    OK(vmap_4k(NULL, va, f, VATTR_W));
    OK(vunmap(NULL, va, f));
    for (unsigned i = 0; i < 3; i++) {
        OK(put_frame(f));
        OK(get_frame(0, &f));
        SAME(f->mfn, mfn);
    }
    machine.said_bytes = 0;
    journal_print_page(va);
    CHECK(machine_said(" map mfn"));
    CHECK(machine_said(" unmap mfn"));
    CHECK(machine_said(" put mfn"));
    CHECK(!machine_said(" merge mfn"));
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"journal_contents", contents}, {"journal_parts", parts},
        {"journal_page", page},         {"journal_wraps", wraps},
        {"journal_off", off},           {"journal_refusals_leave_none", refusals_leave_none},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
