// SPDX-License-Identifier: BSD-2-Clause
// The forms of vmap: for the kernel's space and for user ones, by pages of any or of one size.
#include "mm/internal.h"
#include "mm/vmap.h"

int vmap(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return vmap_pages(space, va, frame, 0, attr);
}

int vmap_1g(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return vmap_pages(space, va, frame, 3, attr);
}

int vmap_kern(vaddr_t va, frame_t *frame, unsigned attr)
{
    return vmap_pages(NULL, va, frame, 0, attr);
}

int vmap_kern_4k(vaddr_t va, frame_t *frame, unsigned attr)
{
    return vmap_4k(NULL, va, frame, attr);
}

int vmap_kern_2m(vaddr_t va, frame_t *frame, unsigned attr)
{
    return vmap_2m(NULL, va, frame, attr);
}

int vmap_kern_1g(vaddr_t va, frame_t *frame, unsigned attr)
{
    return vmap_pages(NULL, va, frame, 3, attr);
}

static int map_user(space_t *space, vaddr_t va, frame_t *frame, unsigned level, unsigned attr)
{
    return space ? vmap_pages(space, va, frame, level, attr | VATTR_U) : -EINVAL;
}

int vmap_user(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_user(space, va, frame, 0, attr);
}

int vmap_user_4k(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_user(space, va, frame, 1, attr);
}

int vmap_user_2m(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_user(space, va, frame, 2, attr);
}

int vmap_user_1g(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_user(space, va, frame, 3, attr);
}
