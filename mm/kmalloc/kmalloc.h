// SPDX-License-Identifier: BSD-2-Clause
// Memory for the kernel's own objects: a slab allocator on frames, mapped in a window of its own.
#pragma once

#include "lib/error.h"
#include "lib/types.h"

/* `size` bytes, aligned to their size rounded up to a power of two, at most to a page. The caller
 * owns them until kfree(). What they hold is undefined (junk in debug builds). Sizes up to half a
 * page share pages with others of their class; larger ones have pages of their own, with an
 * unmapped one behind. NULL if size is 0 or there is no memory: nothing has changed. May not be
 * called by the memory manager itself, nor from interrupt handlers. */
void *kmalloc(size_t size) must_check;
/* The same, all zero. */
void *kzalloc(size_t size) must_check;

/* The object with another size: its first min(old, new) bytes are as they were. It may move; then
 * the old place is freed. p NULL: kmalloc(size). NULL if there is no memory, size is 0 or p is no
 * object: p is as it was. */
void *krealloc(void *p, size_t size) must_check;

/* Gives the object back; pages that hold no others go back to the frames at once. NULL is nothing.
 * An error is printed with the caller, and nothing has changed.
 *   -EINVAL     p is no object of kmalloc's
 *   -EFREE      it is free already
 *   -ECORRUPT   bytes around it were written (debug builds) */
int kfree(void *p);

/* Bytes that may be used at p: what was asked for in debug builds, else the size of its class. 0 if
 * p is no object. */
size_t kmalloc_size(const void *p);

/* Looks at every object: its red zone, and what is free for writes after the free; and at the
 * allocator's own counts. Prints what is wrong, returns how many. mm_check() calls it. */
int kmalloc_check(void);

/* The number that the next object gets. */
uint32_t kmalloc_mark(void);
/* Prints each object made since the mark (0: all) that is not freed: address, size and, in debug
 * builds, caller; a bounded number of lines. Returns how many there are. Without debug the mark is
 * of no use: all count. */
uint64_t kmalloc_leaks(uint32_t mark);

// Totals, for tests and the console.
struct kmalloc_usage {
    uint64_t objects; // in use
    uint64_t pages;   // mapped, the allocator's own included
};
struct kmalloc_usage kmalloc_usage(void);
