// SPDX-License-Identifier: BSD-2-Clause
// All CPUs at once do what callers do, at random; the last of three or more watches pages go.
// stress-ops=N operations on each CPU, stress-seed=N; without them a short run.
#include "arch/x86/probe.h"
#include "arch/x86/smp.h"
#include "arch/x86/tlb.h"
#include "boot/cmdline.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

#define KERNEL_AREA (VA_VMAP + 0x4000000000)
#define USER_AREA   0x10000000000
#define COMMON_VA   (KERNEL_AREA + 0x3f00000000)

enum {
    WORKERS_MAX = 16,
    FRAMES = 24,
    SLOTS = 32,
    SHARED_FRAMES = 16,
    SHARED_SPACES = 2,
    OPS_SHORT = 400,
    STOPS = 4, // how often all are parked for mm_check()
    WATCH_SLOT = SLOTS,
    AREA_SHIFT = 32, // of virtual memory for each worker
    SLOT_SHIFT = 23,
};

// One place where a worker may map something.
struct slot {
    space_t *space; // NULL: the kernel's
    frame_t *frame; // NULL: nothing is mapped
    uint32_t refs;
    bool own; // no other worker maps the frame: its tag is there
};

struct worker {
    uint64_t random;
    uint32_t number;
    uint32_t ops;
    frame_t *frame[FRAMES];
    struct slot slot[SLOTS];
    space_t *own_space, *loaded;
    // Odd while the watched page may be mapped; counts up.
    uint32_t watched, seen;
    uint64_t done;
};

static struct worker workers[WORKERS_MAX];
static space_t *shared_space[SHARED_SPACES];
static frame_t *shared_frame[SHARED_FRAMES];
static uint32_t worker_count, arrived, released, stop, stale, failures;
static const char *failed_what;
static int failed_err;

static uint32_t load(const uint32_t *at)
{
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}

static void fail(const char *what, int err)
{
    if (__atomic_fetch_add(&failures, 1, __ATOMIC_SEQ_CST))
        return;
    failed_what = what;
    failed_err = err;
}

// Out of memory is an answer; anything else but 0 is not.
static bool good(const char *what, int err)
{
    if (err && err != -ENOMEM)
        fail(what, err);
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

static unsigned slot_attr(const struct slot *s)
{
    return s->space ? VATTR_W | VATTR_U : VATTR_W;
}

/* --- the operations
 * ------------------------------------------------------------------------------ */

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
    s->space = where == 0 ? NULL : where < 3 ? shared_space[where - 1] : w->own_space;
    s->own = own != NULL;
    s->frame = own ? own : shared_frame[rnd(w, SHARED_FRAMES)];
    s->refs = 1;
    if (!good("vmap", vmap(s->space, slot_va(w, number, s->space), s->frame, slot_attr(s))))
        s->frame = NULL;
    else if (s->own && !s->space)
        *tag_at(w, number) = tag(w, s->frame);
}

static void op_again(struct worker *w, unsigned number)
{
    struct slot *s = &w->slot[number];

    if (good("vmap again", vmap(s->space, slot_va(w, number, s->space), s->frame, slot_attr(s))))
        s->refs++;
}

static void op_unmap(struct worker *w, unsigned number, bool all)
{
    struct slot *s = &w->slot[number];
    vaddr_t va = slot_va(w, number, s->space);
    struct vlookup at;

    if (s->own && !s->space && *tag_at(w, number) != tag(w, s->frame))
        fail("a page is not what was written there", 0);
    if (!vmap_lookup(s->space, va, &at) && (at.frame != s->frame || at.refs != s->refs))
        fail("a look-up says something else", 0);
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
    unsigned attr = slot_attr(s);

    if (good("vprotect_part", vprotect_part(s->space, va, s->frame, page, 0, attr & ~VATTR_W)) &&
        vprotect_part(s->space, va, s->frame, page, 0, attr))
        fail("vprotect_part back", 0);
}

// A range over part of a block, taken away in two parts.
static void op_range(struct worker *w)
{
    space_t *space = rnd(w, 8) ? w->own_space : NULL;
    vaddr_t va = slot_va(w, SLOTS + 1, space);
    frame_t *frame = w->frame[rnd(w, FRAMES)];
    unsigned attr = space ? VATTR_W | VATTR_U : VATTR_W;
    uint64_t pages, first, cut;

    if (!frame || frame->order < 2)
        return;
    first = rnd(w, 2);
    pages = frame_pages(frame) - first - rnd(w, 2);
    cut = 1 + rnd(w, (uint32_t)pages - 1);
    if (!good("vmap_range", vmap_range(space, va, frame, first, pages, attr)))
        return;
    if (good("vunmap_range", vunmap_range(space, va, frame, first, cut)))
        good("vput_range",
             vput_range(space, VADDR(va.v + cut * PAGE_SIZE), frame, first + cut, pages - cut));
    else if (vunmap_range(space, va, frame, first, pages))
        fail("vunmap_range after -ENOMEM", 0);
}

// The same frame at the same address as others: counted up and down.
static void op_common(struct worker *w)
{
    unsigned i = rnd(w, SHARED_FRAMES);
    vaddr_t va = VADDR(COMMON_VA + ((uint64_t)i << SLOT_SHIFT));

    if (!good("vmap in common", vmap_kern(va, shared_frame[i], VATTR_W)))
        return;
    if (good("ref_frame", ref_frame(shared_frame[i])))
        good("put_frame in common", put_frame(shared_frame[i]));
    good("vput in common", vput(NULL, va, shared_frame[i]));
}

static void switch_to(struct worker *w, space_t *space)
{
    if (good("space_switch", space_switch(space)))
        w->loaded = space;
}

// The worker's own space goes with all that is mapped in it, and a new one comes.
static void op_space(struct worker *w)
{
    if (w->loaded != kernel_space())
        switch_to(w, kernel_space());
    if (w->own_space) {
        if (!good("space_destroy", space_destroy(w->own_space)))
            return;
        for (unsigned i = 0; i < SLOTS; i++)
            if (w->slot[i].frame && w->slot[i].space == w->own_space)
                w->slot[i].frame = NULL;
        w->own_space = NULL;
    }
    if (!good("space_create", space_create("own", &w->own_space)))
        fail("no memory for a space", 0);
}

static void op_switch(struct worker *w)
{
    uint32_t which = rnd(w, 4);

    switch_to(w, which == 0 ? kernel_space() : which == 1 ? w->own_space : shared_space[which - 2]);
}

// A page that the watcher reads all the time.
static void op_watched(struct worker *w)
{
    vaddr_t va = slot_va(w, WATCH_SLOT, NULL);
    frame_t *frame = NULL;

    if (!good("get_frame", get_frame(0, &frame)))
        return;
    __atomic_fetch_add(&w->watched, 1, __ATOMIC_SEQ_CST);
    if (good("vmap watched", vmap_kern(va, frame, VATTR_W))) {
        for (unsigned i = 0; i < 2000 && load(&w->seen) != w->watched; i++)
            cpu_relax();
        // Its owner goes first at times: then the unmapping frees it.
        if (w->watched & 2)
            good("put_frame watched", put_frame(frame));
        if (!good("vunmap watched", vunmap(NULL, va, frame)))
            fail("a watched page stays", 0);
        if (w->watched & 2)
            frame = NULL;
    }
    __atomic_fetch_add(&w->watched, 1, __ATOMIC_SEQ_CST);
    if (frame)
        good("put_frame watched", put_frame(frame));
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

static void one(struct worker *w)
{
    uint32_t what = rnd(w, 1000);

    if (what < 340)
        op_get(w);
    else if (what < 640)
        op_map(w);
    else if (what < 930)
        op_slot(w);
    else if (what < 955)
        op_range(w);
    else if (what < 970)
        op_common(w);
    else if (what < 990)
        op_switch(w);
    else if (what < 994)
        op_space(w);
    else
        op_watched(w);
}

/* --- the run
 * ------------------------------------------------------------------------------------- */

// All workers wait for each other; the first one checks everything meanwhile.
static void park(struct worker *w)
{
    uint32_t round = load(&released);

    if (w->number == 0) {
        while (load(&arrived) != worker_count - 1)
            cpu_relax();
        if (!load(&failures) && mm_check())
            fail("mm_check()", 0);
        __atomic_store_n(&arrived, 0, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&released, 1, __ATOMIC_SEQ_CST);
        return;
    }
    __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
    while (load(&released) == round)
        cpu_relax();
}

static void give_back(struct worker *w)
{
    switch_to(w, kernel_space());
    for (unsigned i = 0; i < SLOTS; i++)
        if (w->slot[i].frame)
            op_unmap(w, i, true);
    for (unsigned i = 0; i < FRAMES; i++)
        if (w->frame[i])
            good("put_frame at the end", put_frame(w->frame[i]));
    good("space_destroy at the end", space_destroy(w->own_space));
}

static void work(void *arg)
{
    struct worker *w = arg;

    w->loaded = kernel_space();
    op_space(w);
    for (uint32_t i = 0; i < w->ops && !load(&failures); i++) {
        one(w);
        w->done++;
        if (i % (w->ops / STOPS) == w->ops / STOPS - 1)
            park(w);
    }
    // Whoever failed left others waiting: they are let go.
    if (load(&failures))
        __atomic_fetch_add(&released, 1, __ATOMIC_SEQ_CST);
    else
        give_back(w);
}

static void watch(void *arg)
{
    uint64_t value;

    (void)arg;
    while (!load(&stop)) {
        for (uint32_t i = 0; i < worker_count; i++) {
            struct worker *w = &workers[i];
            uint32_t before = load(&w->watched);
            int err = probe_read(slot_va(w, WATCH_SLOT, NULL), &value);

            if (err)
                continue;
            if (before & 1)
                __atomic_store_n(&w->seen, before, __ATOMIC_SEQ_CST);
            else if (load(&w->watched) == before)
                __atomic_fetch_add(&stale, 1, __ATOMIC_SEQ_CST);
        }
    }
}

static uint32_t number_word(const char *key, uint32_t otherwise)
{
    char text[16];
    uint32_t n = 0;

    if (!cmdline_get(key, text, sizeof(text)))
        return otherwise;
    for (const char *p = text; *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (uint32_t)(*p - '0');
    return n;
}

static bool prepare(uint32_t ops, uint32_t seed)
{
    memset(workers, 0, sizeof(workers));
    arrived = released = stop = stale = failures = 0;
    for (uint32_t i = 0; i < SHARED_SPACES; i++)
        if (space_create("shared", &shared_space[i]))
            return false;
    for (uint32_t i = 0; i < SHARED_FRAMES; i++)
        if (get_frame(i % 3, &shared_frame[i]))
            return false;
    for (uint32_t i = 0; i < worker_count; i++) {
        workers[i].number = i;
        workers[i].ops = MAX(ops, (uint32_t)STOPS);
        workers[i].random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i * 977 + 1;
    }
    return true;
}

GUEST_TEST(stress)
{
    uint32_t ops = number_word("stress-ops", OPS_SHORT), seed = number_word("stress-seed", 1);
    uint32_t cpus = MIN(smp_count(), (uint32_t)WORKERS_MAX);
    uint64_t done = 0;

    worker_count = cpus >= 3 ? cpus - 1 : cpus;
    CHECK(prepare(ops, seed));
    printk("  seed %u, %u operations on each of %u CPUs%s\n", seed, ops, worker_count,
           cpus >= 3 ? ", one watches" : "");
    if (cpus >= 3)
        smp_run(cpus - 1, watch, NULL);
    for (uint32_t i = 1; i < worker_count; i++)
        smp_run(i, work, &workers[i]);
    work(&workers[0]);
    for (uint32_t i = 1; i < worker_count; i++)
        smp_wait(i);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    if (cpus >= 3)
        smp_wait(cpus - 1);
    for (uint32_t i = 0; i < worker_count; i++)
        done += workers[i].done;
    printk("  %lu operations done, %u rounds of flushing\n", done, mm.epoch);
    if (failures)
        printk("  %s: %s\n", failed_what, error_name(failed_err));
    CHECK_EQ(failures, 0);
    CHECK_EQ(stale, 0);
    for (uint32_t i = 0; i < SHARED_FRAMES; i++)
        CHECK_EQ(put_frame(shared_frame[i]), 0);
    for (uint32_t i = 0; i < SHARED_SPACES; i++)
        CHECK_EQ(space_destroy(shared_space[i]), 0);
}
