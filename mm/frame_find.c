// SPDX-License-Identifier: BSD-2-Clause
// Frames found by number, by physical address, and by where the kernel's space maps them.
#include "arch/x86/fixup.h"
#include "mm/frame_tree.h"
#include "mm/frame_word.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table.h"
#include "mm/vmap.h"

enum {
    WORD_KIND = 15, // frame_t.kind in its first word
};

// Nothing of the tree is given back while its lock is held.
static __attribute__((noinline)) frame_t *find_locked(uint64_t mfn)
{
    bool held = spin_held(&mm.frame_lock);
    frame_t *frame;

    if (!held)
        frame_lock();
    frame = tree_find(mfn);
    if (!held)
        frame_unlock();
    return frame;
}

// The same once its descriptor's place is known; the way back from there costs the plain way
// nothing.
static __attribute__((noinline)) frame_t *find_again(uint64_t entry, const frame_t *descriptor)
{
    return find_locked((uint64_t)(descriptor - tree_descriptor(entry, 0)));
}

// From a tail to its head. Out of line as well: else the plain way moves its result once more.
static __attribute__((noinline)) frame_t *find_head(uint64_t entry, frame_t *descriptor)
{
    uint64_t tail;

    read_or(tail, (const uint64_t *)descriptor, gone);
    tail >>= WORD_TAIL_SHIFT;
    return tail ? (frame_t *)((uintptr_t)descriptor - tail) : NULL;
gone:
    return find_again(entry, descriptor);
}

static __attribute__((noinline)) frame_t *find_block(uint64_t entry)
{
    return tree_block(entry);
}

// tree_find() without a lock. What leads to a frame that somebody holds stays. But of any other
// page a node or the descriptor may be given back between two steps: then it is looked up again.
static always_inline frame_t *find(uint64_t mfn)
{
    uint64_t entry;
    frame_t *frame;

    if (unlikely(mfn >> NODE_ORDER >= NODE_ROOTS * NODE_ENTRIES))
        return find_locked(mfn);
    entry = tree_root()[mfn >> NODE_ORDER];
    if (unlikely(!(entry & NODE_BELOW)))
        return find_block(entry);
    read_or(entry, tree_below(entry, mfn >> FRAME_PAGE_ORDER), node_gone);
    if (unlikely(!(entry & NODE_BELOW)))
        return find_block(entry);
    frame = tree_descriptor(entry, mfn);
    __asm__("" : "+a"(frame)); // the result's register from the start: a move less
    goto_if_clear((const uint64_t *)frame, WORD_KIND, no_head, gone);
    return frame;
no_head:
    return find_head(entry, frame);
gone:
    return find_again(entry, frame);
node_gone:
    return find_locked(mfn);
}

frame_t *find_mfn_frame(mfn_t mfn)
{
    return find(mfn.v);
}

frame_t *find_paddr_frame(paddr_t paddr)
{
    return find(paddr_mfn(paddr).v);
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
