// SPDX-License-Identifier: BSD-2-Clause
// kmalloc's pages: chunks of its window, runs of pages in them, and the frames behind.
#include "arch/x86/boot_window.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/kmalloc/internal.h"
#include "mm/vmap.h"

enum {
    BATCH = 32,                // pages that are unmapped at once
    SEARCH_MAX = 64,           // chunks looked at for a run of pages
    RUN_MAX = CHUNK_PAGES - 1, // pages in a row that one chunk has
};

/* --- frames ----------------------------------------------------------------------------------- */

static void unmap_pages(uint32_t page, uint32_t count)
{
    frame_t *frames[BATCH];

    while (count) {
        uint32_t n = MIN(count, (uint32_t)BATCH);

        for (uint32_t i = 0; i < n; i++)
            frames[i] = find_kern_va_frame((void *)(uintptr_t)kpage_va(page + i));
        if (vput_frames(NULL, VADDR(kpage_va(page)), frames, n))
            panic("kmalloc: page 0x%lx can't be unmapped", kpage_va(page));
        for (uint32_t i = 0; i < n; i++) {
            arch_meta_unmap(VADDR(kpage_va(page + i)));
            put_frame(frames[i]);
        }
        page += n;
        count -= n;
        kmalloc_state.pages -= n;
    }
}

static int map_page(uint32_t page)
{
    vaddr_t va = VADDR(kpage_va(page));
    frame_t *frame;
    int err = get_frame(ORDER_4K, &frame);

    if (err)
        return err;
    err = vmap_kern_4k(va, frame, VATTR_W);
    if (err) {
        put_frame(frame);
        return err;
    }
    arch_meta_map(va, frame_mfn(frame));
    kmalloc_state.pages++;
    return 0;
}

static int map_pages(uint32_t page, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int err = map_page(page + i);

        if (err) {
            unmap_pages(page, i);
            return err;
        }
    }
    return 0;
}

/* --- chunks ----------------------------------------------------------------------------------- */

static void room_add(struct kchunk *c)
{
    c->prev = 0;
    c->next = kmalloc_state.room;
    if (c->next)
        chunk_at(c->next - 1)->prev = chunk_number(c) + 1;
    kmalloc_state.room = chunk_number(c) + 1;
}

static void room_remove(const struct kchunk *c)
{
    if (c->prev)
        chunk_at(c->prev - 1)->next = c->next;
    else
        kmalloc_state.room = c->next;
    if (c->next)
        chunk_at(c->next - 1)->prev = c->prev;
}

// Marks pages as taken or not; the chunk is on the list of those with room exactly if it has some.
static void chunk_mark(struct kchunk *c, uint64_t pages, bool taken)
{
    bool had_room = ~c->taken;

    c->taken = taken ? c->taken | pages : c->taken & ~pages;
    if (had_room && !~c->taken)
        room_remove(c);
    else if (!had_room && ~c->taken)
        room_add(c);
}

// The first of `count` chunks in a row that nobody has; CHUNK_COUNT if there are none.
static uint32_t find_chunks(uint32_t count)
{
    uint32_t run = 0;

    for (uint32_t i = 0; i < CHUNK_COUNT; i++) {
        if (i % 64 == 0 && !~kmalloc_state.taken[i / 64]) {
            i += 63;
            run = 0;
            continue;
        }
        run = bit_get(kmalloc_state.taken, i) ? 0 : run + 1;
        if (run == count)
            return i + 1 - count;
    }
    return CHUNK_COUNT;
}

static struct kchunk *chunk_create(uint32_t count)
{
    uint32_t number = find_chunks(count);
    struct kchunk *c;

    if (number == CHUNK_COUNT || map_page(number * CHUNK_PAGES))
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        bit_set(kmalloc_state.taken, number + i, true);
    bit_set(kmalloc_state.heads, number, true);
    c = chunk_at(number);
    memset(c, 0, PAGE_SIZE);
    c->magic = KCHUNK_MAGIC;
    c->chunks = count;
    c->taken = 1;
    room_add(c);
    return c;
}

static void chunk_destroy(struct kchunk *c)
{
    uint32_t number = chunk_number(c), count = c->chunks;

    room_remove(c);
    for (uint32_t i = 0; i < count; i++)
        bit_set(kmalloc_state.taken, number + i, false);
    bit_set(kmalloc_state.heads, number, false);
    unmap_pages(number * CHUNK_PAGES, 1);
}

/* --- runs of pages ---------------------------------------------------------------------------- */

static uint64_t run_mask(uint32_t first, uint32_t count)
{
    return count >= 64 ? UINT64_MAX << first : ((UINT64_C(1) << count) - 1) << first;
}

// Where `count` free pages follow each other in the chunk; 0 if nowhere.
static uint32_t find_run(const struct kchunk *c, uint32_t count)
{
    uint64_t starts = ~c->taken;

    for (uint32_t i = 1; i < count && starts; i++)
        starts &= starts >> 1;
    return starts ? (uint32_t)__builtin_ctzll(starts) : 0;
}

// A chunk with that many free pages in a row, the first of them in *first.
static struct kchunk *chunk_with(uint32_t count, uint32_t *first)
{
    uint32_t number = kmalloc_state.room;

    *first = 1;
    if (count > RUN_MAX)
        return chunk_create((count + CHUNK_PAGES) / CHUNK_PAGES);
    for (unsigned i = 0; number && i < SEARCH_MAX; i++) {
        struct kchunk *c = chunk_at(number - 1);

        *first = find_run(c, count);
        if (*first)
            return c;
        number = c->next;
    }
    *first = 1;
    return chunk_create(1);
}

int kpages_take(uint32_t count, bool guard, uint32_t *page)
{
    uint32_t first;
    struct kchunk *c = chunk_with(count + guard, &first);
    int err;

    if (!c)
        return -ENOMEM;
    *page = chunk_number(c) * CHUNK_PAGES + first;
    chunk_mark(c, run_mask(first, count + guard), true);
    err = map_pages(*page, count);
    if (err)
        kpages_give(*page, 0, count + guard);
    for (uint32_t i = 0; !err && i < count + guard && first + i < CHUNK_PAGES; i++)
        c->page[first + i] = (struct kpage){.kind = KPAGE_REST};
    return err;
}

void kpages_give(uint32_t page, uint32_t mapped, uint32_t unmapped)
{
    struct kchunk *c = chunk_at(page / CHUNK_PAGES);
    uint32_t first = page % CHUNK_PAGES, count = mapped + unmapped;

    unmap_pages(page, mapped);
    for (uint32_t i = 0; i < count && first + i < CHUNK_PAGES; i++)
        c->page[first + i] = (struct kpage){0};
    chunk_mark(c, run_mask(first, count), false);
    if (c->taken == 1)
        chunk_destroy(c);
}

bool kpages_find(const void *p, uint32_t *page)
{
    uint64_t byte = (uintptr_t)p - VA_KMALLOC;
    uint32_t number = (uint32_t)(byte >> PAGE_SHIFT);

    if (byte >= VA_KMALLOC_SIZE || !bit_get(kmalloc_state.heads, number / CHUNK_PAGES) ||
        number % CHUNK_PAGES == 0)
        return false;
    *page = number;
    return kpage_at(number)->kind != KPAGE_FREE;
}
