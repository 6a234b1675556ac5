// SPDX-License-Identifier: BSD-2-Clause
// All CPUs at once do what callers do, at random; the last of three or more watches pages go.
// stress-ops=N operations on each CPU, stress-seed=N; without them a short run.
#include "arch/x86/park.h"
#include "arch/x86/probe.h"
#include "boot/cmdline.h"
#include "kernel/smp.h"
#include "lib/error.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "tests/guest/stress.h"
#include "tests/guest/test.h"

enum {
    OPS_SHORT = 400,
    OPS_LONG = 100000, // from here on:
    STOPS_SHORT = 4,   // how often all are parked for mm_check()
    STOPS_LONG = 20,
    EXHAUST_EVERY =
        20000, // operations of a worker; its first time is early, so that each run has it
    EXHAUST_FIRST = 150,
};

struct stress stress;
static uint32_t arrived, released, stop, stops;

static void wake_workers(void)
{
    for (uint32_t i = 0; i < stress.workers; i++)
        cpu_unpark(i);
}

void stress_fail(const char *what, int err)
{
    if (__atomic_fetch_add(&stress.failures, 1, __ATOMIC_SEQ_CST))
        return;
    stress.failed = what;
    stress.error = err;
    wake_workers();
}

/* --- the workers ------------------------------------------------------------------------------ */

// All workers wait for each other; the first one checks everything meanwhile.
static void gather(const struct worker *w)
{
    uint32_t round = stress_load(&released);

    if (w->number) {
        __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
        cpu_unpark(0);
        while (stress_load(&released) == round && !stress_load(&stress.failures))
            cpu_park();
        return;
    }
    while (stress_load(&arrived) != stress.workers - 1 && !stress_load(&stress.failures))
        cpu_park();
    if (!stress_load(&stress.failures) && mm_check())
        stress_fail("mm_check()", 0);
    __atomic_store_n(&arrived, 0, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&released, 1, __ATOMIC_SEQ_CST);
    wake_workers();
}

static void work(void *arg)
{
    struct worker *w = arg;
    uint32_t between = w->ops / stops;

    stress_begin(w);
    for (uint32_t i = 1; i <= w->ops && !stress_load(&stress.failures); i++) {
        if (i % EXHAUST_EVERY == EXHAUST_FIRST + w->number * 7)
            stress_exhaust(w);
        else
            stress_one(w);
        w->done++;
        if (i % between == 0)
            gather(w);
    }
    if (!stress_load(&stress.failures))
        stress_end(w);
}

/* --- the watcher ------------------------------------------------------------------------------ */

// Reads a worker's page if it can. True if there is more to be seen: the page may be mapped, or
// should have gone and is still there.
static bool look(struct worker *w)
{
    uint32_t before = stress_load(&w->watched);
    uint64_t value;
    int err = probe_read(stress_watched_va(w), &value);

    if (stress_load(&w->seen) == before && err)
        return before & 1;
    if (before & 1 ? err == 0 : err != 0) {
        if (before && !(before & 1))
            stress.confirmed++;
        __atomic_store_n(&w->seen, before, __ATOMIC_SEQ_CST);
        cpu_unpark(w->number);
    } else if (!(before & 1) && stress_load(&w->watched) == before) {
        stress_fail("a page that was unmapped can still be read", 0);
    }
    return before & 1;
}

static void watch(void *arg)
{
    (void)arg;
    while (!stress_load(&stop)) {
        bool more = false;

        for (uint32_t i = 0; i < stress.workers; i++)
            more |= look(&stress.worker[i]);
        if (!more)
            cpu_park();
    }
}

/* --- the run ---------------------------------------------------------------------------------- */

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
    uint32_t cpus = MIN(smp_count(), (uint32_t)WORKERS_MAX);

    memset(&stress, 0, sizeof(stress));
    arrived = released = stop = 0;
    stops = ops < OPS_LONG ? STOPS_SHORT : STOPS_LONG;
    stress.watcher = cpus >= 3 ? cpus - 1 : 0;
    stress.workers = stress.watcher ? cpus - 1 : cpus;
    for (uint32_t i = 0; i < SHARED_SPACES; i++)
        if (space_create("shared", &stress.space[i]))
            return false;
    for (uint32_t i = 0; i < SHARED_FRAMES; i++)
        if (get_frame(i % 3, &stress.frame[i]))
            return false;
    for (uint32_t i = 0; i < stress.workers; i++) {
        stress.worker[i].number = i;
        stress.worker[i].ops = MAX(ops, stops);
        stress.worker[i].random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i * 977 + 1;
    }
    return true;
}

static void run(void)
{
    if (stress.watcher)
        smp_run(stress.watcher, watch, NULL);
    for (uint32_t i = 1; i < stress.workers; i++)
        smp_run(i, work, &stress.worker[i]);
    work(&stress.worker[0]);
    for (uint32_t i = 1; i < stress.workers; i++)
        smp_wait(i);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    if (stress.watcher) {
        cpu_unpark(stress.watcher);
        smp_wait(stress.watcher);
    }
}

static void report(void)
{
    uint64_t done = 0;

    for (uint32_t i = 0; i < stress.workers; i++)
        done += stress.worker[i].done;
    printk("  %lu operations done, %u of them without memory, %u rounds of flushing, %u stops, "
           "%u watched pages gone\n",
           done, stress.shortages, mm.epoch, stops, stress.confirmed);
    if (stress.failures)
        printk("  %s: %s\n", stress.failed, error_name(stress.error));
}

// Which blocks are free, whatever their order in the rings: tests/guest/run.c compares how many.
// After other tests the pages that arenas keep in stock may be others of the same size.
static uint64_t free_places(void)
{
    uint64_t sum = 0;

    mm_trim();
    for (unsigned order = 0; order < ORDER_COUNT; order++) {
        uint32_t i = mm.order[order].last_free;

        for (uint32_t n = mm.order[order].free; n; n--, i = frame_at(i)->prev) {
            uint64_t place =
                (frame_mfn(frame_at(i)).v * ORDER_COUNT + order) * UINT64_C(0x9e3779b97f4a7c15);

            sum += place ^ place >> 29;
        }
    }
    return sum;
}

GUEST_TEST(stress)
{
    uint64_t places = free_places();
    uint32_t ops = number_word("stress-ops", OPS_SHORT), seed = number_word("stress-seed", 1);

    CHECK(prepare(ops, seed));
    printk("  seed %u, %u operations on each of %u CPUs%s\n", seed, ops, stress.workers,
           stress.watcher ? ", one watches" : "");
    run();
    report();
    CHECK_EQ(stress.failures, 0);
    for (uint32_t i = 0; i < SHARED_FRAMES; i++)
        CHECK_EQ(put_frame(stress.frame[i]), 0);
    for (uint32_t i = 0; i < SHARED_SPACES; i++)
        CHECK_EQ(space_destroy(stress.space[i]), 0);
    if (ops != OPS_SHORT)
        CHECK_EQ(free_places(), places);
    CHECK(stress.shortages > 0); // last: what is left behind would hide it
}
