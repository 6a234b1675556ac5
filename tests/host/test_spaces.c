// SPDX-License-Identifier: BSD-2-Clause
// Address spaces: made, switched, taken apart; what they share with the kernel's; with 4 and 5
// levels.
#include "lib/string.h"
#include "tests/host/support.h"

static void boot_levels(unsigned levels)
{
    machine_reset();
    machine.levels = levels;
    machine_usual(16 * MIB);
    machine_start();
}

static void errors(void)
{
    space_t local = {.live = SPACE_LIVE};
    space_t *s, *gone;

    machine_boot(16 * MIB);
    REFUSES(-EINVAL, space_create("x", NULL));
    REFUSES(-EINVAL, space_create(NULL, &s));
    CHECK(s == NULL);
    REFUSES(-EINVAL, space_destroy(NULL));
    REFUSES(-EINVAL, space_destroy(kernel_space()));
    REFUSES(-EINVAL, space_destroy(&local));
    REFUSES(-EINVAL, space_switch(NULL));
    REFUSES(-EINVAL, space_switch(&local));
    OK(space_create("gone", &gone));
    REFUSES(-EINVAL, space_destroy((space_t *)((char *)gone + 8)));
    OK(space_switch(gone));
    CHECK(space_current() == gone);
    REFUSES(-EBUSY, space_destroy(gone));
    OK(space_switch(kernel_space()));
    OK(space_destroy(gone));
    REFUSES(-EINVAL, space_destroy(gone));
    REFUSES(-EINVAL, space_switch(gone));
    SAME(mm_check(), 0);
}

static void names(void)
{
    space_t *a, *b;

    machine_boot(16 * MIB);
    CHECK(!strcmp(kernel_space()->name, "kernel"));
    OK(space_create("a name of more than twenty-one letters", &a));
    CHECK(!strcmp(a->name, "a name of more than t"));
    OK(space_create("", &b));
    CHECK(a->id != b->id && b->id && a->id);
    SAME(mm_check(), 0);
}

// Many, destroyed in another order, full of mappings of shared frames: nothing remains.
static void many(void)
{
    enum { COUNT = 60 };
    space_t *s[COUNT];
    frame_t *f, *g;
    uint64_t before;

    machine_boot(32 * MIB);
    before = digest_free();
    for (unsigned round = 0; round < 3; round++) {
        OK(get_frame(0, &f));
        OK(get_frame(9, &g));
        for (unsigned i = 0; i < COUNT; i++) {
            OK(space_create("many", &s[i]));
            OK(vmap_user(s[i], VADDR(0x1000), f, VATTR_W));
            OK(vmap_user(s[i], VADDR(0x7ffffffff000), f, VATTR_R));
            OK(vmap_user(s[i], VADDR(GIB * (i + 1)), g, VATTR_R));
            OK(vprotect_part(s[i], VADDR(GIB * (i + 1)), g, 0, 0, VATTR_W));
        }
        OK(put_frame(f));
        OK(put_frame(g));
        SAME(f->mapcount, 2 * COUNT);
        SAME(mm_check(), 0);
        for (unsigned i = 0; i < COUNT; i++)
            OK(space_destroy(s[i * 7 % COUNT]));
        SAME(mm_check(), 0);
        SAME(digest_free(), before);
    }
}

// A new top-level entry of the kernel is there in every space at once, and gone from all.
static void shared_half(unsigned levels)
{
    uint64_t step = UINT64_C(1) << (PAGE_SHIFT + 9 * (levels - 1));
    space_t *a, *b;
    struct leaf leaf;
    uint64_t va = 0 - 200 * step; // where nothing of the kernel's is
    frame_t *f;

    boot_levels(levels);
    OK(get_frame(0, &f));
    OK(space_create("a", &a));
    OK(vmap_kern(VADDR(va), f, VATTR_W));
    OK(space_create("b", &b));
    CHECK(walk_va(a, va, &leaf) && leaf.mfn == f->mfn && leaf.writable);
    CHECK(walk_va(b, va, &leaf) && leaf.mfn == f->mfn);
    SAME(mm_check(), 0);
    OK(vput(NULL, VADDR(va), f));
    CHECK(!walk_va(a, va, &leaf) && !walk_va(b, va, &leaf) && !walk_va(kernel_space(), va, &leaf));
    SAME(mm_check(), 0);
    OK(vmap_user(a, VADDR(va & (step * 256 - 1)), f, VATTR_W)); // the same place of the other half
    CHECK(!walk_va(b, va & (step * 256 - 1), &leaf));
    OK(space_destroy(a));
    OK(space_destroy(b));
    SAME(mm_check(), 0);
}

static void shared_halves(void)
{
    shared_half(4);
    shared_half(5);
}

// The same address in two spaces, again and again: one space's tables are never taken for
// another's.
static void same_address(void)
{
    struct leaf leaf;
    space_t *a, *b;
    frame_t *f, *g;

    machine_boot(16 * MIB);
    OK(get_frame(0, &f));
    OK(get_frame(0, &g));
    for (unsigned i = 0; i < 20; i++) {
        OK(space_create("a", &a));
        OK(space_create("b", &b));
        OK(vmap_4k(a, VADDR(0x400000), f, VATTR_W | VATTR_U));
        OK(vmap_4k(a, VADDR(0x401000), f, VATTR_W | VATTR_U));
        OK(vmap_4k(b, VADDR(0x400000), g, VATTR_W | VATTR_U));
        OK(vmap_4k(b, VADDR(0x402000), g, VATTR_W | VATTR_U));
        CHECK(walk_va(a, 0x400000, &leaf) && leaf.mfn == f->mfn);
        CHECK(walk_va(b, 0x402000, &leaf) && leaf.mfn == g->mfn && !walk_va(a, 0x402000, &leaf));
        RETURNS(-EOTHER, vput(b, VADDR(0x400000), f));
        RETURNS(-ENOENT, vput(b, VADDR(0x401000), f));
        OK(vput(a, VADDR(0x400000), f));
        OK(vput(a, VADDR(0x401000), f));             // a's table is gone
        OK(vmap_4k(b, VADDR(0x600000), f, VATTR_R)); // and may be b's by now
        OK(vmap_4k(a, VADDR(0x400000), f, VATTR_R));
        SAME(mm_check(), 0);
        OK(space_destroy(i & 1 ? a : b));
        OK(space_destroy(i & 1 ? b : a));
    }
    SAME(f->mapcount + g->mapcount, 0);
}

static void five_levels(void)
{
    uint64_t far = UINT64_C(1) << 55;
    struct leaf leaf;
    space_t *a;
    frame_t *f;

    boot_levels(5);
    OK(get_frame(9, &f));
    OK(space_create("a", &a));
    OK(vmap_user(a, VADDR(far), f, VATTR_W));
    CHECK(walk_va(a, far + 5, &leaf) && leaf.level == 2 && leaf.mfn == f->mfn);
    SAME(a->tables, 4);
    REFUSES(-ECANON, vmap_user(a, VADDR(UINT64_C(1) << 56), f, VATTR_W));
    REFUSES(-ECANON, vmap_kern(VADDR(0xfeffffffffe00000), f, VATTR_W));
    OK(vmap_kern(VADDR(0xff00000000000000), f, VATTR_W));
    SAME(mm_check(), 0);
    OK(vunmap(a, VADDR(far), f));
    SAME(a->tables, 1);
    OK(vunmap(NULL, VADDR(0xff00000000000000), f));
    OK(space_destroy(a));
    SAME(mm_check(), 0);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"space_errors", errors},
        {"space_names", names},
        {"space_many", many},
        {"space_shared_half", shared_halves},
        {"space_same_address", same_address},
        {"space_five_levels", five_levels},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
