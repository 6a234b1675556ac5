// SPDX-License-Identifier: BSD-2-Clause
// Starting the other CPUs by INIT-SIPI-SIPI through a low page, and giving them work.
#include "kernel/smp.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/ipi.h"
#include "arch/x86/layout.h"
#include "arch/x86/park.h"
#include "arch/x86/tlb.h"
#include "boot/fw_cfg.h"
#include "kernel/gdt.h"
#include "kernel/idt.h"
#include "kernel/stack.h"
#include "lib/error.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/journal.h"
#include "mm/vmap.h"

enum {
    APIC_IDS = 256,
    LOW_PAGES = 0x9f,   // a start-up command can name any page below 640 KiB
    INIT_DELAY = 10000, // microseconds (SDM vol. 3, 9.4.4)
    STARTUP_DELAY = 200,
    START_TIMEOUT = 5000000, // until all are up
};
#define TRAMPOLINE_VA VADDR(VA_DEVICES + 0x1000000)

// Read by ap_start.S: the page tables, and by number on the bus the stack of a CPU that is
// expected, 0 of all others.
uint64_t ap_cr3;
uint64_t ap_stack[APIC_IDS];

extern const char ap_trampoline[], ap_trampoline_end[];
_Noreturn void ap_main(uint32_t number);

// CPUs 0 to smp_up - 1 run and can be given work; the debugger holds mm.cpu[] against it.
uint32_t smp_up = 1;

uint32_t smp_count(void)
{
    return smp_up;
}

uint64_t smp_mask(void)
{
    return ~UINT64_C(0) >> (CPU_MAX - smp_up);
}

// Writing to this port takes about a microsecond everywhere, and changes nothing.
static void delay(unsigned microseconds)
{
    while (microseconds--)
        outb(0x80, 0);
}

/* --- the CPU that starts ---------------------------------------------------------------------- */

static void do_work(struct cpu_work *work)
{
    void (*fn)(void *) = __atomic_load_n(&work->fn, __ATOMIC_ACQUIRE);
    void *arg = work->arg;
    uint32_t waiter;

    __atomic_store_n(&work->fn, NULL, __ATOMIC_RELEASE);
    fn(arg);
    __atomic_fetch_add(&work->done, 1, __ATOMIC_SEQ_CST);
    waiter = __atomic_load_n(&work->waiter, __ATOMIC_SEQ_CST);
    if (waiter)
        cpu_unpark(waiter - 1);
}

static void (*idle_job)(void);

// Without other CPUs this one runs it, once it is idle.
void smp_idle_job(void (*run)(void))
{
    __atomic_store_n(&idle_job, run, __ATOMIC_SEQ_CST);
    if (run)
        cpu_unpark(smp_up - 1);
}

_Noreturn void smp_idle_loop(void)
{
    struct cpu_work *work = &this_cpu()->work;
    void (*job)(void);

    sti();
    for (;;) {
        job = __atomic_load_n(&idle_job, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&work->fn, __ATOMIC_ACQUIRE))
            do_work(work);
        else if (job)
            job();
        else
            cpu_park();
    }
}

// Apart from ap_main(): the compiler may read per-CPU data as early in a function as it likes.
static _Noreturn __attribute__((noinline)) void ap_late(void)
{
    cpu_init();
    cpu_tables_init();
    idt_load();
    apic_enable();
    this_cpu()->apic_id = apic_id();
    space_go_online();
    smp_idle_loop();
}

_Noreturn void ap_main(uint32_t number)
{
    percpu_init(number, journal_ring[number]);
    ap_late();
}

/* --- the CPU that starts them ----------------------------------------------------------------- */

// A page of low memory, counted up, and mapped writable at TRAMPOLINE_VA.
static frame_t *low_page(uint64_t *mfn)
{
    for (*mfn = 1; *mfn < LOW_PAGES; ++*mfn) {
        frame_t *frame = find_mfn_frame(MFN(*mfn));

        if (!frame || frame->kind != FRAME_LOW || ref_frame(frame))
            continue;
        if (vmap_part(NULL, TRAMPOLINE_VA, frame, *mfn - frame->mfn, 0, VATTR_W) == 0)
            return frame;
        put_frame(frame);
    }
    return NULL;
}

static void low_page_back(frame_t *frame, uint64_t mfn)
{
    if (vunmap_part(NULL, TRAMPOLINE_VA, frame, mfn - frame->mfn, 0) || put_frame(frame))
        panic("the low page 0x%lx can't be given back", mfn);
}

static uint32_t online(uint32_t wanted)
{
    uint32_t up = 0;

    for (uint32_t cpu = 0; cpu < wanted; cpu++)
        up += __atomic_load_n(&mm.cpu[cpu].online, __ATOMIC_ACQUIRE);
    return up;
}

static void start(uint32_t wanted, uint64_t mfn)
{
    apic_send(0, APIC_INIT | APIC_ASSERT | APIC_ALL_OTHERS);
    delay(INIT_DELAY);
    for (unsigned i = 0; i < 2; i++) {
        apic_send(0, APIC_STARTUP | APIC_ASSERT | APIC_ALL_OTHERS | (uint32_t)mfn);
        delay(STARTUP_DELAY);
    }
    for (unsigned i = 0; i < START_TIMEOUT && online(wanted) < wanted; i++)
        delay(1);
    // A CPU that did not come is not expected any more.
    for (uint32_t id = 0; id < APIC_IDS; id++)
        __atomic_exchange_n(&ap_stack[id], 0, __ATOMIC_RELAXED);
}

// The ring of that CPU, at VA_JOURNALS + cpu * JOURNAL_BYTES.
static int create_journal(uint32_t cpu)
{
    vaddr_t va = VADDR(VA_JOURNALS + (uint64_t)cpu * JOURNAL_BYTES);
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
    journal_ring[cpu] = vaddr_ptr(va);
    return 0;
}

static void provide(uint32_t wanted)
{
    for (uint32_t cpu = 1; cpu < wanted; cpu++) {
        int err = create_journal(cpu);

        if (err)
            panic("no journal for CPU %u: %s", cpu, error_name(err));
        cpu_stacks_create(cpu);
        ap_stack[cpu] = cpu_stack(cpu).v;
    }
}

void smp_start(void)
{
    uint32_t wanted = fw_cfg_cpus();
    uint64_t mfn;
    frame_t *frame;

    this_cpu()->apic_id = apic_id();
    ipi_ready = true;
    if (wanted > CPU_MAX) {
        printk("smp: %u CPUs, of which %u are used\n", wanted, CPU_MAX);
        wanted = CPU_MAX;
    }
    if (wanted > 1) {
        frame = low_page(&mfn);
        if (!frame) {
            printk("smp: no low memory to start CPUs with: one runs\n");
            return;
        }
        ap_cr3 = kernel_space()->cr3;
        provide(wanted);
        memcpy(vaddr_ptr(TRAMPOLINE_VA), ap_trampoline,
               (size_t)(ap_trampoline_end - ap_trampoline));
        start(wanted, mfn);
        low_page_back(frame, mfn);
        while (smp_up < wanted && mm.cpu[smp_up].online)
            smp_up++;
        if (online(wanted) < wanted)
            printk("smp: only %u of %u CPUs are up, of which %u are used\n", online(wanted), wanted,
                   smp_up);
    }
    sti();
}

/* --- work ------------------------------------------------------------------------------------- */

void smp_run(uint32_t cpu, void (*fn)(void *arg), void *arg)
{
    struct cpu_work *work = &percpu[cpu].work;

    assert(cpu < smp_up && cpu != cpu_number());
    while (__atomic_load_n(&work->fn, __ATOMIC_ACQUIRE))
        cpu_pause();
    work->arg = arg;
    work->given++;
    __atomic_store_n(&work->fn, fn, __ATOMIC_RELEASE);
    cpu_unpark(cpu);
}

void smp_wait(uint32_t cpu)
{
    struct cpu_work *work = &percpu[cpu].work;

    __atomic_exchange_n(&work->waiter, cpu_token(), __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&work->done, __ATOMIC_SEQ_CST) != work->given)
        cpu_park();
    __atomic_store_n(&work->waiter, 0, __ATOMIC_RELAXED);
}
