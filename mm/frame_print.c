// SPDX-License-Identifier: BSD-2-Clause
// The frames as the guest sees them itself: the table that ktf-frame shows, and every free block.
#include "lib/printk.h"
#include "mm/mm.h"

static uint32_t ring_next(uint32_t index)
{
    return frame_at(index)->next;
}

void mm_print(void)
{
    uint64_t pages[FRAME_KIND_COUNT] = {0};

    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        const struct order_list *list = &mm.order[order];

        if (list->free + list->used)
            printk("order %u: %u free, %u used\n", order, list->free, list->used);
        for (uint32_t i = ring_next(list->head); i != list->head; i = ring_next(i))
            if (!frame_is_free(frame_at(i)))
                pages[frame_at(i)->kind] += frame_pages(frame_at(i));
    }
    for (unsigned kind = 1; kind < FRAME_KIND_COUNT; kind++)
        if (pages[kind])
            printk("kind %s: %lu pages used\n", frame_kind_name(kind), pages[kind]);
}

void mm_print_free(void)
{
    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        uint32_t i = mm.order[order].last_free;

        for (uint32_t n = mm.order[order].free; n; n--, i = frame_at(i)->prev)
            printk("free order %u mfn 0x%lx\n", order, frame_mfn(frame_at(i)).v);
    }
}
