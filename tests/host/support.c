// SPDX-License-Identifier: BSD-2-Clause
// The machine of the host tests: memory, boot windows, panics, and the runner.
#define _GNU_SOURCE
#include "tests/host/support.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86/boot_window.h"
#include "arch/x86/ipi.h"
#include "arch/x86/memtype.h"
#include "arch/x86/park.h"
#include "arch/x86/tlb.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/journal.h"
#include "mm/kmalloc/internal.h"

enum {
    JUNK = 0xa5, // what a page holds before mm has cleared it
};
#define LAYOUT_BYTES (512 * GIB)
#define FILE_BYTES   (64 * TIB)
#define DIRECT_BYTES (8 * GIB) // of physical memory that the tests see at once

struct machine machine;
char panic_message[256];

static int memory = -1;
static uint8_t *direct; // physical memory from 0 on, read-only
static uint8_t
    *visible; // a byte for each page of the layout: 1 if arch_meta_map() shows something there

static jmp_buf test_end;
static jmp_buf panic_expected;
static bool panic_is_expected;
static char why[1024];

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *map(void *at, uint64_t bytes, int prot, int flags, int fd, uint64_t offset)
{
    void *p = mmap(at, bytes, prot, flags, fd, (off_t)offset);

    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

static void open_memory(void)
{
    memory = memfd_create("physical memory", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, (off_t)FILE_BYTES))
        die("memory");
    direct = map(NULL, DIRECT_BYTES, PROT_READ, MAP_SHARED | MAP_NORESERVE, memory, 0);
}

void machine_reset(void)
{
    if (memory < 0)
        open_memory();
    if (fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)FILE_BYTES))
        die("fallocate");
    map((void *)LAYOUT_BASE, LAYOUT_BYTES, PROT_NONE,
        MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (visible)
        munmap(visible, LAYOUT_BYTES / PAGE_SIZE);
    visible = map(NULL, LAYOUT_BYTES / PAGE_SIZE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memset(&mm, 0, sizeof(mm));
    memset(&mtrr, 0, sizeof(mtrr));
    memset(&kmalloc_state, 0, sizeof(kmalloc_state));
    memset(&machine, 0, sizeof(machine));
    machine.phys_bits = 40;
    machine.has_1g = true;
    machine.levels = 4;
    host_cpu = 0;
}

void machine_map(uint64_t start, uint64_t bytes, uint32_t type)
{
    struct boot_info *info = &machine.info;

    if (info->mem_count == BOOT_MEM_MAX)
        abort();
    info->mem[info->mem_count++] = (struct boot_mem){PADDR(start), bytes, type};
}

void machine_usual(uint64_t ram)
{
    static const struct region part[] = {
        {0x100000, 0x102000, FRAME_IMAGE, 0},  {0x102000, 0x113000, FRAME_TEXT, 0},
        {0x113000, 0x118000, FRAME_RODATA, 0}, {0x118000, 0x119000, FRAME_DATA, 0},
        {0x119000, 0x130000, FRAME_BSS, 0},
    };
    struct boot_info *info = &machine.info;

    machine_map(0, 0x9fc00, BOOT_MEM_AVAILABLE);
    machine_map(0x9fc00, 0x400, BOOT_MEM_RESERVED);
    machine_map(0xf0000, 0x10000, BOOT_MEM_RESERVED);
    machine_map(0x100000, ram - 0x100000 - 0x20000, BOOT_MEM_AVAILABLE);
    machine_map(ram - 0x20000, 0x20000, BOOT_MEM_ACPI);
    machine_map(0xfffc0000, 0x40000, BOOT_MEM_RESERVED);
    memcpy(machine.part, part, sizeof(part));
    machine.part_count = ARRAY_SIZE(part);
    info->mbi_start = PADDR(0x130008);
    info->mbi_end = PADDR(0x130a00);
    info->module_count = 1;
    info->module[0] = (struct boot_module){PADDR(0x132000), PADDR(0x134123), "module"};
}

void machine_start(void)
{
    journal_reset();
    mm_init(&machine.info, machine.part, machine.part_count);
}

void machine_boot(uint64_t ram)
{
    machine_reset();
    machine_usual(ram);
    machine_start();
}

bool machine_said(const char *text)
{
    return strstr(machine.said, text);
}

void phys_read(uint64_t paddr, void *to, size_t bytes)
{
    if (paddr < DIRECT_BYTES && bytes <= DIRECT_BYTES - paddr)
        memcpy(to, direct + paddr, bytes);
    else if (pread(memory, to, bytes, (off_t)paddr) != (ssize_t)bytes)
        test_fail(__FILE__, __LINE__, "physical address 0x%llx can't be read",
                  (unsigned long long)paddr);
}

/* --- what mm asks of the machine -------------------------------------------------------------- */

static uint8_t *visible_at(vaddr_t va)
{
    if (!IS_ALIGNED(va.v, PAGE_SIZE) || va.v - LAYOUT_BASE >= LAYOUT_BYTES)
        test_fail(__FILE__, __LINE__, "boot window: bad address 0x%llx", (unsigned long long)va.v);
    return &visible[(va.v - LAYOUT_BASE) / PAGE_SIZE];
}

void arch_meta_map(vaddr_t va, mfn_t mfn)
{
    uint8_t *seen = visible_at(va);

    if (*seen)
        test_fail(__FILE__, __LINE__, "0x%llx is made visible twice", (unsigned long long)va.v);
    map(vaddr_ptr(va), PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED, memory,
        mfn.v << PAGE_SHIFT);
    memset(vaddr_ptr(va), JUNK, PAGE_SIZE);
    *seen = 1;
    machine.visible_pages++;
}

void arch_meta_unmap(vaddr_t va)
{
    uint8_t *seen = visible_at(va);

    if (!*seen)
        test_fail(__FILE__, __LINE__, "0x%llx is made invisible twice", (unsigned long long)va.v);
    map(vaddr_ptr(va), PAGE_SIZE, PROT_NONE,
        MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *seen = 0;
    machine.visible_pages--;
}

void arch_meta_final(void)
{
}

unsigned arch_phys_bits(void)
{
    return machine.phys_bits;
}

bool arch_has_1g(void)
{
    return machine.has_1g;
}

unsigned arch_levels(void)
{
    return machine.levels;
}

void arch_load_space(uint64_t cr3)
{
    machine.cr3 = cr3;
}

/* --- other CPUs, which do nothing but flush --------------------------------------------------- */

uint32_t host_cpu;

void machine_start_cpu(uint32_t cpu)
{
    mm.cpu[cpu] = (struct mm_cpu){1, mm.space_list, mm.epoch, mm.epoch};
    kernel_space()->cpus |= UINT64_C(1) << cpu;
}

void tlb_flush_all(void)
{
    if (machine.flushing)
        machine.flushing();
}

void tlb_flush_page(vaddr_t va)
{
    (void)va;
    tlb_flush_all();
}

bool cpu_ask(uint32_t cpu)
{
    machine.asked |= UINT64_C(1) << cpu;
    return !(machine.resting >> cpu & 1);
}

bool cpu_asked(void)
{
    bool asked = machine.asked >> host_cpu & 1;

    machine.asked &= cpu_others();
    return asked;
}

void ipi_shootdown(uint64_t cpus)
{
    uint32_t asker = host_cpu;

    for (; cpus; cpus &= cpus - 1) {
        host_cpu = (uint32_t)__builtin_ctzll(cpus);
        tlb_answer();
    }
    host_cpu = asker;
}

/* --- text and panics -------------------------------------------------------------------------- */

int vsnprintk(char *buf, size_t size, const char *fmt, va_list args)
{
    return vsnprintf(buf, size, fmt, args);
}

int snprintk(char *buf, size_t size, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(buf, size, fmt, args);
    va_end(args);
    return n;
}

void vprintk(const char *fmt, va_list args)
{
    char text[512];
    uint64_t room = sizeof(machine.said) - machine.said_bytes;
    int n;

    vsnprintf(text, sizeof(text), fmt, args);
    if (machine.verbose || strstr(text, "mm_check"))
        fprintf(stderr, "%s", text);
    n = snprintf(machine.said + machine.said_bytes, room, "%s", text);
    machine.said_bytes += MIN((uint64_t)n, room - 1);
}

void printk(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vprintk(fmt, args);
    va_end(args);
}

void panic(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(panic_message, sizeof(panic_message), fmt, args);
    va_end(args);
    if (panic_is_expected)
        longjmp(panic_expected, 1);
    snprintf(why, sizeof(why), "panic: %s", panic_message);
    longjmp(test_end, 1);
}

bool panics(void (*fn)(void))
{
    bool did = true;

    panic_is_expected = true;
    if (!setjmp(panic_expected)) {
        fn();
        did = false;
    }
    panic_is_expected = false;
    return did;
}

/* --- the runner ------------------------------------------------------------------------------- */

void test_fail(const char *file, int line, const char *fmt, ...)
{
    int n = snprintf(why, sizeof(why), "%s:%d: ", file, line);
    va_list args;

    va_start(args, fmt);
    vsnprintf(why + n, sizeof(why) - n, fmt, args);
    va_end(args);
    longjmp(test_end, 1);
}

const char *host_try(void (*run)(void))
{
    panic_is_expected = false;
    if (setjmp(test_end))
        return why;
    run();
    return NULL;
}

bool host_run(const struct host_test *test)
{
    const char *failure = host_try(test->run);

    if (failure)
        printf("not ok %s %s\n", test->name, failure);
    else
        printf("ok %s\n", test->name);
    return !failure;
}

int host_main(int argc, char **argv, const struct host_test *tests, size_t count)
{
    unsigned failed = 0, ran = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && !strstr(tests[i].name, argv[1]))
            continue;
        ran++;
        failed += !host_run(&tests[i]);
    }
    return failed || !ran;
}
