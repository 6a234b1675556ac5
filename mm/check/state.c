// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on struct mm itself: its flags and tables, the locks, and the CPUs. Both
// locks are held, so what changes only under them is at rest.
#include "arch/x86/memtype.h"
#include "lib/string.h"
#include "arch/x86/machine.h"
#include "mm/check/internal.h"
#include "mm/journal.h"
#include "mm/lock.h"
#include "mm/mapping_internal.h"

#define EPOCH_WRAPS (UINT32_C(1) << 31) // beyond this it is unknown which epoch is later

/* --- A4: flags -------------------------------------------------------------------------------- */

static void check_flags(struct check *c)
{
    EXPECT(c, "A4", mm.live == 1 && mm.root_ready == 1 && !mm.busy,
           "mm.live is %u, root_ready %u, busy %u", mm.live, mm.root_ready, mm.busy);
    EXPECT(c, "A4", mm.checking <= 1 && mm.journal_on <= 1 && mm.work <= MM_WORK && !mm.zero2,
           "mm.checking is %u, journal_on %u, work 0x%x, zero2 0x%x", mm.checking, mm.journal_on,
           mm.work, mm.zero2);
    EXPECT(c, "A4", !mm.check_every || (mm.work & MM_CHECK),
           "mm.check_every is %u, but mm.work 0x%x does not say so", mm.check_every, mm.work);
    EXPECT(c, "A4", mm.journal_seq % JOURNAL_STEP == 0,
           "mm.journal_seq is 0x%lx, no whole number of events", mm.journal_seq);
    EXPECT(c, "A4", mm.map_lock.waiting <= 1 && mm.frame_lock.waiting <= 1,
           "the locks' words waiting are %u and %u", mm.map_lock.waiting, mm.frame_lock.waiting);
}

// Before the locks are taken: who takes one of another rank may panic.
void check_ranks(struct check *c)
{
    if (mm.map_lock.rank != RANK_MAP || mm.frame_lock.rank != RANK_FRAME)
        check_blind(c, "A4", "the locks' ranks are %u and %u", mm.map_lock.rank,
                    mm.frame_lock.rank);
}

// A CPU that gives map_lock back has flushed and released all that it had collected.
static void check_batch(struct check *c)
{
    const struct tlb_batch *b = &mm.batch;

    EXPECT(c, "A4",
           !(b->pending | b->all | b->count | b->tables | b->zero | b->records | b->cpus | b->runs),
           "mm.batch is not empty: pending %u, all %u, count %u, tables %u, records 0x%x, cpus "
           "0x%lx, runs %lu",
           b->pending, b->all, b->count, b->tables, b->records, b->cpus, b->runs);
}

// What the CPU and its memory are like does not change.
static void check_machine_words(struct check *c)
{
    EXPECT(c, "A1", mm.phys_limit == UINT64_C(1) << arch_phys_bits(),
           "mm.phys_limit is 0x%lx, the CPU has %u bits", mm.phys_limit, arch_phys_bits());
    EXPECT(c, "A4",
           mm.levels == arch_levels() && mm.page_1g == arch_has_1g() && mm.window == VA_WINDOW &&
               mm.magic == MM_MAGIC,
           "mm.levels is %u, page_1g %u, window 0x%lx, magic 0x%lx", mm.levels, mm.page_1g,
           mm.window, mm.magic);
    EXPECT(c, "M2", mm.wb_kinds == type_kinds(),
           "mm.wb_kinds is 0x%x, by the MTRRs it should be 0x%x", mm.wb_kinds, type_kinds());
    for (unsigned level = 1; level <= ARRAY_SIZE(mm.leaf_bits); level++)
        for (unsigned attr = 0; attr <= VATTR_ALL; attr++)
            EXPECT(c, "P5", mm.leaf_bits[level - 1][attr] == leaf_bits_of(level, attr),
                   "mm.leaf_bits[%u][%u] is 0x%lx, should be 0x%lx", level - 1, attr,
                   mm.leaf_bits[level - 1][attr], leaf_bits_of(level, attr));
}

void check_state(struct check *c)
{
    if (mm.region_count > REGION_MAX) {
        check_blind(c, "A1", "%u regions, there is room for %u", mm.region_count,
                    (unsigned)REGION_MAX);
        return;
    }
    check_flags(c);
    check_batch(c);
    check_machine_words(c);
}

/* --- C1: CPUs and their spaces ---------------------------------------------------------------- */

// This CPU's by its CR3, the others' by what they say.
static void check_cpu(struct check *c, uint32_t cpu)
{
    const struct mm_cpu *p = &mm.cpu[cpu];

    if (p->online)
        EXPECT(c, "C1",
               p->online == 1 && index_in(ARENA_SPACES, p->space) &&
                   space_at(p->space)->live == SPACE_LIVE,
               "CPU %u: online is %u, its space 0x%x", cpu, p->online, p->space);
    else
        EXPECT(c, "C1", !p->space, "CPU %u is not online, and has space 0x%x", cpu, p->space);
}

void check_cpus(struct check *c)
{
    for (uint32_t cpu = 0; cpu < CPU_MAX; cpu++)
        check_cpu(c, cpu);
    EXPECT(c, "C1", kernel_cr3 == kernel_space()->cr3,
           "kernel_cr3 is 0x%lx, the kernel's root is at 0x%lx", kernel_cr3, kernel_space()->cr3);
}

// A space knows the CPUs that may hold its entries, the kernel's all that run.
void check_mask(struct check *c, const space_t *space)
{
    uint64_t want = 0;

    for (uint32_t cpu = 0; cpu < CPU_MAX; cpu++)
        if (mm.cpu[cpu].online &&
            (space == kernel_space() || mm.cpu[cpu].space == space_index(space)))
            want |= UINT64_C(1) << cpu;
    EXPECT(c, "C1", space->cpus == want, "%s: its CPUs are 0x%lx, should be 0x%lx", space->name,
           space->cpus, want);
}

/* --- B1 --------------------------------------------------------------------------------------- */

// No round is open while map_lock is held by who checks.
static void check_round(struct check *c, uint32_t cpu)
{
    const struct mm_cpu *p = &mm.cpu[cpu];

    EXPECT(c, "B1", p->online || !(p->asked | p->flushed),
           "CPU %u is not online, and is asked to flush", cpu);
    EXPECT(c, "B1", p->asked == p->flushed,
           "CPU %u was asked to flush up to epoch %u, and has up to %u", cpu, p->asked, p->flushed);
    EXPECT(c, "B1", !epoch_is_future(p->asked),
           "CPU %u was asked to flush up to epoch %u, now is %u", cpu, p->asked, mm.epoch);
}

bool epoch_is_future(uint32_t epoch)
{
    return mm.epoch < EPOCH_WRAPS && epoch > mm.epoch;
}

// No frame is free that a CPU was asked to flush and has not.
static void check_free_frames(struct check *c, uint32_t cpu)
{
    const struct mm_cpu *p = &mm.cpu[cpu];

    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        const frame_t *f = frame_at(frame_at(mm.order[order].head)->next);

        for (uint32_t n = mm.order[order].free; n; n--, f = frame_at(f->next))
            EXPECT(c, "B1",
                   (int32_t)(f->epoch - p->flushed) <= 0 || (int32_t)(f->epoch - p->asked) > 0,
                   "free frame 0x%lx: unmapped in epoch %u, CPU %u has flushed up to %u",
                   (uint64_t)f->mfn, f->epoch, cpu, p->flushed);
    }
}

void check_flushed(struct check *c)
{
    bool whole = !c->violations; // the rings can be followed

    for (uint32_t cpu = 0; cpu < CPU_MAX; cpu++) {
        if (whole && mm.cpu[cpu].asked != mm.cpu[cpu].flushed)
            check_free_frames(c, cpu);
        check_round(c, cpu);
    }
}
