// SPDX-License-Identifier: BSD-2-Clause
// Runs: the pages of a range that are blocks of order 0, one after the other in one page table.
// What is the same for all of them is asked once; whatever is not as simple is left to the general
// code.
#include "mm/vmap_run.h"

#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/step.h"
#include "mm/table.h"
#include "mm/table_flush.h"

enum {
    RUN_KINDS = 1 << FRAME_AVAILABLE | 1 << FRAME_RESERVED | 1 << FRAME_ACPI | 1 << FRAME_NVS |
                1 << FRAME_BOOT | 1 << FRAME_LOW,
    RUN_KIND = 15,         // of a descriptor's first word
    RUN_BELOW_MFN = 0xfff, // its fields below the mfn
};

// The descriptors of consecutive pages, as far as they stand side by side; the same for the
// entries.
struct run {
    frame_t *frame;
    uint64_t word; // the first of its descriptor: that of the next one is larger by RUN_NEXT
    uint64_t at;   // of its first entry: slot * 512 + entry
    uint32_t count;
};
#define RUN_NEXT (UINT64_C(1) << PAGE_SHIFT) // the mfn stands where an entry has it

static uint32_t slot_of(const struct run *r)
{
    return (uint32_t)(r->at / PT_ENTRIES);
}

// Pages of the range from here on that might be a run; count 0: not even the first.
static void run_at(space_t *space, vaddr_t va, frame_t *frame, uint64_t mfn, uint64_t pages,
                   struct run *r)
{
    struct pt_walk w;

    *r = (struct run){0};
    pt_walk(space, va, 1, &w);
    // The manager's own windows are not for callers to change.
    if (w.level != 1 || !frame ||
        (space == kernel_space() && va.v >= LAYOUT_BASE && va.v < VA_STACKS))
        return;
    r->frame = frame;
    r->word = frame_word(frame);
    // Order and level are 0, and the page is the block's head.
    if ((r->word & RUN_BELOW_MFN & ~(uint64_t)RUN_KIND) || frame->mfn != mfn ||
        !(RUN_KINDS & mm.wb_kinds & 1u << (r->word & RUN_KIND)))
        return;
    r->at = w.slot * PT_ENTRIES + w.index;
    r->count = MIN(PT_ENTRIES - w.index, FRAME_PAGE_COUNT - mfn % FRAME_PAGE_COUNT);
    r->count = MIN(r->count, pages);
}

/* --- mapping ---------------------------------------------------------------------------------- */

// Maps pages of the run, by the free records from `*head` on; how many.
static uint32_t map_pages(const struct run *r, uint32_t *head, pgentry_t bits, unsigned attr)
{
    uint64_t word = r->word, entry = bits + (word & ~(uint64_t)RUN_BELOW_MFN);
    uint32_t free = *head, tag = tag_of(1, attr), extent = extent_of(1, ORDER_4K, 0), i, next;
    frame_t *frame = r->frame;

    for (i = 0; i < r->count; i++, frame++, word += RUN_NEXT, entry += RUN_NEXT) {
        uint64_t at = r->at + i;

        if (*shadow_of(at) || inject_failure() || !frame_pin_once(frame))
            break;
        if (unlikely(frame_word(frame) != word || !list_front(frame, free, attr, &next))) {
            frame_unpin(frame, 1);
            break;
        }
        entry_write(at, record_new(&free, frame, next, at, tag, extent), entry);
    }
    *head = free;
    return i;
}

// Grows the arena of records so that `count` can be taken without using up the stock, if there is
// memory for it.
static void fill_records(uint32_t count)
{
    struct arena *a = &mm.arena[ARENA_MAPPINGS];

    while (a->free + mm.records.count < a->low + count && arena_grow(ARENA_MAPPINGS) == 0)
        ;
}

static uint32_t map_some(struct run *r, pgentry_t bits, unsigned attr)
{
    uint32_t done;

    if (!mm.records.count && !records_refill())
        return 0;
    r->count = MIN(r->count, mm.records.count);
    done = map_pages(r, &mm.records.head, bits, attr);
    mm.records.count -= done;
    table_at(slot_of(r))->used += done;
    return done;
}

uint64_t run_map(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages, unsigned attr)
{
    pgentry_t bits = attr <= VATTR_ALL ? mm.leaf_bits[0][attr] : 0;
    uint64_t done = 0, some;

    if (!bits || ((attr & VATTR_U) && space == kernel_space()))
        return 0;
    fill_records(MIN(pages, PT_ENTRIES));
    do {
        vaddr_t at = VADDR(va.v + (done << PAGE_SHIFT));
        struct run r;

        run_at(space, at, find_mfn_frame(MFN(mfn + done)), mfn + done, pages - done, &r);
        some = r.count ? map_some(&r, bits, attr) : 0;
        done += some;
    } while (some && done < pages);
    return done;
}

/* --- unmapping -------------------------------------------------------------------------------- */

// The only mapping of its frame, once, or one of several of which this one is there once.
static always_inline bool goes_with_one(const frame_t *frame, uint32_t index)
{
    const mapping_t *m = mapping_at(index);

    if (likely(frame->maps == index && frame->mapcount == 1))
        return true;
    return index && !(index & SHADOW_TABLE) && m->refs == 1 && !m->order && !m->offset;
}

// How many pages of the run are mapped where they belong, and would go with one reference.
static uint32_t check_pages(const struct run *r)
{
    const frame_t *frame = r->frame;
    uint64_t word = r->word;
    uint32_t i;

    for (i = 0; i < r->count; i++, frame++, word += RUN_NEXT)
        if (unlikely(frame_word(frame) != word || ((*entry_of(r->at + i) ^ word) & PG_ADDR) ||
                     !goes_with_one(frame, *shadow_of(r->at + i))))
            break;
    return i;
}

uint64_t run_check(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages)
{
    uint64_t done = 0, some;

    do {
        vaddr_t at = VADDR(va.v + (done << PAGE_SHIFT));
        struct run r;

        run_at(space, at, find_mfn_frame(MFN(mfn + done)), mfn + done, pages - done, &r);
        some = check_pages(&r);
        done += some;
    } while (some && done < pages);
    return done;
}

// Takes the run's entries away, and its records to the cache. The flush comes after all of them:
// until then map_lock keeps the shadows from being used, and the frames stay pinned.
static void clear_pages(const struct run *r)
{
    frame_t none = {.epoch = mm.epoch + 1}; // that of the flush; no mapping
    uint32_t head = mm.records.head;
    frame_t *frame = r->frame;

    for (uint32_t i = 0; i < r->count; i++, frame++) {
        uint64_t at = r->at + i;
        uint32_t index = *shadow_of(at);
        mapping_t *m = mapping_at(index);

        entry_clear(at);
        shadow_clear(at);
        if (likely(!*(words_t *)&m->next)) { // nor a previous one
            *(words_t *)&frame->maps = *(words_t *)&none.maps;
        } else {
            record_unlist(frame, m->next, m->prev);
            frame->epoch = none.epoch;
        }
        record_free_to(&head, m, index);
    }
    mm.records.head = head;
    mm.records.count += r->count;
}

bool run_unmap(space_t *space, vaddr_t va, uint64_t mfn, uint64_t pages)
{
    if (!tlb_release_run(mfn, pages))
        return false;
    for (uint64_t done = 0; done < pages;) {
        vaddr_t at = VADDR(va.v + (done << PAGE_SHIFT));
        struct run r;

        run_at(space, at, find_mfn_frame(MFN(mfn + done)), mfn + done, pages - done, &r);
        assert(r.count);
        if (unlikely(mm.records.count + r.count > RECORD_CACHE_MAX))
            records_spill();
        clear_pages(&r);
        table_at(slot_of(&r))->used -= r.count;
        tlb_gone(space, at, 1, r.count);
        pt_prune(slot_of(&r));
        done += r.count;
    }
    return true;
}
