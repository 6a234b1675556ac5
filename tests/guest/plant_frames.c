// SPDX-License-Identifier: BSD-2-Clause
// plant=A1 to A6: bugs in descriptors, rings and counts of frames.
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "tests/guest/plant.h"

static void unlink_frame(frame_t *frame)
{
    frame_at(frame->prev)->next = frame->next;
    frame_at(frame->next)->prev = frame->prev;
}

static void link_after(frame_t *frame, uint32_t at)
{
    frame->prev = at;
    frame->next = frame_at(at)->next;
    frame_at(frame->next)->prev = frame_index(frame);
    frame_at(at)->next = frame_index(frame);
}

// Forgotten in the ring, the counts and the tree alike.
void plant_a1(void)
{
    frame_t *frame = plant_frame(0);

    unlink_frame(frame);
    mm.order[0].used--;
    mm.order[0].refs--;
    memset(frame, 0, sizeof(*frame));
}

// The counts follow, so that only the place is wrong.
void plant_a2(void)
{
    frame_t *frame = plant_frame(0);

    unlink_frame(frame);
    mm.order[0].used--;
    mm.order[0].refs--;
    link_after(frame, frame_at(mm.order[1].head)->prev);
    mm.order[1].used++;
    mm.order[1].refs++;
}

// A link back that passes over a frame.
void plant_a3(void)
{
    frame_t *last = frame_at(frame_at(mm.order[0].head)->prev);

    assert(last->prev != mm.order[0].head);
    last->prev = frame_at(last->prev)->prev;
}

void plant_a4(void)
{
    mm.order[3].free++;
}

// Both put back, as an allocator would that forgets to look for the buddy.
static void put_unmerged(frame_t *frame)
{
    unlink_frame(frame);
    mm.order[0].used--;
    mm.order[0].refs--;
    frame->refcount = 0;
    link_after(frame, mm.order[0].head);
    mm.order[0].free++;
}

void plant_a5(void)
{
    frame_t *frame = plant_frame(0);
    frame_t *buddy = find_mfn_frame(MFN(frame->mfn ^ 1));

    // A block of order 1 that is split for the first gives its other half next.
    while (!buddy || buddy->order || buddy->kind != FRAME_AVAILABLE || !frame_is_free(buddy)) {
        frame = plant_frame(0);
        buddy = find_mfn_frame(MFN(frame->mfn ^ 1));
    }
    put_unmerged(frame);
}

void plant_a6(void)
{
    plant_frame(0)->kind = FRAME_ACPI;
}
