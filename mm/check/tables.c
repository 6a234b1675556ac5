// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on page tables: every one of every space, by its real entries.
#include "mm/check/internal.h"

#include "mm/boot.h"
#include "mm/mapping_internal.h"
#include "mm/table.h"

// Where the recursion is.
struct place {
    const space_t *space;
    uint32_t slot;
    unsigned level;
    uint64_t va;
    pgentry_t above; // permissions of the levels above: W and U as they remain, NX if any forbids
    const struct place *parent; // NULL: this is the root
};

bool slot_has_table(uint32_t slot, unsigned level)
{
    return slot && slot < mm.slot_count && table_at(slot)->level == level;
}

uint32_t raw_table(const space_t *space, uint64_t va, unsigned level)
{
    uint32_t slot = space->root;

    if (space->levels > PT_LEVELS_MAX || !slot_has_table(slot, space->levels))
        return 0;
    for (unsigned l = space->levels; l > level && slot; l--) {
        pgentry_t e = table_entries(slot)[level_index(VADDR(va), l)];
        const frame_t *f = (e & PG_P) && !(e & PG_PS) ? find_mfn_frame(pgentry_mfn(e, l)) : NULL;

        slot = f && f->kind == FRAME_TABLE && slot_has_table(f->slot, l - 1) ? f->slot : 0;
    }
    return slot;
}

pgentry_t raw_entry(const space_t *space, uint64_t va, unsigned level)
{
    uint32_t slot = raw_table(space, va, level);

    return slot ? table_entries(slot)[level_index(VADDR(va), level)] : 0;
}

static pgentry_t rights_below(pgentry_t above, pgentry_t e)
{
    return (above & e & (PG_W | PG_U)) | ((above | e) & PG_NX);
}

bool check_rights(uint64_t va, pgentry_t *rights)
{
    const space_t *kernel = kernel_space();

    *rights = PG_W | PG_U;
    for (unsigned l = kernel->levels; l; l--) {
        pgentry_t e = raw_entry(kernel, va, l);

        if (!(e & PG_P))
            return false;
        *rights = rights_below(*rights, e);
        if (e & PG_PS)
            break;
    }
    return true;
}

static uint64_t canonical(const space_t *space, uint64_t va)
{
    unsigned unused = 64 - (PAGE_SHIFT + 9 * space->levels);

    return (uint64_t)((int64_t)(va << unused) >> unused);
}

static bool is_arena(uint64_t va)
{
    for (unsigned id = 0; id < ARENA_COUNT; id++)
        if (va - mm.arena[id].base < mm.arena[id].limit)
            return true;
    return false;
}

// What the manager's own windows show: an arena pages of its own, and that of the tables each at
// its slot.
static void check_window_leaf(struct check *c, const struct place *p, uint64_t va, const frame_t *f)
{
    uint64_t slot = (va - VA_WINDOW) >> PAGE_SHIFT;

    if (p->space != kernel_space())
        return;
    if (is_arena(va)) {
        c->arena_pages++;
        EXPECT(c, "A3", f->kind == FRAME_METADATA && !f->order && p->level == 1,
               "arena page 0x%lx is frame 0x%lx, %s of order %u", va, (uint64_t)f->mfn,
               frame_kind_name(f->kind), f->order);
    } else if (slot < (VA_SHADOWS - VA_WINDOW) >> PAGE_SHIFT) {
        c->shown++;
        EXPECT(c, "T4",
               slot < mm.slot_count && f->kind == FRAME_TABLE && f->slot == slot &&
                   frame_at(table_at((uint32_t)slot)->frame) == f,
               "the window shows frame 0x%lx, %s, for slot %lu", (uint64_t)f->mfn,
               frame_kind_name(f->kind), slot);
    }
}

// The image at its own addresses has no more rights than the kernel's start gives it.
static void check_image_leaf(struct check *c, uint64_t va, uint64_t bytes, pgentry_t rights)
{
    for (unsigned i = 0; i < mm_image.count; i++) {
        const struct region *r = &mm_image.part[i];
        bool writable = rights & PG_W, runs = !(rights & PG_NX);
        bool may_write = r->kind == FRAME_DATA || r->kind == FRAME_BSS;

        if (r->kind != FRAME_IMAGE && va < VA_IMAGE + r->end &&
            va + (bytes - 1) >= VA_IMAGE + r->start)
            EXPECT(c, "X1", (!writable || may_write) && (!runs || r->kind == FRAME_TEXT),
                   "0x%lx, %s of the image, is %s%s", va, frame_kind_name(r->kind),
                   writable ? "writable " : "", runs ? "executable" : "");
    }
}

// Ring 3 sees no page tables and nothing of the manager's, and writes nothing of the image.
static void check_user_leaf(struct check *c, const struct place *p, uint64_t va, const frame_t *f,
                            bool writable)
{
    bool managers = f->kind == FRAME_TABLE || f->kind == FRAME_METADATA;

    EXPECT(c, "X2", !managers && !(is_image(f->kind) && writable),
           "%s 0x%lx: ring 3 %s frame 0x%lx, %s", p->space->name, va, writable ? "writes" : "reads",
           (uint64_t)f->mfn, frame_kind_name(f->kind));
}

static void check_leaf(struct check *c, const struct place *p, uint64_t va, pgentry_t e,
                       uint32_t shadow)
{
    uint64_t pages = UINT64_C(1) << level_order(p->level);
    uint64_t mfn = pgentry_mfn(e, p->level).v & ((mm.phys_limit - 1) >> PAGE_SHIFT);
    const frame_t *f = find_mfn_frame(MFN(mfn));
    bool writable = e & p->above & PG_W;

    c->leaves++;
    EXPECT(c, "X1", !writable || ((e | p->above) & PG_NX), "%s 0x%lx is writable and executable",
           p->space->name, va);
    if (va + ((pages << PAGE_SHIFT) - 1) >= VA_IMAGE)
        check_image_leaf(c, va, pages << PAGE_SHIFT, rights_below(p->above, e));
    EXPECT(c, "X2", !(e & p->above & PG_U) || (p->space != kernel_space() && (int64_t)va >= 0),
           "%s 0x%lx in the kernel's half can be reached by ring 3", p->space->name, va);
    if (!f) {
        check_fail(c, "P1", "%s 0x%lx maps mfn 0x%lx, which is in no frame", p->space->name, va,
                   mfn);
        return;
    }
    EXPECT(c, "P2", !frame_is_free(f), "%s 0x%lx maps free frame 0x%lx", p->space->name, va,
           (uint64_t)f->mfn);
    EXPECT(c, "P3", !(mfn & (pages - 1)) && mfn + pages <= f->mfn + frame_pages(f),
           "%s 0x%lx: a page of level %u does not lie in frame 0x%lx", p->space->name, va, p->level,
           (uint64_t)f->mfn);
    EXPECT(c, "P4", shadow && !(shadow & SHADOW_TABLE) && index_in(ARENA_MAPPINGS, shadow),
           "%s 0x%lx maps frame 0x%lx without a record", p->space->name, va, (uint64_t)f->mfn);
    EXPECT(c, "T4", f->kind != FRAME_TABLE || !writable || va == (uintptr_t)table_entries(f->slot),
           "%s 0x%lx: page table 0x%lx can be written outside the window", p->space->name, va,
           (uint64_t)f->mfn);
    EXPECT(c, "T4", f->kind != FRAME_METADATA || !writable || is_arena(va),
           "%s 0x%lx: metadata 0x%lx can be written outside the arenas", p->space->name, va,
           (uint64_t)f->mfn);
    if (e & p->above & PG_U)
        check_user_leaf(c, p, va, f, writable);
    check_window_leaf(c, p, va, f);
}

static void check_table(struct check *c, const struct place *p);

static bool is_above(const struct place *p, uint32_t slot)
{
    while (p && p->slot != slot)
        p = p->parent;
    return p;
}

// An entry that leads to a table has all rights, for the leaves to limit, and is cached as usual.
static void check_pointer_bits(struct check *c, const struct place *p, uint64_t va, pgentry_t e)
{
    pgentry_t want = PG_W | (p->space != kernel_space() ? PG_U : 0);

    EXPECT(c, "P4", (e & (PG_W | PG_U | PG_NX)) == want,
           "%s 0x%lx: entry 0x%lx of level %u has other rights than all", p->space->name, va, e,
           p->level);
    EXPECT(c, "T5", !(e & (PG_PWT | PG_PCD)), "%s 0x%lx: entry 0x%lx of level %u has a memory type",
           p->space->name, va, e, p->level);
}

// True if the entry leads to a table that can be followed.
static bool check_pointer(struct check *c, const struct place *p, unsigned index, uint64_t va,
                          pgentry_t e, uint32_t shadow)
{
    const frame_t *f = find_mfn_frame(pgentry_mfn(e, p->level));
    const struct table *t;

    if (!f || f->kind != FRAME_TABLE || !f->refcount || f->slot >= mm.slot_count) {
        check_fail(c, "T1", "%s 0x%lx: entry 0x%lx of level %u leads to no page table",
                   p->space->name, va, e, p->level);
        return false;
    }
    if (is_above(p, f->slot)) {
        check_fail(c, "T6",
                   "%s 0x%lx: entry 0x%lx of level %u leads to a table above itself: a loop",
                   p->space->name, va, e, p->level);
        return false;
    }
    t = table_at(f->slot);
    if (f->level != p->level - 1 || t->level != p->level - 1) {
        check_fail(c, "T2", "%s 0x%lx: level %u leads to a table of level %u", p->space->name, va,
                   p->level, f->level);
        return false;
    }
    EXPECT(c, "T3",
           t->parent == p->slot && t->index == index && t->va == va &&
               t->space == space_index(p->space) && frame_at(t->frame) == f,
           "%s 0x%lx: the table of level %u has another parent", p->space->name, va, f->level);
    EXPECT(c, "T3", shadow == (SHADOW_TABLE | f->slot),
           "%s 0x%lx: shadow 0x%x, the table is in slot %u", p->space->name, va, shadow, f->slot);
    check_pointer_bits(c, p, va, e);
    return true;
}

static void check_entry(struct check *c, const struct place *p, unsigned index)
{
    pgentry_t e = table_entries(p->slot)[index];
    uint32_t shadow = table_shadow(p->slot)[index];
    uint64_t va = canonical(p->space, p->va + ((uint64_t)index << level_shift(p->level)));
    struct place below = {p->space, 0, p->level - 1, va, 0, p};

    if (!(e & PG_P)) {
        EXPECT(c, "P5", !e && !shadow,
               "%s 0x%lx: entry 0x%lx of level %u is not present, shadow 0x%x", p->space->name, va,
               e, p->level, shadow);
        return;
    }
    EXPECT(c, "T5",
           !(e & PG_ADDR & ~(mm.phys_limit - 1)) &&
               !((e & PG_PS) && p->level > (mm.page_1g ? 3 : 2)),
           "%s 0x%lx: entry 0x%lx of level %u has reserved bits", p->space->name, va, e, p->level);
    if (p->level == 1 || (p->level < 4 && (e & PG_PS))) {
        check_leaf(c, p, va, e, shadow);
        return;
    }
    if (!check_pointer(c, p, index, va, e, shadow))
        return;
    below.slot = find_mfn_frame(pgentry_mfn(e, p->level))->slot;
    below.above = rights_below(p->above, e);
    check_table(c, &below);
}

static void check_table(struct check *c, const struct place *p)
{
    const struct table *t = table_at(p->slot);
    bool user_root = p->level == p->space->levels && p->space != kernel_space();
    unsigned used = t->pins;

    c->tables++;
    for (unsigned i = 0; i < PT_ENTRIES; i++) {
        used += table_entries(p->slot)[i] & PG_P;
        if (!user_root || i < PT_ENTRIES / 2)
            check_entry(c, p, i);
    }
    EXPECT(c, "A4", used == t->used + t->pins,
           "%s 0x%lx: table of level %u counts %u entries, it has %u", p->space->name, p->va,
           p->level, t->used, used - t->pins);
}

// A user space's upper half is the kernel's.
static void check_shared(struct check *c, const space_t *space)
{
    uint32_t kernel = kernel_space()->root;
    pgentry_t ignored = PG_A | PG_D;

    for (unsigned i = PT_ENTRIES / 2; i < PT_ENTRIES; i++)
        EXPECT(c, "T3",
               ((table_entries(space->root)[i] ^ table_entries(kernel)[i]) & ~ignored) == 0 &&
                   table_shadow(space->root)[i] == table_shadow(kernel)[i],
               "%s: entry %u of the root, or its shadow, is not the kernel's", space->name, i);
}

/* --- address spaces --------------------------------------------------------------------------- */

// True if the root can be followed.
static bool check_root(struct check *c, const space_t *space)
{
    const struct table *t = table_at(space->root);

    EXPECT(c, "C1",
           index_in(ARENA_FRAMES, t->frame) && space->cr3 == frame_paddr(frame_at(t->frame)).v,
           "%s: its root table is not where its cr3 says", space->name);
    EXPECT(c, "T7",
           space->levels == mm.levels && t->level == mm.levels && !t->parent && !t->index &&
               !t->va && t->space == space_index(space),
           "%s: slot %u is no root of %u levels", space->name, space->root, mm.levels);
    return slot_has_table(space->root, space->levels);
}

// The tables that it used last are its own.
static void check_recent(struct check *c, const space_t *space, unsigned level)
{
    const struct recent_table *r = &space->recent[level - 1];
    uint32_t slot = r->at / PT_ENTRIES;
    const struct table *t = table_at(slot);

    EXPECT(c, "A3", !r->zero, "%s: recent[%u].zero is 0x%x", space->name, level - 1, r->zero);
    if (!(r->va | r->table | r->count | r->at))
        return;
    EXPECT(c, "T7",
           slot < mm.slot_count && r->at % PT_ENTRIES == 0 && r->count == PT_ENTRIES &&
               r->table == (uintptr_t)t && t->level == level && t->space == space_index(space) &&
               t->va == r->va,
           "%s: recent[%u] is slot %u for 0x%lx, no such table of level %u", space->name, level - 1,
           slot, r->va, level);
}

// Zeros behind its end, which there is.
static bool name_is_whole(const space_t *space)
{
    bool end = false;

    for (unsigned i = 0; i < sizeof(space->name); i++) {
        if (end && space->name[i])
            return false;
        end = end || !space->name[i];
    }
    return end;
}

// The list goes from the kernel's to the newest and on to the oldest.
static void check_space(struct check *c, const space_t *space, uint32_t newer)
{
    struct place root = {space, space->root, space->levels, 0, PG_W | PG_U, NULL};
    uint64_t tables = c->tables;
    bool kernel = space == kernel_space();

    EXPECT(c, "A4", kernel ? !space->id : space->id && space->id < newer,
           "%s: its id is %u, the next one is %u", space->name, space->id, newer);
    EXPECT(c, "A3", name_is_whole(space), "a space's name, %.21s, has no end, or more behind it",
           space->name);
    if (!check_root(c, space))
        return;
    check_table(c, &root);
    if (!kernel)
        check_shared(c, space);
    EXPECT(c, "A4", space->tables == c->tables - tables, "%s counts %lu tables, %lu were found",
           space->name, space->tables, c->tables - tables);
    check_recent(c, space, 1);
    check_recent(c, space, 2);
    check_mask(c, space);
}

void check_spaces(struct check *c)
{
    uint32_t before = 0, newer = mm.next_space;

    for (uint32_t i = mm.space_list; i; before = i, i = space_at(i)->next) {
        const space_t *space = space_at(i);

        if (!index_in(ARENA_SPACES, i) || space->live != SPACE_LIVE || space->prev != before ||
            space->root >= mm.slot_count || (before == 0) != (space == kernel_space())) {
            check_fail(c, "A3", "the list of spaces is broken at index %u", i);
            return;
        }
        c->spaces++;
        check_space(c, space, newer);
        if (before)
            newer = space->id;
    }
    EXPECT(c, "A3", mm.space_list, "there is no address space");
    check_cpus(c);
}
