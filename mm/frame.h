// SPDX-License-Identifier: BSD-2-Clause
// Frames: descriptors of naturally aligned blocks of physical memory, and who uses them.
#pragma once

#include "lib/error.h"
#include "lib/types.h"

// What a frame is. Only FRAME_AVAILABLE is ever handed out; a handed-out frame that became a page
// table or metadata carries that kind until it goes back.
enum frame_kind {
    FRAME_NONE = 0,      // not a frame's head: a tail, or a hole of the physical address space
    FRAME_AVAILABLE = 1, // memory that get_frame() hands out
    FRAME_TABLE = 2,     // available memory in use as a page table; its level is in `level`
    FRAME_METADATA = 3,  // available memory in use for descriptors, records, address spaces
    FRAME_RESERVED = 4,  // the boot map says: reserved
    FRAME_ACPI = 5,      // ACPI tables
    FRAME_NVS = 6,       // ACPI non-volatile storage
    FRAME_BAD = 7,       // defective memory
    FRAME_BOOT = 8,      // boot data: multiboot information and modules
    FRAME_IMAGE = 9,     // kernel image, boot code and boot page tables
    FRAME_TEXT = 10,     // kernel image, per section
    FRAME_RODATA = 11,
    FRAME_DATA = 12,
    FRAME_BSS = 13,
    FRAME_LOW = 14,    // usable memory below 1 MiB, kept for starting CPUs
    FRAME_DEVICE = 15, // device memory outside the boot map, made on demand
    FRAME_KIND_COUNT = 16,
};

// Invariant: a descriptor with kind != FRAME_NONE is the head of one block of 2^order pages whose
// first page is mfn, a multiple of 2^order. It hangs in the ring of its order, free ones first. It
// is free exactly if refcount == 0 and mapcount == 0. mapcount is the sum of the refs of the
// mappings on its list. For blocks below order FRAME_PAGE_ORDER the descriptors of the other pages
// are tails: kind FRAME_NONE, tail = pages back to the head, all else 0. The descriptor of a page
// in no frame is 0 throughout.
typedef struct frame {
    uint64_t kind : 4;  // enum frame_kind
    uint64_t order : 5; // log2 of the number of pages
    uint64_t level : 3; // FRAME_TABLE: level of the table, 1 (maps 4K pages) to 5
    uint64_t mfn : 40;  // number of the block's first page
    uint64_t zero : 5;  // always 0
    uint64_t tail : 7;  // pages from the block's head to this one; 0 is the head
    uint32_t next;      // index of the next frame of this order, see frame_at()
    uint32_t prev;
    uint32_t refcount; // who owns it
    uint32_t mapcount; // where it is mapped: the sum of refs
    uint32_t maps;     // index of its first mapping, 0 if none
    union {
        uint32_t slot;  // FRAME_TABLE: its slot in the window
        uint32_t epoch; // else: of its last unmap
    };
} frame_t;
_Static_assert(sizeof(frame_t) == 32, "contract: at most 32 bytes a descriptor");

enum {
    FRAME_PAGE_ORDER = 7, // blocks below this order share a page of 2^7 descriptors, one per page
    FRAME_PAGE_COUNT = 1 << FRAME_PAGE_ORDER,
};

/* Takes a free block of 2^order pages: refcount 1, mapcount 0. The caller owns that reference and
 * gives it back by put_frame().
 *   -EINVAL     out is NULL
 *   -EORDER     order above ORDER_MAX
 *   -ENOMEM     no block as large is free */
int get_frame(unsigned order, frame_t **out) must_check;

/* One more owner of a frame in use.
 *   -EINVAL     NULL
 *   -EUNKNOWN   not the descriptor of a frame
 *   -EFREE      the frame is free
 *   -EOVERFLOW  the count is full */
int ref_frame(frame_t *frame) must_check;

/* One owner less. At refcount 0 and mapcount 0 the block is free at once and merges with its buddy;
 * `frame` must not be used afterwards. A mapped frame stays in use until its last mapping goes.
 *   -EINVAL, -EUNKNOWN  as above
 *   -EFREE      refcount is 0 already
 *   -ERESERVED  the last reference of memory that was never handed out */
int put_frame(frame_t *frame);

/* The frame of 2^order pages of device memory at paddr, which the boot map does not list. It is
 * made if it is not there, else counted up. It goes away with its last reference and mapping.
 *   -EINVAL     out is NULL
 *   -EORDER     order above ORDER_MAX
 *   -EALIGN     paddr is no multiple of the size
 *   -EBEYOND    past the CPU's physical addresses
 *   -EEXIST     other frames lie there
 *   -ENOMEM     no memory for the descriptor */
int get_device_frame(paddr_t paddr, unsigned order, frame_t **out) must_check;

/* The frame (the block's head) that holds this page or byte, NULL if none does. Constant time.
 * No lock is taken: if the caller does not hold the frame, the answer may be out of date when it
 * arrives. Then ref_frame(), and look again. */
frame_t *find_mfn_frame(mfn_t mfn);
frame_t *find_paddr_frame(paddr_t paddr);
/* The frame mapped at that address of the kernel's space, NULL if nothing is mapped there. */
frame_t *find_kern_va_frame(const void *va);

static inline mfn_t frame_mfn(const frame_t *frame)
{
    return MFN(frame->mfn);
}

static inline paddr_t frame_paddr(const frame_t *frame)
{
    return PADDR(frame->mfn << PAGE_SHIFT);
}

static inline uint64_t frame_pages(const frame_t *frame)
{
    return UINT64_C(1) << frame->order;
}

/* True if neither owned nor mapped. */
static inline bool frame_is_free(const frame_t *frame)
{
    return (frame->refcount | frame->mapcount) == 0;
}

/* 0 if `frame` is the head of a known frame, in use; else -EINVAL, -EUNKNOWN, -EFREE. Any pointer
 * may be given; it is not followed unless it points into the descriptors. */
int frame_usable(const frame_t *frame);

/* Its name: "available", "table", ... "?" for a number that is no kind. */
const char *frame_kind_name(unsigned kind);

/* Number of pages in free blocks. */
uint64_t mm_free_pages(void);
/* Number of free / used blocks of that order (0 to ORDER_MAX). */
uint32_t mm_free_blocks(unsigned order);
uint32_t mm_used_blocks(unsigned order);
