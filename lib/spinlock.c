// SPDX-License-Identifier: BSD-2-Clause
// Spinlocks: waiting, and the checks of debug builds.
#include "lib/spinlock.h"

#include "arch/x86/ipi.h"
#include "arch/x86/tlb.h"

bool spin_broken;

void spin_wait(spinlock_t *lock, uint32_t token)
{
    uint32_t none = 0;

    if (spin_broken)
        return;
    if (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == token)
        panic("CPU %u takes the lock of rank %u twice", token - 1, lock->rank);
    do {
        while (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED)) {
            tlb_answer();
            cpu_relax();
        }
        none = 0;
    } while (!__atomic_compare_exchange_n(&lock->owner, &none, token, false, __ATOMIC_ACQUIRE,
                                          __ATOMIC_RELAXED));
}

#if KTF_DEBUG && !defined(KTF_HOST)
void spin_check_lock(const spinlock_t *lock)
{
    struct percpu *me = this_cpu();

    if (me->held >> lock->rank)
        panic("CPU %u takes the lock of rank %u, and holds some of 0x%x", me->number, lock->rank,
              me->held);
    me->held |= 1u << lock->rank;
}

void spin_check_unlock(const spinlock_t *lock)
{
    struct percpu *me = this_cpu();

    if (lock->owner != me->token && !spin_broken)
        panic("CPU %u gives back the lock of rank %u of CPU %u", me->number, lock->rank,
              lock->owner - 1);
    me->held &= ~(1u << lock->rank);
}
#endif
