// SPDX-License-Identifier: BSD-2-Clause
// What the files of mm/ and the page-table code share among themselves. Not for callers.
#pragma once

#include "mm/table.h"
#include "arch/x86/spinlock.h"
#include "mm/inject.h"
#include "mm/journal.h"
#include "mm/mm.h"
#include "mm/vmap.h"

/* --- arena.c, arena_upkeep.c ------------------------------------------------------------------  */

enum {
    STOCK_FRAME_PAGES = 6, // a split needs two pages of descriptors at most
    STOCK_NODES = 1,
    STOCK_MAPPINGS = 56, // a split mapping needs up to 20 records, its tables some more
    STOCK_SLOTS = 10,    // RESERVE_SLOTS, and the tables of one address in 5 levels, roots apart
    STOCK_TABLES = 8,    // empty ones, at most after each operation
    // Of it callers leave so much, however short memory is: without it no arena could grow any
    // more when memory comes back, for growing needs frames, records and tables itself.
    RESERVE_FRAME_PAGES = 2,
    // get_frame() leaves so much more, for the tables of an operation on another CPU.
    RESERVE_OPERATION = 2,
    RESERVE_NODES = 1,
    RESERVE_MAPPINGS = 8,
    RESERVE_SLOTS = 6,
};

/* How much of a reserve must stay: nothing for the CPU that lets the arenas grow. */
static inline uint32_t reserve(uint32_t count)
{
    return mm.busy && (!mm.live || spin_held(&mm.map_lock)) ? 0 : count;
}

void arena_setup(void);
/* One more page (nodes: two). -ENOMEM. */
int arena_grow(enum arena_id id) must_check;
/* Unmaps the last page. */
void arena_shrink(enum arena_id id);
/* An object, all zero; its index, 0 if there is none. Frames, mappings, spaces and nodes. */
uint32_t arena_alloc(enum arena_id id);
void arena_free(enum arena_id id, uint32_t index);
/* --- the cache of records: map_lock is held --------------------------------------------------- */

/* The free records of a page move to the cache, which is empty; a reserve stays. False if there are
 * no more. */
bool records_refill(void);
/* The same for a cache that shall hold at least `count`. */
bool records_fill(uint32_t count);
/* All of the cache goes back to its pages. */
void records_spill(void);
/* Takes the first; there is one. */
static always_inline uint32_t record_take(void)
{
    uint32_t index = mm.records.head;

    mm.records.head = mapping_at(index)->at;
    mapping_at(index)->at = 0;
    mm.records.count--;
    return index;
}

/* Puts m, which is record `index` and on no list, before the free ones from *head on. The caller
 * counts it. */
static always_inline void record_free_to(uint32_t *head, mapping_t *m, uint32_t index)
{
    *m = (mapping_t){.at = *head};
    *head = index;
}

/* Puts it into the cache, where there is room. */
static always_inline void record_put(mapping_t *m, uint32_t index)
{
    mm.records.count++; // not beside the head: the two would be put together to be stored at once
    record_free_to(&mm.records.head, m, index);
}

void record_free_slow(uint32_t index);

/* arena_free() of a record. */
static always_inline void record_free(uint32_t index)
{
    if (likely(mm.records.count < RECORD_CACHE_MAX && !mm.busy))
        record_put(mapping_at(index), index);
    else
        record_free_slow(index);
}

/* 2^order more pages at once, of an arena that hands out none of them: TABLES, SHADOWS. Once
 * mm.live. -ENOMEM: not at once. */
int arena_grow_pages(enum arena_id id, unsigned order) must_check;
/* Table slots, `want` or two of them; two fewer if `keep` stay free. table.c has them. */
int slots_grow(uint32_t want) must_check;
bool slots_trim(uint32_t keep);
/* A page of 128 zero descriptors: index of its first, 0 if there is none. */
uint32_t frame_page_alloc(void);
void frame_page_free(uint32_t index);
/* Refills what is short, gives back what is too much. Does nothing while it is running already.
 * Holds map_lock, not frame_lock. */
void mm_upkeep(void);
/* The same for a caller without locks; nothing if another CPU has map_lock, and so will do it. */
void upkeep_try(void);
/* Fills the arenas FRAMES and NODES up to that many free pages and nodes. No locks. False if there
 * is no memory. */
bool arenas_fill(uint32_t pages, uint32_t nodes);

// map_lock is held.
static inline void upkeep(void)
{
    if (unlikely(mm.work))
        mm_upkeep();
}

// No lock is held.
static inline void upkeep_unlocked(void)
{
    if (unlikely(mm.work))
        upkeep_try();
}

static inline void work_add(uint32_t work)
{
    __atomic_or_fetch(&mm.work, work, __ATOMIC_RELAXED);
}

/* --- table_flush.c ------------------------------------------------------------------------------ */

enum {
    TLB_SPINS = 100, // then whoever waits for the others halts
};
#define TLB_TICKS_MAX (UINT64_C(1) << 36) // of the TSC: about half a minute

/* `count` entries of that level from va on were cleared or changed: flushed on this CPU now, on
 * others by tlb_commit(). */
void tlb_gone(const space_t *space, vaddr_t va, unsigned level, uint64_t count);
/* The record is on no list any more; tlb_commit() takes its refs off the frame's mapcount and frees
 * it. */
void tlb_release(frame_t *frame, uint32_t index);
/* The same for the only mapping, or one of several, of `pages` blocks of order 0 from mfn on, whose
 * records are gone already: each frame loses one of its mapcount. False if no more can be noted. */
bool tlb_release_run(uint64_t mfn, uint64_t pages) must_check;
/* Flushes what a round asks this CPU for, if anything: mm_init() makes it tlb_answer(). */
void shootdown_answer(void);
/* One round of shootdown for all that is pending; then the releases. */
void tlb_commit(void);
/* One round for one page; nothing else may be pending. */
void tlb_ask_page(uint64_t cpus, vaddr_t va, uint32_t epoch);

static inline void map_lock(void)
{
    spin_lock(&mm.map_lock);
}

/* Flushes what is pending, does what upkeep there is, and unlocks. */
void map_unlock(void);
/* An operation has ended, no lock of mm/ is held: with mm_check_every() every n-th is followed by a
 * check. */
void check_count(void);

static inline void frame_lock(void)
{
    spin_lock(&mm.frame_lock);
}

static inline void frame_unlock(void)
{
    spin_unlock(&mm.frame_lock);
}

/* --- tree.c ----------------------------------------------------------------------------------- */

/* Makes the root. Boot only. -ENOMEM. */
int tree_setup(void) must_check;
/* Makes every node (and page of descriptors) that a block at mfn needs. -ENOMEM: some may have been
 * made. */
int tree_prepare(uint64_t mfn, unsigned order) must_check;
/* Lets the tree lead to block `index` (order >= FRAME_PAGE_ORDER) from all of its pages; 0: to
 * nothing. */
void tree_set(uint64_t mfn, unsigned order, uint32_t index);
/* The same to the page of descriptors that starts with `index`. */
void tree_set_page(uint64_t mfn, uint32_t index);
/* Index of the descriptor of that page, in a page of descriptors; 0 if there is no such page. */
uint32_t tree_page_descriptor(uint64_t mfn);
/* Splits the 2^NODE_ORDER pages at mfn from one block into a node whose entries all lead to it. A
 * node must be in stock. */
void tree_split(uint64_t mfn, uint32_t index);
/* Back to one entry. */
void tree_merge(uint64_t mfn, uint32_t index);
/* Frees page of descriptors and nodes at mfn if nothing is left in them. */
void tree_prune(uint64_t mfn);
/* True if any frame lies in those pages. */
bool tree_occupied(uint64_t mfn, unsigned order);

/* --- block.c: frame_lock is held -------------------------------------------------------------- */

/* The smallest order from `order` on with a free block; above ORDER_MAX if there is none. */
unsigned block_free_order(unsigned order) must_check;
/* A block of that order and kind with refcount 1; NULL if there is none, or if splitting a larger
 * one would leave fewer than `kept` pages of descriptors. */
frame_t *block_take(unsigned order, enum frame_kind kind, unsigned kept);
/* The block, just taken and smaller than FRAME_PAGE_ORDER, becomes blocks of order 0 like it. */
void block_shatter(frame_t *frame);
/* Gives back a block whose counts are both 0 now. */
void block_release(frame_t *frame);
/* Registers a new block. refcount 0: it is free. -ENOMEM. */
int frame_create(uint64_t mfn, unsigned order, enum frame_kind kind, uint32_t refcount) must_check;
/* Gives the free block (order >= FRAME_PAGE_ORDER) described at `from` the descriptor `to`, which
 * is zero. */
void frame_move(uint32_t from, uint32_t to);

/* --- frame.c ---------------------------------------------------------------------------------- */

/* A free block of that order with refcount 1 and that kind, for the manager itself; NULL if there
 * is none. No upkeep. */
frame_t *frame_take(unsigned order, enum frame_kind kind);
/* Drops a reference without questions or upkeep. */
void frame_drop(frame_t *frame);
/* refcount in the lower half, mapcount in the upper half: one word, so that exactly one CPU sees
 * both at 0. It becomes 0, and leaves 0, only under frame_lock. */
enum {
    COUNT_MAP_SHIFT = 32,
};
typedef uint64_t __attribute__((may_alias)) frame_counts_t;

static always_inline frame_counts_t *frame_counts_at(frame_t *frame)
{
    return (frame_counts_t *)&frame->refcount;
}

/* A free frame gets its first references. From here on another CPU may pin it, so the rest of the
 * descriptor stands already. */
static always_inline void frame_publish(frame_t *frame, uint32_t refs)
{
    __atomic_store_n(&frame->refcount, refs, __ATOMIC_RELEASE);
}

/* mapcount + more, if the frame is in use; else false. From then on its descriptor stays as it is,
 * whoever puts the frame. The count has room. map_lock is held. */
static always_inline bool frame_pin(frame_t *frame, uint32_t more)
{
    frame_counts_t *at = frame_counts_at(frame);
    uint64_t old = __atomic_load_n(at, __ATOMIC_RELAXED);

    do {
        if (unlikely(!old))
            return false;
    } while (
        unlikely(!__atomic_compare_exchange_n(at, &old, old + ((uint64_t)more << COUNT_MAP_SHIFT),
                                              false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)));
    return true;
}

/* mapcount - less: both counts then. 0: that would free the frame, and nothing is done. map_lock is
 * held. */
static always_inline uint64_t frame_unpin_shared(frame_t *frame, uint64_t less)
{
    uint64_t old = frame_counts(frame), new;

    do {
        new = old - (less << COUNT_MAP_SHIFT);
        if (unlikely(!new))
            return 0;
    } while (unlikely(!__atomic_compare_exchange_n(frame_counts_at(frame), &old, new, false,
                                                   __ATOMIC_RELEASE, __ATOMIC_RELAXED)));
    return new;
}

/* The same; a frame with both counts 0 is free then. */
void frame_unpin(frame_t *frame, uint32_t less);

/* --- mapping.c -------------------------------------------------------------------------------- */

/* Puts record m at the front of the frame's list, or takes it off; mapcount follows by m->refs. */
void mapping_link(frame_t *frame, uint32_t index);
void mapping_unlink(frame_t *frame, uint32_t index);
/* Makes a new mapping of pages [offset, offset + 2^order) by entries of that level. All arguments
 * are valid; -EEXIST, -ELARGE, -ETABLE, -ENOMEM: nothing changed. */
int mapping_create(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
                   unsigned level, unsigned attr) must_check;
/* Takes all its entries away, and tables that became empty. The record and the mapcount go with
 * tlb_commit(), and the frame may be free then. */
void mapping_destroy(space_t *space, frame_t *frame, uint32_t index);
/* Writes its entries anew with m->attr changed to attr. */
void mapping_set_attr(space_t *space, frame_t *frame, uint32_t index, unsigned attr);
/* Shadow entries of m, from its page `first` on, `count` pages, now hold `index`. */
void mapping_set_shadow(space_t *space, vaddr_t va, unsigned level, unsigned order, uint32_t index);

/* --- split.c ---------------------------------------------------------------------------------- */

/* Splits record `index` until one covers exactly pages [offset, offset + 2^order): that one is
 * returned in *out. -ENOMEM: as before. */
int mapping_split(space_t *space, frame_t *frame, uint32_t index, uint64_t offset, unsigned order,
                  uint32_t *out) must_check;
/* Merges the record with its neighbours as far as they are alike and came from one mapping. */
void mapping_merge(space_t *space, frame_t *frame, uint32_t index);

/* Those of vmap.h without _locked, for callers that hold map_lock. */
int vmap_lookup_locked(space_t *space, vaddr_t va, struct vlookup *out) must_check;
int vmap_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
                     unsigned attr) must_check;
int vput_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                     unsigned order) must_check;
int vunmap_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                       unsigned order) must_check;
int vprotect_whole(space_t *space, vaddr_t va, frame_t *frame, unsigned attr) must_check;
int vprotect_part_locked(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                         unsigned order, unsigned attr) must_check;

/* --- own.c ------------------------------------------------------------------------------------ */

/* 2^order pages for the manager, each a frame of its own, mapped writable from va on in the
 * kernel's space, all zero: the descriptor of the first, the others stand behind it. The addresses
 * lie in one table that stands, and are free. mm.live, map_lock is held. NULL: no memory, or no
 * such table. */
frame_t *own_pages(vaddr_t va, unsigned order, enum frame_kind kind);

/* --- recent.c --------------------------------------------------------------------------------- */

/* The number of va's entry among those of all slots, in its table of that level, which the fast
 * path finds by itself the next time. The space is live; any address, 0 if there is no such table
 * for callers. `make`: one that only lacks itself is made, empty, if there is memory: something is
 * mapped in it next, or it is pruned. */
uint32_t recent_at(space_t *space, vaddr_t va, unsigned level, bool make);
/* Frees the table for va if nothing is in it. */
void recent_prune(space_t *space, vaddr_t va, unsigned level);

/* --- vmap.c ----------------------------------------------------------------------------------- */

/* vmap of a whole block by entries of that level (0: the largest that fit), vput and vunmap of it:
 * the general code. */
int vmap_pages(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
               unsigned attr) must_check;
int vput_whole(space_t *space, vaddr_t va, frame_t *frame, bool all) must_check;
/* 0 if all of the part is mapped at va: the errors of vput(). */
int vmap_check_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                    unsigned order) must_check;
/* Gives the part, which is mapped at va, records of its own; or merges them again. */
int vmap_split_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset,
                    unsigned order) must_check;
void vmap_merge_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order);
/* vmap_part(), vput_part() and (all) vunmap_part() for a piece of a range. Its records merge with
 * no others yet, so that what follows, or takes it back, needs no memory for splitting them again.
 * Sets *apart if there is something left that might merge. word: the descriptor's when the piece
 * was chosen. */
int vmap_apart(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
               unsigned attr, bool *apart, uint64_t word) must_check;
int vput_apart(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
               bool all, bool *apart) must_check;

/* --- types.c ---------------------------------------------------------------------------------- */

/* Whether it is a part of the kernel's image, which ring 3 must not write. */
static inline bool is_image(unsigned kind)
{
    return kind >= FRAME_IMAGE && kind <= FRAME_BSS;
}

/* What mm.leaf_bits holds for that level, 1 or 2, and enum vattr. */
static inline pgentry_t leaf_bits_of(unsigned level, unsigned attr)
{
    bool allowed = (attr >> VATTR_TYPE_SHIFT) < MEMTYPE_COUNT &&
                   (attr & (VATTR_W | VATTR_X)) != (VATTR_W | VATTR_X);

    return allowed ? pgentry_leaf(MFN(0), level, attr) : 0;
}

static inline enum memtype attr_type(unsigned attr)
{
    return (enum memtype)((attr & VATTR_TYPE) >> VATTR_TYPE_SHIFT);
}

// Pages that are write-back by the MTRRs, most of memory. A block that starts there ends there.
struct type_stretch {
    uint64_t first; // number of the first
    uint64_t pages;
};
extern struct type_stretch type_wb;

/* mm.wb_kinds and type_wb, from the regions and the MTRRs. */
void type_init(void);
/* mm.wb_kinds as it should be: the kinds of the boot map that are write-back by the MTRRs. Device
 * frames are looked at one by one. */
uint32_t type_kinds(void);
/* The attributes as a record holds them: with the frame's own type if none is asked for. */
unsigned type_settled(const frame_t *frame, unsigned attr);
/* -ETYPE if device memory is to be write-back, or if the MTRRs make another type of it. */
int type_check(const frame_t *frame, uint64_t offset, unsigned order, unsigned attr) must_check;
/* True if the frame's other mappings have another type. */
bool type_differs(const frame_t *frame, unsigned attr);

/* --- space.c ---------------------------------------------------------------------------------- */

/* True if it is the address of a live space, whatever pointer it is. */
bool space_is_live(const space_t *space);
/* The kernel's space has the upper half (and the manager's windows, wherever they are); a user one
 * the lower. */
bool space_has(const space_t *space, vaddr_t va);
/* The kernel's space, not yet with a root table. Boot only. */
space_t *space_setup_kernel(void);
