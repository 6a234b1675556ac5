// SPDX-License-Identifier: BSD-2-Clause
// The busy memory, and what mm_check() says when a word of it is broken.
#include "tests/host/broken.h"

#include "lib/printk.h"

struct busy busy;

void broken_named(const char *rule, const char *what)
{
    char text[32];

    snprintk(text, sizeof(text), "mm_check: %s: ", rule);
    machine.said_bytes = 0;
    if (mm_check() == 0 || !machine_said(text))
        test_fail(__FILE__, __LINE__, "%s is wrong, rule %s; said was: %s", what, rule,
                  machine.said_bytes ? machine.said : "nothing");
}

void broken_whole(const char *what)
{
    machine.said_bytes = 0;
    if (mm_check())
        test_fail(__FILE__, __LINE__, "%s is right again; said was: %s", what, machine.said);
}

struct pt_walk broken_at(space_t *space, uint64_t va, unsigned level)
{
    struct pt_walk w;

    pt_walk(space, VADDR(va), level, &w);
    CHECK(w.level == level);
    return w;
}

pgentry_t *broken_entry(space_t *space, uint64_t va, unsigned level)
{
    struct pt_walk w = broken_at(space, va, level);

    return &table_entries(w.slot)[w.index];
}

uint32_t *broken_shadow(space_t *space, uint64_t va, unsigned level)
{
    struct pt_walk w = broken_at(space, va, level);

    return &table_shadow(w.slot)[w.index];
}

static void get_frames(struct busy *b)
{
    OK(get_frame(0, &b->page));
    OK(get_frame(3, &b->small));
    OK(get_frame(9, &b->large));
    OK(get_frame(0, &b->freed));
    OK(get_device_frame(PADDR(8 * GIB), 9, &b->low));
    OK(get_device_frame(PADDR(3 * TIB), 0, &b->high));
}

void busy_boot(void)
{
    struct busy *b = &busy;

    machine_reset();
    machine_usual(64 * MIB);
    machine.phys_bits = 46;
    machine_start();
    machine_start_cpu(1);
    OK(space_create("user", &b->user));
    OK(space_create("other", &b->other));
    get_frames(b);
    OK(vmap(NULL, VADDR(VA_VMAP), b->page, VATTR_W));
    OK(vmap(NULL, VADDR(VA_VMAP + GIB), b->low, VATTR_W));
    OK(vmap(NULL, VADDR(VA_VMAP + 2 * GIB), b->high, VATTR_W));
    OK(vmap(b->user, VADDR(0x400000), b->small, VATTR_W | VATTR_U));
    OK(vmap(b->user, VADDR(0x40000000), b->large, VATTR_X | VATTR_U));
    OK(vmap(b->other, VADDR(0x400000), b->page, VATTR_R));
    for (uint64_t va = 0x500000; va < 0x5f0000; va += PAGE_SIZE) // pages full of records
        OK(vmap(b->user, VADDR(va), b->freed, VATTR_R));
    for (uint64_t va = 0x500000; va < 0x5f0000; va += PAGE_SIZE)
        OK(vunmap(b->user, VADDR(va), b->freed));
    OK(vmap(b->user, VADDR(0x400000 + GIB * 8), b->page, VATTR_R));
    OK(vunmap(b->user, VADDR(0x400000 + GIB * 8), b->page));
    OK(vmap_4k(b->user, VADDR(BUSY_PAGE), b->page, VATTR_R)); // in another table than the last
    SAME(mm_check(), 0);
    CHECK(mm.stock_count && mm.records.count && mm.free_slots);
}
