// SPDX-License-Identifier: BSD-2-Clause
// Memory types of mappings: what a frame gets when none is asked for, and what is refused.
#include "arch/x86/memtype.h"
#include "mm/arena_internal.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"

struct type_stretch type_wb;

// Whether the MTRRs say write-back of all the frame.
static bool is_write_back(const frame_t *frame)
{
    return (mm.wb_kinds >> frame->kind & 1) ||
           mtrr_range_type(&mtrr, frame_paddr(frame).v, frame_pages(frame) << PAGE_SHIFT) ==
               CACHE_WB;
}

unsigned type_settled(const frame_t *frame, unsigned attr)
{
    if (!(attr & (VATTR_TYPE | VATTR_WB)) && (frame->kind == FRAME_DEVICE || !is_write_back(frame)))
        attr |= VATTR_UC;
    return attr & ~(unsigned)VATTR_WB;
}

int type_check(const frame_t *frame, uint64_t offset, unsigned order, unsigned attr)
{
    enum memtype type = attr_type(attr);
    uint64_t start = (frame->mfn + offset) << PAGE_SHIFT;

    if (frame->kind == FRAME_DEVICE && type == MEMTYPE_WB)
        return -ETYPE;
    if (!(mm.wb_kinds >> frame->kind & 1) &&
        !memtype_holds(&mtrr, type, start, (uint64_t)PAGE_SIZE << order))
        return -ETYPE;
    return 0;
}

bool type_differs(const frame_t *frame, unsigned attr)
{
    return frame->maps && ((mapping_at(frame->maps)->attr ^ attr) & VATTR_TYPE);
}

// Above the fixed MTRRs, up to the last GiB before the first byte that is not write-back: no block
// lies across that end.
static void find_stretch(void)
{
    uint64_t start = UINT64_C(1) << 20, end = start;

    while (end < mtrr.limit && mtrr_type(&mtrr, end) == CACHE_WB)
        end = mtrr_next_change(&mtrr, end);
    end = MAX(ROUND_DOWN(end, UINT64_C(1) << 30), start);
    type_wb = (struct type_stretch){start >> PAGE_SHIFT, (end - start) >> PAGE_SHIFT};
}

uint32_t type_kinds(void)
{
    uint32_t kinds = ~(1u << FRAME_DEVICE);

    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];

        if (mtrr_range_type(&mtrr, r->start, r->end - r->start) != CACHE_WB)
            kinds &= ~(1u << (r->kind & 31));
    }
    return kinds;
}

void type_init(void)
{
    mm.wb_kinds = type_kinds();
    find_stretch();
}
