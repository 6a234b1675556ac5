// SPDX-License-Identifier: BSD-2-Clause
// I/O APICs, each mapped through its device frame (82093AA datasheet).
#include "kernel/ioapic.h"

#include "arch/x86/apic.h"
#include "arch/x86/layout.h"
#include "arch/x86/percpu.h"
#include "kernel/traps.h"
#include "lib/panic.h"
#include "mm/frame.h"
#include "mm/vmap.h"

enum {
    IOAPIC_MAX = 4,
    ROUTES = VECTOR_DEVICES_END - VECTOR_DEVICES,
    SELECT = 0x00, // offsets of the two registers
    WINDOW = 0x10,
    VERSION = 1, // what they lead to
    ENTRIES = 0x10,
    ENTRY_LOW = 1 << 13,
    ENTRY_LEVEL = 1 << 15,
    ENTRY_MASKED = 1 << 16,
    ENTRY_CPU_SHIFT = 24, // of the upper half
};

// Invariant: frame is NULL, or the page at VA_IOAPICS + number of pages before it.
static struct ioapic {
    frame_t *frame;
    volatile uint8_t *page;
    uint32_t gsi_base;
    uint32_t inputs;
} ioapic[IOAPIC_MAX];

// What the vector VECTOR_DEVICES + n is for.
static struct route {
    void (*fn)(void); // NULL: free
    uint32_t gsi;
} route[ROUTES];

static volatile uint32_t *reg(const struct ioapic *io, unsigned number)
{
    *(volatile uint32_t *)(io->page + SELECT) = number;
    return (volatile uint32_t *)(io->page + WINDOW);
}

static void set_entry(const struct ioapic *io, uint32_t input, uint32_t low, uint32_t high)
{
    *reg(io, ENTRIES + 2 * input) = ENTRY_MASKED; // never half of the old and half of the new
    *reg(io, ENTRIES + 2 * input + 1) = high;
    *reg(io, ENTRIES + 2 * input) = low;
}

static void mask_all(const struct ioapic *io)
{
    for (uint32_t i = 0; i < io->inputs; i++)
        set_entry(io, i, ENTRY_MASKED, 0);
}

int ioapic_add(paddr_t paddr, uint32_t gsi_base)
{
    unsigned n = 0;
    vaddr_t va;
    frame_t *frame;
    int err;

    while (n < IOAPIC_MAX && ioapic[n].frame)
        n++;
    if (n == IOAPIC_MAX)
        return -ENOMEM;
    va = VADDR(VA_IOAPICS + (uint64_t)n * PAGE_SIZE);
    err = get_device_frame(PADDR(ROUND_DOWN(paddr.v, PAGE_SIZE)), ORDER_4K, &frame);
    if (err)
        return err;
    err = vmap_kern(va, frame, VATTR_W | VATTR_UC);
    if (err) {
        put_frame(frame);
        return err;
    }
    ioapic[n] = (struct ioapic){.frame = frame,
                                .page = (uint8_t *)vaddr_ptr(va) + paddr.v % PAGE_SIZE,
                                .gsi_base = gsi_base};
    ioapic[n].inputs = (*reg(&ioapic[n], VERSION) >> 16 & 0xff) + 1;
    mask_all(&ioapic[n]);
    return 0;
}

void ioapic_remove_all(void)
{
    for (unsigned n = 0; n < IOAPIC_MAX; n++) {
        frame_t *frame = ioapic[n].frame;

        if (!frame)
            continue;
        mask_all(&ioapic[n]);
        ioapic[n].frame = NULL;
        if (vunmap(NULL, VADDR(VA_IOAPICS + (uint64_t)n * PAGE_SIZE), frame) || put_frame(frame))
            panic("I/O APIC %u can't be given back", n);
    }
    for (unsigned i = 0; i < ROUTES; i++)
        route[i].fn = NULL;
}

static struct ioapic *find(uint32_t gsi)
{
    for (unsigned n = 0; n < IOAPIC_MAX; n++) {
        if (ioapic[n].frame && gsi - ioapic[n].gsi_base < ioapic[n].inputs)
            return &ioapic[n];
    }
    return NULL;
}

int ioapic_route(uint32_t gsi, bool level, bool low, void (*fn)(void))
{
    const struct ioapic *io = find(gsi);
    unsigned free = ROUTES;

    if (!io)
        return -ENOENT;
    for (unsigned i = ROUTES; i-- > 0;) {
        if (!route[i].fn)
            free = i;
        else if (route[i].gsi == gsi)
            return -EBUSY;
    }
    if (free == ROUTES)
        return -ENOMEM;
    route[free] = (struct route){fn, gsi};
    set_entry(io, gsi - io->gsi_base,
              (VECTOR_DEVICES + free) | (level ? ENTRY_LEVEL : 0) | (low ? ENTRY_LOW : 0),
              percpu[0].apic_id << ENTRY_CPU_SHIFT);
    return 0;
}

void ioapic_unroute(uint32_t gsi)
{
    const struct ioapic *io = find(gsi);

    for (unsigned i = 0; io && i < ROUTES; i++) {
        if (!route[i].fn || route[i].gsi != gsi)
            continue;
        set_entry(io, gsi - io->gsi_base, ENTRY_MASKED, 0);
        route[i].fn = NULL;
    }
}

bool ioapic_handle(uint64_t vector)
{
    void (*fn)(void);

    if (vector < VECTOR_DEVICES || vector >= VECTOR_DEVICES_END)
        return false;
    fn = __atomic_load_n(&route[vector - VECTOR_DEVICES].fn, __ATOMIC_ACQUIRE);
    if (fn) // else it was on its way while it was masked
        fn();
    apic_eoi();
    return true;
}
