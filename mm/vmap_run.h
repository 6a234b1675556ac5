// SPDX-License-Identifier: BSD-2-Clause
// Runs of pages of a range that need no general code: blocks of order 0, each mapped or unmapped
// whole.
#pragma once

#include "mm/mapping.h"
#include "mm/space.h"

/* Maps the first pages of the range [va, va + pages), the frames from mfn on, as far as each is a
 * block of order 0 and nothing is mapped there; how many. The range is in the space; attr as the
 * caller gave it. The page behind has to be asked about by the general code. */
uint64_t run_map(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages, unsigned attr);
/* How many of the first pages are mapped where they belong, as blocks of order 0 with one
 * reference. */
uint64_t run_check(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages);
/* Unmaps pages that run_check() has counted, all of them. False, and nothing is done: there is no
 * room to note what the flush will release. */
bool run_unmap(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages) must_check;
