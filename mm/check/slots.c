// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on the slots of page tables: those in use, in stock, and free ones.
#include "mm/check/internal.h"
#include "mm/table.h"

/* --- before any table is looked at ------------------------------------------------------------ */

// True if the arenas have room for as many slots as there are.
static bool check_slot_count(struct check *c)
{
    const uint64_t shadows = (uint64_t)mm.arena[ARENA_SHADOWS].pages * PAGE_SIZE;

    if (mm.slot_count == shadows / sizeof(struct shadow) &&
        ROUND_UP(mm.slot_count * sizeof(struct table), PAGE_SIZE) ==
            (uint64_t)mm.arena[ARENA_TABLES].pages * PAGE_SIZE)
        return true;
    check_blind(c, "A3", "%u slots, and shadows for %lu", mm.slot_count,
                shadows / sizeof(struct shadow));
    return false;
}

// The root of a space is the table that says so: a space could name any other slot.
static bool is_root_of(uint32_t slot, uint32_t space)
{
    return !index_in(ARENA_SPACES, space) || space_at(space)->levels != table_at(slot)->level ||
           space_at(space)->root == slot;
}

// The frame of a table leads back to it, or to a table that has this frame as well: then it is the
// table that errs, and who follows the frame finds one.
static bool frame_leads_back(uint32_t slot)
{
    uint32_t index = table_at(slot)->frame;
    const frame_t *f = frame_at(index);

    return !index_in(ARENA_FRAMES, index) || f->kind != FRAME_TABLE || f->slot == slot ||
           (f->slot < mm.slot_count && table_at(f->slot)->frame == index);
}

// Who follows entries and roots relies on it that they lead to slots with tables.
void check_slot_frames(struct check *c)
{
    if (!check_slot_count(c))
        return;
    for (uint32_t slot = 1; slot < mm.slot_count; slot++) {
        const struct table *t = table_at(slot);

        if (!t->level)
            continue;
        if (!frame_leads_back(slot))
            check_blind(c, "T3", "the frame of the table in slot %u says slot %u", slot,
                        frame_at(t->frame)->slot);
        else if (!is_root_of(slot, t->space))
            check_blind(c, "T7", "slot %u is a root of %u levels, its space's root is slot %u",
                        slot, t->level, space_at(t->space)->root);
    }
}

/* --- all slots -------------------------------------------------------------------------------- */

// What is asked of all slots.
struct slots {
    uint32_t live, stock, free;
};

static bool shadow_is_blank(uint32_t slot)
{
    const uint64_t *words = (const void *)table_shadow(slot);
    uint64_t any = 0;

    for (unsigned i = 0; i < sizeof(struct shadow) / sizeof(*words); i++)
        any |= words[i];
    return !any;
}

static bool entries_are_blank(uint32_t slot)
{
    pgentry_t any = 0;

    for (unsigned i = 0; i < PT_ENTRIES; i++)
        any |= table_entries(slot)[i];
    return !any;
}

// All but who comes next and before, and the frame.
static bool is_blank(const struct table *t)
{
    return !(t->va | t->space | t->index | t->used | t->level | t->pins | t->zero);
}

// The tables of the window itself stay, empty or not: one pin each.
static unsigned pins_of(const struct table *t)
{
    return t->level == 1 && t->space == SPACE_KERNEL &&
           t->va - VA_WINDOW < (uint64_t)mm.slot_count << PAGE_SHIFT;
}

static void check_live(struct check *c, uint32_t slot)
{
    const struct table *t = table_at(slot);

    EXPECT(c, "T7", t->pins == pins_of(t) && !t->stock && !t->zero,
           "slot %u: %u pins, should be %u; stock is %u", slot, t->pins, pins_of(t), t->stock);
}

// A table in stock is one to the letter: a frame of its own, shown in the window, empty.
static void check_spare(struct check *c, uint32_t slot)
{
    const struct table *t = table_at(slot);
    const frame_t *f = frame_at(t->frame);

    if (t->frame >= mm.frame_limit || f->kind != FRAME_TABLE || f->level || f->slot != slot) {
        check_fail(c, "T7", "slot %u is in stock, and has no empty table", slot);
        return;
    }
    EXPECT(c, "T7",
           t->stock == 1 && is_blank(t) && entries_are_blank(slot) && shadow_is_blank(slot),
           "the table in stock in slot %u is not empty, or its slot not blank", slot);
}

static void check_slot(struct check *c, uint32_t slot, struct slots *seen)
{
    const struct table *t = table_at(slot);

    if (t->level) {
        seen->live++;
        check_live(c, slot);
    } else if (t->stock) {
        seen->stock++;
        check_spare(c, slot);
    } else {
        seen->free++;
        EXPECT(c, "T7", is_blank(t) && shadow_is_blank(slot), "free slot %u is not blank", slot);
    }
}

static bool is_free(uint32_t slot)
{
    return slot < mm.slot_count && !table_at(slot)->level && !table_at(slot)->stock;
}

static bool is_spare(uint32_t slot)
{
    return slot < mm.slot_count && !table_at(slot)->level && table_at(slot)->stock;
}

// Free ones are linked both ways.
static void check_free_list(struct check *c, uint32_t all)
{
    uint32_t count = 0, before = 0;

    for (uint32_t slot = mm.free_slot; slot; before = slot, slot = table_at(slot)->frame) {
        if (!is_free(slot) || count++ >= all) {
            check_fail(c, "A3", "slot %u is listed as free and is not, or twice", slot);
            return;
        }
        EXPECT(c, "A3", table_at(slot)->parent == before, "free slot %u is linked badly", slot);
    }
    EXPECT(c, "A3", count == all, "%u slots are free, %u of them are listed", all, count);
    EXPECT(c, "A4", all == mm.free_slots, "%u slots are free, the count says %u", all,
           mm.free_slots);
}

static void check_stock_list(struct check *c, uint32_t all)
{
    uint32_t count = 0;

    for (uint32_t slot = mm.stock_slot; slot; slot = table_at(slot)->parent) {
        if (!is_spare(slot) || count++ >= all) {
            check_fail(c, "A3", "slot %u is listed as in stock and is not, or twice", slot);
            return;
        }
    }
    EXPECT(c, "A3", count == all, "%u tables are in stock, %u of them are listed", all, count);
    EXPECT(c, "A4", all == mm.stock_count, "%u tables are in stock, the count says %u", all,
           mm.stock_count);
}

// Slot 0, which is never used, and what of the arena's last page is no slot yet.
static void check_unused(struct check *c)
{
    const uint64_t slots =
        (uint64_t)mm.arena[ARENA_TABLES].pages * PAGE_SIZE / sizeof(struct table);
    const struct table *none = table_at(0);

    EXPECT(c, "T7",
           is_blank(none) && !(none->frame | none->parent | none->stock) && shadow_is_blank(0),
           "slot 0, never used, is not blank");
    for (uint64_t slot = mm.slot_count; slot < slots; slot++) {
        const struct table *t = table_at((uint32_t)slot);

        EXPECT(c, "T7", is_blank(t) && !(t->frame | t->parent | t->stock),
               "struct table %lu is not blank, of %u slots", slot, mm.slot_count);
    }
}

void check_slots(struct check *c)
{
    struct slots seen = {0, 0, 0};

    for (uint32_t slot = 1; slot < mm.slot_count; slot++)
        check_slot(c, slot, &seen);
    check_unused(c);
    check_free_list(c, seen.free);
    check_stock_list(c, seen.stock);
    EXPECT(c, "T7", seen.live == c->tables, "%lu page tables can be reached, %u slots have one",
           c->tables, seen.live);
    EXPECT(c, "T7", c->tables + seen.stock == c->table_frames,
           "%lu page tables can be reached, %u are in stock, %lu frames are tables", c->tables,
           seen.stock, c->table_frames);
    EXPECT(c, "T4", c->shown == seen.live + seen.stock,
           "the window shows %lu tables, there are %u, and %u in stock", c->shown, seen.live,
           seen.stock);
}
