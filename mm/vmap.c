// SPDX-License-Identifier: BSD-2-Clause
// The vmap family for one block or a part of it: checks, counting, splitting where a part is meant.
#include "mm/vmap.h"

#include "lib/panic.h"
#include "mm/mapping_internal.h"
#include "mm/step.h"
#include "mm/vmap_internal.h"

static int check_attr(const struct part *p)
{
    if ((p->attr & ~(unsigned)(VATTR_ALL | VATTR_WB)) || attr_type(p->attr) >= MEMTYPE_COUNT ||
        ((p->attr & VATTR_WB) && attr_type(p->attr)))
        return -EINVAL;
    if ((p->attr & VATTR_W) && (p->attr & VATTR_X))
        return -EINVAL;
    if ((p->attr & VATTR_U) && p->space == kernel_space())
        return -EINVAL;
    if ((p->attr & (VATTR_W | VATTR_U)) &&
        (p->frame->kind == FRAME_TABLE || p->frame->kind == FRAME_METADATA))
        return -EBUSY;
    if ((p->attr & VATTR_W) && (p->attr & VATTR_U) && is_image(p->frame->kind))
        return -EBUSY;
    return 0;
}

// Space, frame, part and address; what all of the family need.
static int check_place(struct part *p)
{
    uint64_t bytes;
    int err;

    if (!p->space)
        p->space = kernel_space();
    if (!space_is_live(p->space))
        return -EINVAL;
    err = frame_usable(p->frame);
    if (err)
        return err;
    if (p->order > ORDER_MAX)
        return -EORDER;
    if (p->offset & ((UINT64_C(1) << p->order) - 1))
        return -EALIGN;
    if (p->offset >= frame_pages(p->frame) || p->order > p->frame->order)
        return -EBEYOND;
    bytes = (uint64_t)PAGE_SIZE << p->order;
    if (!pt_canonical(p->va, bytes, mm.levels) || !space_has(p->space, p->va))
        return -ECANON;
    return IS_ALIGNED(p->va.v, PAGE_SIZE) ? 0 : -EALIGN;
}

// The manager's own memory and the window's view of a page table stay where they are.
static bool is_own_mapping(const struct part *p)
{
    return p->space == kernel_space() && p->va.v >= LAYOUT_BASE && p->va.v < VA_STACKS;
}

static unsigned largest_level(vaddr_t va, unsigned order)
{
    unsigned level = mm.page_1g ? 3 : 2;

    while (level > 1 &&
           (order < level_order(level) || !IS_ALIGNED(va.v, UINT64_C(1) << level_shift(level))))
        level--;
    return level;
}

static int check_level(struct part *p)
{
    if (!p->level) {
        p->level = largest_level(p->va, p->order);
        return 0;
    }
    if (p->order < level_order(p->level) || (p->level == 3 && !mm.page_1g))
        return -EORDER;
    return IS_ALIGNED(p->va.v, UINT64_C(1) << level_shift(p->level)) ? 0 : -EALIGN;
}

// The frame's count has no room for so many references more.
static bool maps_full(const frame_t *frame, uint64_t more)
{
    return more > UINT32_MAX - frame->mapcount;
}

/* --- the records that cover a part ------------------------------------------------------------ */

// The record that maps page `page` of the part, if it is the frame's page that belongs there.
// -ENOENT nothing is mapped, -EOTHER something else is. *left: pages of the record, or of the hole,
// from there on.
static int record_at(const struct part *p, uint64_t page, uint32_t *index, uint64_t *left)
{
    vaddr_t va = VADDR(p->va.v + (page << PAGE_SHIFT));
    uint64_t offset = p->offset + page;
    const mapping_t *m;
    struct pt_walk w;
    uint64_t mfn, in_entry;

    pt_walk(p->space, va, 1, &w);
    in_entry = (va.v >> PAGE_SHIFT) & ((UINT64_C(1) << level_order(w.level)) - 1);
    *left = (UINT64_C(1) << level_order(w.level)) - in_entry;
    if (!w.shadow)
        return -ENOENT;
    m = mapping_at(w.shadow);
    mfn = pgentry_mfn(table_entries(w.slot)[w.index], w.level).v + in_entry;
    if (mfn != p->frame->mfn + offset)
        return -EOTHER;
    *index = w.shadow;
    *left = m->offset + (UINT64_C(1) << m->order) - offset;
    return 0;
}

// Calls ok for each record over the part, until it returns an error; all pages must be covered.
static int check_cover(const struct part *p, int (*ok)(const struct part *p, const mapping_t *m))
{
    uint64_t pages = UINT64_C(1) << p->order;
    uint64_t left;
    uint32_t index;

    for (uint64_t page = 0; page < pages; page += left) {
        int err = record_at(p, page, &index, &left);

        if (!err && ok)
            err = ok(p, mapping_at(index));
        if (err)
            return err;
    }
    return 0;
}

// The part gets a record of its own. Each cut adds a record, with the refs of the whole.
static int split_off(const struct part *p, uint32_t index)
{
    const mapping_t *m = mapping_at(index);

    if (maps_full(p->frame, (uint64_t)(m->order - p->order) * m->refs))
        return -EOVERFLOW;
    return mapping_split(p->space, p->frame, index, p->offset, p->order, &index);
}

void part_merge(const struct part *p)
{
    uint64_t left;
    uint32_t index;

    for (uint64_t page = 0; page < UINT64_C(1) << p->order; page += left)
        if (record_at(p, page, &index, &left) == 0)
            mapping_merge(p->space, p->frame, index);
}

// Calls change for each record over the part, which is first split off if it belongs to a larger
// one; change may free it. Then merges what is alike again, unless the part stays separate.
static int change_cover(struct part *p, void (*change)(struct part *p, uint32_t index))
{
    uint64_t pages = UINT64_C(1) << p->order;
    uint64_t left;
    uint32_t index;
    int err = record_at(p, 0, &index, &left);

    if (!err && mapping_at(index)->order > p->order)
        err = split_off(p, index);
    if (err)
        return err;
    for (uint64_t page = 0; page < pages; page += left) {
        if (record_at(p, page, &index, &left))
            break;
        change(p, index);
    }
    if (!p->separate)
        part_merge(p);
    return 0;
}

/* --- mapping ---------------------------------------------------------------------------------- */

static int same_again(const struct part *p, const mapping_t *m)
{
    if (m->home_level != p->level)
        return m->home_level > p->level ? -ELARGE : -ETABLE;
    if (m->attr != p->attr)
        return -EATTR;
    return m->refs == MAPPING_REFS_MAX ? -EOVERFLOW : 0;
}

static void count_up(struct part *p, uint32_t index)
{
    uint32_t *tag = record_tag(mapping_at(index));
    bool up = refs_up(p->frame, tag, *tag);

    assert(up); // there was room for it
    p->unmerged = p->separate;
}

// Something is mapped there (err says what was in the way): the same part, to be counted up?
static int map_again(struct part *p, int err)
{
    int why = check_cover(p, same_again);

    if (why == -EOTHER || why == -ENOENT)
        return err;
    if (!why && maps_full(p->frame, UINT64_C(1) << p->order))
        why = -EOVERFLOW;
    return why ? why : change_cover(p, count_up);
}

static int map_pinned(struct part *p)
{
    int err = check_place(p);

    if (!err)
        err = check_attr(p);
    if (!err)
        err = check_level(p);
    if (!err && is_own_mapping(p))
        err = -EBUSY;
    if (err)
        return err;
    p->attr = type_settled(p->frame, p->attr);
    err = type_check(p->frame, p->offset, p->order, p->attr);
    if (!err && type_differs(p->frame, p->attr))
        err = -ETYPE;
    if (!err && maps_full(p->frame, 1))
        err = -EOVERFLOW;
    if (!err)
        err = mapping_create(p);
    if (err && err != -ENOMEM)
        err = map_again(p, err);
    return err;
}

// A frame that the caller does not hold may be put meanwhile, and its descriptor be another block's
// or none: what it says counts from when it is pinned.
int part_map(struct part *p)
{
    int err;

    if (frame_number(p->frame) < mm.frame_limit && p->frame->mapcount == UINT32_MAX)
        return -EOVERFLOW;
    if (frame_number(p->frame) >= mm.frame_limit || !frame_pin(p->frame, 1)) {
        err = check_place(p);
        return err ? err : -EFREE;
    }
    err = frame_word(p->frame) == p->word ? map_pinned(p) : -EFREE;
    frame_unpin(p->frame, 1);
    return err;
}

/* --- unmapping -------------------------------------------------------------------------------- */

static void unmap_all(struct part *p, uint32_t index)
{
    mapping_destroy(p->space, p->frame, index);
}

static void count_down(struct part *p, uint32_t index)
{
    mapping_t *m = mapping_at(index);

    if (m->refs == 1) {
        mapping_destroy(p->space, p->frame, index);
        return;
    }
    refs_down(p->frame, record_tag(m));
    p->unmerged = p->separate;
}

static int unmap_part(struct part *p, void (*change)(struct part *p, uint32_t index))
{
    int err = check_place(p);

    if (!err)
        err = check_cover(p, NULL);
    if (err)
        return err;
    // The frame lives until the end of the operation, when all CPUs have flushed.
    return is_own_mapping(p) ? -EBUSY : change_cover(p, change);
}

int part_put(struct part *p)
{
    return unmap_part(p, count_down);
}

int part_unmap(struct part *p)
{
    return unmap_part(p, unmap_all);
}

int part_check(struct part *p)
{
    int err = check_place(p);

    if (!err)
        err = check_cover(p, NULL);
    if (!err && is_own_mapping(p))
        err = -EBUSY;
    return err;
}

static void leave(struct part *p, uint32_t index)
{
    (void)p;
    (void)index;
}

int part_split(struct part *p)
{
    return change_cover(p, leave);
}

/* --- other attributes ------------------------------------------------------------------------- */

static void set_attr(struct part *p, uint32_t index)
{
    if (mapping_at(index)->attr != p->attr)
        mapping_set_attr(p->space, p->frame, index, p->attr);
}

static int count_refs(const struct part *p, uint64_t *sum)
{
    uint64_t left;
    uint32_t index;

    *sum = 0;
    for (uint64_t page = 0; page < UINT64_C(1) << p->order; page += left) {
        int err = record_at(p, page, &index, &left);

        if (err)
            return err;
        // A record that reaches beyond the part leaves a piece with the old type.
        *sum += mapping_at(index)->order > p->order ? 0 : mapping_at(index)->refs;
    }
    return 0;
}

int part_protect(struct part *p)
{
    int err = check_place(p);
    uint64_t refs;

    if (!err)
        err = check_attr(p);
    if (!err)
        err = count_refs(p, &refs);
    if (err)
        return err;
    if (is_own_mapping(p))
        return -EBUSY;
    p->attr = type_settled(p->frame, p->attr);
    err = type_check(p->frame, p->offset, p->order, p->attr);
    if (err || (refs != p->frame->mapcount && type_differs(p->frame, p->attr)))
        return -ETYPE;
    return change_cover(p, set_attr);
}

/* --- look-up ---------------------------------------------------------------------------------- */

int vmap_lookup_locked(space_t *space, vaddr_t va, struct vlookup *out)
{
    struct pt_walk w;
    uint64_t mfn;

    if (!space)
        space = kernel_space();
    if (!out || !space_is_live(space))
        return -EINVAL;
    if (!pt_canonical(va, 1, mm.levels))
        return -ECANON;
    pt_walk(space, va, 1, &w);
    if (!w.shadow)
        return -ENOENT;
    mfn = pgentry_mfn(table_entries(w.slot)[w.index], w.level).v;
    mfn += (va.v >> PAGE_SHIFT) & ((UINT64_C(1) << level_order(w.level)) - 1);
    out->frame = find_mfn_frame(MFN(mfn));
    if (!out->frame)
        return -EUNKNOWN;
    out->offset = mfn - out->frame->mfn;
    out->attr = mapping_at(w.shadow)->attr;
    out->level = w.level;
    out->refs = mapping_at(w.shadow)->refs;
    return 0;
}
