// SPDX-License-Identifier: BSD-2-Clause
// Frames: handed out, counted, and taken back.
#include "mm/frame.h"

#include "mm/arena_internal.h"
#include "mm/frame_block.h"
#include "mm/frame_ring.h"
#include "mm/frame_tree.h"
#include "mm/frame_word.h"
#include "mm/inject.h"
#include "mm/journal.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "mm/table.h"

struct mm mm;

/* --- handing out ------------------------------------------------------------------------------ */

frame_t *frame_take(unsigned order, enum frame_kind kind)
{
    frame_t *frame;

    if (inject_failure())
        return NULL;
    frame_lock();
    frame = block_take(order, kind, 0);
    frame_unlock();
    return frame;
}

static frame_t *take_plain(unsigned order)
{
    frame_t *frame;

    frame_lock();
    frame = block_take(order, FRAME_AVAILABLE, mm.live ? RESERVE_OPERATION : 0);
    frame_unlock();
    return frame;
}

enum {
    TRIES_MAX = 8, // other CPUs may take what was made ready
};

// There was no block, or no descriptors to split one with.
static __attribute__((noinline)) frame_t *take_again(unsigned order)
{
    frame_t *frame = NULL;

    for (unsigned i = 0; i < TRIES_MAX && !frame && block_free_order(order) <= ORDER_MAX; i++) {
        arenas_fill(STOCK_FRAME_PAGES, STOCK_NODES);
        frame = take_plain(order);
    }
    // What is held in stock may be what keeps buddies apart.
    if (!frame && (order || mm.stock_count || mm.records.count)) {
        mm_trim();
        frame = take_plain(order);
    }
    return frame;
}

// With splitting.
static __attribute__((noinline)) int get_slow(unsigned order, frame_t **out, const void *caller)
{
    *out = take_plain(order);
    if (unlikely(!*out))
        *out = take_again(order);
    if (*out)
        journal(JOURNAL_GET, caller, 0, frame_word(*out), frame_counts(*out), 0);
    upkeep_unlocked();
    return *out ? 0 : -ENOMEM;
}

int get_frame(unsigned order, frame_t **out)
{
    struct order_list *list;
    frame_t *frame;

    if (unlikely(!out))
        return -EINVAL;
    if (unlikely(order > ORDER_MAX))
        return -EORDER;
    if (inject_failure()) {
        *out = NULL;
        return -ENOMEM;
    }
    // The rare cases are a function that this one ends in, so that it needs no stack.
    if (unlikely(mm.work || !spin_trylock(&mm.frame_lock)))
        return get_slow(order, out, CALLER);
    list = &mm.order[order];
    if (unlikely(!list->free)) {
        frame_unlock();
        return get_slow(order, out, CALLER);
    }
    spin_check_held(&mm.frame_lock);
    frame = ring_use_last(list);
    frame_publish(frame, 1);
    list->refs++;
    *out = frame;
    journal(JOURNAL_GET, CALLER, 0, frame_word(frame), 1, 0);
    frame_unlock();
    return 0;
}

int frame_usable(const frame_t *frame)
{
    const struct arena *a = &mm.arena[ARENA_FRAMES];
    uint64_t byte = (uintptr_t)frame - a->base;

    if (!frame)
        return -EINVAL;
    if (byte >= (uint64_t)a->pages * PAGE_SIZE || byte % sizeof(*frame) || !frame->kind)
        return -EUNKNOWN;
    return frame_is_free(frame) ? -EFREE : 0;
}

// One owner more. frame_lock is held.
static int ref(frame_t *frame)
{
    int err = frame_usable(frame);

    spin_check_held(&mm.frame_lock);
    if (err)
        return err;
    if (frame->refcount == UINT32_MAX - 1)
        return -EOVERFLOW;
    __atomic_fetch_add(frame_counts_at(frame), 1, __ATOMIC_RELAXED);
    mm.order[frame->order].refs++;
    return 0;
}

int ref_frame(frame_t *frame)
{
    int err;

    frame_lock();
    err = ref(frame);
    if (!err)
        journal(JOURNAL_REF, CALLER, 0, frame_word(frame), frame_counts(frame), 0);
    frame_unlock();
    return err;
}

// One owner less. frame_lock is held.
static void drop(frame_t *frame)
{
    spin_check_held(&mm.frame_lock);
    mm.order[frame->order].refs--;
    if (__atomic_sub_fetch(frame_counts_at(frame), 1, __ATOMIC_ACQ_REL) == 0)
        block_release(frame);
}

void frame_drop(frame_t *frame)
{
    frame_lock();
    drop(frame);
    frame_unlock();
}

static bool handed_out(const frame_t *frame)
{
    return frame->kind == FRAME_AVAILABLE || frame->kind == FRAME_DEVICE;
}

// With every question, and with merging. frame_lock is held.
static int put(frame_t *frame, const void *caller)
{
    int err = frame_usable(frame);

    if (err)
        return err;
    if (frame->refcount == 0)
        return -EFREE;
    if (frame->refcount == 1 && !handed_out(frame))
        return -ERESERVED;
    // The counts stand side by side in a word, the references in its lower half.
    journal(JOURNAL_PUT, caller, 0, frame_word(frame), frame_counts(frame) - 1, 0);
    drop(frame);
    return 0;
}

enum {
    WORD_KIND = 15, // of a descriptor's first word
};

// The last reference of a small block whose buddy is not free: it only changes its place in the
// ring. False if it is not as simple as that, then nothing has changed. frame_lock is held.
static always_inline bool put_last(frame_t *frame, const void *caller)
{
    uint64_t index = frame_number(frame), word, one = 1;
    struct order_list *list;
    unsigned order;

    spin_check_held(&mm.frame_lock);
    if (unlikely(index >= mm.frame_limit))
        return false;
    word = frame_word(frame);
    order = word_order(word);
    if (unlikely((word & WORD_KIND) != FRAME_AVAILABLE || order >= FRAME_PAGE_ORDER))
        return false;
    // Descriptors of one page stand side by side: the buddy's, or a tail's, whose counts are 0.
    if (!frame_counts((frame_t *)((uintptr_t)frame ^ sizeof(*frame) << order)))
        return false;
    if (unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &one, 0, false,
                                              __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)))
        return false;
    list = &mm.order[order];
    list->refs--;
    list->used--;
    list->free++;
    ring_remove(frame);
    ring_insert(frame_at(list->last_free), list->last_free, frame, index);
    list->last_free = index;
    journal(JOURNAL_PUT, caller, 0, word, 0, 0);
    return true;
}

static __attribute__((noinline)) int put_slow(frame_t *frame, const void *caller)
{
    int err;

    frame_lock();
    err = put(frame, caller);
    frame_unlock();
    upkeep_unlocked();
    return err;
}

int put_frame(frame_t *frame)
{
    bool done;

    if (unlikely(mm.work || !spin_trylock(&mm.frame_lock)))
        return put_slow(frame, CALLER);
    done = put_last(frame, CALLER);
    frame_unlock();
    return likely(done) ? 0 : put_slow(frame, CALLER);
}

void frame_unpin(frame_t *frame, uint32_t less)
{
    if (likely(frame_unpin_shared(frame, less)))
        return;
    frame_lock();
    if (__atomic_sub_fetch(frame_counts_at(frame), (uint64_t)less << COUNT_MAP_SHIFT,
                           __ATOMIC_ACQ_REL) == 0)
        block_release(frame);
    frame_unlock();
}

/* --- device memory ---------------------------------------------------------------------------- */

// The device's frame, counted up or made. frame_lock is held.
static int device(uint64_t mfn, unsigned order, frame_t **out)
{
    frame_t *frame = find_mfn_frame(MFN(mfn));
    int err;

    if (frame && frame->kind == FRAME_DEVICE && frame->mfn == mfn && frame->order == order) {
        err = ref(frame);
        *out = err ? NULL : frame;
        return err;
    }
    if (frame || tree_occupied(mfn, order))
        return -EEXIST;
    err = frame_create(mfn, order, FRAME_DEVICE, 1);
    if (err)
        tree_prune(mfn);
    else
        *out = find_mfn_frame(MFN(mfn));
    return err;
}

enum {
    // Of descriptors, and nodes: what a new device's frame needs at most, and what must stay.
    DEVICE_PAGES = 2 + RESERVE_FRAME_PAGES,
    DEVICE_NODES = 3 + RESERVE_NODES,
};

int get_device_frame(paddr_t paddr, unsigned order, frame_t **out)
{
    uint64_t bytes;
    int err;

    if (!out)
        return -EINVAL;
    *out = NULL;
    if (order > ORDER_MAX)
        return -EORDER;
    bytes = (uint64_t)PAGE_SIZE << order;
    if (!IS_ALIGNED(paddr.v, bytes))
        return -EALIGN;
    if (paddr.v >= mm.phys_limit || mm.phys_limit - paddr.v < bytes)
        return -EBEYOND;
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        frame_lock();
        err = device(paddr_mfn(paddr).v, order, out);
        if (!err)
            journal(JOURNAL_GET, CALLER, 0, frame_word(*out), frame_counts(*out), 0);
        frame_unlock();
        if (err != -ENOMEM || !arenas_fill(DEVICE_PAGES, DEVICE_NODES))
            break;
    }
    upkeep_unlocked();
    return err;
}

/* --- figures ---------------------------------------------------------------------------------- */

const char *frame_kind_name(unsigned kind)
{
    static const char *const name[FRAME_KIND_COUNT] = {
        "none", "available", "table", "metadata", "reserved", "acpi", "nvs", "bad",
        "boot", "image",     "text",  "rodata",   "data",     "bss",  "low", "device",
    };

    return kind < FRAME_KIND_COUNT ? name[kind] : "?";
}

uint64_t mm_free_pages(void)
{
    uint64_t pages = 0;

    for (unsigned order = 0; order <= ORDER_MAX; order++)
        pages += (uint64_t)mm.order[order].free << order;
    return pages;
}

uint32_t mm_free_blocks(unsigned order)
{
    return order <= ORDER_MAX ? mm.order[order].free : 0;
}

uint32_t mm_used_blocks(unsigned order)
{
    return order <= ORDER_MAX ? mm.order[order].used : 0;
}
