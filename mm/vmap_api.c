// SPDX-License-Identifier: BSD-2-Clause
// The forms of vmap: for the kernel's space and for user ones, by pages of any or of one size; and
// the lock around what vmap.c does.
#include "mm/journal.h"
#include "mm/lock.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "mm/vmap_internal.h"

// Does `change` to the part under the lock, and notes it.
static always_inline int change_part(struct part *p, int (*change)(struct part *p),
                                     enum journal_op op, const void *caller)
{
    int err;

    map_lock();
    p->word = first_word(p->frame); // nothing that was read without the lock
    err = change(p);
    if (!err)
        journal_part(op, caller, p->space, p->va, p->frame, p->offset, p->order);
    map_unlock();
    return err;
}

static always_inline int map_pages(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                   unsigned attr)
{
    struct part p;
    int err;

    map_lock();
    p = whole_block(space, va, frame);
    p.level = level;
    p.attr = attr;
    err = part_map(&p);
    if (!err)
        journal_mapped(JOURNAL_MAP, CALLER, space, va, frame);
    map_unlock();
    return err;
}

int vmap(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_pages(space, va, frame, 0, attr);
}

int vmap_1g(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_pages(space, va, frame, 3, attr);
}

int vmap_kern(vaddr_t va, frame_t *frame, unsigned attr)
{
    return map_pages(NULL, va, frame, 0, attr);
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
    return map_pages(NULL, va, frame, 3, attr);
}

static always_inline int map_user(space_t *space, vaddr_t va, frame_t *frame, unsigned level,
                                  unsigned attr)
{
    return space ? map_pages(space, va, frame, level, attr | VATTR_U) : -EINVAL;
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

/* --- parts, attributes, look-up --------------------------------------------------------------- */

int vmap_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
              unsigned attr)
{
    struct part p;

    if (!space && order == ORDER_4K)
        return vmap_page(va, frame, offset, attr, CALLER);
    p = part_of(space, va, frame, offset, order);
    p.attr = attr;
    return change_part(&p, part_map, JOURNAL_MAP, CALLER);
}

int vput_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order)
{
    struct part p;

    if (!space && order == ORDER_4K)
        return vput_page(va, frame, offset, CALLER);
    p = part_of(space, va, frame, offset, order);
    return change_part(&p, part_put, JOURNAL_UNMAP, CALLER);
}

int vunmap_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order)
{
    struct part p = part_of(space, va, frame, offset, order);

    return change_part(&p, part_unmap, JOURNAL_UNMAP, CALLER);
}

int vprotect(space_t *space, vaddr_t va, frame_t *frame, unsigned attr)
{
    struct part p;
    int err;

    map_lock();
    p = whole_block(space, va, frame);
    p.attr = attr;
    err = part_protect(&p);
    if (!err)
        journal_mapped(JOURNAL_PROTECT, CALLER, space, va, frame);
    map_unlock();
    return err;
}

int vprotect_part(space_t *space, vaddr_t va, frame_t *frame, uint64_t offset, unsigned order,
                  unsigned attr)
{
    struct part p = part_of(space, va, frame, offset, order);

    p.attr = attr;
    return change_part(&p, part_protect, JOURNAL_PROTECT, CALLER);
}

int vmap_lookup(space_t *space, vaddr_t va, struct vlookup *out)
{
    int err;

    map_lock();
    err = vmap_lookup_locked(space, va, out);
    map_unlock();
    return err;
}
