// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on the arenas: their windows, their pages, and the objects in these.
#include "lib/panic.h"
#include "mm/arena_internal.h"
#include "mm/check/internal.h"
#include "mm/table.h"

/* --- windows ---------------------------------------------------------------------------------- */

static bool is_mapped(uint64_t va)
{
    return raw_entry(kernel_space(), va, 1) & PG_P;
}

// Before anything in it is looked at: the pages that it says it has are there, and no more.
static void check_window(struct check *c, enum arena_id id)
{
    const struct arena *a = &mm.arena[id], *want = &arena_first[id];
    uint64_t bytes = (uint64_t)a->pages * PAGE_SIZE;

    if (a->base != want->base || a->limit != want->limit || a->unit != want->unit ||
        a->size != want->size) {
        check_blind(c, "A3", "arena %u: base 0x%lx, limit 0x%lx, unit %u, size %u", id, a->base,
                    a->limit, a->unit, a->size);
        return;
    }
    if (!bytes || bytes > a->limit || !is_mapped(a->base + bytes - PAGE_SIZE) ||
        (bytes < a->limit && is_mapped(a->base + bytes))) {
        check_blind(c, "A3", "arena %u says %u pages, which are not those that are mapped", id,
                    a->pages);
        return;
    }
    EXPECT(c, "A3", a->boot <= a->pages, "arena %u: %u pages from the boot, %u in all", id, a->boot,
           a->pages);
    EXPECT(c, "A4", a->low == want->low, "arena %u: low is %u, should be %u", id, a->low,
           want->low);
}

// Members that mean nothing for an arena are 0.
static void check_spare_words(struct check *c)
{
    const struct arena *a = mm.arena;

    EXPECT(c, "A4",
           !a[ARENA_MAPPINGS].empty && !a[ARENA_SPACES].empty && !a[ARENA_NODES].partial &&
               !(a[ARENA_TABLES].free | a[ARENA_TABLES].partial | a[ARENA_TABLES].empty) &&
               !(a[ARENA_SHADOWS].free | a[ARENA_SHADOWS].partial | a[ARENA_SHADOWS].empty),
           "an arena has a list or a count that it has no use for");
}

void check_windows(struct check *c)
{
    for (unsigned id = 0; id < ARENA_COUNT; id++)
        check_window(c, id);
    check_spare_words(c);
}

// The window shows each table: without its entry there, a look at the table's own would fault.
void check_shown(struct check *c)
{
    for (uint32_t slot = 1; slot < mm.slot_count; slot++) {
        const struct table *t = table_at(slot);

        if ((t->level || t->stock) && !is_mapped((uintptr_t)table_entries(slot)))
            check_blind(c, "T4", "the window does not show the table in slot %u", slot);
    }
}

/* --- pages of objects ------------------------------------------------------------------------- */

// What is asked of all pages of an arena.
struct pages {
    uint32_t objects; // pages that have them
    uint32_t partial; // of them with free ones
    uint64_t free;    // objects
    uint64_t used;
};

static bool words_blank(const void *from, uint64_t bytes, unsigned link)
{
    const uint32_t *words = from;
    uint32_t any = 0;

    for (unsigned i = 0; i < bytes / sizeof(*words); i++)
        any |= i == link ? 0 : words[i];
    return !any;
}

enum {
    NO_LINK = -1,
    LINK = 2, // the word of a free object that leads to the next
};

static uint32_t first_byte(const struct arena *a)
{
    return MAX(a->size, (uint32_t)sizeof(struct arena_page));
}

// The free objects of a page: how many. Each is one of that page, and blank but for its link.
static uint32_t free_objects(struct check *c, enum arena_id id, uint32_t number)
{
    const struct arena *a = &mm.arena[id];
    uint64_t start = (number - 1ull) * PAGE_SIZE;
    uint32_t count = 0;

    for (uint32_t i = page_header(a, number)->free; i; count++) {
        uint64_t byte = (uint64_t)i * a->unit - start;
        const uint32_t *words = (const void *)(uintptr_t)(a->base + start + byte);

        if (byte < first_byte(a) || byte > PAGE_SIZE - a->size ||
            (byte - first_byte(a)) % a->size || count >= objects_per_page(a)) {
            check_fail(c, "A3", "arena %u: free objects of page %u leave the page or loop", id,
                       number);
            break;
        }
        EXPECT(c, "A3", words_blank(words, a->size, LINK),
               "arena %u: free object 0x%x is not blank", id, i);
        i = words[LINK];
    }
    return count;
}

static void check_page(struct check *c, enum arena_id id, uint32_t number, struct pages *seen)
{
    const struct arena *a = &mm.arena[id];
    const struct arena_page *p = page_header(a, number);
    uint32_t end = first_byte(a) + objects_per_page(a) * a->size;
    uint32_t free = free_objects(c, id, number);

    EXPECT(c, "A3",
           p->magic == ARENA_PAGE_OBJECTS && !p->zero && !p->zero2 &&
               words_blank(p + 1, first_byte(a) - sizeof(*p), NO_LINK) &&
               words_blank((const char *)p + end, PAGE_SIZE - end, NO_LINK),
           "arena %u: the head of page %u is bad, or what lies around its objects not blank", id,
           number);
    EXPECT(c, "A4", p->used + free == objects_per_page(a),
           "arena %u: page %u has %u objects in use and %u free, of %u", id, number, p->used, free,
           objects_per_page(a));
    EXPECT(c, "A3", p->free || !(p->next | p->prev),
           "arena %u: page %u has no free objects, and is linked", id, number);
    seen->objects++;
    seen->partial += p->free != 0;
    seen->free += free;
    seen->used += p->used;
}

// A list of pages, linked both ways: `count` of them, those with free objects or (`empty`) those
// with none at all.
static void check_list(struct check *c, enum arena_id id, uint32_t first, bool empty,
                       uint32_t count)
{
    const struct arena *a = &mm.arena[id];
    uint32_t magic = empty ? ARENA_PAGE_EMPTY : ARENA_PAGE_OBJECTS;
    uint32_t before = 0, found = 0;

    for (uint32_t number = first; number; found++) {
        const struct arena_page *p;

        if (number > a->pages || found > a->pages) {
            check_fail(c, "A3", "arena %u: its page list leaves the arena or loops at page %u", id,
                       number);
            return;
        }
        p = page_header(a, number);
        EXPECT(c, "A3",
               p->prev == before && p->magic == magic && !p->zero && (empty ? !p->used : p->free),
               "arena %u: page %u is linked badly", id, number);
        before = number;
        number = p->next;
    }
    EXPECT(c, "A3", found == count, "arena %u: %u pages are on a list, should be %u", id, found,
           count);
}

// An arena of which every page holds objects, `in_use` of them in use.
static void check_objects(struct check *c, enum arena_id id, uint64_t in_use)
{
    const struct arena *a = &mm.arena[id];
    struct pages seen = {0};

    for (uint32_t number = 1; number <= a->pages; number++)
        check_page(c, id, number, &seen);
    check_list(c, id, a->partial, false, seen.partial);
    EXPECT(c, "A4", seen.free == a->free, "arena %u: %lu objects are free, the count says %u", id,
           seen.free, a->free);
    EXPECT(c, "A4", seen.used == in_use, "arena %u: %lu objects are in use, %lu were found", id,
           seen.used, in_use);
}

/* --- descriptors ------------------------------------------------------------------------------ */

static void check_empty_page(struct check *c, uint32_t number)
{
    const struct arena_page *p = page_header(&mm.arena[ARENA_FRAMES], number);

    EXPECT(c, "A3",
           !p->zero2 && !p->used && !p->free && words_blank(p + 1, PAGE_SIZE - sizeof(*p), NO_LINK),
           "empty page %u of descriptors is not blank", number);
}

// Their pages hold objects, nothing, or the descriptors of pages side by side, which the tree leads
// to. These have no head; but where a head has 0 a descriptor has its kind.
static void check_frames(struct check *c)
{
    const struct arena *a = &mm.arena[ARENA_FRAMES];
    struct pages seen = {0};
    uint32_t empty = 0;

    for (uint32_t number = 1; number <= a->pages; number++) {
        const struct arena_page *p = page_header(a, number);

        if (!p->zero && p->magic == ARENA_PAGE_OBJECTS) {
            check_page(c, ARENA_FRAMES, number, &seen);
        } else if (!p->zero && p->magic == ARENA_PAGE_EMPTY) {
            check_empty_page(c, number);
            empty++;
        }
    }
    check_list(c, ARENA_FRAMES, a->partial, false, seen.partial);
    check_list(c, ARENA_FRAMES, a->empty, true, empty);
    EXPECT(c, "A4", empty == a->free, "%u pages of descriptors are empty, the count says %u", empty,
           a->free);
    EXPECT(c, "A4", seen.used == ORDER_COUNT + c->large_frames,
           "%lu descriptors of large blocks are in use, %lu were found", seen.used,
           ORDER_COUNT + c->large_frames);
    EXPECT(c, "A3", c->tree.pages + seen.objects + empty == a->pages,
           "of %u pages of descriptors %lu are in the tree, %u hold objects, %u are empty",
           a->pages, c->tree.pages, seen.objects, empty);
}

/* --- all of them ------------------------------------------------------------------------------ */

// The cache of records: as many as it says, blank but for their links. How many.
static uint32_t check_cache(struct check *c)
{
    uint32_t count = 0;

    for (uint32_t i = mm.records.head; i && count <= mm.records.count; count++) {
        if (!index_in(ARENA_MAPPINGS, i)) {
            check_fail(c, "A3", "the cache of records leads to 0x%x, outside the arena", i);
            break;
        }
        EXPECT(c, "A3", words_blank(mapping_at(i), sizeof(mapping_t), LINK),
               "record 0x%x is in the cache, but not blank", i);
        i = mapping_at(i)->at;
    }
    EXPECT(c, "A4", count == mm.records.count && count <= RECORD_CACHE_MAX,
           "the cache of records has %u of them, the count says %u", count, mm.records.count);
    return count;
}
_Static_assert(offsetof(mapping_t, at) == LINK * sizeof(uint32_t), "linked like a free object");

void check_arenas(struct check *c)
{
    uint64_t pages = 0, boot = 0;

    check_frames(c);
    check_objects(c, ARENA_MAPPINGS, c->mappings + check_cache(c));
    check_objects(c, ARENA_SPACES, c->spaces);
    for (unsigned id = 0; id < ARENA_COUNT; id++) {
        pages += mm.arena[id].pages;
        boot += mm.arena[id].boot;
    }
    EXPECT(c, "A3", c->arena_pages == pages, "the arenas have %lu pages, %lu are mapped", pages,
           c->arena_pages);
    EXPECT(c, "A4", mm.boot_pages == boot, "mm.boot_pages is %u, the arenas' are %lu",
           mm.boot_pages, boot);
    EXPECT(c, "A4", mm.frame_limit == (uint64_t)mm.arena[ARENA_FRAMES].pages * FRAME_PAGE_COUNT,
           "mm.frame_limit is 0x%lx, of %u pages", mm.frame_limit, mm.arena[ARENA_FRAMES].pages);
}
