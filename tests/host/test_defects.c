// SPDX-License-Identifier: BSD-2-Clause
// The defects that were reproduced in older memory managers, by their numbers: none of them is one
// of ours.
#include "tests/host/support.h"

#define AT VADDR(VA_VMAP)

static vaddr_t at_page(uint64_t page)
{
    return VADDR(VA_VMAP + page * PAGE_SIZE);
}

static frame_t *frames[5000];

// 1. Allocating 4K frames one by one hangs: the allocator maps memory while it holds its lock.
static void defect_1(void)
{
    uint64_t pages;
    uint32_t count = 0;

    machine_boot(16 * MIB);
    pages = mm_free_pages();
    while (get_frame(0, &frames[count]) == 0) {
        int err = vmap_kern(at_page(count), frames[count], VATTR_W);

        CHECK(err == 0 || err == -ENOMEM);
        count++;
    }
    CHECK(count > pages * 9 / 10);
    SAME(mm_check(), 0);
}

// 2. Freeing panics when a page of descriptors empties, or when two top-order buddies are freed.
static void defect_2(void)
{
    frame_t *big[2];
    uint64_t before;

    machine_boot(16 * MIB);
    before = digest_free();
    for (unsigned i = 0; i < 1024; i++)
        OK(get_frame(0, &frames[i]));
    for (unsigned i = 0; i < 1024; i++)
        OK(put_frame(frames[i]));
    SAME(digest_free(), before);
    machine_reset();
    machine_usual(3 * GIB);
    machine_map(4 * GIB, 2 * GIB, BOOT_MEM_AVAILABLE);
    machine_start();
    before = digest_free();
    OK(get_frame(ORDER_MAX, &big[0]));
    OK(get_frame(ORDER_MAX, &big[1]));
    OK(put_frame(big[0]));
    OK(put_frame(big[1]));
    SAME(digest_free(), before);
    SAME(mm_check(), 0);
}

// 3. The boot loader's data lies on the free list while it is still read.
static void defect_3(void)
{
    machine_boot(16 * MIB);
    for (uint64_t p = 0x130000; p < 0x131000; p += PAGE_SIZE)
        CHECK(find_paddr_frame(PADDR(p))->kind == FRAME_BOOT);
    for (unsigned i = 0; get_frame(0, &frames[i]) == 0; i++) {
        CHECK(frames[i]->mfn != 0x130 && (frames[i]->mfn < 0x132 || frames[i]->mfn > 0x134));
        CHECK(frames[i]->mfn >= 0x131); // nor the image, nor low memory
    }
    RETURNS(-ERESERVED, put_frame(find_paddr_frame(PADDR(0x130000))));
}

// 4. Large blocks are not aligned to their size, so that merging depends on the order of freeing.
static void defect_4(void)
{
    uint64_t before;

    machine_reset();
    machine_map(0x100000, 0x3f45000, BOOT_MEM_AVAILABLE); // no end is aligned to anything large
    machine_start();
    before = digest_free();
    for (unsigned way = 0; way < 3; way++) {
        unsigned count = 0;

        while (get_frame(4, &frames[count]) == 0) {
            SAME(frames[count]->mfn % 16, 0);
            count++;
        }
        for (unsigned i = 0; i < count; i++) {
            unsigned n = way == 0   ? i
                         : way == 1 ? count - 1 - i
                                    : (unsigned)((uint64_t)i * 4093 % count);

            OK(put_frame(frames[n])); // 4093 is a prime: each once
        }
        SAME(digest_free(), before);
    }
    SAME(mm_check(), 0);
}

// 5. Freeing a block of order 1 to 8 leaks it and leaves its other pages mapped.
static void defect_5(void)
{
    struct leaf leaf;
    uint64_t before;
    frame_t *f;

    machine_boot(16 * MIB);
    before = digest_free();
    for (unsigned order = 1; order <= 8; order++) {
        OK(get_frame(order, &f));
        OK(vmap_kern(AT, f, VATTR_W));
        OK(put_frame(f));
        OK(vunmap(NULL, AT, f));
        for (uint64_t page = 0; page < UINT64_C(1) << order; page++)
            CHECK(!walk_va(kernel_space(), at_page(page).v, &leaf));
        SAME(digest_free(), before);
    }
}

// 6. A 4K map inside a live 2M mapping succeeds and writes an entry into the data page.
static void defect_6(void)
{
    frame_t *f, *g;
    uint64_t word = 1;

    machine_boot(16 * MIB);
    OK(get_frame(9, &f));
    OK(get_frame(0, &g));
    OK(vmap_kern(AT, f, VATTR_W));
    REFUSES(-ELARGE, vmap_kern(at_page(5), g, VATTR_W));
    REFUSES(-ELARGE, vmap_kern_4k(at_page(5), g, VATTR_W));
    for (uint64_t at = 0; at < 2 * MIB; at += 8) {
        phys_read(frame_paddr(f).v + at, &word, sizeof(word));
        SAME(word, 0); // as the machine's memory was
    }
}

// 7. Page tables are never freed: 1,000 areas mapped and unmapped keep 1,003 frames.
static void defect_7(void)
{
    uint32_t before[ORDER_COUNT];
    uint64_t tables;
    frame_t *f, *big;

    machine_boot(16 * MIB);
    OK(get_frame(0, &f));
    OK(get_frame(9, &big));
    mm_trim();
    for (unsigned order = 0; order < ORDER_COUNT; order++)
        before[order] = mm_free_blocks(order);
    tables = kernel_space()->tables;
    for (uint64_t i = 0; i < 1000; i++) {
        OK(vmap_kern(VADDR(VA_VMAP + i * GIB), f, VATTR_W));
        OK(vunmap(NULL, VADDR(VA_VMAP + i * GIB), f));
    }
    SAME(kernel_space()->tables, tables);
    OK(vmap_kern(AT, f, VATTR_W));
    REFUSES(-ETABLE, vmap_kern(AT, big, VATTR_W));
    OK(vunmap(NULL, AT, f));
    OK(vmap_kern(AT, big, VATTR_W)); // the table is gone
    OK(vunmap(NULL, AT, big));
    mm_trim(); // the manager's own pages may lie elsewhere; there are as many as before
    for (unsigned order = 0; order < ORDER_COUNT; order++)
        SAME(mm_free_blocks(order), before[order]);
    SAME(mm_check(), 0);
}

// 8. A page mapped in two areas and put back keeps its second mapping; a free frame can be mapped.
static void defect_8(void)
{
    frame_t *f, *other;

    machine_boot(16 * MIB);
    OK(get_frame(0, &f));
    OK(vmap_kern(AT, f, VATTR_W));
    OK(vmap_kern(at_page(7), f, VATTR_W));
    OK(put_frame(f));
    OK(vput(NULL, AT, f));
    SAME(f->mapcount, 1);
    for (unsigned i = 0; get_frame(0, &frames[i]) == 0; i++)
        CHECK(frames[i] != f && frames[i]->mfn != f->mfn); // not handed out while mapped
    OK(vput(NULL, at_page(7), f));
    REFUSES(-EFREE, vmap_kern(AT, f, VATTR_W));
    OK(get_frame(0, &other)); // it, or what the manager gave back for it
    SAME(mm_check(), 0);
}

// 9. Device memory has no frame; unmapping a range of it stops after one page.
static void defect_9(void)
{
    struct leaf leaf;
    frame_t *f, *g;

    machine_boot(16 * MIB);
    OK(get_device_frame(PADDR(0xfec00000), 0, &f));
    OK(get_device_frame(PADDR(0xfec01000), 0, &g));
    CHECK(find_paddr_frame(PADDR(0xfec00fff)) == f && f->kind == FRAME_DEVICE);
    OK(vmap_range(NULL, AT, f, 0, 2, VATTR_UC | VATTR_W));
    CHECK(walk_va(kernel_space(), at_page(1).v, &leaf) && (leaf.entry & PG_PCD));
    OK(vunmap_range(NULL, AT, f, 0, 2));
    CHECK(!walk_va(kernel_space(), AT.v, &leaf) && !walk_va(kernel_space(), at_page(1).v, &leaf));
    OK(put_frame(f));
    OK(put_frame(g));
    CHECK(find_paddr_frame(PADDR(0xfec00000)) == NULL);
}

// 10. Unmapping takes away another owner's mapping; one aligned page is mapped as two.
static void defect_10(void)
{
    struct leaf leaf;
    frame_t *f;

    machine_boot(16 * MIB);
    f = find_paddr_frame(PADDR(16 * MIB - 0x20000)); // ACPI tables
    OK(vmap_part(NULL, AT, f, 3, 0, VATTR_R));
    OK(vmap_part(NULL, AT, f, 3, 0, VATTR_R)); // a second owner
    CHECK(!walk_va(kernel_space(), at_page(1).v, &leaf));
    OK(vput_part(NULL, AT, f, 3, 0));
    CHECK(walk_va(kernel_space(), AT.v, &leaf) && leaf.mfn == f->mfn + 3);
    OK(vput_part(NULL, AT, f, 3, 0));
    CHECK(!walk_va(kernel_space(), AT.v, &leaf));
    SAME(mm_check(), 0);
}

// 11. Unmapping what is not mapped succeeds; mapping over an entry is silent; upper levels are
// loosened.
static void defect_11(void)
{
    struct leaf leaf;
    frame_t *f, *g;
    space_t *user;

    machine_boot(16 * MIB);
    OK(get_frame(0, &f));
    OK(get_frame(0, &g));
    OK(space_create("user", &user));
    REFUSES(-ENOENT, vput(NULL, AT, f));
    REFUSES(-ENOENT, vunmap(NULL, AT, f));
    OK(vmap_kern(AT, f, VATTR_R));
    REFUSES(-EEXIST, vmap_kern(AT, g, VATTR_W));
    REFUSES(-EATTR, vmap_kern(AT, f, VATTR_W));
    OK(vmap_kern(at_page(1), g, VATTR_W));
    CHECK(walk_va(kernel_space(), AT.v, &leaf) && !leaf.writable && !leaf.user && !leaf.executable);
    OK(vmap(user, VADDR(0x1000), f, VATTR_R));
    OK(vmap_user(user, VADDR(0x2000), g, VATTR_W));
    CHECK(walk_va(user, 0x1000, &leaf) && !leaf.user && !leaf.writable);
    CHECK(walk_va(user, 0x2000, &leaf) && leaf.user && leaf.writable);
}

// 13. A failed range leaves the part that was mapped.
static void defect_13(void)
{
    struct leaf leaf;
    frame_t *f, *g;

    machine_boot(16 * MIB);
    OK(get_frame(5, &f));
    OK(get_frame(0, &g));
    OK(vmap_kern(at_page(20), g, VATTR_W));
    RETURNS(-EEXIST, vmap_range(NULL, AT, f, 0, 32, VATTR_W));
    for (uint64_t page = 0; page < 32; page++)
        CHECK(walk_va(kernel_space(), at_page(page).v, &leaf) == (page == 20));
    SAME(f->mapcount, 0);
    SAME(mm_check(), 0);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"defect_1", defect_1},   {"defect_2", defect_2},   {"defect_3", defect_3},
        {"defect_4", defect_4},   {"defect_5", defect_5},   {"defect_6", defect_6},
        {"defect_7", defect_7},   {"defect_8", defect_8},   {"defect_9", defect_9},
        {"defect_10", defect_10}, {"defect_11", defect_11}, {"defect_13", defect_13},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
