// SPDX-License-Identifier: BSD-2-Clause
// Spinlocks: waiting, and the checks of debug builds.
#include "arch/x86/spinlock.h"

#include "arch/x86/park.h"
#include "arch/x86/tlb.h"

enum {
    SPINS = 100, // then it halts: waking it takes about as long
};

uint32_t spin_broken;

static const char *const names[RANK_COUNT] = {
    [RANK_KMALLOC] = "kmalloc's lock",
    [RANK_MAP] = "map_lock",
    [RANK_FRAME] = "frame_lock",
    [RANK_CONSOLE] = "the console's lock",
};

// A panic's text must not be its end: any word may be wrong by then.
static const char *name_of(uint32_t rank)
{
    return rank < RANK_COUNT ? names[rank] : "a lock without a rank";
}

static uint64_t my_bit(void)
{
    return ~cpu_others();
}

// Halts until the lock is given back and this CPU is the one that is woken for it.
static void sleep(spinlock_t *lock)
{
    __atomic_fetch_or(&lock->sleepers, my_bit(), __ATOMIC_SEQ_CST);
    __atomic_exchange_n(&lock->waiting, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&lock->owner, __ATOMIC_SEQ_CST) &&
           __atomic_load_n(&lock->sleepers, __ATOMIC_SEQ_CST) & my_bit())
        cpu_park();
}

// The CPU that slept has the lock. It may be the one that was woken, so the others rely on it.
static void slept(spinlock_t *lock)
{
    if (__atomic_and_fetch(&lock->sleepers, cpu_others(), __ATOMIC_SEQ_CST))
        __atomic_exchange_n(&lock->waiting, 1, __ATOMIC_SEQ_CST);
}

void spin_wait(spinlock_t *lock, uint32_t token)
{
    uint32_t spins = 0;

    if (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == token)
        panic("CPU %u takes %s twice", token - 1, name_of(lock->rank));
    do {
        if (unlikely(spin_broken >> lock->rank & 1))
            return;
        if (spins++ < SPINS) {
            tlb_answer();
            cpu_relax();
        } else {
            sleep(lock);
        }
    } while (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) || !spin_take(lock, token));
    if (spins > SPINS)
        slept(lock);
}

// The next sleeper in turn.
void spin_wake(spinlock_t *lock)
{
    uint64_t sleepers, behind = -(2 * my_bit());
    uint32_t cpu;

    __atomic_exchange_n(&lock->waiting, 0, __ATOMIC_SEQ_CST);
    do {
        sleepers = __atomic_load_n(&lock->sleepers, __ATOMIC_SEQ_CST);
        if (!sleepers)
            return;
        cpu = (uint32_t)__builtin_ctzll(sleepers & behind ? sleepers & behind : sleepers);
    } while (
        !(__atomic_fetch_and(&lock->sleepers, ~(UINT64_C(1) << cpu), __ATOMIC_SEQ_CST) >> cpu & 1));
    cpu_unpark(cpu);
}

void spin_missing(const spinlock_t *lock)
{
    panic("%s is broken: CPU %u changes what it guards, and has it not", name_of(lock->rank),
          cpu_number());
}

#if KTF_DEBUG && !defined(KTF_HOST)
void spin_check_lock(const spinlock_t *lock)
{
    struct percpu *me = this_cpu();

    if (me->held >> lock->rank)
        panic("wrong order of locks: CPU %u takes %s, and holds %s%s", me->number,
              name_of(lock->rank), name_of(31 - (uint32_t)__builtin_clz(me->held)),
              me->held >> lock->rank & 1 ? " already" : "");
    me->held |= 1u << lock->rank;
}

void spin_check_enter(spinlock_t *lock)
{
    uint32_t other = __atomic_exchange_n(&lock->inside, cpu_token(), __ATOMIC_SEQ_CST);

    if (other && !panicking())
        panic("%s is broken: CPU %u has it, and CPU %u is inside", name_of(lock->rank),
              cpu_number(), other - 1);
}

void spin_check_leave(spinlock_t *lock)
{
    struct percpu *me = this_cpu();
    uint32_t inside = __atomic_exchange_n(&lock->inside, 0, __ATOMIC_SEQ_CST);
    uint32_t other = lock->owner != me->token ? lock->owner : inside;

    if (other != me->token && !panicking()) {
        if (!other)
            panic("%s is broken: CPU %u gives it back, nobody has it", name_of(lock->rank),
                  me->number);
        panic("%s is broken: CPU %u gives it back, and CPU %u has it", name_of(lock->rank),
              me->number, other - 1);
    }
    me->held &= ~(1u << lock->rank);
}
#endif
