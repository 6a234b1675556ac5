// SPDX-License-Identifier: BSD-2-Clause
// Arenas: upkeep, which fills their stocks and gives back what they have too much of.
#include "lib/panic.h"
#include "mm/arena_internal.h"
#include "mm/frame_block.h"
#include "mm/frame_tree.h"
#include "mm/frame_word.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "mm/table.h"
#include "mm/table_flush.h"

/* --- trimming --------------------------------------------------------------------------------- */

// Takes the last page out of stock if it holds nothing and `keep` objects stay free without it.
static bool objects_trim(enum arena_id id, uint32_t keep)
{
    struct arena *a = &mm.arena[id];
    uint32_t count = objects_per_page(a);

    if (a->pages <= a->boot || page_header(a, a->pages)->used || a->free < keep + count)
        return false;
    arena_page_remove(a, &a->partial, a->pages);
    a->free -= count;
    arena_shrink(id);
    return true;
}

// Moves the descriptors of a page, all of free blocks, to other pages of objects: free blocks are
// described wherever there was room when they merged, which keeps pages from going back.
static bool page_vacate(struct arena *a, uint32_t number)
{
    struct arena_page *page = page_header(a, number);
    uint32_t first = (number - 1) * FRAME_PAGE_COUNT;
    uint32_t room = 0;

    if (page->zero || page->magic != ARENA_PAGE_OBJECTS)
        return false;
    for (uint32_t i = 1; i < FRAME_PAGE_COUNT; i++)
        if (frame_at(first + i)->kind && !frame_is_free(frame_at(first + i)))
            return false;
    for (uint32_t other = a->partial; other && room < page->used;
         other = page_header(a, other)->next)
        if (other != number)
            room += objects_per_page(a) - page_header(a, other)->used;
    if (room < page->used)
        return false;
    if (page->free)
        arena_page_remove(a, &a->partial, number); // so that nothing moves within the page
    for (uint32_t i = 1; i < FRAME_PAGE_COUNT; i++)
        if (frame_at(first + i)->kind)
            frame_move(first + i, arena_alloc(ARENA_FRAMES));
    arena_page_make_empty(a, number);
    return true;
}

// The last page of objects, looked for among the last `pages`; 0 if none is there. After an
// operation only the very last page is looked at, which alone can go at once: there may be
// thousands.
static uint32_t last_object_page(const struct arena *a, uint32_t pages)
{
    uint32_t number = a->pages;

    for (uint32_t left = pages; left && number > a->boot; left--, number--) {
        const struct arena_page *page = page_header(a, number);

        if (!page->zero && page->magic == ARENA_PAGE_OBJECTS)
            return number;
    }
    return 0;
}

// Makes the last page one that holds nothing, and takes it out of stock; false if it can't be done.
static bool last_frames_unlist(struct arena *a, uint32_t keep, uint32_t look, bool *moved)
{
    const struct arena_page *page = page_header(a, a->pages);
    uint32_t number = last_object_page(a, look);

    *moved = number && page_vacate(a, number);
    if (*moved || a->pages <= a->boot || a->free <= keep || page->zero ||
        page->magic != ARENA_PAGE_EMPTY)
        return false;
    arena_page_remove(a, &a->empty, a->pages);
    a->free--;
    return true;
}

static bool frames_trim(uint32_t keep, uint32_t look)
{
    bool done, moved;

    frame_lock();
    done = last_frames_unlist(&mm.arena[ARENA_FRAMES], keep, look, &moved);
    frame_unlock();
    if (done)
        arena_shrink(ARENA_FRAMES);
    return done || moved;
}

static void node_unlist(struct arena *a, uint32_t index)
{
    uint64_t next = node_at(index)->entry[0];
    uint32_t at = a->empty;

    if (at == index)
        a->empty = (uint32_t)next;
    for (; at != index; at = (uint32_t)node_at(at)->entry[0])
        if (node_at(at)->entry[0] == index) {
            node_at(at)->entry[0] = next;
            break;
        }
    a->free--;
}

static bool last_node_unlist(struct arena *a, uint32_t keep)
{
    uint32_t last = a->pages / 2 - 1;

    if (a->pages <= a->boot || a->free <= keep || node_at(last)->entry[1] != NODE_FREE)
        return false;
    node_unlist(a, last);
    return true;
}

static bool nodes_trim(uint32_t keep)
{
    bool done;

    frame_lock();
    done = last_node_unlist(&mm.arena[ARENA_NODES], keep);
    frame_unlock();
    if (!done)
        return false;
    arena_shrink(ARENA_NODES);
    arena_shrink(ARENA_NODES);
    return true;
}

// What was given back so far is flushed and released, which may allow more of it.
static bool trim_more(bool again)
{
    if (again || !mm.batch.pending)
        return again;
    tlb_commit();
    return true;
}

// With some stock left above the least, so that work at the brink does not grow and shrink in turn.
static void trim(void)
{
    bool again = true;

    while (again) {
        again = objects_trim(ARENA_MAPPINGS, STOCK_MAPPINGS + 200);
        again |= objects_trim(ARENA_SPACES, 16);
        again |= pt_trim(STOCK_TABLES);
        again |= slots_trim(STOCK_SLOTS + 16);
        again |= nodes_trim(STOCK_NODES + 1);
        again |= frames_trim(STOCK_FRAME_PAGES + 4, 1);
        again = trim_more(again);
    }
}

// Down to nothing in stock. The pages of a stock may lie in memory that only they keep from
// merging, so what is to stay in stock is made anew afterwards.
static void trim_all(void)
{
    bool again = true;

    while (again) {
        records_spill();
        again = objects_trim(ARENA_MAPPINGS, 0);
        again |= objects_trim(ARENA_SPACES, 0);
        again |= pt_trim(0);
        again |= slots_trim(0);
        again |= nodes_trim(0);
        again |= frames_trim(0, UINT32_MAX);
        again = trim_more(again);
    }
}

// The arena that has too little in stock (ARENA_TABLES: table slots); ARENA_COUNT if none has.
static enum arena_id short_arena(void)
{
    if (mm.arena[ARENA_FRAMES].free < STOCK_FRAME_PAGES)
        return ARENA_FRAMES;
    if (mm.arena[ARENA_NODES].free < STOCK_NODES)
        return ARENA_NODES;
    if (mm.arena[ARENA_MAPPINGS].free < STOCK_MAPPINGS)
        return ARENA_MAPPINGS;
    return mm.free_slots < STOCK_SLOTS ? ARENA_TABLES : ARENA_COUNT;
}

// One step for whatever is short; false if nothing is, or if memory has run out.
static bool grow(void)
{
    enum arena_id id = short_arena();

    if (id == ARENA_COUNT)
        return false;
    return (id == ARENA_TABLES ? slots_grow(STOCK_SLOTS - mm.free_slots) : arena_grow(id)) == 0;
}

// What is still short is tried again after the next operation, which may have freed memory.
static uint32_t work_left(void)
{
    return (short_arena() == ARENA_COUNT ? 0 : MM_GROW) | (mm.check_every ? MM_CHECK : 0);
}

static void grow_all(void)
{
    while (grow())
        ;
}

void mm_upkeep(void)
{
    uint32_t work;

    if (mm.busy)
        return;
    mm.busy = 1;
    work = __atomic_exchange_n(&mm.work, 0, __ATOMIC_RELAXED);
    if (work & MM_GROW)
        grow_all();
    if (work & MM_TRIM)
        trim();
    work_add(work_left());
    mm.busy = 0;
}

void upkeep_try(void)
{
    if (spin_trylock(&mm.map_lock))
        map_unlock();
}

bool arenas_fill(uint32_t pages, uint32_t nodes)
{
    int err = 0;

    map_lock();
    while (!err && mm.arena[ARENA_FRAMES].free < pages)
        err = arena_grow(ARENA_FRAMES);
    while (!err && mm.arena[ARENA_NODES].free < nodes)
        err = arena_grow(ARENA_NODES);
    // Without upkeep, which might take some of it away again.
    if (mm.batch.pending)
        tlb_commit();
    spin_unlock(&mm.map_lock);
    return !err;
}

void mm_trim(void)
{
    map_lock();
    mm.busy = 1;
    trim_all();
    grow_all();
    mm.busy = 0;
    __atomic_store_n(&mm.work, work_left(), __ATOMIC_RELAXED);
    map_unlock();
}
