// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on what the CPU itself needs. Registers are those of the CPU that
// checks.
#include "kernel/check_cpu.h"

#include "arch/x86/cpu.h"
#include "arch/x86/ipi.h"
#include "arch/x86/memtype.h"
#include "arch/x86/percpu.h"
#include "arch/x86/tlb.h"
#include "kernel/gdt.h"
#include "kernel/idt.h"
#include "kernel/smp.h"
#include "kernel/stack.h"
#include "kernel/traps.h"
#include "kernel/user.h"
#include "mm/check/internal.h"
#include "mm/journal.h"
#include "mm/frame_word.h"
#include "mm/table.h"

struct table_register {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

enum {
    GATE_PRESENT = 0x80,
};

// All pages from `at` on are mapped with these of PG_W and PG_NX, and out of ring 3's reach.
static void expect_mapped(struct check *c, const char *what, uint64_t at, uint64_t bytes,
                          pgentry_t want)
{
    for (uint64_t va = ROUND_DOWN(at, PAGE_SIZE); va < at + bytes; va += PAGE_SIZE) {
        pgentry_t rights = 0;
        bool mapped = check_rights(va, &rights);

        EXPECT(c, "C2", mapped && (rights & (PG_W | PG_U | PG_NX)) == want,
               "%s: 0x%lx is %s, rights 0x%lx, should be 0x%lx", what, va,
               mapped ? "mapped" : "not mapped", rights, want);
    }
}

static uint64_t handler_of(const struct idt_gate *g)
{
    return (uint64_t)g->offset_high << 32 | (uint64_t)g->offset_middle << 16 | g->offset_low;
}

// A vector that ring 3 may call says so by both bits.
static bool type_fits(unsigned vector, unsigned type)
{
    return type == IDT_GATE_INTERRUPT ||
           (vector == VECTOR_USER_EXIT && type == (IDT_GATE_INTERRUPT | IDT_GATE_RING_3));
}

static void check_gates(struct check *c)
{
    for (unsigned v = 0; v < IDT_COUNT; v++) {
        const struct idt_gate *g = &idt[v];

        EXPECT(c, "C2", (g->type & GATE_PRESENT) || v >= VECTOR_EXCEPTIONS,
               "exception %u has no gate", v);
        EXPECT(c, "C2",
               type_fits(v, g->type) && g->selector == SEL_KERNEL_CODE && g->ist == idt_ist(v) &&
                   handler_of(g) == idt_handler(v) && !g->reserved,
               "the gate of vector %u leads to 0x%lx, type 0x%x, selector 0x%x, IST %u", v,
               handler_of(g), g->type, g->selector, g->ist);
        expect_mapped(c, "a handler", handler_of(g), 1, 0);
    }
}

// The three tables of this CPU, and the stacks that it goes to by itself.
static void check_registers(struct check *c)
{
    struct table_register idtr, gdtr;
    uint16_t tr;
    uint64_t rsp;

    __asm__ volatile("sidt %0" : "=m"(idtr));
    __asm__ volatile("sgdt %0" : "=m"(gdtr));
    __asm__ volatile("str %0" : "=r"(tr));
    __asm__ volatile("mov %%rsp, %0" : "=r"(rsp));
    EXPECT(c, "C2", idtr.base == (uintptr_t)idt && idtr.limit >= VECTOR_EXCEPTIONS * 16 - 1,
           "IDTR is 0x%lx, limit 0x%x", idtr.base, idtr.limit);
    EXPECT(c, "C2", gdtr.base == gdt_address(cpu_number()) && gdtr.limit >= SEL_TSS + 15,
           "GDTR is 0x%lx, limit 0x%x", gdtr.base, gdtr.limit);
    EXPECT(c, "C2", tr == SEL_TSS, "TR is 0x%x", tr);
    expect_mapped(c, "the IDT", (uintptr_t)idt, sizeof(idt), PG_W | PG_NX);
    expect_mapped(c, "the GDT", gdt_address(cpu_number()), SEL_TSS + 16, PG_W | PG_NX);
    expect_mapped(c, "the current stack", rsp, 8, PG_W | PG_NX);
}

static bool is_top(vaddr_t va)
{
    for (uint32_t i = 0; i < stack_count; i++)
        if (stacks[i].top.v == va.v)
            return true;
    return false;
}

// Of each CPU, by what is in memory; it loads them before it is online.
static void check_segments(struct check *c, uint32_t cpu)
{
    vaddr_t rsp0 = tss_rsp0(cpu);

    EXPECT(c, "C2", gdt_holds(cpu), "the GDT of CPU %u is not the kernel's with its TSS", cpu);
    EXPECT(c, "C2", tss_holds(cpu) && (!rsp0.v || stack_contains(VADDR(rsp0.v - 8))),
           "the TSS of CPU %u holds more than stacks, RSP0 is 0x%lx", cpu, rsp0.v);
    for (unsigned ist = IST_DOUBLE_FAULT; ist <= IST_MACHINE_CHECK; ist++) {
        vaddr_t top = tss_ist(cpu, ist);

        EXPECT(c, "C2", is_top(top), "IST %u of CPU %u is 0x%lx, no top of a stack", ist, cpu,
               top.v);
        expect_mapped(c, "a stack of the IST", top.v - 8, 8, PG_W | PG_NX);
    }
}

// Nothing is written behind the last one. True if all lie in their window.
static bool check_stacks(struct check *c)
{
    uint64_t below = VA_STACKS - PAGE_SIZE;
    bool inside = true;

    for (uint32_t i = 0; i < stack_count; below = stacks[i].top.v, i++) {
        EXPECT(c, "X3",
               stacks[i].bottom.v == below + 2 * PAGE_SIZE &&
                   stacks[i].top.v > stacks[i].bottom.v && IS_ALIGNED(stacks[i].top.v, PAGE_SIZE),
               "stack '%.15s' is 0x%lx to 0x%lx, the one below ends at 0x%lx", stacks[i].name,
               stacks[i].bottom.v, stacks[i].top.v, below);
        inside = inside && stacks[i].bottom.v >= VA_STACKS &&
                 stacks[i].top.v - VA_STACKS < STACK_WINDOW_BYTES;
    }
    for (uint32_t i = stack_count; i < STACK_MAX; i++)
        EXPECT(c, "X3", !(stacks[i].bottom.v | stacks[i].top.v | (uint64_t)stacks[i].name[0]),
               "stacks[%u] is not blank, of %u", i, stack_count);
    return inside;
}

static void check_guards(struct check *c)
{
    pgentry_t rights;

    for (uint32_t i = 0; i < stack_count; i++) {
        const struct stack_info *s = &stacks[i];

        EXPECT(c, "X3", !check_rights(s->bottom.v - PAGE_SIZE, &rights),
               "the guard page below stack '%s' is mapped", s->name);
        EXPECT(c, "X3", !check_rights(s->top.v, &rights),
               "the guard page above stack '%s' is mapped", s->name);
        for (uint64_t va = s->bottom.v; va < s->top.v; va += PAGE_SIZE)
            expect_mapped(c, s->name, va, 1, PG_W | PG_NX);
    }
}

// Another CPU writes these words one by one before it is online, and none of them twice.
static bool own(bool online, uint64_t have, uint64_t want)
{
    return have == want || (!online && !have);
}

// What a CPU has of its own says so.
static void check_own(struct check *c, uint32_t cpu, bool online)
{
    const struct percpu *p = &percpu[cpu];

    EXPECT(c, "C2",
           own(online, p->number, cpu) && own(online, p->token, cpu + 1) &&
               own(online, p->others, ~(UINT64_C(1) << cpu)) &&
               own(online, p->journal, (uintptr_t)journal_ring[cpu]) &&
               own(online, p->apic_id, cpu),
           "percpu[%u]: number %u, token %u, others 0x%lx, journal 0x%lx, apic_id %u", cpu,
           p->number, p->token, p->others, p->journal, p->apic_id);
}

static void check_percpu(struct check *c)
{
    uint64_t base = rdmsr(MSR_GS_BASE);

    EXPECT(c, "C2", base == (uintptr_t)this_cpu(), "GS base is 0x%lx, CPU %u's is 0x%lx", base,
           cpu_number(), (uintptr_t)this_cpu());
    for (uint32_t cpu = 0; cpu < CPU_MAX; cpu++) {
        bool online = __atomic_load_n(&mm.cpu[cpu].online, __ATOMIC_ACQUIRE);

        check_own(c, cpu, online);
        if (online)
            check_segments(c, cpu);
    }
}

// Every CPU has the boot CPU's MTRRs, and its own PAT as the kernel set it.
static void check_types(struct check *c)
{
    uint64_t pat = rdmsr(MSR_PAT);

    EXPECT(c, "M2", pat == pat_value(), "the PAT is 0x%lx, should be 0x%lx", pat, pat_value());
    EXPECT(c, "M2", cpu_mtrrs_hold(), "the MTRRs are not those of the boot");
}

// What the kernel never switches on.
static void check_off(struct check *c, uint64_t cr0, uint64_t cr4)
{
    EXPECT(c, "M2", !(cr0 & (CR0_CD | CR0_NW)), "CR0 is 0x%lx: nothing is cached", cr0);
    EXPECT(c, "X2", !(cr4 & (CR4_PKE | CR4_PKS)), "CR4 is 0x%lx: protection keys limit rights",
           cr4);
    EXPECT(c, "C1", !(cr4 & CR4_PCIDE), "CR4 is 0x%lx: CR3 names a PCID", cr4);
    EXPECT(c, "C2", !(cr4 & (CR4_FSGSBASE | CR4_CET)),
           "CR4 is 0x%lx, FSGSBASE and CET should be off", cr4);
}

static void check_control(struct check *c)
{
    uint64_t cr4 = read_cr4();

    check_off(c, read_cr0(), cr4);
    EXPECT(c, "X2", read_cr0() & CR0_WP, "CR0.WP is off: ring 0 writes what is mapped read-only");
    EXPECT(c, "X2", (cr4 & cpu_cr4) == cpu_cr4, "CR4 is 0x%lx, should have all of 0x%lx", cr4,
           cpu_cr4);
    EXPECT(c, "X2", cpu_cr4 == cpu_cr4_known(), "cpu_cr4 is 0x%lx, the CPU has 0x%lx", cpu_cr4,
           cpu_cr4_known());
    EXPECT(c, "X1", rdmsr(MSR_EFER) & EFER_NXE, "EFER.NXE is off: all that is mapped can be run");
}

static void check_cpu(struct check *c)
{
    check_control(c);
    check_types(c);
    EXPECT(c, "C1", !ap_cr3 || ap_cr3 == kernel_cr3,
           "ap_cr3 is 0x%lx, the kernel's root is at 0x%lx", ap_cr3, kernel_cr3);
    EXPECT(c, "C1", cr3_read().v == space_current()->cr3, "CR3 is 0x%lx, the current space is %s",
           cr3_read().v, space_current()->name);
    if (!ipi_ready) // the boot CPU is not set up yet
        return;
    if (stack_count > STACK_MAX) {
        check_fail(c, "X3", "%u stacks, there is room for %u", stack_count, (unsigned)STACK_MAX);
        return;
    }
    if (check_stacks(c)) // else their pages could be too many
        check_guards(c);
    check_gates(c);
    check_registers(c);
    check_percpu(c);
}

void check_cpu_init(void)
{
    check_machine = check_cpu;
}
