// SPDX-License-Identifier: BSD-2-Clause
// Tests of the TLB shootdown: another CPU that keeps reading a page must fault on its next access
// after the unmap returned, and its frame must not be free before.
#include "arch/x86/cpu.h"
#include "arch/x86/probe.h"
#include "boot/cmdline.h"
#include "kernel/smp.h"
#include "lib/string.h"
#include "mm/frame_word.h"
#include "mm/journal.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

#define WATCHED_VA VADDR(VA_VMAP + 0x3000000000)

enum {
    ROUNDS = 200,
    TURN = 8, // so many of them the watcher stays on one CPU
    SEEN_SPINS = 20000000,
};

// What the watcher and the CPU that unmaps tell each other.
static struct {
    uint64_t va;
    uint32_t cpu;    // where the watcher runs: on each other CPU in turn
    uint32_t mapped; // rounds begun; equal to `gone` while nothing is mapped
    uint32_t gone;   // rounds whose unmap has returned
    uint32_t seen;   // the round in which the watcher last read the page
    uint32_t stale;  // reads that did not fault although the unmap had returned
    uint32_t tries;  // accesses that were made and judged
    uint32_t writes; // 1: it writes instead of reading
    uint32_t stop;
} watch;

static uint32_t now(const uint32_t *at)
{
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}

static void set(uint32_t *at, uint32_t value)
{
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}

static int touch(void)
{
    uint64_t value;

    return watch.writes ? probe_write(VADDR(watch.va), 1) : probe_read(VADDR(watch.va), &value);
}

static void watcher(void *arg)
{
    (void)arg;
    while (!now(&watch.stop)) {
        uint32_t mapped = now(&watch.mapped);
        uint32_t gone = now(&watch.gone);
        int err = touch();

        if (gone != mapped && err == 0)
            set(&watch.seen, mapped);
        // Nothing was mapped from before the access until after it.
        else if (gone == mapped && err == 0 && now(&watch.mapped) == mapped)
            __atomic_fetch_add(&watch.stale, 1, __ATOMIC_SEQ_CST);
        __atomic_fetch_add(&watch.tries, 1, __ATOMIC_SEQ_CST);
    }
}

static void watcher_start(vaddr_t va, bool writes)
{
    memset(&watch, 0, sizeof(watch));
    watch.va = va.v;
    watch.writes = writes;
    watch.cpu = 1;
    smp_run(watch.cpu, watcher, NULL);
}

static void watcher_stop(void)
{
    set(&watch.stop, 1);
    smp_wait(watch.cpu);
}

// All CPUs but this one, in turn.
static uint32_t other_cpu(uint32_t turn)
{
    return 1 + turn % (smp_count() - 1);
}

// Nothing is mapped.
static void round_begin(uint32_t round)
{
    uint32_t cpu = other_cpu(round / TURN);

    if (cpu != watch.cpu) {
        watcher_stop();
        set(&watch.stop, 0);
        watch.cpu = cpu;
        smp_run(cpu, watcher, NULL);
    }
    set(&watch.mapped, round);
}

// The watcher has the page in its TLB, if it runs at all.
static bool wait_seen(uint32_t round)
{
    for (unsigned i = 0; i < SEEN_SPINS; i++) {
        if (now(&watch.seen) == round)
            return true;
        cpu_pause();
    }
    return false;
}

// Until the watcher has begun and judged an access, the one that it was at being another: however
// little of the host it gets.
static void linger(void)
{
    uint32_t before = now(&watch.tries);

    for (unsigned i = 0; i < SEEN_SPINS && now(&watch.tries) - before < 2; i++)
        cpu_pause();
}

// vunmap of a page that another CPU reads all the time.
GUEST_TEST(shootdown_unmap)
{
    frame_t *frame;
    uint32_t unseen = 0;

    if (smp_count() < 2)
        return;
    CHECK_EQ(get_frame(0, &frame), 0);
    watcher_start(WATCHED_VA, false);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        round_begin(round);
        CHECK_EQ(vmap_kern(WATCHED_VA, frame, VATTR_W), 0);
        unseen += !wait_seen(round);
        CHECK_EQ(round & 1 ? vunmap(NULL, WATCHED_VA, frame) : vput(NULL, WATCHED_VA, frame), 0);
        set(&watch.gone, round);
        linger();
    }
    watcher_stop();
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(unseen, 0);
    CHECK_EQ(watch.stale, 0);
    CHECK_EQ(mm_check(), 0);
}

// A page beside those that are watched: their table does not become empty, for whose sake all is
// flushed anyway.
static frame_t *beside;
#define BESIDE_VA VADDR(WATCHED_VA.v + 300 * PAGE_SIZE)

static int keep_table(void)
{
    int err = get_frame(0, &beside);

    return err ? err : vmap_kern(BESIDE_VA, beside, VATTR_R);
}

static int drop_table(void)
{
    int err = vunmap(NULL, BESIDE_VA, beside);

    return err ? err : put_frame(beside);
}

// The same when it is one page of a range, the last or one in the middle: of few pages, which are
// flushed one by one, or of more.
GUEST_TEST(shootdown_range)
{
    vaddr_t va = VADDR(WATCHED_VA.v + 64 * PAGE_SIZE), first;
    frame_t *frame;

    if (smp_count() < 2)
        return;
    CHECK_EQ(get_frame(6, &frame), 0);
    CHECK_EQ(keep_table(), 0);
    watcher_start(va, false);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        uint64_t pages = 1 + round / 2 % 64;

        first = VADDR(va.v - (round & 1 ? pages - 1 : pages / 2) * PAGE_SIZE);
        round_begin(round);
        CHECK_EQ(vmap_range(NULL, first, frame, 0, pages, VATTR_W), 0);
        CHECK(wait_seen(round));
        CHECK_EQ(vunmap_range(NULL, first, frame, 0, pages), 0);
        set(&watch.gone, round);
        linger();
    }
    watcher_stop();
    CHECK_EQ(drop_table(), 0);
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(watch.stale, 0);
}

enum {
    LOOSE = 200, // frames of order 0, among them
    RUN = 40,    // so many one after the other: more than are flushed one by one
    RUN_SEEN = 17,
};

static frame_t *loose[LOOSE];

static void sort_loose(void)
{
    for (unsigned i = 1; i < LOOSE; i++) {
        frame_t *frame = loose[i];
        unsigned k = i;

        for (; k && loose[k - 1]->mfn > frame->mfn; k--)
            loose[k] = loose[k - 1];
        loose[k] = frame;
    }
}

// Number of the first of RUN frames in a row; LOOSE if there are none.
static unsigned find_run(void)
{
    unsigned count = 1;

    for (unsigned i = 1; i < LOOSE; i++) {
        count = loose[i]->mfn == loose[i - 1]->mfn + 1 ? count + 1 : 1;
        if (count == RUN)
            return i + 1 - RUN;
    }
    return LOOSE;
}

static int run_map_by(unsigned way, frame_t **run)
{
    return way ? vmap_frames(NULL, WATCHED_VA, run, RUN, VATTR_W)
               : vmap_range(NULL, WATCHED_VA, run[0], 0, RUN, VATTR_W);
}

static int run_unmap_by(unsigned way, frame_t **run)
{
    switch (way) {
    case 0:
        return vunmap_range(NULL, WATCHED_VA, run[0], 0, RUN);
    case 1:
        return vput_frames(NULL, WATCHED_VA, run, RUN);
    default:
        return vput_range(NULL, WATCHED_VA, run[0], 0, RUN);
    }
}

// The same when the range is of many frames of one page, which go in a run.
GUEST_TEST(shootdown_run)
{
    unsigned first;

    if (smp_count() < 2)
        return;
    for (unsigned i = 0; i < LOOSE; i++)
        CHECK_EQ(get_frame(0, &loose[i]), 0);
    sort_loose();
    first = find_run();
    CHECK(first < LOOSE);
    CHECK_EQ(keep_table(), 0);
    watcher_start(VADDR(WATCHED_VA.v + RUN_SEEN * PAGE_SIZE), false);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        uint32_t epoch = mm.epoch;

        round_begin(round);
        CHECK_EQ(run_map_by(round % 3, &loose[first]), 0);
        CHECK(wait_seen(round));
        CHECK_EQ(run_unmap_by(round % 3, &loose[first]), 0);
        set(&watch.gone, round);
        linger();
        for (unsigned i = 0; i < RUN; i++)
            CHECK(loose[first + i]->epoch - epoch - 1 < mm.epoch - epoch);
    }
    watcher_stop();
    CHECK_EQ(drop_table(), 0);
    for (unsigned i = 0; i < LOOSE; i++)
        CHECK_EQ(put_frame(loose[i]), 0);
    CHECK_EQ(watch.stale, 0);
    CHECK_EQ(mm_check(), 0);
}

// The same by vmap_page() and vput_page(): by the fast path if there is one CPU alone, which must
// not find the page in its own TLB either; else that path must see that there are others.
static void page_round(frame_t *frame, uint32_t round)
{
    uint32_t epoch = mm.epoch;
    uint64_t value;

    if (smp_count() > 1)
        round_begin(round);
    CHECK_EQ(vmap_page(WATCHED_VA, frame, 0, VATTR_W, CALLER), 0);
    CHECK_EQ(probe_read(WATCHED_VA, &value), 0);
    if (smp_count() > 1)
        CHECK(wait_seen(round));
    CHECK_EQ(vput_page(WATCHED_VA, frame, 0, CALLER), 0);
    set(&watch.gone, round);
    CHECK(probe_read(WATCHED_VA, &value) != 0);
    CHECK(frame->epoch - epoch - 1 < mm.epoch - epoch);
}

GUEST_TEST(shootdown_page)
{
    frame_t *frame;

    CHECK_EQ(get_frame(0, &frame), 0);
    CHECK_EQ(keep_table(), 0);
    if (smp_count() > 1)
        watcher_start(WATCHED_VA, false);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        page_round(frame, round);
        if (smp_count() > 1)
            linger();
    }
    if (smp_count() > 1)
        watcher_stop();
    CHECK_EQ(drop_table(), 0);
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(watch.stale, 0);
    CHECK_EQ(mm_check(), 0);
}

static void read_once(void *arg)
{
    uint64_t value;

    set(arg, (uint32_t)probe_read(WATCHED_VA, &value));
}

static uint32_t read_by(uint32_t cpu)
{
    uint32_t err = 1;

    smp_run(cpu, read_once, &err);
    smp_wait(cpu);
    return now(&err);
}

// A CPU at rest is not woken to flush: it does so before it goes on.
GUEST_TEST(shootdown_rest)
{
    frame_t *frame;

    if (smp_count() < 2)
        return;
    CHECK_EQ(get_frame(0, &frame), 0);
    CHECK_EQ(keep_table(), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t cpu = other_cpu(round);

        CHECK_EQ(vmap_kern(WATCHED_VA, frame, VATTR_W), 0);
        CHECK_EQ(read_by(cpu), 0);
        for (unsigned i = 0; i < round * 100; i++) // time to come to rest
            cpu_pause();
        CHECK_EQ(vunmap(NULL, WATCHED_VA, frame), 0);
        CHECK(read_by(cpu) != 0);
    }
    CHECK_EQ(drop_table(), 0);
    CHECK_EQ(put_frame(frame), 0);
}

// Taking a right away is seen by all CPUs as well.
GUEST_TEST(shootdown_protect)
{
    frame_t *frame;

    if (smp_count() < 2)
        return;
    CHECK_EQ(get_frame(0, &frame), 0);
    CHECK_EQ(vmap_kern(WATCHED_VA, frame, VATTR_R), 0);
    watcher_start(WATCHED_VA, true);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        round_begin(round);
        CHECK_EQ(vprotect(NULL, WATCHED_VA, frame, VATTR_W), 0);
        CHECK(wait_seen(round));
        CHECK_EQ(vprotect(NULL, WATCHED_VA, frame, VATTR_R), 0);
        set(&watch.gone, round);
        linger();
    }
    watcher_stop();
    CHECK_EQ(vunmap(NULL, WATCHED_VA, frame), 0);
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(watch.stale, 0);
}

// A CPU that does not have the space is not asked, one that has it is.
static void use_space(void *space)
{
    if (space_switch(space))
        set(&watch.stop, 2);
}

GUEST_TEST(shootdown_asks_who_has_it)
{
    uint32_t asked;
    space_t *space;
    frame_t *frame;

    if (smp_count() < 2)
        return;
    set(&watch.stop, 0);
    CHECK_EQ(space_create("shared", &space), 0);
    CHECK_EQ(get_frame(0, &frame), 0);
    CHECK_EQ(vmap_user(space, VADDR(0x400000), frame, VATTR_W), 0);
    CHECK_EQ(vmap_user(space, VADDR(0x401000), frame, VATTR_W), 0);
    CHECK_EQ(vmap_user(space, VADDR(0x402000), frame, VATTR_W), 0);
    asked = mm.cpu[1].asked;
    CHECK_EQ(vunmap(space, VADDR(0x400000), frame), 0);
    CHECK_EQ(mm.cpu[1].asked, asked);
    smp_run(1, use_space, space);
    smp_wait(1);
    CHECK_EQ(space_destroy(space), -EBUSY);
    CHECK_EQ(vunmap(space, VADDR(0x401000), frame), 0);
    CHECK_EQ(mm.cpu[1].asked, mm.epoch);
    CHECK_EQ(mm.cpu[1].flushed, mm.epoch);
    smp_run(1, use_space, kernel_space());
    smp_wait(1);
    CHECK_EQ(watch.stop, 0);
    CHECK_EQ(space_destroy(space), 0);
    CHECK_EQ(put_frame(frame), 0);
}
