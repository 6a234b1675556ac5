// SPDX-License-Identifier: BSD-2-Clause
// break=KIND: the guest goes on with a part of it broken. Tests of the tests, which must notice.
#include "arch/x86/spinlock.h"
#include "kernel/smp.h"
#include "lib/string.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "tests/guest/test.h"

static void break_shootdown(void)
{
    tlb_broken = 1;
}

static void break_map_lock(void)
{
    spin_broken = 1u << RANK_MAP;
}

static void break_frame_lock(void)
{
    spin_broken = 1u << RANK_FRAME;
}

static void break_kmalloc_lock(void)
{
    spin_broken = 1u << RANK_KMALLOC;
}

// Locks in the wrong order; in debug builds that is noticed although nobody else wants them.
static void break_order(void)
{
    spin_lock(&mm.frame_lock);
    spin_lock(&mm.map_lock);
}

static void break_twice(void)
{
    spin_lock(&mm.map_lock);
    spin_lock(&mm.map_lock);
}

static void break_unlock(void)
{
    spin_unlock(&mm.map_lock);
}

// A path out of an operation that forgets to give the lock back, and leaves a count wrong.
static void leak(void *frame)
{
    spin_lock(&mm.map_lock);
    ((frame_t *)frame)->mapcount++;
}

// By another CPU where there is one, which then waits for work.
static void break_leak(void)
{
    frame_t *frame = find_kern_va_frame(&mm);

    if (smp_count() == 1) {
        leak(frame);
    } else {
        smp_run(1, leak, frame);
        smp_wait(1);
    }
}

static const struct {
    const char *kind;
    void (*run)(void);
} kinds[] = {
    {"shootdown", break_shootdown},   {"lock", break_map_lock},
    {"frame_lock", break_frame_lock}, {"kmalloc_lock", break_kmalloc_lock},
    {"order", break_order},           {"twice", break_twice},
    {"unlock", break_unlock},         {"leak", break_leak},
};

int break_part(const char *kind)
{
    bool list = strcmp(kind, "list") == 0;

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (list) {
            printk("break=%s\n", kinds[i].kind);
        } else if (strcmp(kind, kinds[i].kind) == 0) {
            printk("broken: %s\n", kind);
            kinds[i].run();
            return 0;
        }
    }
    return list ? 0 : -1;
}
