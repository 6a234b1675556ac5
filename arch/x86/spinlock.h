// SPDX-License-Identifier: BSD-2-Clause
// Spinlocks with a rank: a CPU takes locks only in rising order of rank. Whoever has to wait long
// halts meanwhile.
#pragma once

#include "arch/x86/percpu.h"
#include "lib/panic.h"

// The order in which locks are taken, lowest first.
enum lock_rank {
    RANK_KMALLOC = 0, // of kmalloc
    RANK_MAP = 1,     // mm.map_lock
    RANK_FRAME = 2,   // mm.frame_lock
    RANK_CONSOLE = 3, // the console
    RANK_COUNT,
};

// Invariant: owner is the number + 1 of the CPU that holds it, 0 if none does. If a bit of sleepers
// is set, then `waiting` is 1, or a CPU that was woken is on its way to the lock and will set it
// again. Interrupt handlers take no lock that other code takes, so interrupts stay as they are.
typedef struct spinlock {
    uint32_t waiting;  // 1: who gives it back must wake one of the sleepers
    uint32_t owner;    // directly behind, see spin_unlock()
    uint64_t sleepers; // mask of CPUs that halt until they are woken
    uint32_t rank;     // enum lock_rank
    uint32_t inside;   // debug builds: the token of the CPU that uses what the lock guards
} spinlock_t __attribute__((aligned(8)));
_Static_assert(__builtin_offsetof(spinlock_t, owner) == 4, "one word with waiting");

// For tests of the tests: bit (1 << rank) of locks that keep nobody waiting.
extern uint32_t spin_broken;

/* Waits for the lock. Meanwhile the CPU answers requests to flush its TLB, so that one that waits
 * with interrupts off keeps nobody waiting. Panics if this CPU holds it already. */
void spin_wait(spinlock_t *lock, uint32_t token);
/* The lock was given back, and somebody waits for it. */
void spin_wake(spinlock_t *lock);
/* This CPU changes what the lock guards, and has it not: panics. */
_Noreturn void spin_missing(const spinlock_t *lock);

#if KTF_DEBUG && !defined(KTF_HOST)
/* Panic if: the CPU holds a lock of this rank or of a higher one; another CPU is inside what the
 * lock guards, although this one was let in; the CPU that leaves is not the one that is inside. */
void spin_check_lock(const spinlock_t *lock);
void spin_check_enter(spinlock_t *lock);
void spin_check_leave(spinlock_t *lock);
#else
static always_inline void spin_check_lock(const spinlock_t *lock)
{
    (void)lock;
}

static always_inline void spin_check_enter(spinlock_t *lock)
{
    (void)lock;
}

static always_inline void spin_check_leave(spinlock_t *lock)
{
    (void)lock;
}
#endif

static always_inline bool spin_take(spinlock_t *lock, uint32_t token)
{
    uint32_t none = 0;

    return __atomic_compare_exchange_n(&lock->owner, &none, token, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED);
}

/* Until spin_unlock() this CPU alone has what the lock guards. */
static always_inline void spin_lock(spinlock_t *lock)
{
    uint32_t token = cpu_token();

    spin_check_lock(lock);
    if (unlikely(!spin_take(lock, token)))
        spin_wait(lock, token);
    spin_check_enter(lock);
}

/* True if it was free, and is now this CPU's. */
static always_inline bool spin_trylock(spinlock_t *lock)
{
    if (!spin_take(lock, cpu_token()))
        return false;
    spin_check_lock(lock);
    spin_check_enter(lock);
    return true;
}

// owner becomes 0, and `waiting` is read, by one instruction: a CPU that goes to sleep sets the one
// before it looks at the other, so that it is either woken or does not sleep. By hand, so that
// callers need not save registers for a call that is hardly ever made.
static always_inline void spin_unlock(spinlock_t *lock)
{
    spin_check_leave(lock);
#ifdef KTF_HOST
    lock->owner = 0;
#else
    __asm__ volatile("lock andq %[keep], %[both]\n\t"
                     "jz 1f\n\t"
                     "leaq %[both], %%r11\n\t"
                     "call spin_wake_saving\n"
                     "1:"
                     : [both] "+m"(*lock)
                     : [keep] "i"(INT32_MAX)
                     : "r11", "memory", "cc");
#endif
}

/* True if this CPU holds it. */
static inline bool spin_held(const spinlock_t *lock)
{
    return __atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == cpu_token();
}

/* Debug builds: panics unless this CPU holds it. */
static always_inline void spin_check_held(const spinlock_t *lock)
{
#if KTF_DEBUG
    if (unlikely(!spin_held(lock)))
        spin_missing(lock);
#else
    (void)lock;
#endif
}
