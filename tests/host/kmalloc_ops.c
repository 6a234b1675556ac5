// SPDX-License-Identifier: BSD-2-Clause
// Random use of kmalloc: each object is filled with a byte of its own, so that no two can overlap
// unseen.
#include "tests/host/kmalloc_ops.h"

#include <string.h>

#include "mm/kmalloc/kmalloc.h"
#include "tests/host/ops.h"

struct object {
    uint8_t *p;
    size_t size;
    uint8_t fill;
};
static struct object objects[KMALLOC_OBJECTS];

size_t kmalloc_alignment(size_t size)
{
    size_t align = 1;

    while (align < size && align < PAGE_SIZE)
        align *= 2;
    return align;
}

static size_t random_size(void)
{
    static const size_t limit[] = {16, 64, 300, 2100, 10000, 300000};

    return 1 + rnd(limit[rnd(100) < 97 ? rnd(4) : 4 + rnd(2)]);
}

static void fill(struct object *o)
{
    o->fill = (uint8_t)rnd(256);
    memset(o->p, o->fill, o->size);
}

static void verify(const struct object *o, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (o->p[i] != o->fill)
            test_fail(__FILE__, __LINE__, "object of %zu bytes: byte %zu was changed", o->size, i);
}

void kmalloc_step(void)
{
    struct object *o = &objects[rnd(KMALLOC_OBJECTS)];
    size_t size = random_size();
    uint8_t *p;

    if (!o->p) {
        p = rnd(2) ? kmalloc(size) : kzalloc(size);
        if (!p)
            return;
        SAME((uintptr_t)p % kmalloc_alignment(size), 0);
        *o = (struct object){p, size, 0};
        fill(o);
    } else if (rnd(3) == 0) {
        p = krealloc(o->p, size);
        if (!p)
            return verify(o, o->size);
        o->p = p;
        verify(o, MIN(size, o->size));
        o->size = size;
        fill(o);
    } else {
        verify(o, o->size);
        OK(kfree(o->p));
        o->p = NULL;
    }
}

void kmalloc_take_apart(void)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < KMALLOC_OBJECTS; i++)
        count += objects[i].p != NULL;
    SAME(kmalloc_usage().objects, count);
    SAME(kmalloc_leaks(0), count);
    SAME(mm_check(), 0);
    for (unsigned i = 0; i < KMALLOC_OBJECTS; i++)
        if (objects[i].p) {
            verify(&objects[i], objects[i].size);
            OK(kfree(objects[i].p));
        }
    kmalloc_forget();
    SAME(kmalloc_usage().objects, 0);
    SAME(kmalloc_usage().pages, 0);
    SAME(mm_check(), 0);
}

void kmalloc_forget(void)
{
    memset(objects, 0, sizeof(objects));
}
