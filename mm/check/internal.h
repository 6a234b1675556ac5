// SPDX-License-Identifier: BSD-2-Clause
// The self-check's parts: each counts what it sees, so that the counts can be held against each
// other.
#pragma once

#include "arch/x86/pgentry.h"
#include "mm/frame_word.h"
#include "mm/mm.h"

struct check {
    int violations;
    bool blind;              // something can't be followed: what relies on it is not looked at
    uint64_t frames;         // heads on the rings
    uint64_t small_frames;   // of them with descriptors in a row
    uint64_t large_frames;   // of them with one of their own
    uint64_t lower_entries;  // of the tree, of 512 KiB each, that these have
    uint64_t device_frames;  // of the heads device memory
    uint64_t table_frames;   // and page tables
    uint64_t mappings;       // records on the frames' lists
    uint64_t record_entries; // page-table entries that these records stand for
    uint64_t spaces;         // on the list
    uint64_t tables;         // page tables reached from the roots
    uint64_t leaves;         // leaf entries reached from the roots
    uint64_t arena_pages;    // of them in the arenas' windows
    uint64_t shown;          // and in that of the page tables
    struct {
        uint64_t nodes, pages; // below its root: nodes, and pages of descriptors in a row
        uint64_t small;        // heads in these
        uint64_t lower;        // entries of 512 KiB that lead to blocks
    } tree;
};

/* Reports that a rule of docs/invariants.md is broken. */
void check_fail(struct check *c, const char *rule, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, and c->blind. */
void check_blind(struct check *c, const char *rule, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define EXPECT(c, rule, cond, ...)                                                                 \
    do {                                                                                           \
        if (unlikely(!(cond)))                                                                     \
            check_fail(c, rule, __VA_ARGS__);                                                      \
    } while (0)

/* In this order; the first six say whether the others can look. */
void check_ranks(struct check *c);
void check_tree(struct check *c);
void check_slot_frames(struct check *c);
void check_windows(struct check *c);
void check_shown(struct check *c);
void check_state(struct check *c);
void check_rings(struct check *c);
void check_spaces(struct check *c);
void check_arenas(struct check *c);
void check_slots(struct check *c);
void check_tree_sums(struct check *c);
void check_flushed(struct check *c);

/* Parts of check_spaces(): the CPUs, and those that a space names. */
void check_cpus(struct check *c);
void check_mask(struct check *c, const space_t *space);

/* Whether an epoch is later than now; false where that is unknown. */
bool epoch_is_future(uint32_t epoch);

/* Whether an index names an object within the arena's mapped pages. */
static inline bool index_in(enum arena_id id, uint32_t index)
{
    const struct arena *a = &mm.arena[id];

    return index && ((uint64_t)index * a->unit + a->size) <= (uint64_t)a->pages * PAGE_SIZE;
}

// C2, X3 and the bits of X2: what the CPU needs itself. kernel/ sets it; NULL in host tests.
extern void (*check_machine)(struct check *c);

/* True if va is mapped in the kernel's space: *rights has PG_W and PG_U if all levels do, PG_NX if
 * any does. */
bool check_rights(uint64_t va, pgentry_t *rights);

/* Whether the slot has a table of that level. For a slot without one the window shows nothing. */
bool slot_has_table(uint32_t slot, unsigned level);
/* The slot of va's table of that level, found by following the entries themselves as the window
 * shows them. 0 if the path ends above. */
uint32_t raw_table(const space_t *space, uint64_t va, unsigned level);
/* The entry for va there, 0 likewise. */
pgentry_t raw_entry(const space_t *space, uint64_t va, unsigned level);
