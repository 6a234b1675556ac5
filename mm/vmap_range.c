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

// The largest naturally aligned part that starts at page mfn and has at most `pages` pages.
static int next_part(uint64_t mfn, uint64_t pages, struct part *p)
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

// `pages` pages of physically consecutive memory from mfn on, at va.
struct range {
    space_t *space;
    vaddr_t va;
    uint64_t mfn;
    uint64_t pages;
    unsigned attr; // of what is mapped
    bool unmerged; // some of its records might merge
};

static vaddr_t range_va(const struct range *r, uint64_t page)
{
    return VADDR(r->va.v + (page << PAGE_SHIFT));
}

// The part of the range that starts at that page.
static int part_at(const struct range *r, uint64_t page, struct part *p)
{
    *p = (struct part){
        .space = r->space, .va = range_va(r, page), .attr = r->attr, .separate = true};
    return next_part(r->mfn + page, r->pages - page, p);
}

typedef int part_fn(struct part *p);

// Calls fn for the part at page *done, and counts its pages.
static int one_part(struct range *r, uint64_t *done, part_fn *fn)
{
    struct part p;
    int err = part_at(r, *done, &p);

    if (!err)
        err = fn(&p);
    if (err)
        return err;
    r->unmerged |= p.unmerged;
    *done += UINT64_C(1) << p.order;
    return 0;
}

// The same for each part of pages [*done, end).
static int each_part(struct range *r, uint64_t *done, uint64_t end, part_fn *fn)
{
    uint64_t pages = r->pages;
    int err = 0;

    r->pages = end;
    while (!err && *done < end)
        err = one_part(r, done, fn);
    r->pages = pages;
    return err;
}

static int merge_part(struct part *p)
{
    part_merge(p);
    return 0;
}

// Merges what was kept separate, in the first pages; where nothing is mapped, nothing happens.
static void merge_range(struct range *r, uint64_t pages)
{
    for (uint64_t done = 0; each_part(r, &done, pages, merge_part);)
        done++; // a device frame that is gone
    upkeep();
}

// Maps runs as such, the rest by the general code; *done counts the pages that are mapped.
static int map_all(struct range *r, uint64_t *done)
{
    int err = 0;

    for (*done = 0; !err && *done < r->pages;) {
        uint64_t some =
            run_map(r->space, range_va(r, *done), r->mfn + *done, r->pages - *done, r->attr);

        *done += some;
        if (!some)
            err = one_part(r, done, part_map);
    }
    return err;
}

static int map_range(struct range *r, frame_t *first, uint64_t offset)
{
    int err = check_range(r->space, r->va, first, offset, r->pages);
    uint64_t done, undone = 0;

    if (err)
        return err;
    r->mfn = first->mfn + offset;
    err = map_all(r, &done);
    // What was mapped has records of its own, so that taking it back needs no memory.
    if (err && each_part(r, &undone, done, part_put))
        panic("undoing vmap_range at 0x%lx failed", range_va(r, undone).v);
    if (r->unmerged)
        merge_range(r, err ? done : r->pages);
    return err;
}

int vmap_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
               unsigned attr)
{
    struct range r = {
        .space = space ? space : kernel_space(), .va = va, .pages = pages, .attr = attr};
    int err;

    map_lock();
    err = map_range(&r, first, offset);
    if (!err)
        journal(JOURNAL_MAP_RANGE, CALLER, va.v, part_word(first, offset, first->order),
                frame_counts(first), (uint32_t)pages);
    map_unlock();
    return err;
}

// The last part of the range. A part begins where a block does, so only the last block
// is looked at.
static int last_part(const struct range *r, struct part *p)
{
    const frame_t *last = find_mfn_frame(MFN(r->mfn + r->pages - 1));
    uint64_t page = last && last->mfn > r->mfn ? last->mfn - r->mfn : 0;
    int err = part_at(r, page, p);

    while (!err && page + (UINT64_C(1) << p->order) < r->pages) {
        page += UINT64_C(1) << p->order;
        err = part_at(r, page, p);
    }
    return err;
}

// Splits off what the range has of a mapping that reaches beyond it, at both ends; then unmapping
// cannot fail.
static int split_ends(const struct range *r)
{
    struct part first, last;
    int err = part_at(r, 0, &first);

    if (!err)
        err = last_part(r, &last);
    if (!err)
        err = part_split(&first);
    if (err)
        return err;
    err = part_split(&last);
    if (err)
        part_merge(&first);
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
static int check_all(struct range *r, struct runs *runs)
{
    int err = 0;

    runs->count = 0;
    for (uint64_t done = 0; !err && done < r->pages;) {
        uint64_t some = run_check(r->space, range_va(r, done), r->mfn + done, r->pages - done);

        if (some)
            note_run(runs, done, some, r->pages);
        else
            err = one_part(r, &done, part_check);
        done += some;
    }
    return err;
}

// Up to the next run, or the end, part by part; then the run.
static void change_all(struct range *r, const struct runs *runs, part_fn *change)
{
    uint64_t done = 0;

    for (unsigned i = 0; done < r->pages; i++) {
        int err = each_part(r, &done, i < runs->count ? runs->run[i].first : r->pages, change);

        assert(!err);
        if (done < r->pages &&
            run_unmap(r->space, range_va(r, done), r->mfn + done, runs->run[i].pages))
            done += runs->run[i].pages;
    }
}

static int change_range(struct range *r, frame_t *first, uint64_t offset, part_fn *change)
{
    int err = check_range(r->space, r->va, first, offset, r->pages);
    struct runs runs;

    if (err)
        return err;
    r->mfn = first->mfn + offset;
    err = check_all(r, &runs);
    if (!err)
        err = split_ends(r);
    if (err)
        return err;
    change_all(r, &runs, change);
    if (r->unmerged)
        merge_range(r, r->pages);
    return 0;
}

// change_range() under the lock, noted on behalf of `caller`.
static int unmap_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
                       part_fn *change, const void *caller)
{
    struct range r = {.space = space ? space : kernel_space(), .va = va, .pages = pages};
    int err;

    map_lock();
    err = change_range(&r, first, offset, change);
    if (!err)
        journal(JOURNAL_PUT_RANGE, caller, va.v, part_word(first, offset, first->order),
                frame_counts(first), (uint32_t)pages);
    map_unlock();
    return err;
}

int vput_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages)
{
    return vput_range_for(space, va, first, offset, pages, CALLER);
}

int vput_range_for(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages,
                   const void *caller)
{
    return unmap_range(space, va, first, offset, pages, part_put, caller);
}

int vunmap_range(space_t *space, vaddr_t va, frame_t *first, uint64_t offset, uint64_t pages)
{
    return unmap_range(space, va, first, offset, pages, part_unmap, CALLER);
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
    struct part p;
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
        p = whole_block(space, VADDR(at), frames[done]);
        p.attr = attr;
        err = part_map(&p);
        if (err)
            break;
        at += frame_bytes(frames[done++]);
    }
    *pages = (at - va.v) >> PAGE_SHIFT;
    while (err && done--) {
        at -= frame_bytes(frames[done]);
        p = whole_block(space, VADDR(at), frames[done]);
        if (part_put(&p))
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
        struct part p;
        int err;

        if (some) {
            note_run(runs, i, some, count);
            i += some;
            va.v += some << PAGE_SHIFT;
            continue;
        }
        err = frame_usable(frames[i]);
        if (!err) {
            p = whole_block(space, va, frames[i]);
            err = part_check(&p);
        }
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
        struct part p;

        if (some && run_unmap(space, at, frames[i]->mfn, some)) {
            i += some;
            at.v += some << PAGE_SHIFT;
            continue;
        }
        p = whole_block(space, at, frames[i]);
        err = part_put(&p);
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
