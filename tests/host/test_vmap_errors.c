// SPDX-License-Identifier: BSD-2-Clause
// The vmap family, one block at a time: every refusal of every form.
#include "mm/table.h"
#include "tests/host/support.h"

#define AT VADDR(VA_VMAP)

static frame_t *f0, *f9, *f10; // frames of orders 0, 9 and 10
static space_t *user;

static void start(void)
{
    machine_boot(32 * MIB);
    OK(get_frame(0, &f0));
    OK(get_frame(9, &f9));
    OK(get_frame(10, &f10));
    OK(space_create("user", &user));
}

static vaddr_t at_page(uint64_t page)
{
    return VADDR(VA_VMAP + page * PAGE_SIZE);
}

static frame_t *free_frame(void)
{
    for (unsigned order = 0; order <= ORDER_MAX; order++)
        if (mm.order[order].free)
            return frame_at(frame_at(mm.order[order].head)->next);
    return NULL;
}

// 0 unless the entry for va is that page of that frame, with that level and these attributes.
static int has(space_t *space, vaddr_t va, const frame_t *f, uint64_t offset, unsigned level,
               unsigned attr)
{
    struct leaf leaf;
    uint64_t mfn = f->mfn + offset - (offset & ((UINT64_C(1) << level_order(level)) - 1));

    return walk_va(space, va.v, &leaf) && leaf.level == level && leaf.mfn == mfn &&
           leaf.entry == pgentry_leaf(MFN(mfn), level, attr) &&
           leaf.writable == !!(attr & VATTR_W) && leaf.user == !!(attr & VATTR_U) &&
           leaf.executable == !!(attr & VATTR_X);
}

typedef int map_fn(space_t *space, vaddr_t va, frame_t *frame, unsigned attr);

static int kern(space_t *s, vaddr_t va, frame_t *f, unsigned attr)
{
    return s ? vmap(s, va, f, attr) : vmap_kern(va, f, attr);
}

static int kern_4k(space_t *s, vaddr_t va, frame_t *f, unsigned attr)
{
    return s ? vmap_4k(s, va, f, attr) : vmap_kern_4k(va, f, attr);
}

static int part(space_t *s, vaddr_t va, frame_t *f, unsigned attr)
{
    return vmap_part(s, va, f, 0, 0, attr);
}

static int range(space_t *s, vaddr_t va, frame_t *f, unsigned attr)
{
    return vmap_range(s, va, f, 0, 1, attr);
}

static int frames(space_t *s, vaddr_t va, frame_t *f, unsigned attr)
{
    frame_t *list[] = {f};

    return vmap_frames(s, va, list, 1, attr);
}

// The first frame of that part of the kernel's image.
static frame_t *image(unsigned kind)
{
    for (const struct region *r = mm.region; r < mm.region + mm.region_count; r++)
        if (r->kind == kind)
            return find_paddr_frame(PADDR(r->start));
    return NULL;
}

static void common_errors(map_fn *map)
{
    frame_t local = {.kind = FRAME_AVAILABLE, .refcount = 1};

    start();
    REFUSES(-EINVAL, map(NULL, AT, NULL, VATTR_W));
    REFUSES(-EINVAL, map((space_t *)&local, AT, f0, VATTR_W));
    REFUSES(-EINVAL, map(user + 1, VADDR(0x1000), f0, VATTR_W));
    REFUSES(-EINVAL, map((space_t *)((char *)user + 1), VADDR(0x1000), f0, VATTR_W));
    REFUSES(-EINVAL, map(NULL, AT, f0, VATTR_W | VATTR_X));
    REFUSES(-EINVAL, map(NULL, AT, f0, VATTR_U));
    REFUSES(-EINVAL, map(NULL, AT, f0, 1u << 7));
    REFUSES(-EINVAL, map(NULL, AT, f0, VATTR_WB | VATTR_UC));
    REFUSES(-EINVAL, map(NULL, AT, f0, 6u << VATTR_TYPE_SHIFT));
    REFUSES(-EINVAL, map(NULL, AT, f0, UINT32_MAX));
    REFUSES(-EUNKNOWN, map(NULL, AT, &local, VATTR_W));
    REFUSES(-EUNKNOWN, map(NULL, AT, (frame_t *)((char *)f0 + 4), VATTR_W));
    REFUSES(-EUNKNOWN, map(NULL, AT, frame_at(mm.order[0].head), VATTR_W));
    REFUSES(-EFREE, map(NULL, AT, free_frame(), VATTR_W));
    REFUSES(-EALIGN, map(NULL, VADDR(VA_VMAP + 1), f0, VATTR_W));
    REFUSES(-EALIGN, map(user, VADDR(0x1fff), f0, VATTR_W));
    REFUSES(-ECANON, map(NULL, VADDR(0x0000800000000000), f0, VATTR_W));
    REFUSES(-ECANON, map(NULL, VADDR(0xffff7ffffffff000), f0, VATTR_W));
    REFUSES(-ECANON, map(NULL, VADDR(0x1000), f0, VATTR_W)); // not the kernel's half
    REFUSES(-ECANON, map(user, AT, f0, VATTR_W));
    REFUSES(-ECANON, map(user, VADDR(0x0000800000000000), f0, VATTR_W));
    REFUSES(-EBUSY, map(NULL, VADDR(VA_FRAMES + GIB), f0, VATTR_W));
    REFUSES(-EBUSY, map(NULL, VADDR(VA_SPACES), f0, VATTR_W));
    REFUSES(-EBUSY, map(NULL, AT, find_kern_va_frame((void *)VA_FRAMES), VATTR_W));
    REFUSES(-EBUSY, map(user, VADDR(0x1000), frame_at(table_at(user->root)->frame), VATTR_W));
    REFUSES(-EBUSY, map(user, VADDR(0x1000), frame_at(table_at(user->root)->frame), VATTR_U));
    REFUSES(-EBUSY, map(user, VADDR(0x1000), find_kern_va_frame((void *)VA_FRAMES), VATTR_U));
    for (unsigned kind = FRAME_IMAGE; kind <= FRAME_BSS; kind++)
        REFUSES(-EBUSY, map(user, VADDR(0x1000), image(kind), VATTR_W | VATTR_U));
    OK(map(user, VADDR(0x1000), image(FRAME_BSS), VATTR_U));
    REFUSES(-EBUSY, vprotect_part(user, VADDR(0x1000), image(FRAME_BSS), 0, 0, VATTR_W | VATTR_U));
    SAME(mm_check(), 0);
}

static void errors_of_all(void)
{
    static map_fn *const fns[] = {vmap, vmap_4k, kern, kern_4k, part, range, frames};

    for (unsigned i = 0; i < ARRAY_SIZE(fns); i++)
        common_errors(fns[i]);
}

static void errors_user(void)
{
    start();
    REFUSES(-EINVAL, vmap_user(NULL, VADDR(0x1000), f0, VATTR_W));
    REFUSES(-EINVAL, vmap_user_4k(NULL, VADDR(0x1000), f0, VATTR_W));
    REFUSES(-EINVAL, vmap_user_2m(NULL, VADDR(0x200000), f9, VATTR_W));
    REFUSES(-EINVAL, vmap_user_1g(NULL, VADDR(0x40000000), f9, VATTR_W));
    REFUSES(-EINVAL, vmap_user(kernel_space(), AT, f0, VATTR_W));
    OK(vmap_user(user, VADDR(0x1000), f0, VATTR_W));
    CHECK(has(user, VADDR(0x1000), f0, 0, 1, VATTR_W | VATTR_U));
    CHECK(!has(kernel_space(), VADDR(0x1000), f0, 0, 1, VATTR_W | VATTR_U));
}

static void errors_size(void)
{
    frame_t *g;

    start();
    REFUSES(-EORDER, vmap_2m(NULL, AT, f0, VATTR_W));
    REFUSES(-EORDER, vmap_kern_2m(AT, f0, VATTR_W));
    REFUSES(-EORDER, vmap_1g(NULL, AT, f10, VATTR_W));
    REFUSES(-EORDER, vmap_kern_1g(AT, f9, VATTR_W));
    REFUSES(-EORDER, vmap_user_2m(user, VADDR(0x200000), f0, VATTR_W));
    REFUSES(-EORDER, vmap_user_1g(user, VADDR(GIB), f9, VATTR_W));
    REFUSES(-EALIGN, vmap_2m(NULL, at_page(1), f9, VATTR_W));
    REFUSES(-EALIGN, vmap_kern_2m(at_page(256), f10, VATTR_W));
    OK(get_device_frame(PADDR(8 * GIB), ORDER_1G, &g));
    REFUSES(-EALIGN, vmap_1g(NULL, at_page(512), g, VATTR_UC));
    OK(vmap_1g(NULL, AT, g, VATTR_UC));
    CHECK(has(kernel_space(), AT, g, 0, 3, VATTR_UC));
    OK(vput(NULL, AT, g));
    machine.has_1g = false;
    mm.page_1g = 0;
    REFUSES(-EORDER, vmap_1g(NULL, AT, g, VATTR_UC));
    OK(vmap(NULL, AT, g, VATTR_UC));
    CHECK(has(kernel_space(), AT, g, 0, 2, VATTR_UC));
    SAME(mm_check(), 0);
}

static void errors_part(void)
{
    start();
    REFUSES(-EORDER, vmap_part(NULL, AT, f10, 0, 19, VATTR_W));
    REFUSES(-EALIGN, vmap_part(NULL, AT, f10, 1, 1, VATTR_W));
    REFUSES(-EBEYOND, vmap_part(NULL, AT, f10, 1024, 0, VATTR_W));
    REFUSES(-EBEYOND, vmap_part(NULL, AT, f10, 0, 11, VATTR_W));
    REFUSES(-EBEYOND, vmap_part(NULL, AT, f10, UINT64_MAX, 0, VATTR_W));
    REFUSES(-EBEYOND, vmap_part(NULL, AT, f0, 1, 0, VATTR_W));
}

static void errors_end(void)
{
    frame_t *list[2];

    start();
    list[0] = list[1] = f0;
    REFUSES(-ECANON, vmap(user, VADDR(0x00007fffffe00000 + PAGE_SIZE), f9, VATTR_W));
    OK(vmap(user, VADDR(0x00007fffffe00000), f9, VATTR_W));
    REFUSES(-ECANON, vmap(NULL, VADDR(0 - UINT64_C(0x200000)), f10, VATTR_W));
    REFUSES(-ECANON, vmap_range(NULL, VADDR(0 - UINT64_C(0x1000)), f10, 0, 2, VATTR_W));
    REFUSES(-ECANON, vmap_range(NULL, AT, f10, 0, UINT64_MAX, VATTR_W));
    REFUSES(-ECANON, vmap_range(NULL, AT, f10, 0, UINT64_C(1) << 52, VATTR_W));
    RETURNS(-ECANON, vmap_frames(NULL, VADDR(0 - UINT64_C(0x1000)), list, 2, VATTR_W));
    SAME(f0->mapcount, 0);
    OK(vmap(NULL, VADDR(0 - UINT64_C(0x1000)), f0, VATTR_W));
    OK(vput(NULL, VADDR(0 - UINT64_C(0x1000)), f0));
    SAME(mm_check(), 0);
}

// What is in the way: another frame, other attributes, large pages, tables, types.
static void errors_conflict(void)
{
    frame_t *g, *dev;

    start();
    OK(get_frame(9, &g));
    OK(vmap(NULL, AT, f9, VATTR_W));
    REFUSES(-EATTR, vmap(NULL, AT, f9, VATTR_R));
    REFUSES(-EATTR, vmap(NULL, AT, f9, VATTR_X));
    REFUSES(-EEXIST, vmap(NULL, AT, g, VATTR_W));
    REFUSES(-ELARGE, vmap(NULL, AT, f0, VATTR_W));
    REFUSES(-ELARGE, vmap(NULL, at_page(511), f0, VATTR_W));
    REFUSES(-ELARGE, vmap_4k(NULL, AT, f9, VATTR_W));
    REFUSES(-ELARGE, vmap_4k(NULL, AT, g, VATTR_W));
    REFUSES(-EEXIST, vmap(NULL, at_page(0), f10, VATTR_W));
    REFUSES(-EATTR, vmap(NULL, AT, f9, VATTR_W | VATTR_UC));
    REFUSES(-ETYPE, vmap(NULL, at_page(1024), f9, VATTR_W | VATTR_WC));
    REFUSES(-ETYPE, vmap(user, VADDR(0x200000), f9, VATTR_WT));
    OK(vmap(NULL, at_page(1024 + 5), f0, VATTR_W));
    REFUSES(-ETABLE, vmap(NULL, at_page(1024), g, VATTR_W));
    REFUSES(-EEXIST, vmap(NULL, at_page(1024 + 5), g, VATTR_W));
    OK(vmap_4k(NULL, at_page(2048), g, VATTR_W));
    REFUSES(-ETABLE, vmap_2m(NULL, at_page(2048), g, VATTR_W));
    REFUSES(-ETABLE, vmap_2m(NULL, at_page(2048), f9, VATTR_W));
    OK(vmap(NULL, at_page(8192 + 1000), f0, VATTR_W)); // in the last of three tables
    REFUSES(-EEXIST, vmap_4k(NULL, at_page(8192 - 1), f10, VATTR_W));
    OK(get_device_frame(PADDR(8 * GIB), 0, &dev));
    REFUSES(-ETYPE, vmap(NULL, at_page(9), dev, VATTR_W | VATTR_WB));
    OK(get_device_frame(PADDR(16 * GIB), ORDER_1G, &dev));
    REFUSES(-ETABLE, vmap(NULL, AT, dev, VATTR_UC));
    OK(vmap(NULL, VADDR(VA_VMAP + GIB), dev, VATTR_UC));
    REFUSES(-ELARGE, vmap(NULL, VADDR(VA_VMAP + GIB + 4 * MIB), g, VATTR_W));
    REFUSES(-ELARGE, vmap(NULL, VADDR(VA_VMAP + GIB + 4 * MIB), f0, VATTR_W));
    SAME(mm_check(), 0);
}

// The forms with a quick path for what is one entry of a table that stands.
static void errors_quick(void)
{
    frame_t *g, *h;

    start();
    OK(get_frame(0, &g));
    OK(get_frame(9, &h));
    OK(vmap_4k(NULL, AT, f0, VATTR_W));
    OK(vmap_4k(NULL, at_page(1), f0, VATTR_W));
    OK(vmap_2m(NULL, at_page(1024), f9, VATTR_W));
    OK(vmap_2m(NULL, at_page(1536), f9, VATTR_W));
    REFUSES(-EEXIST, vmap_4k(NULL, AT, g, VATTR_W));
    REFUSES(-EEXIST, vmap_2m(NULL, at_page(1024), h, VATTR_W));
    REFUSES(-ETYPE, vmap_4k(NULL, at_page(2), f0, VATTR_W | VATTR_UC));
    REFUSES(-ETYPE, vmap_2m(NULL, at_page(2048), f9, VATTR_W | VATTR_WC));
    REFUSES(-EATTR, vmap_4k(NULL, AT, f0, VATTR_R));
    REFUSES(-EATTR, vmap_2m(NULL, at_page(1024), f9, VATTR_X));
    REFUSES(-ELARGE, vmap_4k(NULL, at_page(1024), f0, VATTR_W));
    REFUSES(-ETABLE, vmap_2m(NULL, AT, f9, VATTR_W));
    REFUSES(-EOTHER, vput(NULL, AT, g));
    REFUSES(-EOTHER, vunmap(NULL, at_page(1024), h));
    OK(vprotect_part(NULL, at_page(1024), f9, 0, 9, VATTR_R));
    REFUSES(-EATTR, vmap_2m(NULL, at_page(1024), f9, VATTR_W));
    OK(vmap_2m(NULL, at_page(1024), f9, VATTR_R));
    SAME(f9->mapcount, 3);
    OK(vunmap(NULL, at_page(1024), f9));
    SAME(f9->mapcount, 1);
    SAME(mm_check(), 0);
}

static void errors_unmap(int (*drop)(space_t *space, vaddr_t va, frame_t *frame))
{
    frame_t local = {.kind = FRAME_AVAILABLE, .refcount = 1};

    start();
    OK(vmap(NULL, AT, f9, VATTR_W));
    OK(vmap(NULL, at_page(512), f0, VATTR_W));
    OK(vmap(user, VADDR(0x200000), f9, VATTR_W));
    REFUSES(-EINVAL, drop(NULL, AT, NULL));
    REFUSES(-EINVAL, drop(user + 1, AT, f9));
    REFUSES(-EUNKNOWN, drop(NULL, AT, &local));
    REFUSES(-EFREE, drop(NULL, AT, free_frame()));
    REFUSES(-ECANON, drop(NULL, VADDR(UINT64_C(1) << 62), f9));
    REFUSES(-ECANON, drop(user, AT, f9));
    REFUSES(-EALIGN, drop(NULL, VADDR(VA_VMAP + 1), f9));
    REFUSES(-ENOENT, drop(NULL, at_page(4096), f9));
    REFUSES(-ENOENT, drop(user, VADDR(0x400000), f9));
    REFUSES(-ENOENT, drop(NULL, VADDR(VA_VMAP + 512 * GIB), f0));
    REFUSES(-EOTHER, drop(NULL, AT, f0));
    REFUSES(-EOTHER, drop(NULL, at_page(512), f9));
    REFUSES(-EOTHER, drop(NULL, at_page(1), f9)); // the right frame, the wrong page of it
    REFUSES(-EOTHER, drop(NULL, AT, f10));
    REFUSES(-EBUSY, drop(NULL, VADDR(VA_FRAMES), find_kern_va_frame((void *)VA_FRAMES)));
    REFUSES(-EBUSY, drop(NULL, VADDR(VA_WINDOW + ((uint64_t)user->root << PAGE_SHIFT)),
                         find_paddr_frame(PADDR(user->cr3))));
    SAME(mm_check(), 0);
}

static void errors_of_unmaps(void)
{
    errors_unmap(vput);
    errors_unmap(vunmap);
}

static void errors_protect(void)
{
    start();
    OK(vmap(NULL, AT, f9, VATTR_W));
    OK(vmap(NULL, at_page(512), f0, VATTR_W));
    REFUSES(-EINVAL, vprotect(NULL, AT, NULL, VATTR_R));
    REFUSES(-EINVAL, vprotect(NULL, AT, f9, VATTR_W | VATTR_X));
    REFUSES(-EINVAL, vprotect(NULL, AT, f9, VATTR_U));
    REFUSES(-EINVAL, vprotect(NULL, AT, f9, 1 << 7));
    REFUSES(-EFREE, vprotect(NULL, AT, free_frame(), VATTR_R));
    REFUSES(-EALIGN, vprotect(NULL, VADDR(VA_VMAP + 8), f9, VATTR_R));
    REFUSES(-ECANON, vprotect(user, AT, f9, VATTR_R));
    REFUSES(-ENOENT, vprotect(NULL, at_page(2048), f9, VATTR_R));
    REFUSES(-EOTHER, vprotect(NULL, AT, f0, VATTR_R));
    REFUSES(-EBEYOND, vprotect_part(NULL, AT, f9, 512, 0, VATTR_R));
    REFUSES(-EALIGN, vprotect_part(NULL, AT, f9, 2, 2, VATTR_R));
    REFUSES(-EBUSY,
            vprotect(NULL, VADDR(VA_FRAMES), find_kern_va_frame((void *)VA_FRAMES), VATTR_R));
    REFUSES(-ETYPE,
            vprotect_part(NULL, AT, f9, 0, 0, VATTR_UC)); // the rest of the page would differ
    OK(vmap(user, VADDR(0x200000), f9, VATTR_R));
    REFUSES(-ETYPE, vprotect(NULL, AT, f9, VATTR_UC));
    OK(vunmap(user, VADDR(0x200000), f9));
    OK(vprotect(NULL, AT, f9, VATTR_UC | VATTR_W));
    CHECK(has(kernel_space(), AT, f9, 0, 2, VATTR_UC | VATTR_W));
    SAME(mm_check(), 0);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"vmap_errors", errors_of_all},          {"vmap_errors_user", errors_user},
        {"vmap_errors_size", errors_size},       {"vmap_errors_part", errors_part},
        {"vmap_errors_end", errors_end},         {"vmap_errors_conflict", errors_conflict},
        {"vmap_errors_quick", errors_quick},     {"vmap_errors_unmap", errors_of_unmaps},
        {"vmap_errors_protect", errors_protect},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
