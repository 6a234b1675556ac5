// SPDX-License-Identifier: BSD-2-Clause
// The stress test's operations: what callers do, at random, with what they were given.
#include "arch/x86/park.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/kmalloc/kmalloc.h"
#include "tests/guest/stress.h"

#define KERNEL_AREA (VA_VMAP + 0x4000000000)
#define USER_AREA   0x10000000000
#define COMMON_VA   (KERNEL_AREA + 0x3f00000000)

enum {
    WATCH_SLOT = SLOTS, // slots of their own beside the worker's table
    RANGE_SLOT,
    SPLIT_SLOT,
    AREA_SHIFT = 32, // of virtual memory for each worker
    SLOT_SHIFT = 23,
    HOARD = 4096,
    HOARD_OPS = 100, // done without memory
};

// Out of memory is an answer; anything else but 0 is not.
static bool good(const char *what, int err)
{
    if (err == -ENOMEM)
        __atomic_fetch_add(&stress.shortages, 1, __ATOMIC_RELAXED);
    else if (err)
        stress_fail(what, err);
    return err == 0;
}

static uint32_t rnd(struct worker *w, uint32_t n)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (uint32_t)(w->random * UINT64_C(0x2545f4914f6cdd1d) >> 33) % n;
}

static vaddr_t slot_va(const struct worker *w, unsigned slot, const space_t *space)
{
    uint64_t base = space ? USER_AREA : KERNEL_AREA;

    return VADDR(base + ((uint64_t)w->number << AREA_SHIFT) + ((uint64_t)slot << SLOT_SHIFT));
}

static unsigned attr_in(const space_t *space)
{
    return space ? VATTR_W | VATTR_U : VATTR_W;
}

vaddr_t stress_watched_va(const struct worker *w)
{
    return slot_va(w, WATCH_SLOT, NULL);
}

/* --- frames, and blocks mapped as a whole ----------------------------------------------------- */

static uint64_t tag(const struct worker *w, const frame_t *frame)
{
    return frame->mfn << 8 | w->number;
}

static uint64_t *tag_at(const struct worker *w, unsigned slot)
{
    return vaddr_ptr(slot_va(w, slot, NULL));
}

static void op_get(struct worker *w)
{
    frame_t **at = &w->frame[rnd(w, FRAMES)];
    unsigned order = rnd(w, 50) ? rnd(w, 5) : ORDER_2M;

    if (*at) {
        if (good("put_frame", put_frame(*at)))
            *at = NULL;
    } else if (!good("get_frame", get_frame(order, at))) {
        *at = NULL;
    }
}

static void op_map(struct worker *w)
{
    unsigned number = rnd(w, SLOTS);
    struct slot *s = &w->slot[number];
    frame_t *own = w->frame[rnd(w, FRAMES)];
    uint32_t where = rnd(w, 8);

    if (s->frame)
        return;
    s->space = where == 0 ? NULL : where < 3 ? stress.space[where - 1] : w->own_space;
    s->own = own != NULL;
    s->frame = own ? own : stress.frame[rnd(w, SHARED_FRAMES)];
    s->refs = 1;
    if (!good("vmap", vmap(s->space, slot_va(w, number, s->space), s->frame, attr_in(s->space))))
        s->frame = NULL;
    else if (s->own && !s->space)
        *tag_at(w, number) = tag(w, s->frame);
}

static void op_again(struct worker *w, unsigned number)
{
    struct slot *s = &w->slot[number];
    vaddr_t va = slot_va(w, number, s->space);

    if (good("vmap again", vmap(s->space, va, s->frame, attr_in(s->space))))
        s->refs++;
}

static void op_unmap(struct worker *w, unsigned number, bool all)
{
    struct slot *s = &w->slot[number];
    vaddr_t va = slot_va(w, number, s->space);
    struct vlookup at;

    if (s->own && !s->space && *tag_at(w, number) != tag(w, s->frame))
        stress_fail("a page is not what was written there", 0);
    if (vmap_lookup(s->space, va, &at) || at.frame != s->frame || at.refs != s->refs)
        stress_fail("a look-up says something else", 0);
    if (!good("vunmap", all ? vunmap(s->space, va, s->frame) : vput(s->space, va, s->frame)))
        return;
    if (all || --s->refs == 0)
        s->frame = NULL;
}

// One page of a block loses a right, and gets it back.
static void op_protect(struct worker *w, unsigned number)
{
    struct slot *s = &w->slot[number];
    uint64_t page = rnd(w, 1u << s->frame->order);
    vaddr_t va = VADDR(slot_va(w, number, s->space).v + page * PAGE_SIZE);
    unsigned attr = attr_in(s->space);

    if (good("vprotect_part", vprotect_part(s->space, va, s->frame, page, 0, attr & ~VATTR_W)) &&
        vprotect_part(s->space, va, s->frame, page, 0, attr))
        stress_fail("vprotect_part back", 0);
}

static void op_slot(struct worker *w)
{
    unsigned number = rnd(w, SLOTS);

    if (!w->slot[number].frame)
        return;
    switch (rnd(w, 4)) {
    case 0:
        op_again(w, number);
        break;
    case 1:
        op_protect(w, number);
        break;
    default:
        op_unmap(w, number, rnd(w, 3) == 0);
    }
}

// The same frame at the same address as others: counted up and down.
static void op_common(struct worker *w)
{
    unsigned i = rnd(w, SHARED_FRAMES);
    vaddr_t va = VADDR(COMMON_VA + ((uint64_t)i << SLOT_SHIFT));

    if (!good("vmap in common", vmap_kern(va, stress.frame[i], VATTR_W)))
        return;
    if (good("ref_frame", ref_frame(stress.frame[i])))
        good("put_frame in common", put_frame(stress.frame[i]));
    good("vput in common", vput(NULL, va, stress.frame[i]));
}

/* --- ranges and parts ------------------------------------------------------------------------- */

// A range over part of a block, taken away in two parts.
static void op_range(struct worker *w)
{
    space_t *space = rnd(w, 8) ? w->own_space : NULL;
    vaddr_t va = slot_va(w, RANGE_SLOT, space);
    frame_t *frame = w->frame[rnd(w, FRAMES)];
    uint64_t pages, first, cut;

    if (!frame || frame->order < 2)
        return;
    first = rnd(w, 2);
    pages = frame_pages(frame) - first - rnd(w, 2);
    cut = 1 + rnd(w, (uint32_t)pages - 1);
    if (!good("vmap_range", vmap_range(space, va, frame, first, pages, attr_in(space))))
        return;
    if (good("vunmap_range", vunmap_range(space, va, frame, first, cut)))
        good("vput_range",
             vput_range(space, VADDR(va.v + cut * PAGE_SIZE), frame, first + cut, pages - cut));
    else if (vunmap_range(space, va, frame, first, pages))
        stress_fail("vunmap_range after -ENOMEM", 0);
}

// What is mapped at the page before, at the hole, and behind it.
static bool hole_is_right(space_t *space, vaddr_t va, uint64_t first, uint64_t pages)
{
    uint64_t at[] = {first - 1, first, first + pages - 1, first + pages};
    struct vlookup found;

    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        bool mapped = at[i] < first || at[i] >= first + pages;

        if (at[i] >= UINT64_C(1) << ORDER_2M)
            continue;
        if (mapped != !vmap_lookup(space, VADDR(va.v + at[i] * PAGE_SIZE), &found))
            return false;
        if (mapped && (found.offset != at[i] || found.level != 1))
            return false;
    }
    return true;
}

// A large page loses a part, which splits it, and gets it back at times; then all goes.
static void split(struct worker *w, space_t *space, frame_t *frame)
{
    vaddr_t va = slot_va(w, SPLIT_SLOT, space);
    unsigned order = rnd(w, ORDER_2M);
    uint64_t pages = UINT64_C(1) << order, all = UINT64_C(1) << ORDER_2M;
    uint64_t first = rnd(w, (uint32_t)(all >> order)) << order, end = first + pages;
    vaddr_t at = VADDR(va.v + first * PAGE_SIZE);

    if (!good("vmap_2m", vmap_2m(space, va, frame, attr_in(space))))
        return;
    if (good("vunmap_part", vunmap_part(space, at, frame, first, order))) {
        if (!hole_is_right(space, va, first, pages))
            stress_fail("a large page's part is not what was unmapped", 0);
        if (!rnd(w, 2) ||
            !good("vmap_part", vmap_part(space, at, frame, first, order, attr_in(space)))) {
            if ((first && vunmap_range(space, va, frame, 0, first)) ||
                (end < all &&
                 vunmap_range(space, VADDR(va.v + end * PAGE_SIZE), frame, end, all - end)))
                stress_fail("what is left of a large page can't be unmapped", 0);
            return;
        }
    }
    if (vunmap_range(space, va, frame, 0, all))
        stress_fail("a large page can't be unmapped", 0);
}

static void op_split(struct worker *w)
{
    frame_t *frame;

    if (!good("get_frame 2M", get_frame(ORDER_2M, &frame)))
        return;
    split(w, rnd(w, 3) ? w->own_space : NULL, frame);
    good("put_frame 2M", put_frame(frame));
}

/* --- address spaces --------------------------------------------------------------------------- */

static void switch_to(struct worker *w, space_t *space)
{
    if (good("space_switch", space_switch(space)))
        w->loaded = space;
}

// The worker's own space goes with all that is mapped in it, and a new one comes.
static void op_space(struct worker *w)
{
    space_t *space;

    if (!good("space_create", space_create("own", &space)))
        return;
    if (w->loaded != kernel_space())
        switch_to(w, kernel_space());
    if (w->own_space && good("space_destroy", space_destroy(w->own_space)))
        for (unsigned i = 0; i < SLOTS; i++)
            if (w->slot[i].frame && w->slot[i].space == w->own_space)
                w->slot[i].frame = NULL;
    w->own_space = space;
}

static void op_switch(struct worker *w)
{
    uint32_t which = rnd(w, 4);

    switch_to(w, which == 0 ? kernel_space() : which == 1 ? w->own_space : stress.space[which - 2]);
}

/* --- kmalloc ---------------------------------------------------------------------------------- */

static void free_object(struct object *o)
{
    for (uint32_t i = 0; i < o->bytes; i++)
        if (o->at[i] != o->fill) {
            stress_fail("an object is not what was written there", 0);
            break;
        }
    good("kfree", kfree(o->at));
    o->at = NULL;
}

static void op_kmalloc(struct worker *w)
{
    struct object *o = &w->object[rnd(w, OBJECTS)];

    if (o->at) {
        free_object(o);
        return;
    }
    o->bytes = 1 + rnd(w, rnd(w, 20) ? 300 : 20000);
    o->fill = (uint8_t)rnd(w, 256);
    o->at = kmalloc(o->bytes);
    if (o->at)
        memset(o->at, o->fill, o->bytes);
    else
        good("kmalloc", -ENOMEM);
}

/* --- a page that the watcher reads all the time ----------------------------------------------- */

// Until the watcher has read the page, or has faulted on it.
static void wait_seen(struct worker *w)
{
    cpu_unpark(stress.watcher);
    while (stress_load(&w->seen) != w->watched && !stress_load(&stress.failures))
        cpu_park();
}

static void op_watched(struct worker *w)
{
    vaddr_t va = stress_watched_va(w);
    bool owner_first = rnd(w, 2); // then the unmapping frees it
    frame_t *frame = NULL;

    if (!stress.watcher || !good("get_frame watched", get_frame(0, &frame)))
        return;
    __atomic_fetch_add(&w->watched, 1, __ATOMIC_SEQ_CST);
    if (good("vmap watched", vmap_kern(va, frame, VATTR_W))) {
        wait_seen(w);
        if (owner_first)
            good("put_frame watched", put_frame(frame));
        if (vunmap(NULL, va, frame))
            stress_fail("a watched page stays", 0);
    } else {
        owner_first = false;
    }
    __atomic_fetch_add(&w->watched, 1, __ATOMIC_SEQ_CST);
    wait_seen(w);
    if (!owner_first)
        good("put_frame watched", put_frame(frame));
}

/* --- all of it -------------------------------------------------------------------------------- */

void stress_one(struct worker *w)
{
    static const struct {
        uint32_t share; // of a thousand
        void (*run)(struct worker *w);
    } ops[] = {
        {310, op_get},   {270, op_map},   {270, op_slot}, {30, op_range}, {50, op_kmalloc},
        {30, op_common}, {20, op_switch}, {10, op_split}, {5, op_space},  {5, op_watched},
    };
    uint32_t what = rnd(w, 1000);
    unsigned i = 0;

    while (what >= ops[i].share)
        what -= ops[i++].share;
    ops[i].run(w);
}

// As many blocks as there are, the largest first.
static uint32_t take_all(frame_t **hoard)
{
    unsigned order = ORDER_MAX;
    uint32_t count = 0;

    while (count < HOARD) {
        if (get_frame(order, &hoard[count]) == 0)
            count++;
        else if (order)
            order--;
        else
            break;
    }
    return count;
}

void stress_exhaust(struct worker *w)
{
    static frame_t *hoard[HOARD];
    static uint32_t taken; // by the one worker that hoards at a time
    uint32_t count;

    if (__atomic_exchange_n(&taken, 1, __ATOMIC_SEQ_CST))
        return;
    count = take_all(hoard);
    for (unsigned i = 0; i < HOARD_OPS && !stress_load(&stress.failures); i++)
        stress_one(w);
    while (count--)
        good("put_frame of the hoard", put_frame(hoard[count]));
    __atomic_store_n(&taken, 0, __ATOMIC_SEQ_CST);
}

void stress_begin(struct worker *w)
{
    w->loaded = kernel_space();
    op_space(w);
    if (!w->own_space)
        stress_fail("no memory for the first space", -ENOMEM);
}

void stress_end(struct worker *w)
{
    switch_to(w, kernel_space());
    for (unsigned i = 0; i < SLOTS; i++)
        if (w->slot[i].frame)
            op_unmap(w, i, true);
    for (unsigned i = 0; i < FRAMES; i++)
        if (w->frame[i])
            good("put_frame at the end", put_frame(w->frame[i]));
    for (unsigned i = 0; i < OBJECTS; i++)
        if (w->object[i].at)
            free_object(&w->object[i]);
    good("space_destroy at the end", space_destroy(w->own_space));
}
