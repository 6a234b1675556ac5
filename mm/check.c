// SPDX-License-Identifier: BSD-2-Clause
// mm_check(): the rules of docs/invariants.md, as far as the guest can see them itself.
#include "mm/check.h"

#include <stdarg.h>

#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/boot.h"
#include "mm/kmalloc.h"

enum {
    PRINT_MAX = 20,
};

void check_fail(struct check *c, const char *rule, const char *fmt, ...)
{
    char text[200];
    va_list args;

    if (c->violations++ >= PRINT_MAX)
        return;
    va_start(args, fmt);
    vsnprintk(text, sizeof(text), fmt, args);
    va_end(args);
    printk("mm_check: %s: %s\n", rule, text);
}

/* --- A1, A6: the boot map
 * ------------------------------------------------------------------------- */

static bool kind_fits(unsigned region, unsigned frame)
{
    if (region == FRAME_AVAILABLE)
        return frame == FRAME_AVAILABLE || frame == FRAME_TABLE || frame == FRAME_METADATA;
    return region == frame;
}

// Counts the region's frames; each must begin where the one before ends.
static uint64_t check_region(struct check *c, const struct region *r)
{
    uint64_t end = r->end >> PAGE_SHIFT;
    uint64_t count = 0;

    for (uint64_t mfn = r->start >> PAGE_SHIFT; mfn < end; count++) {
        const frame_t *f = find_mfn_frame(MFN(mfn));

        if (!f) {
            check_fail(c, "A1", "mfn 0x%lx of the boot map has no frame", mfn);
            mfn++;
            continue;
        }
        EXPECT(c, "A1", f->mfn == mfn, "mfn 0x%lx: its frame begins at 0x%lx", mfn,
               (uint64_t)f->mfn);
        EXPECT(c, "A1", f->mfn + frame_pages(f) <= end, "frame 0x%lx reaches beyond its region",
               (uint64_t)f->mfn);
        EXPECT(c, "A6", kind_fits(r->kind, f->kind), "frame 0x%lx is %s, the boot map says %s",
               (uint64_t)f->mfn, frame_kind_name(f->kind), frame_kind_name(r->kind));
        EXPECT(c, "A6", r->kind == FRAME_AVAILABLE || f->refcount,
               "reserved frame 0x%lx has no reference", (uint64_t)f->mfn);
        mfn += frame_pages(f);
    }
    return count;
}

// A region and all its frames could be wrong alike: of the image the linker knows.
static void check_image(struct check *c)
{
    struct region part[IMAGE_PARTS];
    unsigned count = arch_image_parts(part, ARRAY_SIZE(part));

    for (unsigned i = 0; i < count; i++)
        for (const struct region *r = mm.region; r < mm.region + mm.region_count; r++)
            EXPECT(c, "A6",
                   r->end <= part[i].start || part[i].end <= r->start || r->kind == part[i].kind,
                   "the image's part at 0x%lx is %s, the boot map says %s", part[i].start,
                   frame_kind_name(part[i].kind), frame_kind_name(r->kind));
}

static void check_regions(struct check *c)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];

        EXPECT(c, "A1", r->start < r->end && IS_ALIGNED(r->start | r->end, PAGE_SIZE),
               "region %u is not made of whole pages", i);
        EXPECT(c, "A1", !i || r[-1].end <= r->start, "region %u overlaps the one before", i);
        frames += check_region(c, r);
    }
    check_image(c);
    EXPECT(c, "A1", frames + c->device_frames == c->frames,
           "%lu frames in the boot map and %lu of devices, but %lu on the rings", frames,
           c->device_frames, c->frames);
}

/* --- A3, A4: the arenas
 * --------------------------------------------------------------------------- */

static uint32_t page_links(struct check *c, enum arena_id id, uint32_t first, uint32_t magic,
                           uint32_t *objects)
{
    const struct arena *a = &mm.arena[id];
    uint32_t count = 0, before = 0;

    for (uint32_t number = first; number; count++) {
        const struct arena_page *p = (void *)(uintptr_t)(a->base + (number - 1ull) * PAGE_SIZE);

        if (number > a->pages || count > a->pages) {
            check_fail(c, "A3", "arena %u: its page list leaves the arena or loops at page %u", id,
                       number);
            break;
        }
        EXPECT(c, "A3",
               p->prev == before && p->magic == magic && !p->zero && !p->zero2 &&
                   (objects || !p->used),
               "arena %u: page %u is linked badly", id, number);
        for (uint32_t i = p->free; i && objects;
             i = *(uint32_t *)(uintptr_t)(a->base + (uint64_t)i * a->unit + 8)) {
            if (!index_in(id, i) || ++*objects > a->pages * (PAGE_SIZE / a->size)) {
                check_fail(c, "A3", "arena %u: free objects of page %u leave the page or loop", id,
                           number);
                break;
            }
        }
        before = number;
        number = p->next;
    }
    return count;
}

// The cache of records: as many as it says, blank but for their links. How many.
static uint32_t check_cache(struct check *c)
{
    uint32_t count = 0;

    for (uint32_t i = mm.records.head; i && count <= mm.records.count; count++) {
        const mapping_t *m = mapping_at(i);

        if (!index_in(ARENA_MAPPINGS, i)) {
            check_fail(c, "A3", "the cache of records leads to 0x%x, outside the arena", i);
            break;
        }
        EXPECT(c, "A3",
               !m->next && !m->prev && !m->attr && !m->level && !m->refs && !m->offset &&
                   !m->order && !m->home && !m->home_level && !m->home_odd && !m->home_1g,
               "record 0x%x is in the cache, but not blank", i);
        i = m->at;
    }
    EXPECT(c, "A4", count == mm.records.count && count <= RECORD_CACHE_MAX,
           "the cache of records has %u of them, the count says %u", count, mm.records.count);
    return count;
}

static void check_objects(struct check *c, enum arena_id id, uint64_t in_use)
{
    const struct arena *a = &mm.arena[id];
    uint32_t objects = 0;
    uint64_t used = 0;

    page_links(c, id, a->partial, ARENA_PAGE_OBJECTS, &objects);
    EXPECT(c, "A4", objects == a->free, "arena %u: %u objects are free, the count says %u", id,
           objects, a->free);
    for (uint32_t i = 0; i < a->pages; i++)
        used += ((const struct arena_page *)(uintptr_t)(a->base + (uint64_t)i * PAGE_SIZE))->used;
    EXPECT(c, "A4", used == in_use, "arena %u: %lu objects are in use, %lu were found", id, used,
           in_use);
}

static uint64_t count_spaces(void)
{
    uint64_t count = 0;

    for (uint32_t i = mm.space_list; i && count <= mm.next_space; i = space_at(i)->next)
        count++;
    return count;
}

static bool is_blank(uint32_t slot)
{
    for (unsigned i = 0; i < PT_ENTRIES; i++)
        if (table_entries(slot)[i] || table_shadow(slot)[i])
            return false;
    return true;
}

// A table in stock is one to the letter: a frame of its own, shown in the window, empty.
static void check_stock(struct check *c)
{
    uint32_t count = 0;

    for (uint32_t slot = mm.stock_slot; slot; slot = table_at(slot)->parent) {
        const struct table *t = table_at(slot);
        const frame_t *f = frame_at(t->frame);

        if (slot >= mm.slot_count || ++count > mm.stock_count || t->level || !t->stock ||
            t->frame >= mm.frame_limit || f->kind != FRAME_TABLE || f->slot != slot) {
            check_fail(c, "T7", "slot %u is listed as in stock, and is not", slot);
            return;
        }
        EXPECT(c, "T7", is_blank(slot), "the table in stock in slot %u is not empty", slot);
    }
    EXPECT(c, "A4", count == mm.stock_count, "%u tables are in stock, the count says %u", count,
           mm.stock_count);
}

static void check_arenas(struct check *c)
{
    const struct arena *frames = &mm.arena[ARENA_FRAMES];
    uint32_t empty = page_links(c, ARENA_FRAMES, frames->empty, ARENA_PAGE_EMPTY, NULL);
    uint32_t slots = 0;

    EXPECT(c, "A4", empty == frames->free, "%u pages of descriptors are empty, the count says %u",
           empty, frames->free);
    check_objects(c, ARENA_MAPPINGS, c->mappings + check_cache(c));
    check_objects(c, ARENA_SPACES, count_spaces());
    for (uint32_t s = mm.free_slot; s && slots <= mm.slot_count; s = table_at(s)->frame) {
        EXPECT(c, "T7", s < mm.slot_count && !table_at(s)->level,
               "slot %u is listed as free, but in use", s);
        slots++;
    }
    EXPECT(c, "A4", slots == mm.free_slots, "%u slots are free, the count says %u", slots,
           mm.free_slots);
    EXPECT(c, "T7", c->tables + slots + mm.stock_count + 1 == mm.slot_count,
           "%lu tables, %u in stock and %u free slots, but %u slots", c->tables, mm.stock_count,
           slots, mm.slot_count);
    check_stock(c);
}

// B1: whoever was asked to flush has done so before the frame became free.
static void check_flushed(struct check *c)
{
    for (uint32_t cpu = 0; cpu < CPU_MAX; cpu++) {
        const struct mm_cpu *p = &mm.cpu[cpu];

        EXPECT(c, "B1", p->online || !p->asked, "CPU %u is not online, and is asked to flush", cpu);
        if (p->asked == p->flushed)
            continue;
        for (unsigned order = 0; order <= ORDER_MAX; order++) {
            const frame_t *f = frame_at(frame_at(mm.order[order].head)->next);

            for (uint32_t n = mm.order[order].free; n; n--, f = frame_at(f->next))
                EXPECT(c, "B1",
                       (int32_t)(f->epoch - p->flushed) <= 0 || (int32_t)(f->epoch - p->asked) > 0,
                       "free frame 0x%lx: unmapped in epoch %u, CPU %u has flushed up to %u",
                       (uint64_t)f->mfn, f->epoch, cpu, p->flushed);
        }
    }
}

static void check_all(struct check *c)
{
    check_rings(c);
    check_spaces(c);
    check_regions(c);
    check_arenas(c);
    check_machine(c);
    EXPECT(c, "T7", c->tables + mm.stock_count == c->table_frames,
           "%lu page tables can be reached, %u are in stock, %lu frames are tables", c->tables,
           mm.stock_count, c->table_frames);
    EXPECT(c, "P4", c->leaves == c->record_entries,
           "%lu entries map something, the records stand for %lu", c->leaves, c->record_entries);
    if (!c->violations) // the rings are whole
        check_flushed(c);
}

static int check_locked(void)
{
    struct check c;

    memset(&c, 0, sizeof(c));
    map_lock();
    frame_lock();
    check_all(&c);
    frame_unlock();
    map_unlock();
    return c.violations;
}

int mm_check(void)
{
    return check_locked() + kmalloc_check();
}

void mm_check_every(uint32_t n)
{
    mm.check_every = n;
    if (n)
        work_add(MM_CHECK);
}

// Not kmalloc: the operation may be one of its own, under its lock.
void check_count(void)
{
    uint32_t operations = __atomic_add_fetch(&mm.operations, 1, __ATOMIC_RELAXED);
    int violations;

    if (operations % mm.check_every || __atomic_exchange_n(&mm.checking, 1, __ATOMIC_ACQUIRE))
        return;
    violations = check_locked();
    __atomic_store_n(&mm.checking, 0, __ATOMIC_RELEASE);
    if (violations)
        panic("mm_check(): %d violations after operation %u", violations, operations);
}
