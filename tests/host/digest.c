// SPDX-License-Identifier: BSD-2-Clause
// The state in one number, and the page tables as the CPU would read them, from physical memory.
#include "lib/string.h"
#include "mm/table.h"
#include "tests/host/support.h"

/* --- page tables ------------------------------------------------------------------------------ */

struct walk {
    unsigned levels;
    unsigned end;
    void (*fn)(const struct leaf *leaf, void *arg);
    void *arg;
};

static bool is_leaf(pgentry_t e, unsigned level)
{
    return level == 1 || ((e & PG_PS) && level < 4);
}

static uint64_t sign_extended(uint64_t va, unsigned levels)
{
    unsigned unused = 64 - (PAGE_SHIFT + 9 * levels);

    return (uint64_t)((int64_t)(va << unused) >> unused);
}

// `above` is what the levels above allow: W and U if all do, NX if any forbids.
static void walk_table(const struct walk *w, uint64_t paddr, unsigned level, unsigned first,
                       uint64_t va, pgentry_t above)
{
    unsigned end = level == w->levels ? w->end : PT_ENTRIES;
    pgentry_t entries[PT_ENTRIES], any = 0;

    phys_read(paddr, entries, sizeof(entries));
    for (unsigned i = first; i < end; i++) {
        pgentry_t e = entries[i];
        uint64_t at = sign_extended(va + ((uint64_t)i << level_shift(level)), w->levels);
        pgentry_t rights = (above & e & (PG_W | PG_U)) | ((above | e) & PG_NX);

        any |= e;
        if (!(e & PG_P)) {
            if (e)
                test_fail(__FILE__, __LINE__, "0x%llx: junk 0x%llx of level %u",
                          (unsigned long long)at, (unsigned long long)e, level);
        } else if (is_leaf(e, level)) {
            struct leaf leaf = {at,
                                pgentry_mfn(e, level).v,
                                e,
                                level,
                                rights & PG_W,
                                rights & PG_U,
                                !(rights & PG_NX)};

            w->fn(&leaf, w->arg);
        } else if (e & PG_PS) {
            test_fail(__FILE__, __LINE__, "0x%llx: large page of level %u", (unsigned long long)at,
                      level);
        } else {
            walk_table(w, e & PG_ADDR, level - 1, 0, at, rights);
        }
    }
    if (!any && level != w->levels && !in_windows(va))
        test_fail(__FILE__, __LINE__, "0x%llx: an empty table of level %u", (unsigned long long)va,
                  level);
}

void walk_leaves(uint64_t cr3, unsigned levels, unsigned first, unsigned end,
                 void (*fn)(const struct leaf *leaf, void *arg), void *arg)
{
    struct walk w = {levels, end, fn, arg};

    walk_table(&w, cr3, levels, first, 0, PG_W | PG_U);
}

bool walk_va(const space_t *space, uint64_t va, struct leaf *out)
{
    uint64_t paddr = space->cr3;
    pgentry_t rights = PG_W | PG_U;

    for (unsigned level = space->levels;; level--) {
        pgentry_t e;

        phys_read(paddr + 8 * level_index(VADDR(va), level), &e, sizeof(e));
        rights = (rights & e & (PG_W | PG_U)) | ((rights | e) & PG_NX);
        if (!(e & PG_P))
            return false;
        if (is_leaf(e, level)) {
            *out = (struct leaf){ROUND_DOWN(va, UINT64_C(1) << level_shift(level)),
                                 pgentry_mfn(e, level).v,
                                 e,
                                 level,
                                 rights & PG_W,
                                 rights & PG_U,
                                 !(rights & PG_NX)};
            return true;
        }
        paddr = e & PG_ADDR;
    }
}

bool in_windows(uint64_t va)
{
    return va >= LAYOUT_BASE && va < VA_STACKS;
}

/* --- digests ---------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, uint64_t value)
{
    h = (h ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ h >> 29;
}

static uint64_t mix_bytes(uint64_t h, const void *from, size_t bytes)
{
    const uint64_t *word = from;

    for (size_t i = 0; i < bytes / 8; i++)
        h = mix(h, word[i]);
    return h;
}

// Without the spaces' memory of the tables used last, which is no more than a hint.
static uint64_t mix_spaces(uint64_t h)
{
    uint32_t count = mm.arena[ARENA_SPACES].pages * (PAGE_SIZE / sizeof(space_t));

    for (uint32_t i = 0; i < count; i++) {
        space_t copy = *space_at(i);

        memset(copy.recent, 0, sizeof(copy.recent));
        h = mix_bytes(h, &copy, sizeof(copy));
    }
    return h;
}

// Records in use; and how many are not, on whichever page or in the cache.
static uint64_t mix_records(uint64_t h)
{
    const struct arena *a = &mm.arena[ARENA_MAPPINGS];

    for (uint32_t page = 0; page < a->pages; page++) {
        for (uint32_t i = 0; i < 203; i++) {
            const mapping_t *m = mapping_at((page * PAGE_SIZE + 32 + i * sizeof(*m)) / 4);

            uint64_t words[3] = {0};

            memcpy(words, m, sizeof(*m));
            if (m->refs)
                h = mix_bytes(mix(h, mapping_index(m)), words, sizeof(words));
        }
    }
    return mix(h, a->free + mm.records.count);
}

// All of struct mm but the epoch of the last unmap, the journal's number, the pages that were
// flushed last, and where free records are.
static uint64_t mix_mm(uint64_t h)
{
    static struct mm copy;

    copy = mm;
    copy.epoch = 0;
    copy.journal_seq = 0; // a refusal may have tried something
    memset(&copy.batch.va, 0, sizeof(copy.batch.va));
    memset(&copy.records, 0, sizeof(copy.records));
    copy.arena[ARENA_MAPPINGS].free = copy.arena[ARENA_MAPPINGS].partial = 0;
    return mix_bytes(h, &copy, sizeof(copy));
}

// Descriptors without the epochs in them.
static uint64_t mix_frames(uint64_t h)
{
    const uint64_t *word = (void *)VA_FRAMES;
    size_t count = (size_t)mm.arena[ARENA_FRAMES].pages * PAGE_SIZE / 8;

    for (size_t i = 0; i < count; i++)
        h = mix(h, i % 4 == 3 ? word[i] & UINT32_MAX : word[i]);
    return h;
}

uint64_t digest_raw(void)
{
    uint64_t h = mix_frames(mix_mm(1));

    for (unsigned i = ARENA_FRAMES + 1; i < ARENA_COUNT; i++)
        if (i != ARENA_SPACES && i != ARENA_MAPPINGS)
            h = mix_bytes(h, (void *)(uintptr_t)mm.arena[i].base,
                          (size_t)mm.arena[i].pages * PAGE_SIZE);
    h = mix_records(mix_spaces(h));
    for (uint32_t slot = 1; slot < mm.slot_count; slot++)
        if (table_at(slot)->level)
            h = mix_bytes(h, table_entries(slot), PAGE_SIZE);
    return mix(h, (uint64_t)machine.visible_pages);
}

struct seen {
    space_t *space;
    uint64_t h;
};

static void add_leaf(const struct leaf *leaf, void *arg)
{
    struct seen *s = arg;
    struct vlookup at;

    if (in_windows(leaf->va))
        return;
    s->h = mix(mix(s->h, leaf->va), leaf->entry & ~(pgentry_t)(PG_A | PG_D));
    if (vmap_lookup(s->space, VADDR(leaf->va), &at) == 0)
        s->h = mix(s->h, at.refs);
}

static uint64_t digest_spaces(uint64_t h)
{
    for (uint32_t i = mm.space_list; i; i = space_at(i)->next) {
        struct seen s = {space_at(i), h};
        bool kernel = s.space == kernel_space();

        s.h = mix_bytes(h, s.space, kernel ? 0 : offsetof(space_t, recent));
        walk_leaves(s.space->cr3, mm.levels, 0, kernel ? PT_ENTRIES : PT_ENTRIES / 2, add_leaf, &s);
        h = s.h;
    }
    return h;
}

static bool is_managers(const frame_t *f)
{
    return frame_is_free(f) || f->kind == FRAME_TABLE || f->kind == FRAME_METADATA;
}

uint64_t digest_seen(void)
{
    uint64_t sum = 0, rest = 0;

    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        uint32_t head = mm.order[order].head;

        for (uint32_t i = frame_at(head)->next; i != head; i = frame_at(i)->next) {
            const frame_t *f = frame_at(i);

            if (is_managers(f)) {
                rest += frame_pages(f);
                continue;
            }
            sum +=
                mix(mix(mix(f->mfn, f->order), f->kind), (uint64_t)f->refcount << 32 | f->mapcount);
        }
    }
    return digest_spaces(mix(mix(2, sum), rest));
}

uint64_t digest_free(void)
{
    uint64_t sum = 0;

    mm_trim();
    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        uint32_t i = mm.order[order].head;

        for (uint32_t n = mm.order[order].free; n; n--) {
            i = frame_at(i)->next;
            sum += mix(frame_at(i)->mfn + 1, order);
        }
    }
    return sum;
}
