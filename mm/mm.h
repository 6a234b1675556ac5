// SPDX-License-Identifier: BSD-2-Clause
// The memory manager as a whole: its one root object, start-up, self-check.
#pragma once

#include "arch/x86/layout.h"
#include "arch/x86/spinlock.h"
#include "boot/bootinfo.h"
#include "mm/arena.h"
#include "mm/frame.h"
#include "mm/mapping.h"
#include "mm/space.h"

// A node of the tree that leads from an mfn to its frame. The root is nodes 0 and 1, an entry per
// 512 MiB of the first TiB (mfn bits 17 to 27). Above it node mm.high_node[mfn >> 37], made when
// needed, has one per 512 GiB (bits 27 to 36), each of which leads to a node with an entry per 512
// MiB. The nodes below have an entry per 512 KiB (bits 7 to 16).
//
// An entry is 0 (nothing there), the index of the frame whose block covers all of it, or, with
// NODE_BELOW set, an address from which a look-up goes on without masks: where the entries of the
// node below cover 2^n pages each, that for page mfn stands at 8 * (mfn >> n) from it; below the
// lowest nodes page mfn's descriptor stands at 32 * mfn from it.
enum {
    NODE_SHIFT = 10,
    NODE_ENTRIES = 1 << NODE_SHIFT,
    NODE_ROOTS = 2,
    NODE_ORDER = FRAME_PAGE_ORDER + NODE_SHIFT,    // pages of a lowest node: 512 MiB
    NODE_HIGH_ORDER = NODE_ORDER + NODE_SHIFT,     // pages of an entry of a high node: 512 GiB
    NODE_TOP_ORDER = NODE_HIGH_ORDER + NODE_SHIFT, // pages of a high node: 512 TiB
    NODE_MFN_BITS = 40,
    NODE_HIGH_COUNT = 1 << (NODE_MFN_BITS - NODE_TOP_ORDER),
};
#define NODE_BELOW (UINT64_C(1) << 63) // addresses of the kernel have it anyway; host tests add it

struct frame_node {
    uint64_t entry[NODE_ENTRIES];
};

// A stretch of physical memory of one kind, page-aligned, as the sanitized boot map has it. Sorted,
// no overlap.
struct region {
    uint64_t start; // bytes, [start, end)
    uint64_t end;
    uint32_t kind; // enum frame_kind, as at boot
    uint32_t zero;
};

enum {
    TLB_BATCH_PAGES = 32,               // more than this: the whole TLB is cheaper
    TLB_BATCH_RUNS = 32,                // of a range; what is beyond is released one by one
    RECORD_CACHE_MAX = 8192,            // of 20 bytes
    REGION_MAX = 4 * BOOT_MEM_MAX + 64, // an unaligned entry has four ends
};

// All blocks of one order, used and free alike, in one ring: head -> free ones -> used ones ->
// head.
struct order_list {
    uint32_t head; // index of the ring's head, a descriptor that is no frame: order + 1
    uint32_t free; // blocks with refcount and mapcount 0
    uint32_t used;
    uint32_t last_free; // index of the last free one, the head if there is none
    uint64_t refs;      // sum of refcount
    uint64_t zero;      // a list is found by a shift
};

// Records that were given back and are the next to be taken, linked by `at`, all else in them 0.
// For their pages (struct arena_page) they are in use. Guarded by map_lock.
struct record_cache {
    uint32_t head;  // index of the first, 0 if there is none
    uint32_t count; // RECORD_CACHE_MAX at most
};

// Consecutive frames of order 0 that lose one of their mapcount each.
struct tlb_run {
    uint64_t mfn;
    uint64_t pages;
};

// Entries that were taken away or changed and are still to be flushed by other CPUs, and what may
// only be released then. Guarded by map_lock; other CPUs read it while they are asked to flush.
struct tlb_batch {
    uint32_t pending; // 1 if there is anything
    uint32_t all;     // 1: too many pages, or whole tables: flush everything
    uint32_t count;   // of va[]
    uint32_t tables;  // slot of the first empty table that goes to the stock, linked by parent
    uint32_t zero;
    uint32_t records; // index of the first record to be freed, linked by `next`; `prev` is the
                      // index of its frame, which loses `refs` mappings
    uint64_t cpus;    // who may hold any of it
    uint64_t va[TLB_BATCH_PAGES];
    uint64_t runs; // of run[]
    struct tlb_run run[TLB_BATCH_RUNS];
};

// What the memory manager keeps of a CPU. B1: no frame is free whose epoch lies in
// (flushed, asked]. Epochs count up and wrap around.
struct mm_cpu {
    uint32_t online;  // 1 from when it can be asked to flush
    uint32_t space;   // index of the space in its CR3
    uint32_t asked;   // the unmap epoch up to which it was asked to flush
    uint32_t flushed; // the one up to which it has
};

#define MM_MAGIC UINT64_C(0x314d4d2d46544b00) // "\0KTF-MM1", little-endian

enum mm_work {
    MM_GROW = 1,  // some arena has less in stock than its `low`
    MM_TRIM = 2,  // some arena may have more than it needs
    MM_CHECK = 4, // operations are counted for mm_check_every(); always set then
    MM_WORK = MM_GROW | MM_TRIM | MM_CHECK,
};

// Everything hangs on this one object; the debugger starts here.
//
// Lock order: map_lock (rank 1), then frame_lock (rank 2). map_lock guards page tables, shadows,
// records, the frames' lists of mappings, mapcount (written atomically, see frame.h), spaces, the
// arenas MAPPINGS, TABLES, SHADOWS and SPACES, and which pages any arena has. frame_lock guards
// rings, the mfn tree, refcount, the zero of both counts, and the arenas FRAMES and NODES. Taking
// or putting a frame needs frame_lock alone.
struct mm {
    uint64_t magic; // MM_MAGIC once the frames exist
    struct spinlock map_lock;
    struct spinlock frame_lock;
    struct arena arena[ARENA_COUNT];
    struct order_list order[ORDER_COUNT];
    struct record_cache records;
    uint32_t high_node[NODE_HIGH_COUNT]; // indexes of the nodes above 1 TiB, 0 while not needed
    uint32_t space_list;                 // index of the kernel's space, first of all live ones
    uint32_t free_slot;                  // first free table slot, 0 if none
    uint32_t
        slot_count; // slots that have a shadow and a struct table; slot 0 counts but is never used
    uint32_t free_slots;  // of them free
    uint32_t stock_slot;  // first of those whose table is empty and in stock, 0 if none
    uint32_t stock_count; // of them
    uint32_t next_space;  // id of the next space to be made
    uint32_t live;        // 1 once the final page tables are loaded
    uint32_t busy;        // 1 while upkeep runs, so that it does not nest
    uint32_t check_every; // operations, 0: not at all
    uint32_t operations;  // counted for check_every
    uint32_t checking;    // 1 while a CPU checks for that reason
    uint32_t work;        // MM_GROW, MM_TRIM: what upkeep has to do; written atomically
    uint32_t root_ready;  // 1 once the kernel's space can map
    uint64_t window;      // VA_WINDOW, for the debugger
    uint64_t phys_limit;  // first byte beyond the CPU's physical addresses (MAXPHYADDR)
    uint32_t levels;      // of the page tables: 4 or 5
    uint32_t page_1g;     // 1 if the CPU has 1 GiB pages
    uint32_t epoch;       // of the last unmap, counts up
    uint32_t region_count;
    uint64_t boot_ticks;  // of the TSC, from the boot map to the last frame
    uint32_t wb_kinds;    // bit (1 << enum frame_kind): of all such frames the MTRRs say write-back
    uint32_t boot_pages;  // sum of arena[].boot
    uint64_t frame_limit; // descriptors that the window shows: indexes below this
    uint64_t journal_seq; // number of the journal's next event (mm/journal.h)
    uint32_t journal_on;  // 1: what is done is written there
    uint32_t zero2;
    uint64_t leaf_bits[2][64]; // by level - 1 and enum vattr: the entry without its address, 0 if
                               // not allowed
    struct tlb_batch batch;
    struct mm_cpu cpu[CPU_MAX];
    struct region region[REGION_MAX];
};

extern struct mm mm;

// Physical address of the kernel's root table, for a debugger that finds something else in CR3.
extern uint64_t kernel_cr3;

/* Builds everything from the boot map: frames, records, the kernel's address space with its image,
 * boot data and the manager's own memory mapped through their frames; then loads CR3. Called once.
 * image: the image's parts with their kinds, page-aligned; they are not copied. Every part but
 * FRAME_IMAGE is mapped at VA_IMAGE + its start, with the rights of its kind. Prints what is odd in
 * the map. Panics if the map has no room for the manager itself. */
void mm_init(const struct boot_info *bi, const struct region *image, unsigned parts);

/* Gives back every page that arenas hold in stock above their least. Tests call it before they
 * count free frames. */
void mm_trim(void);

// Nonzero: no other CPU is asked to flush. For tests of the tests.
extern uint32_t tlb_broken;

/* Checks the rules of docs/invariants.md that the guest can see itself, prints each violation.
 * Returns how many there are. */
int mm_check(void);

// Of the last such check's violations the first one's rule, NULL if there was none. For tests of
// the check.
extern const char *mm_check_rule;

/* From now on the same, kmalloc's objects left out, after every n-th operation that took a lock; 0:
 * no more. Panics if a rule is broken. */
void mm_check_every(uint32_t n);

/* Prints the blocks by order and kind (the table that ktf-frame shows). */
void mm_print(void);
/* Prints every free block, a line each: `free order O mfn 0xM`, in the order in which they would be
 * handed out. */
void mm_print_free(void);

/* The object with that index. No check. */
static inline frame_t *frame_at(uint32_t index)
{
    return (frame_t *)(uintptr_t)VA_FRAMES + index;
}

/* The index of whatever pointer it is: mm.frame_limit or more if no descriptor stands there. */
static inline uint64_t frame_number(const frame_t *frame)
{
    uint64_t byte = (uintptr_t)frame - (uintptr_t)VA_FRAMES;

    return byte / sizeof(frame_t) | byte << (64 - 5); // rotated: odd bytes make it huge
}

static inline uint32_t frame_index(const frame_t *frame)
{
    return (uint32_t)(frame - (const frame_t *)(uintptr_t)VA_FRAMES);
}

static inline mapping_t *mapping_at(uint32_t index)
{
    return (mapping_t *)(uintptr_t)(VA_MAPPINGS + (uint64_t)index * 4);
}

static inline uint32_t mapping_index(const mapping_t *m)
{
    return (uint32_t)(((uintptr_t)m - VA_MAPPINGS) / 4);
}

static inline struct frame_node *node_at(uint32_t index)
{
    return (struct frame_node *)(uintptr_t)VA_NODES + index;
}

static inline space_t *space_at(uint32_t index)
{
    return (space_t *)(uintptr_t)VA_SPACES + index;
}

static inline uint32_t space_index(const space_t *space)
{
    return (uint32_t)(space - (const space_t *)(uintptr_t)VA_SPACES);
}
