// SPDX-License-Identifier: BSD-2-Clause
// Physical memory for ACPICA: straight on the manager's counted mappings, without a list of its
// own.
#include "acpi/osl.h"

#include "lib/printk.h"
#include "mm/journal.h"
#include "mm/frame_word.h"
#include "mm/vmap.h"

enum {
    UNCACHED_MAX = 4,
    TRIES_MAX = 8, // another CPU may unmap a device's last page between two looks
};

struct stretch {
    uint64_t first; // number of its first page
    uint64_t pages;
};

static struct stretch uncached[UNCACHED_MAX];
static unsigned uncached_count;

void osl_uncached_add(paddr_t start, paddr_t end)
{
    uint64_t first = start.v >> PAGE_SHIFT;
    uint64_t pages = (ROUND_UP(end.v, PAGE_SIZE) >> PAGE_SHIFT) - first;

    for (unsigned i = 0; i < uncached_count; i++) {
        if (uncached[i].first == first && uncached[i].pages == pages)
            return;
    }
    if (uncached_count == UNCACHED_MAX) {
        printk("ACPI: more than %d device regions in reserved memory: 0x%lx is left out\n",
               UNCACHED_MAX, start.v);
        return;
    }
    uncached[uncached_count++] = (struct stretch){first, pages};
}

void osl_uncached_clear(void)
{
    uncached_count = 0;
}

// Of reserved memory nobody but ACPI can tell that it is a device.
static __attribute__((noinline)) unsigned reserved_attr(uint64_t paddr)
{
    for (unsigned i = 0; i < uncached_count; i++) {
        if ((paddr >> PAGE_SHIFT) - uncached[i].first < uncached[i].pages)
            return VATTR_W | VATTR_UC;
    }
    return VATTR_W;
}

// All that ACPI maps is writable. The type is what the frame is: device frames are uncached, memory
// is write-back as far as the MTRRs say so.
static always_inline unsigned attr_of(const frame_t *frame, uint64_t paddr)
{
    return unlikely(uncached_count) && frame->kind == FRAME_RESERVED ? reserved_attr(paddr)
                                                                     : VATTR_W;
}

static always_inline vaddr_t page_va(uint64_t paddr)
{
    return VADDR(VA_ACPI | ROUND_DOWN(paddr, PAGE_SIZE));
}

// Which page of its frame it is.
static always_inline uint64_t page_offset(const frame_t *frame, uint64_t paddr)
{
    return (paddr >> PAGE_SHIFT) - frame->mfn;
}

// `caller` is who called ACPI's function: for the journal, as it is of more use than this file.
static always_inline int map_frame(frame_t *frame, uint64_t paddr, const void *caller)
{
    // A page of a larger block is a part of it, and stays a mapping of its own: what is mapped page
    // by page can be put page by page, in any order.
    return vmap_page(page_va(paddr), frame, page_offset(frame, paddr), attr_of(frame, paddr),
                     caller);
}

// A frame that this call holds. A device's exists only while somebody needs it.
static int hold_device(mfn_t mfn, frame_t **out)
{
    int err = -EEXIST;

    for (unsigned i = 0; i < TRIES_MAX && err != 0; i++) {
        err = get_device_frame(mfn_paddr(mfn), ORDER_4K, out);
        if (err != -EEXIST)
            return err;
        *out = find_mfn_frame(mfn); // part of a larger one
        if (!*out || ref_frame(*out) != 0)
            continue;
        err = mfn.v - (*out)->mfn < frame_pages(*out) ? 0 : -EEXIST; // it may have become another
        if (err)
            put_frame(*out);
    }
    return err;
}

static __attribute__((noinline)) int map_device(uint64_t paddr, const void *caller)
{
    frame_t *frame;
    int err = hold_device(paddr_mfn(PADDR(paddr)), &frame);

    if (err)
        return err;
    err = map_frame(frame, paddr, caller);
    put_frame(frame); // the mapping holds it from now on
    return err;
}

static always_inline int map_page(uint64_t paddr, const void *caller)
{
    frame_t *frame = find_paddr_frame(PADDR(paddr));

    if (unlikely(!frame || frame->kind == FRAME_DEVICE))
        return map_device(paddr, CALLER_OF(caller));
    return map_frame(frame, paddr, CALLER_OF(caller));
}

static always_inline int unmap_page(uint64_t paddr, const void *caller)
{
    frame_t *frame = find_paddr_frame(PADDR(paddr)); // as long as it is mapped it is there

    if (unlikely(!frame))
        return -ENOENT;
    return vput_page(page_va(paddr), frame, page_offset(frame, paddr), CALLER_OF(caller));
}

static __attribute__((noinline, cold)) void *say_map(uint64_t paddr, int err)
{
    printk("ACPI: the page at 0x%lx can't be mapped: %s\n", ROUND_DOWN(paddr, PAGE_SIZE),
           error_name(err));
    return NULL;
}

static __attribute__((noinline)) void *map_pages(uint64_t paddr, size_t length, const void *caller)
{
    uint64_t first = ROUND_DOWN(paddr, PAGE_SIZE);

    if (!length || paddr >= ACPI_PHYS_LIMIT || length > ACPI_PHYS_LIMIT - paddr) {
        printk("ACPI: %zu bytes at 0x%lx can't be mapped: %s\n", length, paddr,
               length ? "no such physical addresses" : "no length");
        return NULL;
    }
    for (uint64_t at = first; at < paddr + length; at += PAGE_SIZE) {
        int err = map_page(at, caller);

        if (likely(!err))
            continue;
        say_map(at, err);
        while (at > first)
            (void)unmap_page(at -= PAGE_SIZE, caller);
        return NULL;
    }
    return vaddr_ptr(VADDR(VA_ACPI + paddr));
}

// Most of what ACPICA asks for lies in one page: nothing but that page. A length of 0 is none.
static always_inline bool is_one_page(uint64_t paddr, size_t length)
{
    return paddr < ACPI_PHYS_LIMIT && length - 1 <= (~paddr & (PAGE_SIZE - 1));
}

static always_inline void *map(uint64_t paddr, size_t length)
{
    int err;

    if (unlikely(!is_one_page(paddr, length)))
        return map_pages(paddr, length, CALLER);
    err = map_page(paddr, NULL);
    return likely(!err) ? vaddr_ptr(VADDR(VA_ACPI + paddr)) : say_map(paddr, err);
}

void *osl_map(paddr_t paddr, size_t length)
{
    return map(paddr.v, length);
}

// All of them or, if one is not mapped, none: a page that a wrong length reaches may be another
// caller's.
static __attribute__((noinline)) int unmap_pages(uint64_t paddr, size_t length, const void *caller)
{
    uint64_t pages = ((paddr + length - 1) >> PAGE_SHIFT) - (paddr >> PAGE_SHIFT) + 1;
    frame_t *frame;

    if (!length)
        return -EINVAL;
    if (paddr >= ACPI_PHYS_LIMIT || length > ACPI_PHYS_LIMIT - paddr)
        return -EBEYOND;
    frame = find_paddr_frame(PADDR(paddr));
    if (!frame)
        return -ENOENT;
    return vput_range_for(NULL, page_va(paddr), frame, page_offset(frame, paddr), pages, caller);
}

static always_inline uint64_t mapped_paddr(const void *va)
{
    return (uintptr_t)va - VA_ACPI;
}

static always_inline int unmap(uint64_t paddr, size_t length)
{
    return likely(is_one_page(paddr, length)) ? unmap_page(paddr, NULL)
                                              : unmap_pages(paddr, length, CALLER);
}

int osl_unmap(const void *va, size_t length)
{
    return unmap(mapped_paddr(va), length);
}

void *acpi_os_map_memory(acpi_physical_address where, acpi_size length)
{
    return map(where, length);
}

static __attribute__((noinline, cold)) void say_unmap(uint64_t paddr, int err)
{
    printk("ACPI: what is at 0x%lx is not unmapped: %s\n", VA_ACPI + paddr,
           err == -EINVAL    ? "no length"
           : err == -EBEYOND ? "AcpiOsMapMemory() maps nothing there"
                             : error_name(err));
}

void acpi_os_unmap_memory(void *logical_address, acpi_size size)
{
    uint64_t paddr = mapped_paddr(logical_address);
    int err = unmap(paddr, size);

    if (unlikely(err))
        say_unmap(paddr, err);
}

/* --- what is where ---------------------------------------------------------------------------- */

acpi_status acpi_os_get_physical_address(void *logical_address,
                                         acpi_physical_address *physical_address)
{
    struct vlookup at;

    if (!physical_address || vmap_lookup(NULL, ptr_vaddr(logical_address), &at) != 0)
        return AE_BAD_ADDRESS;
    *physical_address = ((at.frame->mfn + at.offset) << PAGE_SHIFT) +
                        ((uintptr_t)logical_address & (PAGE_SIZE - 1));
    return AE_OK;
}

// Whether each page from there on is mapped, with these rights; the frame database knows.
static bool accessible(const void *pointer, size_t length, unsigned attr)
{
    uint64_t va = ROUND_DOWN((uintptr_t)pointer, PAGE_SIZE), end = (uintptr_t)pointer + length;
    struct vlookup at;

    if (!length || end < (uintptr_t)pointer)
        return false;
    for (; va < end; va += PAGE_SIZE) {
        if (vmap_lookup(NULL, VADDR(va), &at) != 0 || (at.attr & attr) != attr)
            return false;
    }
    return true;
}

u8 acpi_os_readable(void *pointer, acpi_size length)
{
    return accessible(pointer, length, VATTR_R);
}

u8 acpi_os_writable(void *pointer, acpi_size length)
{
    return accessible(pointer, length, VATTR_W);
}

/* --- registers in memory ---------------------------------------------------------------------- */

static uint64_t read_width(const volatile void *at, u32 width)
{
    switch (width) {
    case 8:
        return *(const volatile uint8_t *)at;
    case 16:
        return *(const volatile uint16_t *)at;
    case 32:
        return *(const volatile uint32_t *)at;
    default:
        return *(const volatile uint64_t *)at;
    }
}

static void write_width(volatile void *at, uint64_t value, u32 width)
{
    switch (width) {
    case 8:
        *(volatile uint8_t *)at = (uint8_t)value;
        break;
    case 16:
        *(volatile uint16_t *)at = (uint16_t)value;
        break;
    case 32:
        *(volatile uint32_t *)at = (uint32_t)value;
        break;
    default:
        *(volatile uint64_t *)at = value;
    }
}

static bool is_width(u32 width)
{
    return width == 8 || width == 16 || width == 32 || width == 64;
}

static const struct acpi_generic_address *const fixed_register[] = {
    &acpi_gbl_FADT.xpm1a_event_block,
    &acpi_gbl_FADT.xpm1b_event_block,
    &acpi_gbl_FADT.xpm1a_control_block,
    &acpi_gbl_FADT.xpm1b_control_block,
};
static void *fixed_mapping[ARRAY_SIZE(fixed_register)];

// In the SCI's handler only what osl_map_registers() has mapped can be had.
static void *map_register(acpi_physical_address address, u32 width)
{
    if (!osl_in_interrupt())
        return osl_map(PADDR(address), width / 8);
    for (unsigned i = 0; i < ARRAY_SIZE(fixed_register); i++) {
        uint64_t offset = address - fixed_register[i]->address;
        uint64_t bytes = fixed_register[i]->bit_width / 8;

        if (fixed_mapping[i] && offset < bytes && width / 8 <= bytes - offset)
            return (char *)fixed_mapping[i] + offset;
    }
    return NULL;
}

static void unmap_register(void *at, u32 width)
{
    if (!osl_in_interrupt())
        acpi_os_unmap_memory(at, width / 8);
}

// Reads or writes the register.
static acpi_status access_register(acpi_physical_address address, u64 *value, u32 width, bool write)
{
    void *at;

    if (!is_width(width))
        return AE_BAD_PARAMETER;
    at = map_register(address, width);
    if (!at)
        return AE_BAD_ADDRESS;
    if (write)
        write_width(at, *value, width);
    else
        *value = read_width(at, width);
    unmap_register(at, width);
    return AE_OK;
}

acpi_status acpi_os_read_memory(acpi_physical_address address, u64 *value, u32 width)
{
    return access_register(address, value, width, false);
}

acpi_status acpi_os_write_memory(acpi_physical_address address, u64 value, u32 width)
{
    return access_register(address, &value, width, true);
}

void osl_map_registers(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fixed_register); i++) {
        const struct acpi_generic_address *r = fixed_register[i];

        if (r->space_id == ACPI_ADR_SPACE_SYSTEM_MEMORY && r->address && r->bit_width)
            fixed_mapping[i] = osl_map(PADDR(r->address), r->bit_width / 8);
    }
}

void osl_unmap_registers(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fixed_register); i++) {
        if (fixed_mapping[i])
            acpi_os_unmap_memory(fixed_mapping[i], fixed_register[i]->bit_width / 8);
        fixed_mapping[i] = NULL;
    }
}
