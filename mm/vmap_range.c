// SPDX-License-Identifier: BSD-2-Clause
// Ranges of the vmap family: many frames, all or nothing.
#include "lib/panic.h"
#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/journal.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table.h"
#include "mm/vmap.h"
#include "mm/vmap_internal.h"
#include "mm/vmap_run.h"

// Part of a range: pages of one frame.
struct piece {
    frame_t *frame;
    uint64_t word; // what the descriptor said
    uint64_t offset;
    unsigned order;
};

// The largest naturally aligned piece that starts at page mfn and has at most `pages` pages.
static int next_piece(uint64_t mfn, uint64_t pages, struct piece *p)
{
    p->frame = find_mfn_frame(MFN(mfn));
    if (!p->frame)
        return -EUNKNOWN;
    p->word = frame_word(p->frame);
    p->offset = mfn - word_mfn(p->word);
    p->order = word_order(p->word);
    if (p->offset >> p->order)
        return -EUNKNOWN; // another block meanwhile
    while ((p->offset & ((UINT64_C(1) << p->order) - 1)) || (UINT64_C(1) << p->order) > pages)
        p->order--;
    return 0;
}

static int check_range(const space_t *space, vaddr_t va, const frame_t *first, uint64_t offset,
                       uint64_t pages)
{
    int err = frame_usable(first);

    if (!pages || !space_is_live(space))
        return -EINVAL;
    if (err)
        return err;
    if (offset >= frame_pages(first))
        return -EBEYOND;
    if (!IS_ALIGNED(va.v, PAGE_SIZE))
        return -EALIGN;
    if (pages > UINT64_MAX >> PAGE_SHIFT || !pt_canonical(va, pages << PAGE_SHIFT, mm.levels) ||
        !space_has(space, va))
        return -ECANON;
    return 0;
}

// How a range is treated.
struct way {
    unsigned attr; // of what is mapped
    bool apart;    // some of its records might merge
};

typedef int range_fn(space_t *space, vaddr_t va, const struct piece *p, struct way *way);

// Calls fn for each piece; *done counts the pages for which it returned 0.
static int each_piece(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages, struct way *way,
                      range_fn *fn, uint64_t *done)
{
    for (*done = 0; *done < pages;) {
        struct piece p;
        int err = next_piece(mfn + *done, pages - *done, &p);

        if (!err)
            err = fn(space, VADDR(va.v + (*done << PAGE_SHIFT)), &p, way);
        if (err)
            return err;
        *done += UINT64_C(1) << p.order;
    }
    return 0;
}

static int map_piece(space_t *space, vaddr_t va, const struct piece *p, struct way *way)
{
    return vmap_apart(space, va, p->frame, p->offset, p->order, way->attr, &way->apart, p->word);
}

static int put_piece(space_t *space, vaddr_t va, const struct piece *p, struct way *way)
{
    return vput_apart(space, va, p->frame, p->offset, p->order, false, &way->apart);
}

static int unmap_piece(space_t *space, vaddr_t va, const struct piece *p, struct way *way)
{
    return vput_apart(space, va, p->frame, p->offset, p->order, true, &way->apart);
}

static int merge_piece(space_t *space, vaddr_t va, const struct piece *p, struct way *way)
{
    (void)way;
    vmap_merge_part(space, va, p->frame, p->offset, p->order);
    return 0;
}

// What the pieces of a range are again that were left apart; where nothing is mapped, nothing
// happens.
static void merge_range(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages)
{
    struct way way = {0, false};
    uint64_t done;

    while (pages && each_piece(space, va, mfn, pages, &way, merge_piece, &done)) {
        done++; // a device frame that is gone
        va.v += done << PAGE_SHIFT;
        mfn += done;
        pages -= done;
    }
    upkeep();
}

// By runs, and what is none by the general code; *done counts the pages that are mapped.
static int map_all(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages, struct way *way,
                   uint64_t *done)
{
    for (*done = 0; *done < pages;) {
        vaddr_t at = VADDR(va.v + (*done << PAGE_SHIFT));
        uint64_t some = run_map(space, at, mfn + *done, pages - *done, way->attr);
        struct piece p;
        int err;

        *done += some;
        if (some)
            continue;
        err = next_piece(mfn + *done, pages - *done, &p);
        if (!err)
            err = map_piece(space, at, &p, way);
        if (err)
            return err;
        *done += UINT64_C(1) << p.order;
    }
    return 0;
}

static int map_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
                     unsigned attr)
{
    int err = check_range(space, va, first, offset, pages);
    struct way way = {attr, false};
    uint64_t done, undone, mfn;

    if (err)
        return err;
    mfn = first->mfn + offset;
    err = map_all(space, va, mfn, pages, &way, &done);
    // What was mapped has records of its own, so that taking it back needs no memory.
    if (err && done && each_piece(space, va, mfn, done, &way, put_piece, &undone))
        panic("undoing vmap_range at 0x%lx failed", va.v + (undone << PAGE_SHIFT));
    if (way.apart)
        merge_range(space, va, mfn, err ? done : pages);
    return err;
}

int vmap_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
               unsigned attr)
{
    int err;

    map_lock();
    err = map_range(space ? space : kernel_space(), va, first, offset, pages, attr);
    if (!err)
        journal(JOURNAL_MAP_RANGE, CALLER, va.v, part_word(first, offset, first->order),
                frame_counts(first), (uint32_t)pages);
    map_unlock();
    return err;
}

// The last piece of the range. Pieces begin anew where a block does, so the last block tells.
static int last_piece(uint64_t mfn, uint64_t pages, struct piece *p)
{
    const frame_t *last = find_mfn_frame(MFN(mfn + pages - 1));
    uint64_t at = last ? MAX(mfn, last->mfn) : mfn, end = mfn + pages;
    int err = next_piece(at, end - at, p);

    while (!err && at + (UINT64_C(1) << p->order) < end) {
        at += UINT64_C(1) << p->order;
        err = next_piece(at, end - at, p);
    }
    return err;
}

// Splits off what the range has of a mapping that reaches beyond it, at both ends; then unmapping
// cannot fail.
static int split_ends(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages)
{
    struct piece first, last;
    int err = next_piece(mfn, pages, &first);
    uint64_t at;

    if (!err)
        err = last_piece(mfn, pages, &last);
    if (!err)
        err = vmap_split_part(space, va, first.frame, first.offset, first.order);
    if (err)
        return err;
    at = last.frame->mfn + last.offset - mfn;
    err = vmap_split_part(space, VADDR(va.v + (at << PAGE_SHIFT)), last.frame, last.offset,
                          last.order);
    if (err)
        vmap_merge_part(space, va, first.frame, first.offset, first.order);
    return err;
}

enum {
    RUNS_MAX = TLB_BATCH_RUNS, // of a range; pages of others are taken one by one
};

// What of a range was found to be runs.
struct runs {
    unsigned count;
    struct {
        uint64_t first; // page of the range
        uint64_t pages;
    } run[RUNS_MAX];
};

// Of `total` pages. Few are noted: short ones don't take the places of those that matter.
static void note_run(struct runs *runs, uint64_t first, uint64_t pages, uint64_t total)
{
    if (runs->count == RUNS_MAX || pages < total / (4 * RUNS_MAX))
        return;
    runs->run[runs->count].first = first;
    runs->run[runs->count++].pages = pages;
}

// All is checked before the first page changes: 0 if every page is mapped where it belongs.
static int check_all(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages, struct runs *runs)
{
    runs->count = 0;
    for (uint64_t done = 0; done < pages;) {
        vaddr_t at = VADDR(va.v + (done << PAGE_SHIFT));
        uint64_t some = run_check(space, at, mfn + done, pages - done);
        struct piece p;
        int err;

        if (some) {
            note_run(runs, done, some, pages);
            done += some;
            continue;
        }
        err = next_piece(mfn + done, pages - done, &p);
        if (!err)
            err = vmap_check_part(space, at, p.frame, p.offset, p.order);
        if (err)
            return err;
        done += UINT64_C(1) << p.order;
    }
    return 0;
}

// Up to the next run, or the end, piece by piece; then the run.
static void change_all(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages,
                       const struct runs *runs, struct way *way, range_fn *change)
{
    uint64_t done = 0;

    for (unsigned i = 0; done < pages; i++) {
        uint64_t end = i < runs->count ? runs->run[i].first : pages, some;
        vaddr_t at = VADDR(va.v + (done << PAGE_SHIFT));
        int err = each_piece(space, at, mfn + done, end - done, way, change, &some);

        assert(!err);
        done = end;
        at = VADDR(va.v + (done << PAGE_SHIFT));
        if (done < pages && run_unmap(space, at, mfn + done, runs->run[i].pages))
            done += runs->run[i].pages;
    }
}

static int change_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
                        range_fn *change)
{
    int err = check_range(space, va, first, offset, pages);
    struct way way = {0, false};
    struct runs runs;
    uint64_t mfn;

    if (err)
        return err;
    mfn = first->mfn + offset;
    err = check_all(space, va, mfn, pages, &runs);
    if (!err)
        err = split_ends(space, va, mfn, pages);
    if (err)
        return err;
    change_all(space, va, mfn, pages, &runs, &way, change);
    if (way.apart)
        merge_range(space, va, mfn, pages);
    return 0;
}

int vput_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages)
{
    return vput_range_for(space, va, first, offset, pages, CALLER);
}

int vput_range_for(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
                   const void *caller)
{
    int err;

    map_lock();
    err = change_range(space ? space : kernel_space(), va, first, offset, pages, put_piece);
    if (!err)
        journal(JOURNAL_PUT_RANGE, caller, va.v, part_word(first, offset, first->order),
                frame_counts(first), (uint32_t)pages);
    map_unlock();
    return err;
}

int vunmap_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages)
{
    int err;

    map_lock();
    err = change_range(space ? space : kernel_space(), va, first, offset, pages, unmap_piece);
    if (!err)
        journal(JOURNAL_PUT_RANGE, CALLER, va.v, part_word(first, offset, first->order),
                frame_counts(first), (uint32_t)pages);
    map_unlock();
    return err;
}

/* --- frames from anywhere --------------------------------------------------------------------- */

static uint64_t frame_bytes(const frame_t *frame)
{
    return (uint64_t)PAGE_SIZE << frame->order;
}

// How many of the frames, from the first on, are pages that follow each other in physical memory,
// if they can be mapped at va; 0: not even the first.
static uint64_t frames_in_row(space_t *space, vaddr_t va, frame_t *const *frames, size_t count)
{
    uint64_t mfn, row = 1;

    if (frame_usable(frames[0]) || frames[0]->order)
        return 0;
    // Descriptors stand side by side as far as their page goes.
    for (mfn = frames[0]->mfn; row < count; row++)
        if ((mfn + row) % FRAME_PAGE_COUNT ? frames[row] != frames[row - 1] + 1
                                           : frames[row] != find_mfn_frame(MFN(mfn + row)))
            break;
    return check_range(space, va, frames[0], 0, row) ? 0 : row;
}

static int map_frames(space_t *space, vaddr_t va, frame_t *const *frames, size_t count,
                      unsigned attr, uint64_t *pages)
{
    uint64_t at = va.v;
    size_t done = 0;
    int err = 0;

    if (!frames || !count)
        return -EINVAL;
    while (done < count) {
        uint64_t row = frames_in_row(space, VADDR(at), frames + done, count - done);
        uint64_t some = row ? run_map(space, VADDR(at), frames[done]->mfn, row, attr) : 0;

        done += some;
        at += some << PAGE_SHIFT;
        if (some)
            continue;
        err = vmap_pages(space, VADDR(at), frames[done], 0, attr);
        if (err)
            break;
        at += frame_bytes(frames[done++]);
    }
    *pages = (at - va.v) >> PAGE_SHIFT;
    while (err && done--) {
        at -= frame_bytes(frames[done]);
        if (vput_whole(space, VADDR(at), frames[done], false))
            panic("undoing vmap_frames at 0x%lx failed", at);
    }
    return err;
}

int vmap_frames(space_t *space, vaddr_t va, frame_t *const *frames, size_t count, unsigned attr)
{
    uint64_t pages;
    int err;

    map_lock();
    err = map_frames(space ? space : kernel_space(), va, frames, count, attr, &pages);
    if (!err)
        journal(JOURNAL_MAP_FRAMES, CALLER, va.v, frame_word(frames[0]), frame_counts(frames[0]),
                (uint32_t)pages);
    map_unlock();
    return err;
}

// All is checked before the first page changes.
static int check_frames(space_t *space, vaddr_t va, frame_t *const *frames, size_t count,
                        struct runs *runs)
{
    runs->count = 0;
    for (size_t i = 0; i < count;) {
        uint64_t row = frames_in_row(space, va, frames + i, count - i);
        uint64_t some = row ? run_check(space, va, frames[i]->mfn, row) : 0;
        int err;

        if (some) {
            note_run(runs, i, some, count);
            i += some;
            va.v += some << PAGE_SHIFT;
            continue;
        }
        err = frame_usable(frames[i]);
        if (!err)
            err = vmap_check_part(space, va, frames[i], 0, frames[i]->order);
        if (err)
            return err;
        va.v += frame_bytes(frames[i++]);
    }
    return 0;
}

// No frame goes before map_unlock().
static int put_frames(space_t *space, vaddr_t va, frame_t *const *frames, size_t count,
                      uint64_t *pages)
{
    vaddr_t at = va;
    struct runs runs;
    unsigned run = 0;
    int err = frames && count ? check_frames(space, va, frames, count, &runs) : -EINVAL;

    for (size_t i = 0; !err && i < count;) {
        bool is_run = run < runs.count && runs.run[run].first == i;
        uint64_t some = is_run ? runs.run[run++].pages : 0;

        if (some && run_unmap(space, at, frames[i]->mfn, some)) {
            i += some;
            at.v += some << PAGE_SHIFT;
            continue;
        }
        err = vput_whole(space, at, frames[i], false);
        assert(!err);
        at.v += frame_bytes(frames[i++]);
    }
    *pages = (at.v - va.v) >> PAGE_SHIFT;
    return err;
}

int vput_frames(space_t *space, vaddr_t va, frame_t *const *frames, size_t count)
{
    uint64_t pages;
    int err;

    map_lock();
    err = put_frames(space ? space : kernel_space(), va, frames, count, &pages);
    if (!err)
        journal(JOURNAL_PUT_FRAMES, CALLER, va.v, frame_word(frames[0]), frame_counts(frames[0]),
                (uint32_t)pages);
    map_unlock();
    return err;
}
