// SPDX-License-Identifier: BSD-2-Clause
// Blocks: made, split, merged, taken from the orders and given back.
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/frame_block.h"
#include "mm/frame_tree.h"
#include "mm/frame_word.h"
#include "mm/inject.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "mm/journal.h"
#include "mm/frame_ring.h"

// Tails of the 2^order pages whose head's descriptor is `head`, from page `from` on.
static void set_tails(frame_t *head, uint32_t from, uint32_t to)
{
    const frame_t one = {.tail = 1};
    uint64_t step = frame_word(&one), word = step * from;

#pragma GCC unroll 4
    for (uint32_t i = from; i < to; i++, word += step)
        __builtin_memcpy(&head[i], &word, sizeof(word)); // all else in it is 0
}

// True if a block of order `from` can be split down to `to` with what the arenas have in stock, and
// `kept` pages of descriptors remain.
static bool can_split(unsigned from, unsigned to, unsigned kept)
{
    const struct arena *frames = &mm.arena[ARENA_FRAMES];
    unsigned pages =
        (to < FRAME_PAGE_ORDER && from >= FRAME_PAGE_ORDER) + (from > FRAME_PAGE_ORDER);

    if (from >= NODE_ORDER && to < NODE_ORDER && !mm.arena[ARENA_NODES].free)
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

    if (half + 1 == NODE_ORDER)
        tree_split(mfn, frame_index(lower));
    if (half >= FRAME_PAGE_ORDER) {
        upper = frame_at(arena_alloc(ARENA_FRAMES));
        tree_set(mfn + page, half, frame_index(upper));
    } else if (half == FRAME_PAGE_ORDER - 1) {
        uint32_t index = frame_page_alloc();

        tree_set_page(mfn, index);
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
        tree_set(mfn, order + 1, frame_index(block));
    } else {
        if (order + 1 == NODE_ORDER)
            tree_merge(mfn, frame_index(lower));
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

// The last reference of a device frame is gone: its descriptor goes, too.
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

// What changes rings and the tree; at boot there is no other CPU yet.
static void assert_locked(void)
{
    if (unlikely(mm.live && !spin_held(&mm.frame_lock)))
        spin_missing(&mm.frame_lock);
}

void block_release(frame_t *frame)
{
    assert_locked();
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

/* --- taking and making ------------------------------------------------------------------------ */

unsigned block_free_order(unsigned order)
{
    while (order <= ORDER_MAX && !mm.order[order].free)
        order++;
    return order;
}

frame_t *block_take(unsigned order, enum frame_kind kind, unsigned kept)
{
    unsigned from = block_free_order(order);
    frame_t *frame;

    assert_locked();
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
    frame->kind = kind;
    frame_publish(frame, 1);
    mm.order[order].refs++;
    return frame;
}

void block_shatter(frame_t *frame)
{
    struct order_list *list = &mm.order[0];
    unsigned order = frame->order;
    uint32_t count = 1u << order, index = frame_index(frame), head = list->head;
    uint32_t prev = frame_at(head)->prev;
    const frame_t next = {.mfn = 1};
    frame_t page = *frame;
    uint64_t word;

    ring_remove(frame);
    mm.order[order].used--;
    mm.order[order].refs--;
    // Behind the last used one, each behind the one before.
    page.order = 0;
    word = frame_word(&page);
    frame_at(prev)->next = index;
    for (uint32_t i = 0; i < count; i++, word += frame_word(&next)) {
        __builtin_memcpy(&frame[i], &word, sizeof(word));
        frame[i].next = index + i + 1;
        frame[i].prev = prev;
        frame[i].maps = 0;
        frame[i].epoch = page.epoch;
        __atomic_store_n(frame_counts_at(&frame[i]), frame_counts(&page), __ATOMIC_RELEASE);
        prev = index + i;
    }
    frame_at(prev)->next = head;
    frame_at(head)->prev = prev;
    list->used += count;
    list->refs += count;
    // As the first of the splits that it takes.
    journal(JOURNAL_SPLIT, CALLER, 0, part_word(frame, 0, order - 1), frame_counts(frame), count);
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

    assert_locked();
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
    *frame = (frame_t){.order = order, .mfn = mfn, .kind = kind};
    mm.order[order].refs += refcount;
    if (refcount)
        ring_add_used(frame);
    else
        ring_add_free(frame);
    frame_publish(frame, refcount);
    return 0;
}
