// SPDX-License-Identifier: BSD-2-Clause
// Frames found by number, by physical address, and by where the kernel's space maps them.
#include "mm/internal.h"
#include "mm/tree.h"

frame_t *find_mfn_frame(mfn_t mfn)
{
    return tree_find(mfn.v);
}

frame_t *find_paddr_frame(paddr_t paddr)
{
    return tree_find(paddr_mfn(paddr).v);
}

// With every question; takes the lock.
static __attribute__((noinline)) frame_t *find_va_slow(vaddr_t va)
{
    struct vlookup at;

    return vmap_lookup(NULL, va, &at) ? NULL : at.frame;
}

// The entry of level 1 for va, an address of the upper half, in 4 levels; 0 if there is no table.
static always_inline pgentry_t kernel_entry(vaddr_t va)
{
    uint64_t shadow = kernel_space()->root | SHADOW_TABLE, rest = va.v << 16;
    uint64_t shadows = VA_SHADOWS - (uint64_t)SHADOW_TABLE * sizeof(struct shadow);

    __asm__("" : "+r"(shadows)); // one register: else the compiler adds it up anew each time
#pragma GCC unroll 3
    for (unsigned level = 4; level > 1; level--) {
        const uint32_t *at = (const uint32_t *)(uintptr_t)shadows + pt_next(shadow, &rest);

        shadow = *at;
        if (unlikely(!(shadow & SHADOW_TABLE)))
            return 0;
    }
    shadows = VA_WINDOW - (uint64_t)SHADOW_TABLE * PAGE_SIZE;
    return *((const pgentry_t *)(uintptr_t)shadows + pt_next(shadow, &rest));
}

// Under the lock, for tables that become empty go, and with them their place in the window.
frame_t *find_kern_va_frame(const void *p)
{
    vaddr_t va = ptr_vaddr(p);
    frame_t *frame = NULL;
    pgentry_t entry;

    if (unlikely((int64_t)va.v >> 47 != -1 || mm.levels != 4 || !spin_trylock(&mm.map_lock)))
        return find_va_slow(va);
    entry = kernel_entry(va);
    if (likely(entry & PG_P))
        frame = tree_find_low(pgentry_mfn(entry, 1).v);
    spin_unlock(&mm.map_lock);
    return likely(frame) ? frame : find_va_slow(va);
}
