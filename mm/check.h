// SPDX-License-Identifier: BSD-2-Clause
// The self-check's parts: each counts what it sees, so that the counts can be held against each
// other.
#pragma once

#include "mm/internal.h"

struct check {
    int violations;
    uint64_t frames;         // heads on the rings
    uint64_t device_frames;  // of them device memory
    uint64_t table_frames;   // of them page tables
    uint64_t mappings;       // records on the frames' lists
    uint64_t record_entries; // page-table entries that these records stand for
    uint64_t tables;         // page tables reached from the roots
    uint64_t leaves;         // leaf entries reached from the roots
};

/* Reports that a rule of docs/invariants.md is broken. */
void check_fail(struct check *c, const char *rule, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define EXPECT(c, rule, cond, ...)                                                                 \
    do {                                                                                           \
        if (unlikely(!(cond)))                                                                     \
            check_fail(c, rule, __VA_ARGS__);                                                      \
    } while (0)

void check_rings(struct check *c);
void check_spaces(struct check *c);

/* Whether an index names an object within the arena's mapped pages. */
static inline bool index_in(enum arena_id id, uint32_t index)
{
    const struct arena *a = &mm.arena[id];

    return index && ((uint64_t)index * a->unit + a->size) <= (uint64_t)a->pages * PAGE_SIZE;
}

/* C2, X3 and the bits of X2: what the CPU needs itself. Host tests have no such CPU. */
#ifdef KTF_HOST
static inline void check_machine(struct check *c)
{
    (void)c;
}
#else
void check_machine(struct check *c);
#endif

/* True if va is mapped in the kernel's space: *rights has PG_W and PG_U if all levels do, PG_NX if
 * any does. */
bool check_rights(uint64_t va, pgentry_t *rights);

/* The raw entry for va at that level, read through the window by following the entries themselves.
 * 0 if the path ends above. */
pgentry_t raw_entry(const space_t *space, uint64_t va, unsigned level);
