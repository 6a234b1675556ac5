// SPDX-License-Identifier: BSD-2-Clause
// Tests: what else ACPICA asks the operating system for: semaphores, time, work, PCI, safe reads.
#include <acpi/acpi.h>

#include "acpi/osl.h"
#include "arch/x86/cpu.h"
#include "boot/cmdline.h"
#include "kernel/smp.h"
#include "lib/string.h"
#include "mm/kmalloc/kmalloc.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/acpi.h"
#include "tests/guest/test.h"

enum {
    LONG_MS = 20000, // what must come to an end sooner
    SHORT_MS = 5,
    STALL_US = 20000,
    PM_HZ = 3579545,
    JOBS = 200,
    JOBS_MAX = 1000, // more than the queue holds
};

/* --- semaphores ------------------------------------------------------------------------------- */

static uint64_t wait_ms(acpi_semaphore s, u32 units, u16 timeout, acpi_status *status)
{
    u64 start = acpi_os_get_timer();

    *status = acpi_os_wait_semaphore(s, units, timeout);
    return (acpi_os_get_timer() - start) / TIMER_PER_MS;
}

static void signal_later(void *s)
{
    acpi_os_sleep(SHORT_MS);
    (void)acpi_os_signal_semaphore(s, 2);
}

GUEST_TEST(acpi_semaphores)
{
    acpi_semaphore s;
    acpi_status status;

    CHECK_EQ(acpi_os_create_semaphore(3, 4, &s), AE_BAD_PARAMETER);
    CHECK_EQ(acpi_os_create_semaphore(3, 1, &s), AE_OK);
    CHECK_EQ(acpi_os_wait_semaphore(s, 0, 0), AE_BAD_PARAMETER);
    CHECK_EQ(acpi_os_wait_semaphore(s, 1, 0), AE_OK);
    CHECK_EQ(acpi_os_wait_semaphore(s, 1, 0), AE_TIME);
    CHECK(wait_ms(s, 1, SHORT_MS, &status) >= SHORT_MS);
    CHECK_EQ(status, AE_TIME);
    CHECK_EQ(acpi_os_signal_semaphore(s, 4), AE_LIMIT);
    CHECK_EQ(acpi_os_signal_semaphore(s, 2), AE_OK);
    CHECK_EQ(acpi_os_wait_semaphore(s, 3, 0), AE_TIME); // and takes none of the two
    CHECK_EQ(acpi_os_wait_semaphore(s, 2, ACPI_WAIT_FOREVER), AE_OK);
    if (smp_count() > 1) {
        smp_run(1, signal_later, s);
        CHECK(wait_ms(s, 2, LONG_MS, &status) < LONG_MS);
        CHECK_EQ(status, AE_OK);
        smp_wait(1);
    }
    CHECK_EQ(acpi_os_delete_semaphore(s), AE_OK);
    CHECK_EQ(acpi_os_delete_semaphore(NULL), AE_BAD_PARAMETER);
}

/* --- threads ---------------------------------------------------------------------------------- */

static void tell_thread(void *id)
{
    __atomic_store_n((acpi_thread_id *)id, acpi_os_get_thread_id(), __ATOMIC_RELEASE);
}

// By it ACPICA tells who owns a mutex of AML: 0 is nobody, and no two CPUs have the same.
GUEST_TEST(acpi_threads)
{
    acpi_thread_id own = acpi_os_get_thread_id(), id[CPU_MAX] = {own};

    CHECK(own != 0);
    for (uint32_t i = 1; i < smp_count(); i++) {
        smp_run(i, tell_thread, &id[i]);
        smp_wait(i);
        CHECK(id[i] != 0);
        for (uint32_t k = 0; k < i; k++)
            CHECK(id[i] != id[k]);
    }
    CHECK_EQ(acpi_os_get_thread_id(), own);
}

/* --- time ------------------------------------------------------------------------------------- */

static uint64_t pm_us(u32 start, u32 end)
{
    return ((end - start) & 0xffffff) * UINT64_C(1000000) / PM_HZ;
}

// Measured by the ACPI timer, from outside and from inside: the clock is right within a tenth.
GUEST_TEST(acpi_time)
{
    bool ran = acpi_test_need();
    u32 before, start, end, after;
    u64 t0, t1;

    CHECK_EQ(acpi_get_timer(&before), AE_OK);
    t0 = acpi_os_get_timer();
    CHECK_EQ(acpi_get_timer(&start), AE_OK);
    acpi_os_stall(STALL_US);
    CHECK_EQ(acpi_get_timer(&end), AE_OK);
    t1 = acpi_os_get_timer();
    CHECK_EQ(acpi_get_timer(&after), AE_OK);
    printk("  %u us asked for, %lu us by the ACPI timer, %lu us by the clock\n", STALL_US,
           pm_us(start, end), (t1 - t0) / 10);
    CHECK(pm_us(start, end) >= STALL_US - STALL_US / 10);
    CHECK((t1 - t0) / 10 <= pm_us(before, after) + pm_us(before, after) / 10);
    CHECK((t1 - t0) / 10 >= pm_us(start, end) - pm_us(start, end) / 10);
    t0 = acpi_os_get_timer();
    acpi_os_sleep(SHORT_MS);
    CHECK(acpi_os_get_timer() - t0 >= SHORT_MS * TIMER_PER_MS);
    if (!ran)
        ktf_acpi_stop();
}

/* --- work put off ----------------------------------------------------------------------------- */

static uint32_t done_once[JOBS_MAX];

static void count_one(void *count)
{
    __atomic_fetch_add((uint32_t *)count, 1, __ATOMIC_SEQ_CST);
}

static void put_off(void *count)
{
    for (unsigned i = 0; i < JOBS; i++)
        while (acpi_os_execute(OSL_NOTIFY_HANDLER, count_one, count) != AE_OK)
            ktf_acpi_work(); // the queue is full
}

GUEST_TEST(acpi_work)
{
    uint32_t done = 0, full = 0;

    CHECK_EQ(acpi_os_execute(OSL_NOTIFY_HANDLER, NULL, NULL), AE_BAD_PARAMETER);
    for (uint32_t i = 1; i < smp_count(); i++)
        smp_run(i, put_off, &done);
    put_off(&done);
    for (uint32_t i = 1; i < smp_count(); i++)
        smp_wait(i);
    acpi_os_wait_events_complete();
    CHECK_EQ(done, JOBS * smp_count());
    if (smp_count() > 1)
        return;
    // Nobody else empties it: what does not fit any more is refused, all else is done, once.
    memset(done_once, 0, sizeof(done_once));
    while (full < JOBS_MAX &&
           acpi_os_execute(OSL_GPE_HANDLER, count_one, &done_once[full]) == AE_OK)
        full++;
    CHECK(full >= JOBS && full < JOBS_MAX);
    acpi_os_wait_events_complete();
    for (uint32_t i = 0; i < JOBS_MAX; i++)
        CHECK_EQ(done_once[i], i < full);
}

/* --- what is where ---------------------------------------------------------------------------- */

GUEST_TEST(acpi_safe_reads)
{
    acpi_physical_address paddr = 0;
    uint8_t *p = kmalloc(64);
    frame_t *frame;
    uint8_t *page;

    CHECK(p && acpi_os_readable(p, 64) && acpi_os_writable(p, 64));
    CHECK(!acpi_os_readable(p, 0) && !acpi_os_readable(p, UINT64_MAX));
    CHECK(acpi_os_readable((void *)(uintptr_t)acpi_test_need, 16));
    CHECK(!acpi_os_writable((void *)(uintptr_t)acpi_test_need, 16));
    CHECK(!acpi_os_readable(NULL, 1));
    CHECK(!acpi_os_readable((void *)UINT64_C(0x1234567890abcdef), 8)); // not even canonical
    CHECK_EQ(get_frame(1, &frame), 0);
    page = acpi_os_map_memory(frame_paddr(frame).v, PAGE_SIZE);
    CHECK(page && acpi_os_readable(page, PAGE_SIZE));
    CHECK(!acpi_os_readable(page + PAGE_SIZE - 1, 2));
    CHECK_EQ(acpi_os_get_physical_address(page + 0x123, &paddr), AE_OK);
    CHECK_EQ(paddr, frame_paddr(frame).v + 0x123);
    CHECK_EQ(acpi_os_get_physical_address(page + 0x123, NULL), AE_BAD_ADDRESS);
    acpi_os_unmap_memory(page, PAGE_SIZE);
    CHECK(!acpi_os_readable(page, 1));
    CHECK_EQ(acpi_os_get_physical_address(page, &paddr), AE_BAD_ADDRESS);
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(kfree(p), 0);
}

GUEST_TEST(acpi_registers)
{
    frame_t *frame;
    u64 value, paddr;
    u32 narrow;

    CHECK_EQ(get_frame(ORDER_4K, &frame), 0);
    paddr = frame_paddr(frame).v;
    CHECK_EQ(acpi_os_write_memory(paddr + 8, UINT64_C(0x1122334455667788), 64), AE_OK);
    CHECK_EQ(acpi_os_write_memory(paddr + 10, 0xaabb, 16), AE_OK);
    CHECK_EQ(acpi_os_read_memory(paddr + 8, &value, 64), AE_OK);
    CHECK_EQ(value, UINT64_C(0x11223344aabb7788));
    CHECK_EQ(acpi_os_read_memory(paddr + 9, &value, 8), AE_OK);
    CHECK_EQ(value, 0x77);
    CHECK_EQ(acpi_os_read_memory(paddr + 8, &value, 24), AE_BAD_PARAMETER);
    CHECK_EQ(acpi_os_read_memory(UINT64_MAX, &value, 8), AE_BAD_ADDRESS);
    CHECK_EQ(frame->mapcount, 0);
    CHECK_EQ(put_frame(frame), 0);
    CHECK_EQ(acpi_os_read_port(0x10000, &narrow, 8), AE_BAD_PARAMETER);
    CHECK_EQ(acpi_os_read_port(0x80, &narrow, 64), AE_BAD_PARAMETER);
    CHECK_EQ(acpi_os_write_port(0x80, 0, 24), AE_BAD_PARAMETER);
}

/* --- PCI -------------------------------------------------------------------------------------- */

enum {
    PCI_ADDRESS = 0xcf8,
    PCI_DATA = 0xcfc,
    PCI_LINE = 0x3c, // a byte that hardware does not look at
    EXTENDED = 0x100,
    BUSES = 3, // that are compared
    DEVICES = 32,
    FUNCTIONS = 8,
    HEADER = 0x40, // bytes of a function that are compared
    NOBODY = 0xffffffff,
};

static uint32_t by_ports(const struct acpi_pci_id *id, uint32_t reg)
{
    outl(PCI_ADDRESS, 1u << 31 | (uint32_t)id->bus << 16 | (uint32_t)id->device << 11 |
                          (uint32_t)id->function << 8 | reg);
    return inl(PCI_DATA);
}

static uint64_t config_read(struct acpi_pci_id *id, uint32_t reg)
{
    u64 value;

    return acpi_os_read_pci_configuration(id, reg, &value, 32) == AE_OK ? value : UINT64_MAX;
}

// Of every function, those that are not there too.
static void same_by_ports(struct acpi_pci_id *id, uint32_t *found)
{
    bool there = by_ports(id, 0) != NOBODY;

    for (uint32_t reg = 0; reg < (there ? HEADER : 4u); reg += 4)
        CHECK_EQ(config_read(id, reg), by_ports(id, reg));
    *found += there;
}

// A bus beyond the first has functions if the machine has a bridge; `pci-bridge` says that it does.
static void compare_functions(void)
{
    uint32_t found[BUSES] = {0};

    for (uint32_t i = 0; i < BUSES * DEVICES * FUNCTIONS; i++) {
        struct acpi_pci_id id = {.bus = (u16)(i / (DEVICES * FUNCTIONS)),
                                 .device = (u16)(i / FUNCTIONS % DEVICES),
                                 .function = (u16)(i % FUNCTIONS)};

        same_by_ports(&id, &found[id.bus]);
    }
    printk("  functions on buses 0, 1 and 2: %u, %u, %u\n", found[0], found[1], found[2]);
    CHECK(found[0] > 3);
    CHECK(found[1] > 0 || !cmdline_has("pci-bridge"));
}

// What QEMU's machines have: q35 in 00:1f, pc in 00:01.
static void check_known(bool q35)
{
    static const struct {
        uint16_t device, function;
        uint32_t vendor;
    } known[2][3] = {
        {{1, 0, 0x70008086}, {1, 1, 0x70108086}, {1, 3, 0x71138086}},
        {{31, 0, 0x29188086}, {31, 2, 0x29228086}, {31, 3, 0x29308086}},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(known[q35]); i++) {
        struct acpi_pci_id id = {.device = known[q35][i].device,
                                 .function = known[q35][i].function};

        CHECK_EQ(config_read(&id, 0), known[q35][i].vendor);
    }
}

// Mapped uncached, whether ACPI runs or not. Bus 0 of segment 0 is there.
static void check_uncached(uint64_t ecam)
{
    const struct acpi_pci_id first = {.device = 0};
    struct vlookup at;
    void *p = acpi_os_map_memory(ecam, 4);

    CHECK(p);
    CHECK_EQ(vmap_lookup(NULL, ptr_vaddr(p), &at), 0);
    CHECK_EQ(at.attr & VATTR_TYPE, VATTR_UC);
    CHECK_EQ(*(volatile uint32_t *)p, by_ports(&first, 0));
    acpi_os_unmap_memory(p, 4);
}

// Where configuration space is in memory, 0 if it is not.
static uint64_t find_ecam(void)
{
    struct acpi_table_header *mcfg;
    uint64_t address;

    if (acpi_get_table(ACPI_SIG_MCFG, 1, &mcfg) != AE_OK)
        return 0;
    address =
        ((const struct acpi_mcfg_allocation *)((const char *)mcfg + sizeof(struct acpi_table_mcfg)))
            ->address;
    acpi_put_table(mcfg);
    return address;
}

static void check_widths(struct acpi_pci_id *id)
{
    u64 value, half, old;

    for (u32 reg = 0; reg < EXTENDED; reg += 4) {
        value = config_read(id, reg);
        CHECK_EQ(value, by_ports(id, reg));
        CHECK_EQ(acpi_os_read_pci_configuration(id, reg + 2, &half, 16), AE_OK);
        CHECK_EQ(half, value >> 16);
    }
    CHECK_EQ(acpi_os_read_pci_configuration(id, PCI_LINE, &old, 8), AE_OK);
    CHECK_EQ(acpi_os_write_pci_configuration(id, PCI_LINE, 0x5a, 8), AE_OK);
    CHECK_EQ(by_ports(id, PCI_LINE) & 0xff, 0x5a);
    CHECK_EQ(acpi_os_write_pci_configuration(id, PCI_LINE, old, 8), AE_OK);
    CHECK_EQ(acpi_os_read_pci_configuration(id, 1, &value, 16), AE_BAD_PARAMETER);
    CHECK_EQ(acpi_os_read_pci_configuration(id, 0, &value, 64), AE_BAD_PARAMETER);
    CHECK_EQ(acpi_os_read_pci_configuration(id, PAGE_SIZE, &value, 8), AE_BAD_PARAMETER);
}

GUEST_TEST(acpi_pci)
{
    bool ran = acpi_test_need();
    struct acpi_pci_id id = {.device = 0};
    uint64_t ecam = find_ecam();
    u64 value;

    check_widths(&id);
    compare_functions();
    check_known(ecam != 0);
    // Registers beyond the first 256 bytes are only in memory.
    CHECK_EQ(acpi_os_read_pci_configuration(&id, EXTENDED, &value, 32),
             ecam ? AE_OK : AE_NOT_EXIST);
    if (ecam) {
        check_uncached(ecam);
        guest_test_rebuilt();
        ktf_acpi_stop();
        check_uncached(ecam);
        if (ran)
            ktf_acpi_start();
    } else if (!ran) {
        ktf_acpi_stop();
    }
}
