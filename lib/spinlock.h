// SPDX-License-Identifier: BSD-2-Clause
// Spinlocks with a rank: a CPU takes locks only in rising order of rank.
#pragma once

#include "arch/x86/percpu.h"
#include "lib/panic.h"

// The order in which locks are taken, lowest first.
enum lock_rank {
    RANK_KMALLOC = 0, // of kmalloc
    RANK_MAP = 1,     // mm.map_lock
    RANK_FRAME = 2,   // mm.frame_lock
    RANK_CONSOLE = 3, // the console
};

// Invariant: owner is the number + 1 of the CPU that holds it, 0 if none does. Interrupt handlers
// take no lock that other code takes, so interrupts stay as they are.
typedef struct spinlock {
    uint32_t owner;
    uint32_t rank; // enum lock_rank
} spinlock_t;

// For tests of the tests: a lock that another CPU holds keeps nobody waiting.
extern bool spin_broken;

/* Waits for the lock. Meanwhile the CPU answers requests to flush its TLB, so that one that waits
 * with interrupts off keeps nobody waiting. Panics if this CPU holds it already. */
void spin_wait(spinlock_t *lock, uint32_t token);

#if KTF_DEBUG && !defined(KTF_HOST)
/* Ranks only rise, and only the owner unlocks. */
void spin_check_lock(const spinlock_t *lock);
void spin_check_unlock(const spinlock_t *lock);
#else
static always_inline void spin_check_lock(const spinlock_t *lock)
{
    (void)lock;
}

static always_inline void spin_check_unlock(const spinlock_t *lock)
{
    (void)lock;
}
#endif

/* Until spin_unlock() this CPU alone has what the lock guards. */
static always_inline void spin_lock(spinlock_t *lock)
{
    uint32_t token = cpu_token();
    uint32_t none = 0;

    spin_check_lock(lock);
    if (unlikely(!__atomic_compare_exchange_n(&lock->owner, &none, token, false, __ATOMIC_ACQUIRE,
                                              __ATOMIC_RELAXED)))
        spin_wait(lock, token);
}

/* True if it was free, and is now this CPU's. */
static always_inline bool spin_trylock(spinlock_t *lock)
{
    uint32_t none = 0;

    if (!__atomic_compare_exchange_n(&lock->owner, &none, cpu_token(), false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED))
        return false;
    spin_check_lock(lock);
    return true;
}

static always_inline void spin_unlock(spinlock_t *lock)
{
    spin_check_unlock(lock);
    __atomic_store_n(&lock->owner, 0, __ATOMIC_RELEASE);
}

/* True if this CPU holds it. */
static inline bool spin_held(const spinlock_t *lock)
{
    return __atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == cpu_token();
}
