// SPDX-License-Identifier: BSD-2-Clause
// One page of a block, mapped and put by itself: the fast path of vmap_part() and vput_part().
#include "tests/host/support.h"

enum {
    ORDER = 5,
    PAGES = 1 << ORDER,
    PLACES = 4, // where each page is mapped
};

// Place 0 has page n at n; the others lie in the same table.
static vaddr_t va(uint64_t place, uint64_t page)
{
    return VADDR(VA_VMAP + ((place * PAGES + page) << PAGE_SHIFT));
}

static frame_t *block(void)
{
    frame_t *f;

    machine_boot(32 * MIB);
    OK(get_frame(ORDER, &f));
    OK(vmap_part(NULL, va(0, 0), f, 0, 0, VATTR_W)); // the table stands, and is the recent one
    return f;
}

static uint32_t refs_at(vaddr_t at)
{
    struct vlookup found;

    return vmap_lookup(NULL, at, &found) ? 0 : found.refs;
}

// Mapped at several places, twice each, and put in another order than mapped.
static void counts(void)
{
    frame_t *f = block();
    uint64_t seen = digest_seen();
    struct leaf leaf;

    for (unsigned page = 1; page < PAGES; page++) {
        for (unsigned place = 0; place < PLACES; place++) {
            OK(vmap_part(NULL, va(place, page), f, page, 0, VATTR_W));
            OK(vmap_part(NULL, va(place, page), f, page, 0, VATTR_W));
            SAME(refs_at(va(place, page)), 2);
            CHECK(walk_va(kernel_space(), va(place, page).v, &leaf) && leaf.writable);
            SAME(leaf.mfn, f->mfn + page);
        }
        SAME(f->mapcount, 1 + page * 2 * PLACES);
        SAME(mm_check(), 0);
    }
    for (unsigned page = PAGES - 1; page > 0; page--) {
        for (unsigned i = 0; i < 2 * PLACES; i++) {
            unsigned place = (i * 3 + page) % PLACES;

            OK(vput_part(NULL, va(place, page), f, page, 0));
            SAME(refs_at(va(place, page)), i < PLACES ? 1 : 0);
            SAME(mm_check(), 0);
        }
        SAME(f->mapcount, 1 + (page - 1) * 2 * PLACES);
    }
    SAME(digest_seen(), seen);
}

static void refusals(void)
{
    frame_t *f = block(), *other, *table = find_paddr_frame(PADDR(kernel_space()->cr3));

    OK(get_frame(0, &other));
    OK(vmap_part(NULL, va(0, 1), f, 1, 0, VATTR_W));
    REFUSES(-EBEYOND, vmap_part(NULL, va(1, 0), f, PAGES, 0, VATTR_W));
    REFUSES(-EBEYOND, vmap_part(NULL, va(1, 0), other, 1, 0, VATTR_W));
    REFUSES(-EUNKNOWN, vmap_part(NULL, va(1, 0), f + 1, 0, 0, VATTR_W)); // a tail
    REFUSES(-EUNKNOWN, vmap_part(NULL, va(1, 0), (frame_t *)((char *)f + 1), 0, 0, VATTR_W));
    REFUSES(-EINVAL, vmap_part(NULL, va(1, 0), f, 1, 0, VATTR_W | VATTR_X));
    REFUSES(-EINVAL, vmap_part(NULL, va(1, 0), f, 1, 0, VATTR_U));
    REFUSES(-EINVAL, vmap_part(NULL, va(1, 0), f, 1, 0, 1 << 12));
    REFUSES(-ETYPE, vmap_part(NULL, va(1, 0), f, 1, 0, VATTR_W | VATTR_UC));
    REFUSES(-ETYPE, vmap_part(NULL, va(1, 0), f, 2, 0, VATTR_W | VATTR_WT));
    REFUSES(-EBUSY, vmap_part(NULL, va(1, 0), table, 0, 0, VATTR_W));
    REFUSES(-EALIGN, vmap_part(NULL, VADDR(va(1, 0).v + 8), f, 1, 0, VATTR_W));
    REFUSES(-EATTR, vmap_part(NULL, va(0, 1), f, 1, 0, VATTR_R));
    REFUSES(-EEXIST, vmap_part(NULL, va(0, 1), f, 2, 0, VATTR_W));
    REFUSES(-EEXIST, vmap_part(NULL, va(0, 1), other, 0, 0, VATTR_W));
    REFUSES(-EOTHER, vput_part(NULL, va(0, 1), f, 2, 0));
    REFUSES(-EOTHER, vput_part(NULL, va(0, 1), other, 0, 0));
    REFUSES(-ENOENT, vput_part(NULL, va(1, 0), f, 1, 0));
    REFUSES(-EBEYOND, vput_part(NULL, va(0, 1), f, PAGES + 1, 0));
    REFUSES(-EUNKNOWN, vput_part(NULL, va(0, 1), f + 1, 0, 0));
    REFUSES(-EALIGN, vput_part(NULL, VADDR(va(0, 1).v + 8), f, 1, 0));
    OK(put_frame(other));
    REFUSES(-EFREE, vmap_part(NULL, va(1, 0), other, 0, 0, VATTR_W));
    SAME(refs_at(va(0, 1)), 1);
}

// A descriptor of no frame, which says mfn 0 as the block does that starts there, is no frame of a
// page of that block.
static void of_no_frame(void)
{
    frame_t *f = block(), *first = find_mfn_frame(MFN(0)), *none = frame_at(1);

    while (none->kind != FRAME_NONE || none->tail)
        none++;
    CHECK(first && first->mfn == 0 && first->order > 1);
    OK(vmap_part(NULL, va(1, 3), first, 3, 0, VATTR_W));
    REFUSES(-EUNKNOWN, vput_part(NULL, va(1, 3), none, 3, 0));
    REFUSES(-EUNKNOWN, vmap_part(NULL, va(1, 3), none, 3, 0, VATTR_W));
    REFUSES(-EUNKNOWN, vmap_part(NULL, va(1, 4), none, 4, 0, VATTR_W));
    SAME(refs_at(va(1, 3)), 1);
    OK(vput_part(NULL, va(1, 3), first, 3, 0));
    OK(vput_part(NULL, va(0, 0), f, 0, 0));
    SAME(mm_check(), 0);
}

// The mapping that goes last gives the block back; one of a device the device.
static void last_one(void)
{
    frame_t *f = block(), *device;
    uint64_t pages = mm_free_pages();

    OK(vmap_part(NULL, va(1, 1), f, 1, 0, VATTR_R));
    OK(put_frame(f));
    OK(vput_part(NULL, va(0, 0), f, 0, 0));
    SAME(mm_free_pages() < pages + PAGES, true);
    OK(get_device_frame(PADDR(UINT64_C(0xfed00000)), 0, &device));
    OK(vmap_part(NULL, va(2, 0), device, 0, 0, VATTR_W));
    OK(vmap_part(NULL, va(2, 0), device, 0, 0, VATTR_W | VATTR_UC)); // what it is anyway
    REFUSES(-ETYPE, vmap_part(NULL, va(2, 1), device, 0, 0, VATTR_W | VATTR_WB));
    OK(put_frame(device));
    OK(vput_part(NULL, va(1, 1), f, 1, 0));
    CHECK(frame_is_free(find_mfn_frame(MFN(f->mfn))));
    SAME(mm_check(), 0);
    OK(vput_part(NULL, va(2, 0), device, 0, 0));
    OK(vput_part(NULL, va(2, 0), device, 0, 0));
    CHECK(!find_paddr_frame(PADDR(UINT64_C(0xfed00000))));
    SAME(mm_check(), 0);
}

// A page of a mapping of the whole block is split off; what is left of it is no page's.
static void of_a_whole(void)
{
    frame_t *f = block();

    OK(vmap_kern(va(2, 0), f, VATTR_W));
    OK(vmap_part(NULL, va(2, 3), f, 3, 0, VATTR_W));
    SAME(refs_at(va(2, 3)), 2);
    SAME(refs_at(va(2, 2)), 1);
    SAME(mm_check(), 0);
    OK(vput_part(NULL, va(2, 3), f, 3, 0));
    OK(vput_part(NULL, va(2, 4), f, 4, 0));
    SAME(refs_at(va(2, 3)), 1);
    SAME(refs_at(va(2, 4)), 0);
    SAME(mm_check(), 0);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"page_counts", counts},           {"page_refusals", refusals},
        {"page_of_no_frame", of_no_frame}, {"page_last_one", last_one},
        {"page_of_a_whole", of_a_whole},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
