// SPDX-License-Identifier: BSD-2-Clause
// Exceptions: resumed where a probe expected them, else printed with all there is to know.
#include "kernel/traps.h"

#include "arch/x86/cpu.h"
#include "arch/x86/exit.h"
#include "arch/x86/ipi.h"
#include "arch/x86/park.h"
#include "arch/x86/percpu.h"
#include "arch/x86/probe.h"
#include "arch/x86/serial.h"
#include "boot/image.h"
#include "kernel/ioapic.h"
#include "kernel/panic_report.h"
#include "kernel/smp.h"
#include "kernel/stack.h"
#include "kernel/user.h"
#include "lib/panic.h"
#include "lib/printk.h"

enum {
    // A fault, one in its report, one in the report of that: all may be expected by a probe.
    INSIDE_MAX = 3,
};

struct fixup {
    uint64_t from, to;
};
extern const struct fixup extable_start[], extable_end[]; // kernel.ld; fixup.h and probe.S fill it

static const char *const names[VECTOR_EXCEPTIONS] = {
    "#DE divide error",
    "#DB debug",
    "NMI",
    "#BP breakpoint",
    "#OF overflow",
    "#BR bound range",
    "#UD invalid opcode",
    "#NM no FPU",
    "#DF double fault",
    "coprocessor overrun",
    "#TS invalid TSS",
    "#NP segment not present",
    "#SS stack segment",
    "#GP general protection",
    "#PF page fault",
    "reserved",
    "#MF x87 error",
    "#AC alignment check",
    "#MC machine check",
    "#XM SIMD error",
    "#VE virtualization",
    "#CP control protection",
    [28] = "#HV hypervisor injection",
    [29] = "#VC VMM communication",
    [30] = "#SX security",
};

// The address by which the code that faulted is listed: its own, or for a failed fetch that of its
// caller.
static uint64_t fault_origin(const struct trap_frame *frame)
{
    bool fetch = frame->vector == VECTOR_PF ? (frame->error & PF_FETCH) || frame->rip == read_cr2()
                                            : !in_image_text(frame->rip);

    // The stack is the one that this handler runs on: it can be read.
    if (fetch && stack_contains(VADDR(frame->rsp)) && IS_ALIGNED(frame->rsp, 8))
        return *(const uint64_t *)(uintptr_t)frame->rsp;
    return frame->rip;
}

static const struct fixup *find_fixup(uint64_t address)
{
    for (const struct fixup *f = extable_start; f < extable_end; f++) {
        if (f->from == address)
            return f;
    }
    return NULL;
}

// True if a probe expected this: then it goes on as a failed one.
static bool trap_expected(struct trap_frame *frame)
{
    const struct fixup *fixup;

    if (frame->vector != VECTOR_PF && frame->vector != VECTOR_GP)
        return false;
    fixup = find_fixup(fault_origin(frame));
    if (fixup == NULL)
        return false;
    this_cpu()->probe = (struct probe_fault){
        .vector = frame->vector,
        .error = frame->error,
        .address = frame->vector == VECTOR_PF ? read_cr2() : 0,
    };
    frame->rip = fixup->to;
    return true;
}

static void print_page_fault(uint64_t error)
{
    printk("  %s of 0x%016lx from %s mode: %s%s%s%s\n",
           error & PF_FETCH   ? "fetch"
           : error & PF_WRITE ? "write"
                              : "read",
           read_cr2(), error & PF_USER ? "user" : "kernel",
           error & PF_PRESENT ? "not permitted" : "not present",
           error & PF_RESERVED ? ", reserved bit set in an entry" : "",
           error & PF_KEY ? ", protection key" : "",
           error & PF_SHADOW_STACK ? ", shadow stack" : "");
}

static void print_registers(const struct trap_frame *f)
{
    printk("  rip 0x%016lx  cs  0x%04lx  rflags 0x%lx\n", f->rip, f->cs, f->rflags);
    printk("  rsp 0x%016lx  ss  0x%04lx\n", f->rsp, f->ss);
    printk("  rax 0x%016lx  rbx 0x%016lx  rcx 0x%016lx\n", f->rax, f->rbx, f->rcx);
    printk("  rdx 0x%016lx  rsi 0x%016lx  rdi 0x%016lx\n", f->rdx, f->rsi, f->rdi);
    printk("  rbp 0x%016lx  r8  0x%016lx  r9  0x%016lx\n", f->rbp, f->r8, f->r9);
    printk("  r10 0x%016lx  r11 0x%016lx  r12 0x%016lx\n", f->r10, f->r11, f->r12);
    printk("  r13 0x%016lx  r14 0x%016lx  r15 0x%016lx\n", f->r13, f->r14, f->r15);
    printk("  cr0 0x%016lx  cr2 0x%016lx\n", read_cr0(), read_cr2());
    printk("  cr3 0x%016lx  cr4 0x%016lx\n", read_cr3(), read_cr4());
}

// This one came while another one was handled, which then is where it all began.
static void print_outer(const struct trap_frame *frame)
{
    const struct trap_frame *first = (const struct trap_frame *)read_dr2();

    if (frame->vector < VECTOR_EXCEPTIONS && frame->vector != VECTOR_NMI && read_dr3() > 1)
        printk("  in handling vector %lu at 0x%lx, CR2 0x%lx\n", first->vector, first->rip,
               read_dr1());
}

static _Noreturn void trap_report(const struct trap_frame *frame)
{
    const char *name = "interrupt";

    if (frame->vector < VECTOR_EXCEPTIONS)
        name = names[frame->vector] != NULL ? names[frame->vector] : "reserved";
    panic_begin(name, frame->rip);
    panic_record = (struct panic_record){
        .cpu = cpu_number(),
        .vector = frame->vector,
        .error = frame->error,
        .address = read_cr2(),
        .caller = frame->rip,
        .frame = frame,
    };
    printk("\nEXCEPTION: vector %lu (%s), error code 0x%lx\n", frame->vector, name, frame->error);
    if (ipi_ready)
        printk("  on CPU %u\n", cpu_number());
    print_outer(frame);
    if (frame->vector == VECTOR_PF)
        print_page_fault(frame->error);
    print_registers(frame);
    stack_print(VADDR(frame->rsp));
    panic_from(frame->rip, frame->rbp, "unexpected vector %lu (%s) at 0x%lx", frame->vector, name,
               frame->rip);
}

// The report itself, and that of its own fault, came to nothing: two lines without a lock or a
// variable.
static _Noreturn void report_lost(void)
{
    const struct trap_frame *first = (const struct trap_frame *)read_dr2();
    char text[128];
    int length = snprintk(text, sizeof(text),
                          "\nEXCEPTION: vector %lu at 0x%lx, CR2 0x%lx\n"
                          "exceptions in its report, given up\n",
                          first->vector, first->rip, read_dr1());

    serial_write(text, (size_t)length);
    if (ipi_ready)
        ipi_stop_others(smp_mask());
    machine_stop();
}

// An exception begins, inside of how many others is in a debug register, and in two more the
// frame of the outermost and its CR2: they must hold where memory is what is broken. Then reporting
// the first fault faults, so does the report of that, and so on for ever. Returns the count.
static uint64_t exception_begin(const struct trap_frame *frame)
{
    uint64_t inside = read_dr3();

    write_dr3(inside + 1);
    if (inside == 0) {
        write_dr1(read_cr2());
        write_dr2((uintptr_t)frame);
    } else if (inside == INSIDE_MAX) {
        report_lost();
    } else if (inside > INSIDE_MAX) {
        machine_stop_bare();
    }
    return inside;
}

static bool trap_handled(struct trap_frame *frame)
{
    cpu_awake();
    // The processor leaves the key to user memory as it was; a handler has to take it away.
    user_access_end();
    return user_trap(frame) || trap_expected(frame) || frame->vector == VECTOR_SPURIOUS ||
           ipi_handle(frame->vector) || ioapic_handle(frame->vector);
}

void trap_handle(struct trap_frame *frame)
{
    // An NMI stops this CPU on behalf of another one, wherever it is.
    bool exception = frame->vector < VECTOR_EXCEPTIONS && frame->vector != VECTOR_NMI;
    uint64_t inside = exception ? exception_begin(frame) : 0;

    if (!trap_handled(frame))
        trap_report(frame);
    if (exception)
        write_dr3(inside);
}
