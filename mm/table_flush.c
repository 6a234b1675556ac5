// SPDX-License-Identifier: BSD-2-Clause
// TLB shootdown: what an operation takes away is flushed here at once, by all other CPUs that may
// hold it in one round at its end, and only then released.
#include "arch/x86/cpu.h"
#include "arch/x86/ipi.h"
#include "arch/x86/park.h"
#include "arch/x86/tlb.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "mm/table.h"
#include "mm/table_flush.h"
#include "mm/journal.h"

uint32_t tlb_broken;

static void flush_here(vaddr_t va, unsigned level, uint64_t count)
{
    if (count > TLB_BATCH_PAGES) {
        tlb_flush_all();
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        tlb_flush_page(VADDR(va.v + (i << level_shift(level))));
}

void tlb_gone(const space_t *space, vaddr_t va, unsigned level, uint64_t count)
{
    struct tlb_batch *b = &mm.batch;

    flush_here(va, level, count);
    b->pending = 1;
    b->cpus |= space->cpus;
    if (b->all || count > TLB_BATCH_PAGES - b->count) {
        b->all = 1;
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        b->va[b->count++] = va.v + (i << level_shift(level));
}

void tlb_release(frame_t *frame, uint32_t index)
{
    mapping_t *m = mapping_at(index);

    m->next = mm.batch.records;
    m->prev = frame_index(frame);
    mm.batch.records = index;
    mm.batch.pending = 1;
}

bool tlb_release_run(uint64_t mfn, uint64_t pages)
{
    struct tlb_batch *b = &mm.batch;

    if (b->runs == TLB_BATCH_RUNS)
        return false;
    b->run[b->runs++] = (struct tlb_run){mfn, pages};
    b->pending = 1;
    return true;
}

/* --- one round -------------------------------------------------------------------------------- */

// The round that runs: who has not flushed yet, and the CPU that waits for them.
static struct {
    uint64_t cpus;
    uint32_t asker;
} round;

// Does what mm.batch asks for. Runs on every CPU that is asked, from the interrupt or while it
// waits with interrupts off; they are off here, so that the two do not mix.
static void answer(struct mm_cpu *me)
{
    if (!cpu_asked())
        return;
    if (mm.batch.all)
        tlb_flush_all();
    else
        for (uint32_t i = 0; i < mm.batch.count; i++)
            tlb_flush_page(VADDR(mm.batch.va[i]));
    __atomic_store_n(&me->flushed, me->asked, __ATOMIC_RELEASE);
    if (!__atomic_and_fetch(&round.cpus, cpu_others(), __ATOMIC_SEQ_CST))
        cpu_unpark(round.asker);
}

void shootdown_answer(void)
{
    uint64_t flags = interrupts_save();

    answer(&mm.cpu[cpu_number()]);
    interrupts_restore(flags);
}

// Asks one CPU. All earlier rounds are over: what it was not asked to flush it cannot hold.
static void ask_one(uint32_t cpu, uint32_t epoch)
{
    struct mm_cpu *p = &mm.cpu[cpu];

    if (p->flushed == p->asked)
        p->flushed = epoch - 1;
    __atomic_store_n(&p->asked, epoch, __ATOMIC_RELEASE);
    if (likely(!tlb_broken) && !cpu_ask(cpu)) {
        p->flushed = epoch;
        __atomic_fetch_and(&round.cpus, ~(UINT64_C(1) << cpu), __ATOMIC_SEQ_CST);
    }
}

// A CPU that does not answer for so long never will.
static void wait_for_all(uint32_t epoch)
{
    uint64_t since;

    for (uint32_t spins = 0; spins < TLB_SPINS; spins++) {
        if (!__atomic_load_n(&round.cpus, __ATOMIC_SEQ_CST))
            return;
        cpu_relax();
    }
    since = rdtsc();
    cpu_alarm(true);
    while (__atomic_load_n(&round.cpus, __ATOMIC_SEQ_CST)) {
        cpu_park();
        if (rdtsc() - since > TLB_TICKS_MAX)
            panic("CPU %u does not answer the request to flush up to epoch %u",
                  (uint32_t)__builtin_ctzll(round.cpus), epoch);
    }
    cpu_alarm(false);
}

// The CPUs flush what mm.batch holds; back when all have.
static void ask(uint64_t cpus, uint32_t epoch)
{
    uint64_t awake;

    round.asker = cpu_number();
    __atomic_store_n(&round.cpus, cpus, __ATOMIC_SEQ_CST);
    for (uint64_t left = cpus; left; left &= left - 1)
        ask_one((uint32_t)__builtin_ctzll(left), epoch);
    if (unlikely(tlb_broken))
        return;
    awake = __atomic_load_n(&round.cpus, __ATOMIC_SEQ_CST);
    ipi_shootdown(awake);
    wait_for_all(epoch);
}

void tlb_ask_page(uint64_t cpus, vaddr_t va, uint32_t epoch)
{
    mm.batch.va[0] = va.v;
    mm.batch.count = 1;
    ask(cpus, epoch);
    mm.batch.count = 0;
}

/* --- the end of an operation ------------------------------------------------------------------ */

// No CPU can reach what these records mapped: it was flushed.
static void release_records(uint32_t index, uint32_t epoch)
{
    while (index) {
        const mapping_t *m = mapping_at(index);
        uint32_t next = m->next;
        frame_t *frame = frame_at(m->prev);

        if (frame->kind != FRAME_TABLE)
            frame->epoch = epoch;
        frame_unpin(frame, m->refs);
        record_free(index);
        index = next;
    }
}

// Frames that stand in one page of descriptors; the page stays as long as one of them is mapped.
static void release_frames(frame_t *frame, uint64_t count)
{
    for (frame_t *end = frame + count; frame < end; frame++)
        if (unlikely(!frame_unpin_shared(frame, 1)))
            frame_unpin(frame, 1);
}

static void release_run(const struct tlb_run *run)
{
    for (uint64_t done = 0, some; done < run->pages; done += some) {
        uint64_t mfn = run->mfn + done;

        some = MIN(run->pages - done, FRAME_PAGE_COUNT - mfn % FRAME_PAGE_COUNT);
        release_frames(find_mfn_frame(MFN(mfn)), some);
    }
}

void tlb_commit(void)
{
    struct tlb_batch *b = &mm.batch;
    uint32_t records = b->records;
    uint32_t tables = b->tables;
    uint32_t epoch = ++mm.epoch;
    uint64_t others = b->cpus & cpu_others();

    if (others) {
        ask(others, epoch);
        journal(JOURNAL_SHOOTDOWN, CALLER, b->va[0], 0, 0, (uint32_t)b->count);
    }
    b->pending = b->all = b->count = b->records = b->tables = 0;
    b->cpus = 0;
    pt_flushed(tables);
    release_records(records, epoch);
    for (uint64_t i = 0; i < b->runs; i++)
        release_run(&b->run[i]);
    b->runs = 0;
}

void (*operation_ended)(void);

void map_unlock(void)
{
    if (unlikely(mm.batch.pending))
        tlb_commit();
    if (unlikely(mm.work))
        mm_upkeep();
    // What upkeep gave back may leave more to be given back.
    while (unlikely(mm.batch.pending || (mm.work & MM_TRIM))) {
        if (mm.batch.pending)
            tlb_commit();
        mm_upkeep();
    }
    spin_unlock(&mm.map_lock);
    if (unlikely(operation_ended))
        operation_ended();
}
