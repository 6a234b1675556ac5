// SPDX-License-Identifier: BSD-2-Clause
// What the planted bugs share.
#pragma once

#include "mm/table.h"
#include "mm/frame.h"
#include "mm/space.h"

/* A frame, a mapping, a user space; panics if there is none. */
frame_t *plant_frame(unsigned order);
void plant_map(space_t *space, vaddr_t va, frame_t *frame, unsigned attr);
space_t *plant_space(void);
/* Where the walk to va ends at that level. */
struct pt_walk plant_at(space_t *space, vaddr_t va, unsigned level);

/* Bugs in the frames themselves, plant_frames.c. */
void plant_a1(void);
void plant_a2(void);
void plant_a3(void);
void plant_a4(void);
void plant_a5(void);
void plant_a6(void);
