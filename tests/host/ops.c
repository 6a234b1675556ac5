// SPDX-License-Identifier: BSD-2-Clause
// Every operation of the manager with arguments of all sorts, judged by the model. Where the
// choices come from is the caller's: a generator, or a fuzzer's bytes.
#include "tests/host/ops.h"

/* --- operations on frames --------------------------------------------------------------------- */

static void op_get(void)
{
    unsigned order =
        chance(70) ? (unsigned)rnd(4) : (unsigned)rnd(chance(98) ? 12 : ORDER_COUNT + 2);
    uint32_t errors = order > ORDER_MAX ? 1u << EORDER : 1u << ENOMEM;
    frame_t *f = NULL;

    for (unsigned o = order; o <= ORDER_MAX; o++)
        errors = mm.order[o].free ? 0 : errors;
    if (errors == 1u << ENOMEM && get_frame(order, &f) == 0)
        errors = 0; // stock that was given back made a block as large
    else if (!judge("get_frame", get_frame(order, &f), errors))
        return;
    SAME(f->order, order);
    SAME(f->mfn & (frame_pages(f) - 1), 0);
    model_add(f, FRAME_AVAILABLE);
}

static void op_ref(void)
{
    struct mblock *b = pick_block();
    frame_t *f = b->frame;
    uint32_t errors = 0;

    if (chance(5))
        f = bad_frame(&errors);
    if (judge("ref_frame", ref_frame(f), errors))
        b->refcount++;
}

static void op_put(void)
{
    struct mblock *b = pick_block();
    frame_t *f = b->frame;
    uint32_t errors = 0;

    if (!b->refcount)
        errors |= 1u << EFREE;
    else if (b->refcount == 1 && b->kind != FRAME_AVAILABLE && b->kind != FRAME_DEVICE)
        errors |= 1u << ERESERVED;
    if (chance(5)) {
        errors = 0;
        f = bad_frame(&errors);
    }
    if (!judge("put_frame", put_frame(f), errors))
        return;
    b->refcount--;
    model_release(b);
}

static void op_device(void)
{
    static const uint64_t bases[] = {0xa0000, 0x80000, 3 * MIB, 2 * GIB, 5 * GIB, 3 * TIB, 9 * TIB};
    unsigned order = chance(90) ? (unsigned)rnd(11) : (unsigned)rnd(ORDER_COUNT + 1);
    uint64_t at = bases[rnd(ARRAY_SIZE(bases))] + (rnd(64) << (PAGE_SHIFT + MIN(order, 18u)));
    uint64_t pages = UINT64_C(1) << order, mfn;
    struct mblock *b;
    uint32_t errors = order > ORDER_MAX ? 1u << EORDER : 0;
    frame_t *f;

    at += chance(5) ? rnd(PAGE_SIZE) : 0;
    errors |= IS_ALIGNED(at, (uint64_t)PAGE_SIZE << MIN(order, 18u)) ? 0 : 1u << EALIGN;
    errors |= at >= mm.phys_limit ? 1u << EBEYOND : 0;
    mfn = at >> PAGE_SHIFT;
    b = model_block(mfn);
    if (b && b->kind == FRAME_DEVICE && b->mfn == mfn && b->order == order && !errors) {
        if (judge("get_device_frame", get_device_frame(PADDR(at), order, &f), 0))
            b->refcount++;
        return;
    }
    for (uint64_t i = 0; i < pages && order <= ORDER_MAX; i++)
        if (find_mfn_frame(MFN(mfn + i)))
            errors |= 1u << EEXIST;
    if (judge("get_device_frame", get_device_frame(PADDR(at), order, &f), errors))
        model_add(f, FRAME_DEVICE);
}

/* --- operations on mappings ------------------------------------------------------------------- */

typedef int map_fn(space_t *space, vaddr_t va, frame_t *frame, unsigned attr);

static void op_map(void)
{
    static map_fn *const fns[2][4] = {{vmap, vmap_4k, vmap_2m, vmap_1g},
                                      {vmap_user, vmap_user_4k, vmap_user_2m, vmap_user_1g}};
    struct mpart p = chance(35) ? pick_mapped(true) : pick_part(true);
    unsigned level = chance(40) ? 0 : (unsigned)rnd(4);
    unsigned attr = pick_attr(p.block, p.space);
    bool user = p.space && chance(30);
    struct call c = make_call(&p);

    if (!fits(&p))
        return;
    if (user && !c.space)
        return;
    c.errors |= model_map_errors(&p, level, user ? attr | VATTR_U : attr);
    if (judge("vmap", fns[user][level](c.space, c.va, c.frame, attr), c.errors))
        model_map(&p, level, user ? attr | VATTR_U : attr);
}

// The same again, as it is mapped.
static void op_again(void)
{
    struct mpart p = pick_mapped(chance(50));
    struct call c = make_call(&p);
    unsigned attr;

    if (!fits(&p))
        return;
    attr = model.space[p.space].page[p.page].attr;
    c.errors |= model_map_errors(&p, 0, attr);
    if (judge("vmap_part again", vmap_part(c.space, c.va, c.frame, p.offset, p.order, attr),
              c.errors))
        model_map(&p, 0, attr);
}

static void op_map_part(void)
{
    struct mpart p = chance(35) ? pick_mapped(false) : pick_part(false);
    unsigned attr = pick_attr(p.block, p.space);
    struct call c = make_call(&p);
    uint64_t offset = p.offset;

    if (!fits(&p))
        return;
    if (p.order && chance(2)) {
        offset++;
        c.errors |= 1u << EALIGN | 1u << EBEYOND;
    } else if (chance(2)) {
        offset += UINT64_C(1) << p.block->order;
        c.errors |= 1u << EBEYOND;
    }
    c.errors |= model_map_errors(&p, 0, attr);
    if (judge("vmap_part", vmap_part(c.space, c.va, c.frame, offset, p.order, attr), c.errors))
        model_map(&p, 0, attr);
}

static void op_put_part(void)
{
    bool whole = chance(40), all = chance(40);
    struct mpart p = pick_mapped(whole);
    struct call c = make_call(&p);
    int err;

    if (!fits(&p))
        return;
    c.errors |= model_cover_errors(&p);
    if (whole)
        err = (all ? vunmap : vput)(c.space, c.va, c.frame);
    else
        err = (all ? vunmap_part : vput_part)(c.space, c.va, c.frame, p.offset, p.order);
    if (judge(all ? "vunmap" : "vput", err, c.errors))
        model_put(&p, all);
}

static int protect(const struct call *c, const struct mpart *p, bool whole, unsigned attr)
{
    if (whole)
        return vprotect(c->space, c->va, c->frame, attr);
    return vprotect_part(c->space, c->va, c->frame, p->offset, p->order, attr);
}

// There, and often back again at once, so that what was split merges.
static void op_protect(void)
{
    bool whole = chance(30);
    struct mpart p = pick_mapped(whole);
    unsigned attr = pick_attr(p.block, p.space), old;
    struct call c = make_call(&p);
    uint32_t errors = c.errors;

    if (!fits(&p))
        return;
    old = model.space[p.space].page[p.page].attr;
    errors |= model_cover_errors(&p) | model_protect_errors(&p, attr);
    if (!judge("vprotect", protect(&c, &p, whole, attr), errors))
        return;
    model_protect(&p, attr);
    errors = c.errors | model_protect_errors(&p, old);
    if (chance(50) && judge("vprotect back", protect(&c, &p, whole, old), errors))
        model_protect(&p, old);
}

/* --- ranges ----------------------------------------------------------------------------------- */

enum {
    PIECES_MAX = 4096,
};

struct pieces {
    struct mpart part[PIECES_MAX];
    unsigned count;
    uint32_t errors; // the frames' own
    bool unsure;     // a page of the manager lies in it
};
static struct pieces pieces;

// True if the manager would take other free pages for itself first.
static bool surely_free(const frame_t *f)
{
    uint64_t smaller = 0;

    for (unsigned order = 0; order < f->order; order++)
        smaller += (uint64_t)mm.order[order].free << order;
    return frame_is_free(f) && smaller > LOW_MEMORY;
}

// The frames of a range, as the model has them.
static void cut(unsigned space, int page, uint64_t mfn, uint64_t pages)
{
    pieces.count = pieces.errors = pieces.unsure = 0;
    for (uint64_t done = 0; done < pages;) {
        struct mblock *b = model_block(mfn + done);
        frame_t *f = find_mfn_frame(MFN(mfn + done));
        struct mpart *p = &pieces.part[pieces.count];

        if (!b) {
            pieces.errors |= f ? 1u << EFREE : 1u << EUNKNOWN;
            pieces.unsure |= f && !surely_free(f);
            done++;
            continue;
        }
        *p = (struct mpart){space, page + (int)done, b, mfn + done - b->mfn, b->order};
        while ((p->offset & ((UINT64_C(1) << p->order) - 1)) ||
               UINT64_C(1) << p->order > pages - done)
            p->order--;
        done += UINT64_C(1) << p->order;
        pieces.count++;
    }
}

// Chooses a range of which no piece is unsure; false if it found none.
static bool pick_range(bool mapped, struct mpart *p, uint64_t *pages)
{
    uint64_t room;

    *p = mapped ? pick_mapped(false) : pick_part(false);
    if (p->page < 0 || p->page >= MODEL_PAGES)
        return false;
    p->offset += rnd(4);
    p->page += mapped ? (int)rnd(4) : 0;
    room = (uint64_t)(MODEL_WINDOW - p->page % MODEL_WINDOW);
    *pages = 1 + rnd(MIN(room, UINT64_C(1) << rnd(12)));
    if (p->offset >= UINT64_C(1) << p->block->order || p->page >= MODEL_PAGES || *pages > room)
        return false;
    cut(p->space, p->page, p->block->mfn + p->offset, *pages);
    return !pieces.unsure;
}

static void op_map_range(void)
{
    struct mpart p;
    uint64_t pages;
    struct call c;
    unsigned attr;

    if (!pick_range(chance(30), &p, &pages))
        return;
    c = make_call(&p);
    attr = pick_attr(p.block, p.space);
    c.errors |= pieces.errors;
    for (unsigned i = 0; i < pieces.count; i++)
        c.errors |= model_map_errors(&pieces.part[i], 0, attr);
    if (!judge("vmap_range", vmap_range(c.space, c.va, c.frame, p.offset, pages, attr), c.errors))
        return;
    for (unsigned i = 0; i < pieces.count; i++)
        model_map(&pieces.part[i], 0, attr);
}

static void op_put_range(void)
{
    bool all = chance(40);
    struct mpart p;
    uint64_t pages;
    struct call c;

    if (!pick_range(true, &p, &pages))
        return;
    c = make_call(&p);
    c.errors |= pieces.errors;
    for (unsigned i = 0; i < pieces.count; i++)
        c.errors |= model_cover_errors(&pieces.part[i]);
    if (!judge(all ? "vunmap_range" : "vput_range",
               (all ? vunmap_range : vput_range)(c.space, c.va, c.frame, p.offset, pages),
               c.errors))
        return;
    for (unsigned i = 0; i < pieces.count; i++)
        model_put(&pieces.part[i], all);
}

static void op_frames(void)
{
    frame_t *frames[8];
    struct mpart part[8];
    struct mpart p = pick_mapped(true);
    size_t count = 1 + rnd(8), n = 0;
    unsigned attr = pick_attr(p.block, p.space);
    bool put = chance(40);
    struct call c;
    int page;

    if (p.page < 0 || p.page >= MODEL_PAGES)
        return;
    c = make_call(&p);
    for (page = p.page; n < count; page += 1 << part[n++].order) {
        struct mpage *m = &model.space[p.space].page[page];
        struct mblock *b =
            put && page < MODEL_PAGES && m->refs ? model_block(m->mfn) : pick_block();

        part[n] = (struct mpart){p.space, page, b, 0, b->order};
        frames[n] = n ? b->frame : c.frame == p.block->frame ? b->frame : c.frame;
        if (page >= MODEL_PAGES || !fits(&part[n]) || page / MODEL_WINDOW != p.page / MODEL_WINDOW)
            return;
    }
    for (size_t i = 0; i < count; i++)
        c.errors |= put ? model_cover_errors(&part[i]) : model_map_errors(&part[i], 0, attr);
    if (put) {
        if (judge("vput_frames", vput_frames(c.space, c.va, frames, count), c.errors))
            for (size_t i = 0; i < count; i++)
                model_put(&part[i], false);
    } else if (judge("vmap_frames", vmap_frames(c.space, c.va, frames, count, attr), c.errors)) {
        for (size_t i = 0; i < count; i++)
            model_map(&part[i], 0, attr);
    }
}

/* --- spaces ----------------------------------------------------------------------------------- */

static void op_space(void)
{
    unsigned i = 1 + (unsigned)rnd(MODEL_SPACES - 1);
    struct mspace *s = &model.space[i];

    if (!s->space) {
        space_t *space = NULL;

        if (judge("space_create", space_create("random", &space), 0))
            s->space = space;
    } else if (chance(50)) {
        s = &model.space[pick_space()];
        judge("space_switch", space_switch(s->space), 0);
        CHECK(space_current() == s->space);
    } else if (chance(40)) {
        if (judge("space_destroy", space_destroy(s->space),
                  s->space == space_current() ? 1u << EBUSY : 0))
            model_space_gone(i);
    }
}

/* --- one after the other, and back ------------------------------------------------------------ */

void ops_step(bool filling)
{
    static void (*const calls[])(void) = {
        op_map,     op_map,     op_map_part,  op_again,     op_put_part, op_put_part, op_map_range,
        op_protect, op_protect, op_put_range, op_map_range, op_frames,   op_device,   op_space};
    uint64_t dice = rnd(100);

    ops.low = mm_free_pages() < LOW_MEMORY;
    if (dice < 20)
        (filling ? op_get : op_put)();
    else if (dice < 28)
        (filling ? op_put : op_get)();
    else if (dice < 32)
        op_ref();
    else
        calls[rnd(ARRAY_SIZE(calls))]();
}

// Everything goes back; what is free then is what was free at the start.
void ops_take_apart(uint64_t free_at_start)
{
    OK(space_switch(kernel_space()));
    for (unsigned i = 1; i < MODEL_SPACES; i++)
        if (model.space[i].space) {
            OK(space_destroy(model.space[i].space));
            model_space_gone(i);
        }
    for (int page = 0; page < MODEL_PAGES; page++) {
        const struct mpage *m = &model.space[0].page[page];
        struct mblock *b = m->refs ? model_block(m->mfn) : NULL;
        struct mpart p = {0, page, b, b ? m->mfn - b->mfn : 0, 0};

        ops.low = true;
        if (b && judge("vunmap_part",
                       vunmap_part(NULL, VADDR(model_va(0, page)), b->frame, p.offset, 0), 0))
            model_put(&p, true);
    }
    for (uint32_t i = 0; i < model.blocks; i++) {
        struct mblock *b = &model.block[i];

        while (b->frame && put_frame(b->frame) == 0) {
            b->refcount--;
            model_release(b);
        }
    }
    model_compare();
    SAME(digest_free(), free_at_start);
}
