// SPDX-License-Identifier: BSD-2-Clause
// Frames: the rings of each order, handing out and taking back, splitting and merging.
#include "mm/frame.h"

#include "lib/panic.h"
#include "lib/string.h"
#include "mm/internal.h"
#include "mm/journal.h"

struct mm mm;

/* --- the rings: head -> free ones -> used ones -> head
 * -------------------------------------------- */

static always_inline void ring_insert(frame_t *before, uint32_t at, frame_t *frame, uint32_t index)
{
    uint32_t next = before->next;

    frame->prev = at;
    frame->next = next;
    frame_at(next)->prev = index;
    before->next = index;
}

static void ring_insert_after(uint32_t at, frame_t *frame)
{
    ring_insert(frame_at(at), at, frame, frame_index(frame));
}

static always_inline void ring_remove(frame_t *frame)
{
    frame_at(frame->prev)->next = frame->next;
    frame_at(frame->next)->prev = frame->prev;
}

// Behind the last free one: the next to be handed out.
static void ring_add_free(frame_t *frame)
{
    struct order_list *list = &mm.order[frame->order];

    ring_insert_after(list->last_free, frame);
    list->last_free = frame_index(frame);
    list->free++;
}

static void ring_remove_free(frame_t *frame)
{
    struct order_list *list = &mm.order[frame->order];

    if (list->last_free == frame_index(frame))
        list->last_free = frame->prev;
    ring_remove(frame);
    list->free--;
}

// The last free one becomes the first used one where it stands.
static always_inline frame_t *ring_use_last(struct order_list *list)
{
    frame_t *frame = frame_at(list->last_free);

    list->last_free = frame->prev;
    list->free--;
    list->used++;
    return frame;
}

static void ring_add_used(frame_t *frame)
{
    struct order_list *list = &mm.order[frame->order];

    ring_insert_after(frame_at(list->head)->prev, frame);
    list->used++;
}

/* --- splitting and merging
 * ------------------------------------------------------------------------ */

// Tails of the 2^order pages whose head's descriptor is `head`, from page `from` on.
static void set_tails(frame_t *head, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++)
        head[i].tail = i;
}

// True if a block of order `from` can be split down to `to` with what the arenas have in stock, and
// `kept` pages of descriptors remain.
static bool can_split(unsigned from, unsigned to, unsigned kept)
{
    const struct arena *frames = &mm.arena[ARENA_FRAMES];
    unsigned pages =
        (to < FRAME_PAGE_ORDER && from >= FRAME_PAGE_ORDER) + (from > FRAME_PAGE_ORDER);

    if (from == ORDER_MAX && !mm.arena[ARENA_NODES].free)
        return false;
    return !pages || frames->free >= pages + reserve(RESERVE_FRAME_PAGES) + kept;
}

// The block becomes the lower half; the upper half is returned. `frame` is on no ring, and may
// move.
static frame_t *split_once(frame_t **frame)
{
    frame_t *lower = *frame;
    unsigned half = lower->order - 1;
    uint64_t mfn = lower->mfn;
    uint32_t page = 1u << half;
    frame_t *upper;

    if (half + 1 == ORDER_MAX)
        tree_split_gib(mfn, frame_index(lower));
    if (half >= FRAME_PAGE_ORDER) {
        upper = frame_at(arena_alloc(ARENA_FRAMES));
        tree_set(mfn + page, half, frame_index(upper));
    } else if (half == FRAME_PAGE_ORDER - 1) {
        uint32_t index = frame_page_alloc();

        *tree_entry(mfn) = index;
        *frame_at(index) = *lower;
        arena_free(ARENA_FRAMES, frame_index(lower));
        lower = frame_at(index);
        set_tails(lower, 1, page);
        upper = lower + page;
        set_tails(upper, 1, page);
    } else {
        upper = lower + page;
        set_tails(upper, 0, page);
    }
    lower->order = half;
    *upper =
        (frame_t){.order = half, .mfn = mfn + page, .kind = FRAME_AVAILABLE, .epoch = lower->epoch};
    *frame = lower;
    journal(JOURNAL_SPLIT, CALLER, 0, frame_word(lower), frame_counts(lower), 0);
    return upper;
}

// Epochs wrap around.
static uint32_t later(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0 ? a : b;
}

// `frame` and its buddy, both free and on no ring, become one block, which is returned.
static frame_t *merge_once(frame_t *lower, frame_t *upper)
{
    unsigned order = lower->order;
    uint64_t mfn = lower->mfn;
    uint32_t epoch = later(lower->epoch, upper->epoch);
    frame_t *block = lower;

    if (order + 1 < FRAME_PAGE_ORDER) {
        *upper = (frame_t){0};
        set_tails(lower, 1u << order, 2u << order);
    } else if (order + 1 == FRAME_PAGE_ORDER) {
        // The page of descriptors goes back first, so that there is always room for the one that
        // replaces it.
        frame_page_free(frame_index(lower));
        block = frame_at(arena_alloc(ARENA_FRAMES));
        *tree_entry(mfn) = frame_index(block) | NODE_BLOCK;
    } else {
        if (order + 1 == ORDER_MAX)
            tree_merge_gib(mfn, frame_index(lower));
        else
            tree_set(upper->mfn, order, frame_index(lower));
        arena_free(ARENA_FRAMES, frame_index(upper));
    }
    *block = (frame_t){.order = order + 1, .mfn = mfn, .kind = FRAME_AVAILABLE, .epoch = epoch};
    journal(JOURNAL_MERGE, CALLER, 0, frame_word(block), 0, 0);
    return block;
}

static frame_t *find_free_buddy(const frame_t *frame)
{
    uint64_t mfn = frame->mfn ^ (UINT64_C(1) << frame->order);
    frame_t *buddy = find_mfn_frame(MFN(mfn));

    if (!buddy || buddy->mfn != mfn || buddy->order != frame->order ||
        buddy->kind != FRAME_AVAILABLE || !frame_is_free(buddy))
        return NULL;
    return buddy;
}

// Puts a block that is free now, and on no ring, back to the orders.
static void give_back(frame_t *frame)
{
    frame_t *buddy;

    while (frame->order < ORDER_MAX && (buddy = find_free_buddy(frame))) {
        ring_remove_free(buddy);
        frame = buddy->mfn < frame->mfn ? merge_once(buddy, frame) : merge_once(frame, buddy);
    }
    ring_add_free(frame);
}

void frame_move(uint32_t from, uint32_t to)
{
    frame_t *frame = frame_at(to);

    *frame = *frame_at(from);
    if (mm.order[frame->order].last_free == from)
        mm.order[frame->order].last_free = to;
    frame_at(frame->prev)->next = to;
    frame_at(frame->next)->prev = to;
    tree_set(frame->mfn, frame->order, to);
}

// A device frame that nobody needs any more ceases to be.
static void forget_device(frame_t *frame)
{
    uint64_t mfn = frame->mfn;
    unsigned order = frame->order;

    if (order < FRAME_PAGE_ORDER) {
        memset(frame, 0, sizeof(*frame) << order);
    } else {
        tree_set(mfn, order, 0);
        arena_free(ARENA_FRAMES, frame_index(frame));
    }
    tree_prune(mfn);
}

// Both counts are 0 now. frame_lock is held.
static void release(frame_t *frame)
{
    ring_remove(frame);
    mm.order[frame->order].used--;
    if (frame->kind == FRAME_DEVICE) {
        forget_device(frame);
        return;
    }
    frame->kind = FRAME_AVAILABLE;
    frame->level = 0;
    give_back(frame);
}

/* --- handing out
 * ---------------------------------------------------------------------------------- */

// The smallest order from `order` on with a free block; above ORDER_MAX if there is none.
static unsigned free_order(unsigned order)
{
    while (order <= ORDER_MAX && !mm.order[order].free)
        order++;
    return order;
}

static frame_t *take(unsigned order, enum frame_kind kind, unsigned kept)
{
    unsigned from = free_order(order);
    frame_t *frame;

    if (from > ORDER_MAX || (from != order && !can_split(from, order, kept)))
        return NULL;
    if (from == order) {
        frame = ring_use_last(&mm.order[order]);
    } else {
        frame = frame_at(mm.order[from].last_free);
        ring_remove_free(frame);
        while (frame->order > order)
            ring_add_free(split_once(&frame));
        ring_add_used(frame);
    }
    frame->refcount = 1;
    frame->kind = kind;
    mm.order[order].refs++;
    return frame;
}

frame_t *frame_take(unsigned order, enum frame_kind kind)
{
    frame_t *frame;

    if (inject_failure())
        return NULL;
    frame_lock();
    frame = take(order, kind, 0);
    frame_unlock();
    return frame;
}

static frame_t *take_plain(unsigned order)
{
    frame_t *frame;

    frame_lock();
    frame = take(order, FRAME_AVAILABLE, mm.live ? RESERVE_OPERATION : 0);
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

    for (unsigned i = 0; i < TRIES_MAX && !frame && free_order(order) <= ORDER_MAX; i++) {
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
    // What is not as simple is for a function that this one ends in, so that it needs no stack.
    if (unlikely(mm.work || !spin_trylock(&mm.frame_lock)))
        return get_slow(order, out, CALLER);
    list = &mm.order[order];
    if (unlikely(!list->free)) {
        frame_unlock();
        return get_slow(order, out, CALLER);
    }
    frame = ring_use_last(list);
    frame->refcount = 1;
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
    mm.order[frame->order].refs--;
    if (__atomic_sub_fetch(frame_counts_at(frame), 1, __ATOMIC_ACQ_REL) == 0)
        release(frame);
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
    WORD_KIND = 15, // the fields of a descriptor's first word
    WORD_ORDER_SHIFT = 4,
    WORD_ORDER = 31,
};

// The last reference of a small block whose buddy is not free: it only changes its place in the
// ring. False if it is not as simple as that, then nothing has changed. frame_lock is held.
static always_inline bool put_last(frame_t *frame, const void *caller)
{
    uint64_t index = frame_number(frame), word, one = 1;
    struct order_list *list;
    unsigned order;

    if (unlikely(index >= mm.frame_limit))
        return false;
    word = frame_word(frame);
    order = word >> WORD_ORDER_SHIFT & WORD_ORDER;
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

void frame_unmapped(frame_t *frame, uint32_t less)
{
    if (likely(frame_unmapped_not_last(frame, less)))
        return;
    frame_lock();
    if (__atomic_sub_fetch(frame_counts_at(frame), (uint64_t)less << COUNT_MAP_SHIFT,
                           __ATOMIC_ACQ_REL) == 0)
        release(frame);
    frame_unlock();
}

// A descriptor for a large block, by growing if need be; 0 if there is no memory.
static uint32_t descriptor_get(void)
{
    const struct arena *a = &mm.arena[ARENA_FRAMES];

    if (inject_failure() || (!a->partial && a->free <= reserve(RESERVE_FRAME_PAGES) &&
                             (mm.live || arena_grow(ARENA_FRAMES))))
        return 0;
    return arena_alloc(ARENA_FRAMES);
}

int frame_create(uint64_t mfn, unsigned order, enum frame_kind kind, uint32_t refcount)
{
    int err = tree_prepare(mfn, order);
    uint32_t index;
    frame_t *frame;

    if (err)
        return err;
    if (order >= FRAME_PAGE_ORDER) {
        index = descriptor_get();
        if (!index)
            return -ENOMEM;
        tree_set(mfn, order, index);
    } else {
        index = tree_page_descriptor(mfn);
        set_tails(frame_at(index), 1, 1u << order);
    }
    frame = frame_at(index);
    *frame = (frame_t){.order = order, .mfn = mfn, .kind = kind, .refcount = refcount};
    mm.order[order].refs += refcount;
    if (refcount)
        ring_add_used(frame);
    else
        ring_add_free(frame);
    return 0;
}

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
        return -ERANGE_;
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

/* --- figures
 * -------------------------------------------------------------------------------------- */

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
