// SPDX-License-Identifier: BSD-2-Clause
// mm_check() on rights and types that record and entry agree on, but that nobody should have.
#include "tests/host/broken.h"

// A mapping has other attributes, its record and its first entry alike.
static void changed_in(space_t *space, const char *rule, uint64_t va, unsigned attr, pgentry_t bits)
{
    mapping_t *m = mapping_at(*broken_shadow(space, va, 1));
    pgentry_t *e = broken_entry(space, va, 1);

    m->attr ^= attr;
    *e ^= bits;
    broken_named(rule, "attributes");
    m->attr ^= attr;
    *e ^= bits;
    broken_whole("attributes");
}

static void changed(const char *rule, uint64_t va, unsigned attr, pgentry_t bits)
{
    changed_in(kernel_space(), rule, va, attr, bits);
}

// A page of the frame in a user space gets the right that vmap() would have refused.
static void shared(frame_t *f, unsigned attr, unsigned refused, pgentry_t bit)
{
    OK(vmap_part(busy.user, VADDR(0x700000), f, 0, 0, attr));
    changed_in(busy.user, "X2", 0x700000, refused, bit);
    OK(vunmap_part(busy.user, VADDR(0x700000), f, 0, 0));
}

static void image(void)
{
    busy_boot();
    for (unsigned i = 0; i < machine.part_count; i++) {
        const struct region *r = &machine.part[i];
        bool may_write = r->kind == FRAME_DATA || r->kind == FRAME_BSS;

        shared(find_paddr_frame(PADDR(r->start)), VATTR_U, VATTR_W, PG_W);
        if (r->kind != FRAME_IMAGE && !may_write)
            changed("X1", VA_IMAGE + r->start, VATTR_W, PG_W);
        if (r->kind != FRAME_IMAGE && r->kind != FRAME_TEXT)
            changed("X1", VA_IMAGE + r->start, VATTR_X, PG_NX);
    }
    OK(vmap_user(busy.user, VADDR(0x700000), find_paddr_frame(PADDR(machine.part[1].start)),
                 VATTR_X));
    broken_whole("text for ring 3");
}

static void managers(void)
{
    busy_boot();
    shared(frame_at(table_at(busy.user->root)->frame), VATTR_R, VATTR_U, PG_U);
    shared(find_kern_va_frame(busy.page), VATTR_R, VATTR_U, PG_U); // its descriptor
}

static void records(void)
{
    busy_boot();
    changed("X2", VA_VMAP, VATTR_U, PG_U);
    changed("P5", VA_VMAP, 6 << VATTR_TYPE_SHIFT, PG_PCD | PG_PS);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"check_image", image},
        {"check_managers", managers},
        {"check_records", records},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
