// SPDX-License-Identifier: BSD-2-Clause
// Address spaces: made, listed, switched, and taken apart with nothing left behind.
#include "mm/space.h"

#include "arch/x86/tlb.h"
#include "lib/panic.h"
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/frame_word.h"
#include "mm/journal.h"
#include "mm/lock.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"
#include "mm/table.h"

bool space_is_live(const space_t *space)
{
    const struct arena *a = &mm.arena[ARENA_SPACES];
    uint64_t byte = (uintptr_t)space - a->base;

    return byte < (uint64_t)a->pages * PAGE_SIZE && byte % sizeof(*space) == 0 &&
           space->live == SPACE_LIVE;
}

bool space_has(const space_t *space, vaddr_t va)
{
    bool upper = (int64_t)va.v < 0;

    if (space == kernel_space())
        return upper || va.v - LAYOUT_BASE < LAYOUT_SIZE;
    return !upper;
}

space_t *space_current(void)
{
    return space_at(mm.cpu[cpu_number()].space);
}

static void forget_tables(space_t *space)
{
    for (unsigned i = 0; i < ARRAY_SIZE(space->recent); i++)
        space->recent[i] = (struct recent_table){0};
}

space_t *space_setup_kernel(void)
{
    uint32_t index = arena_alloc(ARENA_SPACES);
    space_t *kernel = space_at(index);

    assert(index == SPACE_KERNEL);
    mm.space_list = mm.cpu[cpu_number()].space = index;
    mm.cpu[cpu_number()].online = 1;
    kernel->cpus = ~cpu_others();
    mm.next_space = 1;
    kernel->live = SPACE_LIVE;
    forget_tables(kernel);
    string_copy(kernel->name, "kernel", sizeof(kernel->name));
    return kernel;
}

// Behind the kernel's, which stays the first.
static void space_link(space_t *space)
{
    space_t *kernel = kernel_space();

    space->prev = mm.space_list;
    space->next = kernel->next;
    if (space->next)
        space_at(space->next)->prev = space_index(space);
    kernel->next = space_index(space);
}

static void space_unlink(space_t *space)
{
    space_at(space->prev)->next = space->next;
    if (space->next)
        space_at(space->next)->prev = space->prev;
}

static space_t *space_alloc(const char *name)
{
    uint32_t index = arena_alloc(ARENA_SPACES);
    space_t *space;

    if (!index && arena_grow(ARENA_SPACES) == 0)
        index = arena_alloc(ARENA_SPACES);
    if (!index)
        return NULL;
    space = space_at(index);
    space->levels = mm.levels;
    space->live = SPACE_LIVE;
    forget_tables(space);
    string_copy(space->name, name, sizeof(space->name));
    return space;
}

static void journal_space(enum journal_op op, const void *caller, const space_t *space)
{
    const frame_t *root = frame_at(table_at(space->root)->frame);

    journal(op, caller, 0, frame_word(root), frame_counts(root), space->id);
}

// map_lock is held.
static int create(const char *name, space_t **out)
{
    space_t *space = space_alloc(name);

    if (!space)
        return -ENOMEM;
    if (pt_root_create(space)) {
        arena_free(ARENA_SPACES, space_index(space));
        return -ENOMEM;
    }
    space->id = mm.next_space++;
    space_link(space);
    *out = space;
    return 0;
}

int space_create(const char *name, space_t **out)
{
    int err;

    if (!out)
        return -EINVAL;
    *out = NULL;
    if (!name)
        return -EINVAL;
    map_lock();
    err = create(name, out);
    if (!err)
        journal_space(JOURNAL_SPACE_CREATE, CALLER, *out);
    map_unlock();
    return err;
}

// The first mapping in the space's own half; 0 if there is none left. Tables that are not empty
// have one.
static uint32_t first_mapping(const space_t *space)
{
    uint32_t slot = space->root;
    unsigned end = PT_ENTRIES / 2;

    for (;;) {
        const uint32_t *shadow = table_shadow(slot);
        unsigned i = 0;

        while (i < end && !shadow[i])
            i++;
        if (i == end)
            return 0;
        if (!(shadow[i] & SHADOW_TABLE))
            return shadow[i];
        slot = shadow[i] & ~SHADOW_TABLE;
        end = PT_ENTRIES;
    }
}

static frame_t *mapped_frame(const mapping_t *m)
{
    pgentry_t entry = table_entries(m->at / PT_ENTRIES)[m->at % PT_ENTRIES];

    return find_mfn_frame(pgentry_mfn(entry, m->level));
}

// map_lock is held.
static int destroy(space_t *space, const void *caller)
{
    uint32_t index;

    if (!space_is_live(space) || space == kernel_space())
        return -EINVAL;
    if (space->cpus)
        return -EBUSY;
    while ((index = first_mapping(space)))
        mapping_destroy(space, mapped_frame(mapping_at(index)), index);
    space_unlink(space);
    journal_space(JOURNAL_SPACE_DESTROY, caller, space);
    pt_root_destroy(space);
    arena_free(ARENA_SPACES, space_index(space));
    return 0;
}

int space_destroy(space_t *space)
{
    int err;

    map_lock();
    err = destroy(space, CALLER);
    map_unlock();
    return err;
}

// map_lock is held, so nobody is being asked to flush: all that was asked for until now is done by
// loading CR3. The kernel's mask has all CPUs in any case.
static int switch_to(space_t *space)
{
    struct mm_cpu *me = &mm.cpu[cpu_number()];
    space_t *from = space_at(me->space);

    spin_check_held(&mm.map_lock);
    if (!space_is_live(space))
        return -EINVAL;
    space->cpus |= ~cpu_others();
    me->space = space_index(space);
    cr3_load(PADDR(space->cr3));
    if (from != space && from != kernel_space())
        from->cpus &= cpu_others();
    return 0;
}

int space_switch(space_t *space)
{
    int err;

    map_lock();
    err = switch_to(space);
    map_unlock();
    return err;
}

void space_go_online(void)
{
    struct mm_cpu *me = &mm.cpu[cpu_number()];

    map_lock();
    me->space = space_index(kernel_space());
    me->asked = me->flushed = mm.epoch;
    kernel_space()->cpus |= ~cpu_others();
    tlb_flush_all();
    __atomic_store_n(&me->online, 1, __ATOMIC_RELEASE);
    map_unlock();
}
