// SPDX-License-Identifier: BSD-2-Clause
// A busy memory in which one word at a time is broken: what mm_check() must say of it.
#pragma once

#include "arch/x86/pgentry.h"
#include "mm/table.h"
#include "tests/host/support.h"

// Breaks one word, or field, and mends it.
#define BREAK(rule, word, flip)                                                                    \
    do {                                                                                           \
        uint64_t flip_ = (flip);                                                                   \
                                                                                                   \
        (word) ^= flip_;                                                                           \
        broken_named(rule, #word);                                                                 \
        (word) ^= flip_;                                                                           \
        broken_whole(#word);                                                                       \
    } while (0)

/* Ends the test unless mm_check() names that rule; unless it finds nothing. */
void broken_named(const char *rule, const char *what);
void broken_whole(const char *what);

// What busy_boot() has made.
struct busy {
    space_t *user, *other;
    frame_t *page, *small, *large; // of order 0, 3 and 9
    frame_t *freed;                // unmapped, but held
    frame_t *low, *high;           // of a device, below 1 TiB and above
};
extern struct busy busy;

/* Boots: two CPUs, spaces, pages of each size, aliases, devices; tables, records and slots in
 * stock. page is at VA_VMAP, low and high are a GiB and two behind it; user has small at 4 MiB,
 * large at a GiB, page at BUSY_PAGE; other has page at 4 MiB. */
void busy_boot(void);
#define BUSY_PAGE 0x410000

/* The entry for va, at that level, and its shadow: there is a table of that level. */
struct pt_walk broken_at(space_t *space, uint64_t va, unsigned level);
pgentry_t *broken_entry(space_t *space, uint64_t va, unsigned level);
uint32_t *broken_shadow(space_t *space, uint64_t va, unsigned level);
