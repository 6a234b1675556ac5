// SPDX-License-Identifier: BSD-2-Clause
// Arenas: growth and shrinkage of the manager's own windows, and the objects in them.
#include "mm/arena.h"

#include "arch/x86/boot_window.h"
#include "arch/x86/zero.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/boot.h"
#include "mm/frame_block.h"
#include "mm/frame_tree.h"
#include "mm/frame_word.h"
#include "mm/inject.h"
#include "mm/lock.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table.h"
#include "mm/table_flush.h"
#include "mm/vmap.h"
#include "mm/vmap_internal.h"

static void *object_at(const struct arena *a, uint32_t index)
{
    return (void *)(uintptr_t)(a->base + (uint64_t)index * a->unit);
}

// A free object's link lies at byte 8, behind the word that says what a frame is.
static uint32_t *object_link(const struct arena *a, uint32_t index)
{
    return (uint32_t *)object_at(a, index) + 2;
}

static uint32_t object_page(const struct arena *a, uint32_t index)
{
    return (uint32_t)((uint64_t)index * a->unit >> PAGE_SHIFT) + 1;
}

const struct arena arena_first[ARENA_COUNT] = {
    [ARENA_FRAMES] =
        {.base = VA_FRAMES, .limit = 64ull << 30, .unit = 32, .size = 32, .low = STOCK_FRAME_PAGES},
    [ARENA_MAPPINGS] =
        {.base = VA_MAPPINGS, .limit = 8ull << 30, .unit = 4, .size = 20, .low = STOCK_MAPPINGS},
    [ARENA_NODES] =
        {.base = VA_NODES, .limit = 512ull << 20, .unit = 8192, .size = 8192, .low = STOCK_NODES},
    [ARENA_TABLES] = {.base = VA_TABLES, .limit = 256ull << 20, .unit = 32, .size = 32},
    [ARENA_SHADOWS] = {.base = VA_SHADOWS, .limit = 16ull << 30, .unit = 2048, .size = 2048},
    [ARENA_SPACES] = {.base = VA_SPACES, .limit = 64ull << 20, .unit = 128, .size = 128},
};

void arena_setup(void)
{
    memcpy(mm.arena, arena_first, sizeof(arena_first));
}

/* --- lists of pages: those with free objects (partial), and wholly free ones (empty) ---------- */

static void page_push(const struct arena *a, uint32_t *list, uint32_t number)
{
    struct arena_page *page = page_header(a, number);

    page->prev = 0;
    page->next = *list;
    if (page->next)
        page_header(a, page->next)->prev = number;
    *list = number;
}

void arena_page_remove(const struct arena *a, uint32_t *list, uint32_t number)
{
    struct arena_page *page = page_header(a, number);

    if (page->prev)
        page_header(a, page->prev)->next = page->next;
    else
        *list = page->next;
    if (page->next)
        page_header(a, page->next)->prev = page->prev;
    page->next = page->prev = 0;
}

// Links all objects of a zero page, lowest first, and puts the page on the partial list.
static void page_format(struct arena *a, uint32_t number)
{
    struct arena_page *page = page_header(a, number);
    uint32_t step = a->size / a->unit, *link;
    uint32_t first_byte = MAX(a->size, sizeof(*page));
    uint32_t index = (uint32_t)(((uint64_t)(number - 1) * PAGE_SIZE + first_byte) / a->unit);
    uint32_t count = objects_per_page(a), words = a->size / sizeof(*link);

    page->magic = ARENA_PAGE_OBJECTS;
    page->free = index;
    link = object_link(a, index);
#pragma GCC unroll 8
    for (uint32_t i = 1; i < count; i++, link += words)
        *link = index += step;
    page_push(a, &a->partial, number);
}

void arena_page_make_empty(struct arena *a, uint32_t number)
{
    struct arena_page *page = page_header(a, number);

    page_zero(page);
    page->magic = ARENA_PAGE_EMPTY;
    page_push(a, &a->empty, number);
    a->free++;
}

// Takes a wholly free page of descriptors out of stock, zeroed; 0 if there is none.
static uint32_t page_take(struct arena *a)
{
    uint32_t number = a->empty;

    if (!number)
        return 0;
    arena_page_remove(a, &a->empty, number);
    memset(page_header(a, number), 0, sizeof(struct arena_page));
    if (--a->free < a->low)
        work_add(MM_GROW);
    return number;
}

/* --- nodes ------------------------------------------------------------------------------------ */

static uint32_t node_alloc(struct arena *a)
{
    uint32_t index = a->empty;

    if (!index)
        return 0;
    a->empty = (uint32_t)node_at(index)->entry[0];
    node_at(index)->entry[0] = 0;
    node_at(index)->entry[1] = 0;
    if (--a->free < a->low)
        work_add(MM_GROW);
    return index;
}

static void node_free(struct arena *a, uint32_t index)
{
    memset(node_at(index), 0, sizeof(struct frame_node));
    node_at(index)->entry[0] = a->empty;
    node_at(index)->entry[1] = NODE_FREE;
    a->empty = index;
    a->free++;
    work_add(MM_TRIM);
}

/* --- objects ---------------------------------------------------------------------------------- */

// The first free object of the first page that has any.
static uint32_t object_take(struct arena *a, enum arena_id id)
{
    struct arena_page *page = page_header(a, a->partial);
    uint32_t index = page->free;

    page->free = *object_link(a, index);
    *object_link(a, index) = 0;
    page->used++;
    if (unlikely(!page->free))
        arena_page_remove(a, &a->partial, a->partial);
    if (id != ARENA_FRAMES && --a->free < a->low)
        work_add(MM_GROW);
    return index;
}

static void object_free(struct arena *a, enum arena_id id, uint32_t index)
{
    uint32_t number = object_page(a, index);
    struct arena_page *page = page_header(a, number);

    memset(object_at(a, index), 0, a->size);
    *object_link(a, index) = page->free;
    if (!page->free)
        page_push(a, &a->partial, number);
    page->free = index;
    if (id != ARENA_FRAMES)
        a->free++;
    if (--page->used)
        return;
    if (id == ARENA_FRAMES) {
        arena_page_remove(a, &a->partial, number);
        arena_page_make_empty(a, number);
    }
    work_add(MM_TRIM);
}

/* --- the cache of records --------------------------------------------------------------------- */

bool records_refill(void)
{
    struct arena *a = &mm.arena[ARENA_MAPPINGS];
    struct arena_page *page;
    uint32_t count, keep, *end;

    if (!a->partial || a->free <= RESERVE_MAPPINGS)
        return false;
    page = page_header(a, a->partial);
    count = objects_per_page(a) - page->used;
    keep = count + RESERVE_MAPPINGS - MIN(a->free, count + RESERVE_MAPPINGS);
    if (keep == 0)
        arena_page_remove(a, &a->partial, a->partial);
    end = &page->free;
    for (uint32_t i = 0; i < keep; i++)
        end = object_link(a, *end);
    count -= keep;
    mm.records = (struct record_cache){.head = *end, .count = count};
    *end = 0;
    page->used += count;
    a->free -= count;
    if (a->free < a->low)
        work_add(MM_GROW);
    return true;
}

bool records_fill(uint32_t count)
{
    struct arena *a = &mm.arena[ARENA_MAPPINGS];

    if (!mm.records.count)
        (void)records_refill();
    while (mm.records.count < count && a->partial && a->free > RESERVE_MAPPINGS) {
        uint32_t index = object_take(a, ARENA_MAPPINGS);

        record_put(mapping_at(index), index);
    }
    return mm.records.count >= count;
}

void records_spill(void)
{
    while (mm.records.count)
        object_free(&mm.arena[ARENA_MAPPINGS], ARENA_MAPPINGS, record_take());
}

void record_free_slow(uint32_t index)
{
    // What arenas that shrink give back may be what keeps the next page.
    if (mm.busy) {
        object_free(&mm.arena[ARENA_MAPPINGS], ARENA_MAPPINGS, index);
        return;
    }
    records_spill();
    record_put(mapping_at(index), index);
}

/* --- any of them ------------------------------------------------------------------------------ */

// Arenas that grow take theirs from the pages, which leaves the cache to who is in a hurry.
static uint32_t record_alloc(struct arena *a)
{
    if (mm.busy && a->free > reserve(RESERVE_MAPPINGS))
        return object_take(a, ARENA_MAPPINGS);
    return mm.records.head || records_refill() ? record_take() : 0;
}

uint32_t arena_alloc(enum arena_id id)
{
    struct arena *a = &mm.arena[id];

    if (id == ARENA_NODES)
        return node_alloc(a);
    if ((id == ARENA_MAPPINGS || id == ARENA_SPACES) && inject_failure())
        return 0;
    if (id == ARENA_MAPPINGS)
        return record_alloc(a);
    if (unlikely(!a->partial)) {
        uint32_t number = id == ARENA_FRAMES ? page_take(a) : 0;

        if (!number)
            return 0;
        page_format(a, number);
    }
    return object_take(a, id);
}

void arena_free(enum arena_id id, uint32_t index)
{
    struct arena *a = &mm.arena[id];

    if (id == ARENA_NODES)
        node_free(a, index);
    else if (id == ARENA_MAPPINGS)
        record_free(index);
    else
        object_free(a, id, index);
}

uint32_t frame_page_alloc(void)
{
    uint32_t number = page_take(&mm.arena[ARENA_FRAMES]);

    if (!number)
        return 0;
    page_zero(frame_at((number - 1) * FRAME_PAGE_COUNT));
    return (number - 1) * FRAME_PAGE_COUNT;
}

void frame_page_free(uint32_t index)
{
    struct arena *a = &mm.arena[ARENA_FRAMES];

    arena_page_make_empty(a, object_page(a, index));
    work_add(MM_TRIM);
}

/* --- growing ---------------------------------------------------------------------------------- */

// FRAMES and NODES are guarded by frame_lock, and so is the number of their pages.
static void lock_objects(enum arena_id id)
{
    if (id == ARENA_FRAMES || id == ARENA_NODES)
        frame_lock();
}

static void unlock_objects(enum arena_id id)
{
    if (id == ARENA_FRAMES || id == ARENA_NODES)
        frame_unlock();
}

// Backs one more page of the window, by a page of the boot pool until the kernel's space can map.
// It does not count yet.
static int page_back(struct arena *a)
{
    vaddr_t va = VADDR(a->base + (uint64_t)a->pages * PAGE_SIZE);
    frame_t *frame;
    int err;

    if ((uint64_t)(a->pages + 1) * PAGE_SIZE > a->limit)
        return -ENOMEM;
    // The address may have been given up in this very operation.
    if (mm.batch.pending)
        tlb_commit();
    if (!mm.root_ready) {
        boot_pool_back(va);
        a->boot++;
        mm.boot_pages++;
    } else {
        frame = frame_take(0, FRAME_METADATA);
        if (!frame)
            return -ENOMEM;
        err = mapping_create_own(va, frame);
        if (err) {
            frame_drop(frame);
            return err;
        }
        arch_meta_map(va, frame_mfn(frame));
    }
    page_zero(vaddr_ptr(va));
    return 0;
}

// Page number `page`, from 0, is no longer counted: it goes back.
static void page_unback(struct arena *a, uint32_t page)
{
    vaddr_t va = VADDR(a->base + (uint64_t)page * PAGE_SIZE);
    struct vlookup at;
    struct pt_walk w;

    assert(vmap_lookup_locked(kernel_space(), va, &at) == 0);
    pt_walk(kernel_space(), va, 1, &w);
    at.frame->kind = FRAME_AVAILABLE; // for others that hold or map it, it is plain memory now
    mapping_destroy(kernel_space(), at.frame, w.shadow);
    arch_meta_unmap(va);
    frame_drop(at.frame);
}

// The node's second page, and then both count.
static int grow_node(struct arena *a)
{
    int err;

    a->pages++;
    err = page_back(a);
    a->pages--;
    if (err) {
        page_unback(a, a->pages);
        return err;
    }
    frame_lock();
    a->pages += 2;
    if (a->pages > 2 * NODE_ROOTS) // the root is never free
        node_free(a, a->pages / 2 - 1);
    frame_unlock();
    return 0;
}

static int grow_by_one(enum arena_id id)
{
    struct arena *a = &mm.arena[id];
    int err = page_back(a);

    if (err)
        return err;
    if (id == ARENA_NODES)
        return grow_node(a);
    lock_objects(id);
    a->pages++;
    switch (id) {
    case ARENA_FRAMES:
        mm.frame_limit = (uint64_t)a->pages * FRAME_PAGE_COUNT;
        arena_page_make_empty(a, a->pages);
        break;
    case ARENA_MAPPINGS:
    case ARENA_SPACES:
        page_format(a, a->pages);
        a->free += objects_per_page(a);
        break;
    default: // tables and shadows are handed out by slot
        break;
    }
    unlock_objects(id);
    return 0;
}

// Without upkeep in between, which might grow the same arena at the same address.
int arena_grow(enum arena_id id)
{
    uint32_t busy = mm.busy;
    int err;

    mm.busy = 1;
    err = grow_by_one(id);
    mm.busy = busy;
    return err;
}

int arena_grow_pages(enum arena_id id, unsigned order)
{
    struct arena *a = &mm.arena[id];
    uint32_t count = 1u << order;

    if ((uint64_t)(a->pages + count) * PAGE_SIZE > a->limit)
        return -ENOMEM;
    // The addresses may have been given up in this very operation.
    if (mm.batch.pending)
        tlb_commit();
    if (!own_pages(VADDR(a->base + (uint64_t)a->pages * PAGE_SIZE), order, FRAME_METADATA))
        return -ENOMEM;
    a->pages += count;
    return 0;
}

void arena_shrink(enum arena_id id)
{
    struct arena *a = &mm.arena[id];

    lock_objects(id);
    a->pages--;
    if (id == ARENA_FRAMES)
        mm.frame_limit = (uint64_t)a->pages * FRAME_PAGE_COUNT;
    unlock_objects(id);
    page_unback(a, a->pages);
}
