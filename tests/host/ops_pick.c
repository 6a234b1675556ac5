// SPDX-License-Identifier: BSD-2-Clause
// What the random operations choose from: blocks, places, attributes, and wrong arguments.
#include "tests/host/ops.h"

struct ops ops;

uint64_t rnd(uint64_t n)
{
    return ops.random(n);
}

bool chance(unsigned percent)
{
    return rnd(100) < percent;
}

// The answer must be one of `errors`, or 0 if there are none.
bool judge(const char *what, int err, uint32_t errors)
{
    ops.done[err == 0]++;
    if (err ? errors >> -err & 1 || (err == -ENOMEM && ops.low) : !errors)
        return err == 0;
    test_fail(__FILE__, __LINE__, "%s returns %s; expected are 0x%x", what, error_name(err),
              errors);
}

/* --- choices ---------------------------------------------------------------------------------- */

struct mblock *pick_block(void)
{
    struct mblock *b = NULL;

    for (unsigned i = 0; i < 50 && model.blocks; i++) {
        b = &model.block[rnd(model.blocks)];
        if (b->frame && (b->order <= 11 || chance(10)))
            return b;
    }
    return &model.block[0]; // low memory, always there
}

unsigned pick_space(void)
{
    unsigned i = (unsigned)rnd(MODEL_SPACES);

    return model.space[i].space ? i : 0;
}

// A descriptor that is none, and what is said of it.
frame_t *bad_frame(uint32_t *errors)
{
    for (unsigned order = (unsigned)rnd(ORDER_COUNT); order <= ORDER_MAX; order++)
        if (mm.order[order].free && chance(60)) {
            *errors |= 1u << EFREE;
            return frame_at(frame_at(mm.order[order].head)->next);
        }
    *errors |= chance(50) ? 1u << EINVAL : 1u << EUNKNOWN;
    return *errors & 1u << EINVAL ? NULL : (frame_t *)((uintptr_t)&mm.order + 1);
}

unsigned pick_attr(const struct mblock *b, unsigned space)
{
    static const unsigned types[] = {VATTR_WB, VATTR_WT, VATTR_UCM, VATTR_UC,
                                     VATTR_WP, VATTR_WC, 6 << 3};
    unsigned attr = chance(60) ? VATTR_W : chance(50) ? VATTR_X : 0;

    if (chance(space ? 60 : 2))
        attr |= VATTR_U;
    attr |= chance(2) ? VATTR_W | VATTR_X : 0;
    if (b->mapped && chance(90))
        return attr | b->type;
    if (b->kind == FRAME_DEVICE && chance(90))
        return attr | VATTR_UC;
    return attr | (chance(85) ? 0 : types[rnd(ARRAY_SIZE(types))]);
}

// Where a part of 2^order pages fits; aligned to its size more often than not.
static int pick_page(unsigned order)
{
    int pages = order > 11 ? MODEL_WINDOW : 1 << order;
    int place = (int)rnd(2) * MODEL_WINDOW;

    if (pages >= MODEL_WINDOW)
        return place;
    if (chance(70))
        return place + (int)rnd((uint64_t)(MODEL_WINDOW / pages)) * pages;
    return place + (int)rnd((uint64_t)(MODEL_WINDOW - pages));
}

bool fits(const struct mpart *p)
{
    return p->order <= 11 && p->page >= 0 && p->page < MODEL_PAGES &&
           p->page % MODEL_WINDOW + (1 << p->order) <= MODEL_WINDOW;
}

// Part of a block anywhere, its whole if `whole`.
struct mpart pick_part(bool whole)
{
    struct mpart p = {pick_space(), 0, pick_block(), 0, 0};

    p.order = p.block->order;
    if (!whole && (p.order > 11 || chance(50))) {
        p.order = (unsigned)rnd(MIN(p.order, 10u) + 1);
        p.offset = rnd(UINT64_C(1) << (p.block->order - p.order)) << p.order;
    }
    p.page = pick_page(p.order);
    return p;
}

// Part of something mapped, its whole block if `whole`; most often right in the place.
struct mpart pick_mapped(bool whole)
{
    struct mpart p = pick_part(whole);
    struct mspace *s = &model.space[p.space];
    int start = (int)rnd(MODEL_PAGES);

    for (int i = 0; s->count && i < MODEL_PAGES && chance(99); i++) {
        int page = (start + i) % MODEL_PAGES;
        uint64_t within;

        if (!s->page[page].refs)
            continue;
        p.block = model_block(s->page[page].mfn);
        within = s->page[page].mfn - p.block->mfn;
        p.order = whole ? p.block->order : (unsigned)rnd(MIN(p.block->order, 10u) + 1);
        p.offset = ROUND_DOWN(within, UINT64_C(1) << p.order);
        p.page = page - (int)(within - p.offset);
        return p;
    }
    return p;
}

struct call make_call(const struct mpart *p)
{
    struct call c = {model.space[p->space].space, VADDR(model_va(p->space, p->page)),
                     p->block->frame, 0};

    if (!p->space && chance(50))
        c.space = NULL;
    if (chance(2))
        c.frame = bad_frame(&c.errors);
    if (chance(2)) {
        c.va.v += 1 + rnd(PAGE_SIZE - 1);
        c.errors |= 1u << EALIGN | 1u << ECANON; // its end may be beyond the space's
    }
    if (chance(1)) {
        c.va.v = p->space ? VA_VMAP : c.va.v ^ UINT64_C(1) << 60;
        c.errors |= 1u << ECANON;
    }
    if (chance(1)) {
        c.space = (space_t *)((uintptr_t)kernel_space() + (chance(50) ? 8 : 64 * MIB));
        c.errors |= 1u << EINVAL;
    }
    return c;
}
