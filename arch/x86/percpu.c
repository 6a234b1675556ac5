// SPDX-License-Identifier: BSD-2-Clause
// What each CPU has of its own.
#include "arch/x86/percpu.h"

#include "arch/x86/cpu.h"
#include "arch/x86/layout.h"
#include "lib/string.h"
#include "mm/frame.h"
#include "mm/journal.h"
#include "mm/vmap.h"

struct percpu percpu[CPU_MAX] __attribute__((aligned(64)));

int percpu_journal_create(uint32_t number)
{
    vaddr_t va = VADDR(VA_JOURNALS + (uint64_t)number * JOURNAL_BYTES);
    frame_t *frame;
    int err = get_frame((unsigned)__builtin_ctz(JOURNAL_BYTES) - PAGE_SHIFT, &frame);

    if (err)
        return err;
    err = vmap_kern(va, frame, VATTR_W);
    if (err) {
        put_frame(frame);
        return err;
    }
    memset(vaddr_ptr(va), 0, JOURNAL_BYTES);
    journal_ring[number] = vaddr_ptr(va);
    return 0;
}

void percpu_init(uint32_t number)
{
    struct percpu *p = &percpu[number];

    p->number = number;
    p->token = number + 1;
    p->others = ~(UINT64_C(1) << number);
    p->journal = (uintptr_t)journal_ring[number];
    wrmsr(MSR_GS_BASE, (uintptr_t)p);
    wrmsr(MSR_KERNEL_GS_BASE, 0); // what ring 3 sees
}
