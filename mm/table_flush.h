// SPDX-License-Identifier: BSD-2-Clause
// TLB shootdown: what an operation takes away is noted, flushed in one round, and then released.
#pragma once

#include "mm/mm.h"

enum {
    TLB_SPINS = 100, // then the CPU that waits halts
};
#define TLB_TICKS_MAX (UINT64_C(1) << 36) // of the TSC: about half a minute

/* `count` entries of that level from va on were cleared or changed: flushed on this CPU now, on
 * others by tlb_commit(). */
void tlb_gone(const space_t *space, vaddr_t va, unsigned level, uint64_t count);
/* The record is off its list; tlb_commit() takes its refs off the frame's mapcount and frees
 * it. */
void tlb_release(frame_t *frame, uint32_t index);
/* The same for the only mapping, or one of several, of `pages` blocks of order 0 from mfn on, whose
 * records are gone already: each frame loses one of its mapcount. False if no more can be noted. */
bool tlb_release_run(uint64_t mfn, uint64_t pages) must_check;
/* Flushes what a round asks this CPU for, if anything: mm_init() makes it tlb_answer(). */
void shootdown_answer(void);
/* One round of shootdown for all that is pending; then the releases. */
void tlb_commit(void);
/* One round for one page; nothing else may be pending. */
void tlb_ask_page(uint64_t cpus, vaddr_t va, uint32_t epoch);
