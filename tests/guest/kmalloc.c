// SPDX-License-Identifier: BSD-2-Clause
// Guest tests of kmalloc: real memory behind it, and planted misuse that it must catch.
#include "mm/kmalloc/kmalloc.h"

#include "arch/x86/probe.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

enum {
    COUNT = 500,
};

static uint8_t *objects[COUNT];

static size_t size_of(unsigned i)
{
    return i % 50 == 49 ? 3000 + i * 20 : 1 + i * 37 % 2500;
}

static bool holds(const uint8_t *p, size_t size, uint8_t byte)
{
    for (size_t n = 0; n < size; n++)
        if (p[n] != byte)
            return false;
    return true;
}

GUEST_TEST(kmalloc_many)
{
    struct kmalloc_usage before = kmalloc_usage(); // ACPI's

    for (unsigned i = 0; i < COUNT; i++) {
        objects[i] = kmalloc(size_of(i));
        CHECK(objects[i] != NULL);
        memset(objects[i], (uint8_t)i, size_of(i));
    }
    CHECK_EQ(kmalloc_usage().objects, before.objects + COUNT);
    CHECK_EQ(mm_check(), 0);
    for (unsigned i = 0; i < COUNT; i += 2) {
        objects[i] = krealloc(objects[i], size_of(i + 1));
        CHECK(objects[i] != NULL);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned at = i * 7 % COUNT;
        size_t size = at % 2 ? size_of(at) : MIN(size_of(at), size_of(at + 1));

        CHECK(holds(objects[at], size, (uint8_t)at));
        CHECK_EQ(kfree(objects[at]), 0);
    }
    CHECK_EQ(kmalloc_usage().pages, before.pages);
}

// A frame that kmalloc gave back is not reachable any more; and behind a large object nothing is.
GUEST_TEST(kmalloc_unmaps)
{
    uint8_t *p = kmalloc(5000);
    frame_t *frame = find_kern_va_frame(p);
    uint64_t value;

    CHECK(frame != NULL && frame->kind == FRAME_AVAILABLE && frame->mapcount == 1);
    CHECK_EQ(probe_read(VADDR((uintptr_t)p + 4096), &value), 0);
    CHECK_EQ(probe_exec(ptr_vaddr(p)), -1);
    CHECK_EQ(probe_read(VADDR((uintptr_t)p + 8192), &value), -1);
    CHECK_EQ(kfree(p), 0);
    CHECK_EQ(probe_read(ptr_vaddr(p), &value), -1);
}

#if KTF_DEBUG
GUEST_TEST(kmalloc_catches)
{
    uint32_t mark = kmalloc_mark();
    uint8_t *p = kmalloc(40), *q = kmalloc(40);

    CHECK(p != NULL && q != NULL);
    printk("  three complaints are to follow:\n");
    p[40] ^= 1;
    CHECK(mm_check() > 0);
    CHECK_EQ(kfree(p), -ECORRUPT);
    p[40] ^= 1;
    CHECK_EQ(kfree(p), 0);
    CHECK_EQ(kfree(p), -EFREE);
    CHECK_EQ(kmalloc_leaks(mark), 1);
    p[3] ^= 1; // after the free
    CHECK(mm_check() > 0);
    p[3] ^= 1;
    CHECK_EQ(kfree(q), 0);
    CHECK_EQ(kmalloc_leaks(mark), 0);
}
#endif
