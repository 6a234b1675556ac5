// SPDX-License-Identifier: BSD-2-Clause
// The model's own rules, and the comparison of the manager with it.
#include "tests/host/model.h"

#include "lib/string.h"

struct model model;

static bool is_managers(const frame_t *f)
{
    return f->kind == FRAME_TABLE || f->kind == FRAME_METADATA;
}

struct mblock *model_block(uint64_t mfn)
{
    if (mfn < MODEL_RAM_PAGES)
        return model.at[mfn] < 0 ? NULL : &model.block[model.at[mfn]];
    for (uint32_t i = 0; i < model.blocks; i++) {
        struct mblock *b = &model.block[i];

        if (b->frame && b->mfn <= mfn && mfn - b->mfn < UINT64_C(1) << b->order)
            return b;
    }
    return NULL;
}

static void set_pages(const struct mblock *b, int32_t value)
{
    for (uint64_t i = 0; i < UINT64_C(1) << b->order && b->mfn + i < MODEL_RAM_PAGES; i++)
        model.at[b->mfn + i] = value;
}

struct mblock *model_add(frame_t *frame, unsigned kind)
{
    uint32_t i = 0;
    struct mblock *b;

    while (i < model.blocks && model.block[i].frame)
        i++;
    CHECK(i < MODEL_BLOCKS);
    model.blocks = MAX(model.blocks, i + 1);
    b = &model.block[i];
    *b = (struct mblock){
        .frame = frame, .mfn = frame->mfn, .order = frame->order, .kind = kind, .refcount = 1};
    for (uint64_t n = 0; n < UINT64_C(1) << b->order && b->mfn + n < MODEL_RAM_PAGES; n++)
        SAME(model.at[b->mfn + n], -1);
    set_pages(b, (int32_t)i);
    return b;
}

void model_release(struct mblock *b)
{
    if (b->refcount || b->mapped || b->outside)
        return;
    set_pages(b, -1);
    b->frame = NULL;
}

void model_start(void)
{
    memset(&model, 0, sizeof(model));
    memset(model.at, 0xff, sizeof(model.at));
    model.space[0].space = kernel_space();
    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        uint32_t head = mm.order[order].head;

        for (uint32_t i = frame_at(head)->next; i != head; i = frame_at(i)->next) {
            frame_t *f = frame_at(i);
            struct mblock *b;

            if (frame_is_free(f) || is_managers(f))
                continue;
            b = model_add(f, f->kind);
            b->outside = f->mapcount != 0;
        }
    }
}

uint64_t model_va(unsigned space, int page)
{
    // The kernel's second place straddles two top-level entries, a user's ends where addresses do.
    uint64_t user_end = UINT64_C(1) << (PAGE_SHIFT + 9 * mm.levels - 1);
    uint64_t base[2] = {0x40000000, user_end - MODEL_WINDOW * PAGE_SIZE};

    if (!space) {
        base[0] = VA_VMAP;
        base[1] = VA_VMAP + 512 * GIB - 4 * MIB;
    }
    return base[page >= MODEL_WINDOW] + (uint64_t)(int64_t)(page % MODEL_WINDOW) * PAGE_SIZE;
}

/* --- what must happen ------------------------------------------------------------------------- */

static unsigned fitting_level(uint64_t va, unsigned order)
{
    if (mm.page_1g && order >= 18 && IS_ALIGNED(va, GIB))
        return 3;
    return order >= 9 && IS_ALIGNED(va, 2 * MIB) ? 2 : 1;
}

// The attributes as a record holds them.
static unsigned settled(const struct mblock *b, unsigned attr)
{
    if (!(attr & (VATTR_TYPE | VATTR_WB)) && b->kind == FRAME_DEVICE)
        attr |= VATTR_UC;
    return attr & ~(unsigned)VATTR_WB;
}

static uint32_t attr_errors(const struct mpart *p, unsigned attr)
{
    unsigned type = (attr & VATTR_TYPE) >> VATTR_TYPE_SHIFT;
    uint32_t errors = 0;

    if (type > MEMTYPE_WC || ((attr & VATTR_WB) && type) ||
        ((attr & VATTR_W) && (attr & VATTR_X)) || ((attr & VATTR_U) && !p->space))
        errors |= 1u << EINVAL;
    if (p->block->kind == FRAME_DEVICE && (attr & VATTR_WB))
        errors |= 1u << ETYPE;
    if (p->block->kind >= FRAME_IMAGE && p->block->kind <= FRAME_BSS && (attr & VATTR_W) &&
        (attr & VATTR_U))
        errors |= 1u << EBUSY;
    return errors;
}

// Something is in the way of a part that is not wholly the same mapping: what may be said of it?
static uint32_t obstacle(const struct mpage *m, unsigned level, unsigned attr, bool same)
{
    uint32_t errors = same ? 0 : 1u << EEXIST;

    if (m->home > level)
        errors |= 1u << ELARGE;
    if (level > 1)
        errors |= 1u << ETABLE;
    if (same && m->attr != attr)
        errors |= 1u << EATTR;
    return errors;
}

uint32_t model_map_errors(const struct mpart *p, unsigned level, unsigned attr)
{
    uint64_t mfn = p->block->mfn + p->offset;
    uint32_t errors = attr_errors(p, attr), found = 0;
    uint64_t pages = UINT64_C(1) << p->order, present = 0, same = 0;

    attr = settled(p->block, attr);
    if ((p->block->mapped || p->block->outside) && p->block->type != (attr & VATTR_TYPE))
        errors |= 1u << ETYPE;
    if (level == 0)
        level = fitting_level(model_va(p->space, p->page), p->order);
    if (p->order < 9 * (level - 1) || (level == 3 && !mm.page_1g))
        errors |= 1u << EORDER;
    if (!IS_ALIGNED(model_va(p->space, p->page), UINT64_C(1) << level_shift(level)))
        errors |= 1u << EALIGN;
    for (uint64_t i = 0; i < pages; i++) {
        const struct mpage *m = &model.space[p->space].page[p->page + i];
        bool mine = m->mfn == mfn + i;

        if (!m->refs)
            continue;
        present++;
        same += mine;
        found |= obstacle(m, level, attr, mine);
    }
    if (!present)
        return errors;
    if (same < pages)
        return errors | found | 1u << EEXIST;
    // All of it is mapped as it should be: only other pages or attributes speak against it.
    found &= ~(1u << EEXIST | 1u << ETABLE);
    for (uint64_t i = 0; i < pages; i++)
        if (model.space[p->space].page[p->page + i].home < level)
            found |= 1u << ETABLE;
    return errors | found;
}

uint32_t model_cover_errors(const struct mpart *p)
{
    uint64_t mfn = p->block->mfn + p->offset;
    uint32_t errors = 0;

    for (uint64_t i = 0; i < UINT64_C(1) << p->order; i++) {
        const struct mpage *m = &model.space[p->space].page[p->page + i];

        if (!m->refs)
            errors |= 1u << ENOENT;
        else if (m->mfn != mfn + i)
            errors |= 1u << EOTHER;
    }
    return errors;
}

uint32_t model_protect_errors(const struct mpart *p, unsigned attr)
{
    uint32_t errors = attr_errors(p, attr) | model_cover_errors(p);
    bool alone = p->block->mapped == 1u << p->order && !p->block->outside;

    attr = settled(p->block, attr);
    if (p->block->type != (attr & VATTR_TYPE) && !alone)
        errors |= 1u << ETYPE;
    return errors;
}

/* --- what happens ----------------------------------------------------------------------------- */

void model_map(const struct mpart *p, unsigned level, unsigned attr)
{
    struct mspace *s = &model.space[p->space];
    uint32_t id = ++model.next_id;

    attr = settled(p->block, attr);
    if (level == 0)
        level = fitting_level(model_va(p->space, p->page), p->order);
    for (uint64_t i = 0; i < UINT64_C(1) << p->order; i++) {
        struct mpage *m = &s->page[p->page + i];

        if (m->refs++)
            continue;
        *m = (struct mpage){p->block->mfn + p->offset + i, 1, id, attr, level};
        p->block->mapped++;
        s->count++;
    }
    p->block->type = attr & VATTR_TYPE;
}

static void clear_page(struct mspace *s, struct mpage *m, struct mblock *b)
{
    *m = (struct mpage){0};
    s->count--;
    b->mapped--;
}

void model_put(const struct mpart *p, bool all)
{
    struct mspace *s = &model.space[p->space];

    for (uint64_t i = 0; i < UINT64_C(1) << p->order; i++) {
        struct mpage *m = &s->page[p->page + i];

        if (all || --m->refs == 0)
            clear_page(s, m, p->block);
    }
    model_release(p->block);
}

void model_protect(const struct mpart *p, unsigned attr)
{
    attr = settled(p->block, attr);
    for (uint64_t i = 0; i < UINT64_C(1) << p->order; i++)
        model.space[p->space].page[p->page + i].attr = attr;
    p->block->type = attr & VATTR_TYPE;
}

void model_space_gone(unsigned space)
{
    struct mspace *s = &model.space[space];

    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        struct mpage *m = &s->page[i];
        struct mblock *b = m->refs ? model_block(m->mfn) : NULL;

        if (!b)
            continue;
        clear_page(s, m, b);
        model_release(b);
    }
    s->space = NULL;
}

/* --- comparison ------------------------------------------------------------------------------- */

struct compare {
    unsigned space;
    uint32_t count;
};

static int page_of(unsigned space, uint64_t va)
{
    for (int place = 0; place < MODEL_PAGES; place += MODEL_WINDOW) {
        uint64_t distance = va - model_va(space, place);

        if (distance < MODEL_WINDOW * (uint64_t)PAGE_SIZE)
            return place + (int)(distance >> PAGE_SHIFT);
    }
    return -1;
}

// A 2M page that was asked for is one unless its parts differ.
static bool alike(const struct mpage *m)
{
    for (unsigned i = 1; i < 512; i++)
        if (!m[i].refs || m[i].id != m->id || m[i].attr != m->attr || m[i].refs != m->refs)
            return false;
    return true;
}

static void compare_leaf(const struct leaf *leaf, void *arg)
{
    struct compare *c = arg;
    int page = page_of(c->space, leaf->va);
    const struct mpage *m = model.space[c->space].page + MAX(page, 0);
    struct vlookup at;

    if (page < 0) {
        if (c->space || (leaf->va < VA_IMAGE &&
                         !(leaf->va >= LAYOUT_BASE && leaf->va < LAYOUT_BASE + 512 * GIB)))
            test_fail(__FILE__, __LINE__, "0x%llx is mapped", (unsigned long long)leaf->va);
        return;
    }
    if (leaf->level == 1 && page % 512 == 0 && m->home == 2 && alike(m))
        test_fail(__FILE__, __LINE__, "0x%llx is not a large page", (unsigned long long)leaf->va);
    OK(vmap_lookup(model.space[c->space].space, VADDR(leaf->va), &at));
    for (uint64_t i = 0; i < UINT64_C(1) << level_order(leaf->level); i++, m++) {
        if (m->mfn != leaf->mfn + i || !m->refs || m->refs != at.refs || m->home < leaf->level)
            test_fail(
                __FILE__, __LINE__, "0x%llx maps mfn 0x%llx, refs %u; the model says 0x%llx, %u",
                (unsigned long long)(leaf->va + i * PAGE_SIZE), (unsigned long long)(leaf->mfn + i),
                at.refs, (unsigned long long)m->mfn, m->refs);
        SAME(leaf->entry & ~(pgentry_t)(PG_A | PG_D),
             pgentry_leaf(MFN(leaf->mfn), leaf->level, m->attr));
        SAME(at.attr, m->attr);
        c->count++;
    }
    SAME(leaf->writable, !!(at.attr & VATTR_W));
    SAME(leaf->executable, !!(at.attr & VATTR_X));
    SAME(leaf->user, !!(at.attr & VATTR_U));
}

static void compare_block(const frame_t *f, uint64_t *managers, uint32_t *blocks)
{
    const struct mblock *b = model_block(f->mfn);

    if (is_managers(f)) {
        CHECK(!b);
        *managers += frame_pages(f);
        return;
    }
    CHECK(b && b->frame == f && b->mfn == f->mfn && b->order == f->order && b->kind == f->kind);
    SAME(f->refcount, b->refcount);
    SAME(f->mapcount != 0, b->mapped || b->outside);
    ++*blocks;
}

static void compare_frames(void)
{
    uint64_t managers = 0;
    uint32_t blocks = 0, live = 0;

    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        uint32_t head = mm.order[order].head;

        for (uint32_t i = frame_at(head)->next; i != head; i = frame_at(i)->next) {
            const frame_t *f = frame_at(i);

            if (!frame_is_free(f))
                compare_block(f, &managers, &blocks);
            else
                for (uint64_t n = 0; n < frame_pages(f); n++)
                    SAME(model.at[f->mfn + n], -1);
        }
    }
    for (uint32_t i = 0; i < model.blocks; i++)
        live += model.block[i].frame != NULL;
    SAME(blocks, live);
    SAME(managers, (uint64_t)machine.visible_pages);
}

void model_compare(void)
{
    for (unsigned i = 0; i < MODEL_SPACES; i++) {
        const space_t *space = model.space[i].space;
        struct compare c = {i, 0};

        if (!space)
            continue;
        walk_leaves(space->cr3, mm.levels, 0, i ? PT_ENTRIES / 2 : PT_ENTRIES, compare_leaf, &c);
        SAME(c.count, model.space[i].count);
    }
    compare_frames();
    SAME(mm_check(), 0);
}
