// SPDX-License-Identifier: BSD-2-Clause
// Arenas: growth and shrinkage of the manager's own windows, and the objects in them.
#include "mm/arena.h"

#include "arch/x86/boot_window.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/boot.h"
#include "mm/internal.h"
#include "mm/vmap.h"

static struct arena_page *page_header(const struct arena *a, uint32_t number)
{
    return (struct arena_page *)(uintptr_t)(a->base + (uint64_t)(number - 1) * PAGE_SIZE);
}

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

static uint32_t objects_per_page(const struct arena *a)
{
    return (PAGE_SIZE - MAX(a->size, sizeof(struct arena_page))) / a->size;
}

void arena_setup(void)
{
    static const struct arena init[ARENA_COUNT] = {
        [ARENA_FRAMES] = {.base = VA_FRAMES, .limit = 64ull << 30, .unit = 32, .size = 32},
        [ARENA_MAPPINGS] = {.base = VA_MAPPINGS, .limit = 8ull << 30, .unit = 4, .size = 20},
        [ARENA_NODES] = {.base = VA_NODES, .limit = 512ull << 20, .unit = 8192, .size = 8192},
        [ARENA_TABLES] = {.base = VA_TABLES, .limit = 256ull << 20, .unit = 32, .size = 32},
        [ARENA_SHADOWS] = {.base = VA_SHADOWS, .limit = 16ull << 30, .unit = 2048, .size = 2048},
        [ARENA_SPACES] = {.base = VA_SPACES, .limit = 64ull << 20, .unit = 128, .size = 128},
    };

    memcpy(mm.arena, init, sizeof(init));
    mm.arena[ARENA_FRAMES].low = STOCK_FRAME_PAGES;
    mm.arena[ARENA_NODES].low = STOCK_NODES;
    mm.arena[ARENA_MAPPINGS].low = STOCK_MAPPINGS;
}

/* --- lists of pages: those with free objects (partial), and wholly free ones (empty)
 * --------------- */

static void page_push(const struct arena *a, uint32_t *list, uint32_t number)
{
    struct arena_page *page = page_header(a, number);

    page->prev = 0;
    page->next = *list;
    if (page->next)
        page_header(a, page->next)->prev = number;
    *list = number;
}

static void page_remove(const struct arena *a, uint32_t *list, uint32_t number)
{
    struct arena_page *page = page_header(a, number);

    if (page->prev)
        page_header(a, page->prev)->next = page->next;
    else
        *list = page->next;
    if (page->next)
        page_header(a, page->next)->prev = page->prev;
}

// Links all objects of a zero page, lowest first, and puts the page on the partial list.
static void page_format(struct arena *a, uint32_t number)
{
    struct arena_page *page = page_header(a, number);
    uint32_t step = a->size / a->unit;
    uint32_t first_byte = MAX(a->size, sizeof(*page));
    uint32_t index = (uint32_t)(((uint64_t)(number - 1) * PAGE_SIZE + first_byte) / a->unit);
    uint32_t count = objects_per_page(a);

    page->magic = ARENA_PAGE_OBJECTS;
    page->free = index;
    for (uint32_t i = 1; i < count; i++, index += step)
        *object_link(a, index) = index + step;
    page_push(a, &a->partial, number);
}

static void page_make_empty(struct arena *a, uint32_t number)
{
    struct arena_page *page = page_header(a, number);

    memset(page, 0, PAGE_SIZE);
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
    page_remove(a, &a->empty, number);
    memset(page_header(a, number), 0, sizeof(struct arena_page));
    if (--a->free < a->low)
        work_add(MM_GROW);
    return number;
}

/* --- nodes
 * ---------------------------------------------------------------------------------------- */

enum {
    NODE_FREE = 0xffffffff, // entry 1 of a free node: a value that no entry in use can have
};

static uint32_t node_alloc(struct arena *a)
{
    uint32_t index = a->empty;

    if (!index)
        return 0;
    a->empty = node_at(index)->entry[0];
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

static void node_unlist(struct arena *a, uint32_t index)
{
    uint32_t *link = &a->empty;

    while (*link != index)
        link = &node_at(*link)->entry[0];
    *link = node_at(index)->entry[0];
    a->free--;
}

/* --- objects
 * -------------------------------------------------------------------------------------- */

uint32_t arena_alloc(enum arena_id id)
{
    struct arena *a = &mm.arena[id];
    struct arena_page *page;
    uint32_t index;

    if (id == ARENA_NODES)
        return node_alloc(a);
    if ((id == ARENA_MAPPINGS || id == ARENA_SPACES) && inject_failure())
        return 0;
    if (id == ARENA_MAPPINGS && unlikely(a->free <= reserve(RESERVE_MAPPINGS)))
        return 0;
    if (unlikely(!a->partial)) {
        uint32_t number = id == ARENA_FRAMES ? page_take(a) : 0;

        if (!number)
            return 0;
        page_format(a, number);
    }
    page = page_header(a, a->partial);
    index = page->free;
    page->free = *object_link(a, index);
    *object_link(a, index) = 0;
    page->used++;
    if (unlikely(!page->free))
        page_remove(a, &a->partial, a->partial);
    if (id != ARENA_FRAMES && --a->free < a->low)
        work_add(MM_GROW);
    return index;
}

void arena_free(enum arena_id id, uint32_t index)
{
    struct arena *a = &mm.arena[id];
    uint32_t number = object_page(a, index);
    struct arena_page *page = page_header(a, number);

    if (id == ARENA_NODES) {
        node_free(a, index);
        return;
    }
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
        page_remove(a, &a->partial, number);
        page_make_empty(a, number);
    }
    work_add(MM_TRIM);
}

uint32_t frame_page_alloc(void)
{
    uint32_t number = page_take(&mm.arena[ARENA_FRAMES]);

    if (!number)
        return 0;
    memset(frame_at((number - 1) * FRAME_PAGE_COUNT), 0, PAGE_SIZE);
    return (number - 1) * FRAME_PAGE_COUNT;
}

void frame_page_free(uint32_t index)
{
    struct arena *a = &mm.arena[ARENA_FRAMES];

    page_make_empty(a, object_page(a, index));
    work_add(MM_TRIM);
}

/* --- growing
 * -------------------------------------------------------------------------------------- */

// FRAMES and NODES belong to whoever has frame_lock, and so does the number of their pages.
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
    } else {
        frame = frame_take(0, FRAME_METADATA);
        if (!frame)
            return -ENOMEM;
        err = mapping_create(kernel_space(), va, frame, 0, 0, 1, VATTR_W);
        if (err) {
            frame_drop(frame);
            return err;
        }
        arch_meta_map(va, frame_mfn(frame));
    }
    memset(vaddr_ptr(va), 0, PAGE_SIZE);
    return 0;
}

// Page number `page`, from 0, which does not count any more, goes back.
static void page_unback(struct arena *a, uint32_t page)
{
    vaddr_t va = VADDR(a->base + (uint64_t)page * PAGE_SIZE);
    struct vlookup at;
    struct pt_walk w;

    assert(vmap_lookup_locked(kernel_space(), va, &at) == 0);
    pt_walk(kernel_space(), va, 1, &w);
    at.frame->kind = FRAME_AVAILABLE; // whoever else holds it or maps it, holds plain memory now
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
    if (a->pages > 2) // node 0 is the tree's root, never free
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
        page_make_empty(a, a->pages);
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

/* --- trimming
 * ------------------------------------------------------------------------------------- */

// Takes the last page out of stock if it holds nothing and `keep` objects stay free without it.
static bool objects_trim(enum arena_id id, uint32_t keep)
{
    struct arena *a = &mm.arena[id];
    uint32_t count = objects_per_page(a);

    if (a->pages <= a->boot || page_header(a, a->pages)->used || a->free < keep + count)
        return false;
    page_remove(a, &a->partial, a->pages);
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
    for (uint32_t other = a->partial; other; other = page_header(a, other)->next)
        if (other != number)
            room += objects_per_page(a) - page_header(a, other)->used;
    if (room < page->used)
        return false;
    if (page->free)
        page_remove(a, &a->partial, number); // so that nothing moves within the page
    for (uint32_t i = 1; i < FRAME_PAGE_COUNT; i++)
        if (frame_at(first + i)->kind)
            frame_move(first + i, arena_alloc(ARENA_FRAMES));
    page_make_empty(a, number);
    return true;
}

static uint32_t last_object_page(const struct arena *a)
{
    uint32_t number = a->pages;

    while (number > a->boot) {
        const struct arena_page *page = page_header(a, number);

        if (!page->zero && page->magic == ARENA_PAGE_OBJECTS)
            return number;
        number--;
    }
    return 0;
}

// Makes the last page one that holds nothing, and takes it out of stock; false if it can't be done.
static bool last_frames_unlist(struct arena *a, uint32_t keep, bool *moved)
{
    const struct arena_page *page = page_header(a, a->pages);
    uint32_t number = last_object_page(a);

    *moved = number && page_vacate(a, number);
    if (*moved || a->pages <= a->boot || a->free <= keep || page->zero ||
        page->magic != ARENA_PAGE_EMPTY)
        return false;
    page_remove(a, &a->empty, a->pages);
    a->free--;
    return true;
}

static bool frames_trim(uint32_t keep)
{
    bool done, moved;

    frame_lock();
    done = last_frames_unlist(&mm.arena[ARENA_FRAMES], keep, &moved);
    frame_unlock();
    if (done)
        arena_shrink(ARENA_FRAMES);
    return done || moved;
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
        again |= slots_trim(STOCK_SLOTS + 16);
        again |= nodes_trim(STOCK_NODES + 1);
        again |= frames_trim(STOCK_FRAME_PAGES + 4);
        again = trim_more(again);
    }
}

// Down to nothing in stock. The pages of a stock may lie in memory that only they keep from
// merging, so what is to stay in stock is made anew afterwards.
static void trim_all(void)
{
    bool again = true;

    while (again) {
        again = objects_trim(ARENA_MAPPINGS, 0);
        again |= objects_trim(ARENA_SPACES, 0);
        again |= slots_trim(0);
        again |= nodes_trim(0);
        again |= frames_trim(0);
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
    return (id == ARENA_TABLES ? slots_grow() : arena_grow(id)) == 0;
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
