// SPDX-License-Identifier: BSD-2-Clause
// The two locks of mm/: mm.map_lock, then mm.frame_lock.
#pragma once

#include "arch/x86/spinlock.h"
#include "mm/mm.h"

static inline void map_lock(void)
{
    spin_lock(&mm.map_lock);
}

/* Flushes what is pending, does what upkeep there is, and unlocks. */
void map_unlock(void);
/* Called at the end of each operation, when no lock of mm/ is held; NULL: not called.
 * mm_check_every() sets it. */
extern void (*operation_ended)(void);

static inline void frame_lock(void)
{
    spin_lock(&mm.frame_lock);
}

static inline void frame_unlock(void)
{
    spin_unlock(&mm.frame_lock);
}
