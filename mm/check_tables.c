// SPDX-License-Identifier: BSD-2-Clause
// The self-check's second part: every page table of every space, by its real entries.
#include "arch/x86/tlb.h"
#include "mm/check.h"

// Where the recursion is.
struct place {
    const space_t *space;
    uint32_t slot;
    unsigned level;
    uint64_t va;
    pgentry_t above; // permissions of the levels above: W and U as they remain, NX if any forbids
    const struct place *parent; // NULL: this is the root
};

pgentry_t raw_entry(const space_t *space, uint64_t va, unsigned level)
{
    uint32_t slot = space->root;

    for (unsigned l = space->levels;; l--) {
        pgentry_t e = table_entries(slot)[level_index(VADDR(va), l)];
        const frame_t *f;

        if (l == level)
            return e;
        f = find_mfn_frame(pgentry_mfn(e, l));
        if (!(e & PG_P) || (e & PG_PS) || !f || f->kind != FRAME_TABLE || f->slot >= mm.slot_count)
            return 0;
        slot = f->slot;
    }
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
}

static void check_table(struct check *c, const struct place *p);

static bool is_above(const struct place *p, uint32_t slot)
{
    while (p && p->slot != slot)
        p = p->parent;
    return p;
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
    EXPECT(c, "T5", !(e & PG_ADDR & ~(mm.phys_limit - 1)) && !(p->level > 3 && (e & PG_PS)),
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
               ((table_entries(space->root)[i] ^ table_entries(kernel)[i]) & ~ignored) == 0,
               "%s: entry %u of the root is not the kernel's", space->name, i);
}

// Which CPU has which space: this one's by its CR3, the others' by what they say.
static void check_cpus(struct check *c)
{
#ifndef KTF_HOST
    EXPECT(c, "C1", cr3_read().v == space_current()->cr3, "CR3 is 0x%lx, the current space is %s",
           cr3_read().v, space_current()->name);
#endif
    for (uint32_t cpu = 0; cpu < CPU_MAX; cpu++) {
        const struct mm_cpu *p = &mm.cpu[cpu];
        uint64_t bit = UINT64_C(1) << cpu;

        EXPECT(c, "C1",
               !p->online ||
                   (index_in(ARENA_SPACES, p->space) && space_at(p->space)->live == SPACE_LIVE &&
                    (space_at(p->space)->cpus & bit) && (kernel_space()->cpus & bit)),
               "CPU %u is not in the mask of its address space", cpu);
    }
}

void check_spaces(struct check *c)
{
    uint64_t tables = 0;
    uint32_t before = 0;

    for (uint32_t i = mm.space_list; i; before = i, i = space_at(i)->next) {
        const space_t *space = space_at(i);
        struct place root = {space, space->root, space->levels, 0, PG_W | PG_U, NULL};

        if (!index_in(ARENA_SPACES, i) || space->live != SPACE_LIVE || space->prev != before ||
            space->root >= mm.slot_count) {
            check_fail(c, "A3", "the list of spaces is broken at index %u", i);
            return;
        }
        EXPECT(c, "C1", space->cr3 == frame_paddr(frame_at(table_at(space->root)->frame)).v,
               "%s: its root table is not where its cr3 says", space->name);
        check_table(c, &root);
        if (space != kernel_space())
            check_shared(c, space);
        tables += space->tables;
    }
    check_cpus(c);
    EXPECT(c, "A4", tables == c->tables, "the spaces count %lu tables, %lu were found", tables,
           c->tables);
}
