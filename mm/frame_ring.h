// SPDX-License-Identifier: BSD-2-Clause
// The rings, one an order: head -> free ones -> used ones -> head. frame_lock is held.
#pragma once

#include "mm/mm.h"

static always_inline void ring_insert(frame_t *before, uint32_t at, frame_t *frame, uint32_t index)
{
    uint32_t next = before->next;

    frame->prev = at;
    frame->next = next;
    frame_at(next)->prev = index;
    before->next = index;
}

static always_inline void ring_insert_after(uint32_t at, frame_t *frame)
{
    ring_insert(frame_at(at), at, frame, frame_index(frame));
}

static always_inline void ring_remove(frame_t *frame)
{
    frame_at(frame->prev)->next = frame->next;
    frame_at(frame->next)->prev = frame->prev;
}

// Behind the last free one: the next to be handed out.
static always_inline void ring_add_free(frame_t *frame)
{
    struct order_list *list = &mm.order[frame->order];

    ring_insert_after(list->last_free, frame);
    list->last_free = frame_index(frame);
    list->free++;
}

static always_inline void ring_remove_free(frame_t *frame)
{
    struct order_list *list = &mm.order[frame->order];

    if (list->last_free == frame_index(frame))
        list->last_free = frame->prev;
    ring_remove(frame);
    list->free--;
}

// The last free one becomes the first used one where it stands.
static always_inline frame_t *ring_use_last(struct order_list *list)
{
    frame_t *frame = frame_at(list->last_free);

    list->last_free = frame->prev;
    list->free--;
    list->used++;
    return frame;
}

static always_inline void ring_add_used(frame_t *frame)
{
    struct order_list *list = &mm.order[frame->order];

    ring_insert_after(frame_at(list->head)->prev, frame);
    list->used++;
}
