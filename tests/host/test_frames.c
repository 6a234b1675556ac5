// SPDX-License-Identifier: BSD-2-Clause
// Frames: every refusal, device memory, exhaustion, and that all comes back as it was.
#include "lib/string.h"
#include "tests/host/support.h"

enum {
    HELD_MAX = 40000,
};

static frame_t *held[HELD_MAX];

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (uint32_t)(random_state >> 33) % n;
}

static void shuffle(frame_t **list, uint32_t count)
{
    for (uint32_t i = count; i > 1; i--) {
        uint32_t j = random_below(i);
        frame_t *f = list[i - 1];

        list[i - 1] = list[j];
        list[j] = f;
    }
}

static frame_t *any_free(void)
{
    for (unsigned order = 0; order <= ORDER_MAX; order++)
        if (mm.order[order].free)
            return frame_at(frame_at(mm.order[order].head)->next);
    return NULL;
}

// A frame in use of that kind, as the manager or the boot map made it.
static frame_t *of_kind(unsigned kind)
{
    for (unsigned order = 0; order <= ORDER_MAX; order++)
        for (uint32_t i = frame_at(mm.order[order].head)->next; i != mm.order[order].head;
             i = frame_at(i)->next)
            if (!frame_is_free(frame_at(i)) && frame_at(i)->kind == kind)
                return frame_at(i);
    return NULL;
}

static void get_errors(void)
{
    frame_t *f;

    machine_boot(16 * MIB);
    REFUSES(-EINVAL, get_frame(0, NULL));
    REFUSES(-EINVAL, get_frame(99, NULL));
    REFUSES(-EORDER, get_frame(ORDER_MAX + 1, &f));
    REFUSES(-EORDER, get_frame(UINT32_MAX, &f));
    REFUSES(-ENOMEM, get_frame(ORDER_MAX, &f));
    CHECK(f == NULL);
}

static void get_all_orders(void)
{
    uint64_t before;

    machine_boot(3 * GIB);
    before = digest_free();
    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        OK(get_frame(order, &held[order]));
        SAME(held[order]->order, order);
        SAME(held[order]->refcount, 1);
        SAME(held[order]->mapcount, 0);
        SAME(held[order]->mfn & (frame_pages(held[order]) - 1), 0);
        SAME(find_mfn_frame(frame_mfn(held[order])) == held[order], 1);
        SAME(find_mfn_frame(MFN(held[order]->mfn + frame_pages(held[order]) - 1)) == held[order],
             1);
        SAME(mm_check(), 0);
    }
    for (unsigned i = 0; i <= ORDER_MAX; i++)
        OK(put_frame(held[i * 7 % (ORDER_MAX + 1)]));
    SAME(digest_free(), before);
    SAME(mm_check(), 0);
}

static void bad_pointers(frame_t *f)
{
    frame_t local = {0};

    memset(&local, 0xff, sizeof(local));
    REFUSES(-EUNKNOWN, ref_frame(&local));
    REFUSES(-EUNKNOWN, put_frame(&local));
    REFUSES(-EUNKNOWN, put_frame((frame_t *)8));
    REFUSES(-EUNKNOWN, put_frame((frame_t *)((char *)f + 8)));
    REFUSES(-EUNKNOWN, put_frame((frame_t *)((char *)f + 1)));
    REFUSES(-EUNKNOWN, ref_frame((frame_t *)UINTPTR_MAX));
    REFUSES(-EUNKNOWN, ref_frame((frame_t *)VA_FRAMES));                        // a page's head
    REFUSES(-EUNKNOWN, ref_frame(frame_at(mm.order[3].head)));                  // a ring's head
    REFUSES(-EUNKNOWN, ref_frame(frame_at(mm.arena[ARENA_FRAMES].pages << 7))); // one behind
    REFUSES(-EUNKNOWN, ref_frame((frame_t *)mapping_at(64)));
    REFUSES(-EUNKNOWN, ref_frame(frame_at((mm.arena[ARENA_FRAMES].empty - 1) * 128 + 3)));
    REFUSES(-EINVAL, ref_frame(NULL));
    REFUSES(-EINVAL, put_frame(NULL));
}

static void put_errors(void)
{
    static const unsigned reserved[] = {FRAME_LOW,  FRAME_ACPI,  FRAME_IMAGE,    FRAME_TEXT,
                                        FRAME_DATA, FRAME_TABLE, FRAME_METADATA, FRAME_BOOT};
    frame_t *f, *tail;

    machine_boot(16 * MIB);
    OK(get_frame(3, &f));
    bad_pointers(f);
    tail = f + 5;
    REFUSES(-EUNKNOWN, put_frame(tail));
    REFUSES(-EUNKNOWN, ref_frame(tail));
    REFUSES(-EFREE, ref_frame(any_free()));
    REFUSES(-EFREE, put_frame(any_free()));
    for (unsigned i = 0; i < ARRAY_SIZE(reserved); i++) {
        frame_t *r = of_kind(reserved[i]);

        REFUSES(-ERESERVED, put_frame(r));
        OK(ref_frame(r));
        OK(put_frame(r));
        REFUSES(-ERESERVED, put_frame(r));
    }
    OK(put_frame(f));
}

static void double_put(void)
{
    frame_t *f, *low;
    uint64_t before;

    machine_boot(16 * MIB);
    before = digest_free();
    OK(get_frame(0, &low));
    OK(get_frame(0, &f));
    SAME(f->mfn, low->mfn + 1);
    OK(put_frame(f)); // its buddy is held: it stays a block
    REFUSES(-EFREE, put_frame(f));
    REFUSES(-EFREE, ref_frame(f));
    OK(put_frame(low)); // now they merge
    // Its descriptor is gone, or stands for another block by now.
    CHECK(frame_usable(f) == -EUNKNOWN || frame_usable(f) == -EFREE);
    REFUSES(frame_usable(f), put_frame(f));
    SAME(digest_free(), before);
}

static void mapped_without_owner(void)
{
    uint64_t before;
    frame_t *f;

    machine_boot(16 * MIB);
    before = digest_free();
    OK(get_frame(4, &f));
    OK(vmap_kern(VADDR(VA_VMAP), f, VATTR_W));
    OK(put_frame(f));
    SAME(f->refcount, 0);
    SAME(f->mapcount, 1);
    REFUSES(-EFREE, put_frame(f));
    SAME(mm_check(), 0);
    OK(ref_frame(f)); // owned again
    OK(put_frame(f));
    OK(vput(NULL, VADDR(VA_VMAP), f));
    SAME(digest_free(), before);
}

static void refs_overflow(void)
{
    frame_t *f;

    machine_boot(16 * MIB);
    OK(get_frame(0, &f));
    mm.order[0].refs += UINT32_MAX - 1 - f->refcount;
    f->refcount = UINT32_MAX - 1;
    (void)!ref_frame(f); // may be the last that fits
    REFUSES(-EOVERFLOW, ref_frame(f));
    // Unmapping must not take the last count for the first.
    OK(vmap_kern(VADDR(VA_VMAP), f, VATTR_W));
    OK(vput(NULL, VADDR(VA_VMAP), f));
    CHECK(f->refcount >= UINT32_MAX - 1);
    SAME(mm_check(), 0);
}

static void device_errors(void)
{
    uint64_t limit;
    frame_t *f, *g;

    machine_boot(16 * MIB);
    limit = mm.phys_limit;
    REFUSES(-EINVAL, get_device_frame(PADDR(GIB), 0, NULL));
    REFUSES(-EORDER, get_device_frame(PADDR(GIB), ORDER_MAX + 1, &f));
    REFUSES(-EALIGN, get_device_frame(PADDR(GIB + 1), 0, &f));
    REFUSES(-EALIGN, get_device_frame(PADDR(GIB + PAGE_SIZE), 1, &f));
    REFUSES(-EBEYOND, get_device_frame(PADDR(limit), 0, &f));
    REFUSES(-EBEYOND, get_device_frame(PADDR(UINT64_MAX - 0xfff), 0, &f));
    REFUSES(-EBEYOND, get_device_frame(PADDR(UINT64_MAX - GIB + 1), ORDER_MAX, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(0), ORDER_MAX, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(8 * MIB), 0, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(0x9f000), 0, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(0x80000), 7, &f));
    OK(get_device_frame(PADDR(GIB + 64 * PAGE_SIZE), 2, &g));
    REFUSES(-EEXIST, get_device_frame(PADDR(GIB + 64 * PAGE_SIZE), 1, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(GIB + 64 * PAGE_SIZE), 3, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(GIB + 66 * PAGE_SIZE), 0, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(GIB), 6 + 1, &f));
    REFUSES(-EEXIST, get_device_frame(PADDR(GIB), ORDER_MAX, &f));
    CHECK(f == NULL);
    OK(get_device_frame(PADDR(GIB + 64 * PAGE_SIZE), 2, &f));
    CHECK(f == g && f->refcount == 2);
    OK(put_frame(f));
    OK(put_frame(f));
    SAME(put_frame(f), -EUNKNOWN);
}

// At each order, next to others and far above, with nothing left behind.
static void device_orders(unsigned phys_bits, uint64_t base)
{
    uint64_t before;
    frame_t *f, *g;

    machine_reset();
    machine.phys_bits = phys_bits;
    machine_usual(32 * MIB);
    machine_start();
    before = digest_free();
    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        uint64_t at = base + ((uint64_t)PAGE_SIZE << order);

        OK(get_device_frame(PADDR(at), order, &f));
        SAME(mm_check(), 0);
        OK(get_device_frame(PADDR(at + ((uint64_t)PAGE_SIZE << order)), order ? order - 1 : 0, &g));
        SAME(mm_check(), 0);
        SAME(f->kind, FRAME_DEVICE);
        CHECK(find_paddr_frame(PADDR(at + ((uint64_t)PAGE_SIZE << order) - 1)) == f);
        OK(vmap_kern(VADDR(VA_VMAP), f, VATTR_W | VATTR_UC));
        REFUSES(-ETYPE, vmap_kern(VADDR(VA_VMAP + 2 * GIB), f, VATTR_W | VATTR_WB));
        OK(put_frame(g));
        OK(put_frame(f));
        CHECK(find_paddr_frame(PADDR(at)) == f);
        OK(vunmap(NULL, VADDR(VA_VMAP), f));
        CHECK(find_paddr_frame(PADDR(at)) == NULL);
        SAME(mm_check(), 0);
        SAME(digest_free(), before);
    }
}

static void device_low(void)
{
    device_orders(40, 4 * GIB);
}

static void device_above_2t(void)
{
    device_orders(46, 2 * TIB);
    device_orders(52, 1024 * TIB);
    device_orders(52, 4096 * TIB - 4 * GIB);
}

// Device memory in a hole of the boot map: its descriptors share a page with other memory's.
static void device_in_hole(void)
{
    uint64_t before;
    frame_t *f, *g;

    machine_boot(16 * MIB);
    before = digest_free();
    OK(get_device_frame(PADDR(0xa0000), 5, &f));
    OK(get_device_frame(PADDR(0xc0000), 0, &g));
    SAME(mm_check(), 0);
    OK(put_frame(f));
    OK(put_frame(g));
    SAME(mm_check(), 0);
    SAME(digest_free(), before);
    CHECK(find_paddr_frame(PADDR(0x9e000)) && find_paddr_frame(PADDR(0xf0000)));
}

static uint32_t take_all(unsigned order)
{
    uint32_t count = 0;
    int err;

    while (count < HELD_MAX && (err = get_frame(order, &held[count])) == 0)
        count++;
    CHECK(count < HELD_MAX);
    RETURNS(-ENOMEM, err);
    return count;
}

// Every frame as 4K, each mapped, unmapped and put in random order.
static void exhaust(uint64_t ram, bool map)
{
    uint64_t before, pages;
    uint32_t count, mapped = 0;

    machine_boot(ram);
    random_state = ram;
    before = digest_free();
    pages = mm_free_pages();
    count = take_all(0);
    SAME(mm_check(), 0);
    SAME(mm_free_pages(), 0);
    CHECK(count > pages - pages / 50 - 64);
    for (uint32_t i = 0; map && i < count; i++) {
        int err = vmap_kern(VADDR(VA_VMAP + (uint64_t)i * PAGE_SIZE), held[i], VATTR_W);

        if (err) {
            RETURNS(-ENOMEM, err);
            break;
        }
        mapped++;
    }
    SAME(mm_check(), 0);
    for (uint32_t i = 0; i < mapped; i++)
        OK(vput(NULL, VADDR(VA_VMAP + (uint64_t)i * PAGE_SIZE), held[i]));
    shuffle(held, count);
    for (uint32_t i = 0; i < count; i++)
        OK(put_frame(held[i]));
    SAME(digest_free(), before);
    SAME(mm_check(), 0);
}

static void exhaust_and_map(void)
{
    exhaust(5 * MIB, true);
    exhaust(16 * MIB, true);
    exhaust(33 * MIB, false);
}

// All but a few as 4K and all of those mapped, then unmapped and put in random order, mixed.
static void take_and_map_each(void)
{
    static uint32_t place[HELD_MAX];
    uint64_t before;
    uint32_t count = 0;

    machine_boot(24 * MIB);
    random_state = 7;
    before = digest_free();
    while (get_frame(0, &held[count]) == 0) {
        if (vmap_kern(VADDR(VA_VMAP + (uint64_t)count * PAGE_SIZE), held[count], VATTR_W)) {
            OK(put_frame(held[count]));
            break;
        }
        count++;
    }
    CHECK(count > 5000);
    SAME(mm_check(), 0);
    for (uint32_t i = 0; i < count; i++)
        place[i] = i;
    for (uint32_t i = count; i; i--) {
        uint32_t j = random_below(i), n = place[j];

        place[j] = place[i - 1];
        if (random_below(2)) {
            OK(vput(NULL, VADDR(VA_VMAP + (uint64_t)n * PAGE_SIZE), held[n]));
            OK(put_frame(held[n]));
        } else {
            OK(put_frame(held[n]));
            OK(vunmap(NULL, VADDR(VA_VMAP + (uint64_t)n * PAGE_SIZE), held[n]));
        }
    }
    SAME(digest_free(), before);
    SAME(mm_check(), 0);
}

static void exhaust_orders(void)
{
    uint64_t before;

    machine_boot(64 * MIB);
    before = digest_free();
    for (unsigned order = 0; order <= 10; order++) {
        uint32_t count = take_all(order);

        random_state = order;
        shuffle(held, count);
        for (uint32_t i = 0; i < count; i++)
            OK(put_frame(held[i]));
        SAME(digest_free(), before);
        SAME(mm_check(), 0);
    }
}

// Memory runs out and a little comes back: what failed before works again, at once.
static void stock_refills(void)
{
    uint32_t count;
    uint64_t n = 0;
    frame_t *f;

    machine_boot(8 * MIB);
    OK(get_frame(0, &f));
    count = take_all(0);
    while (vmap_kern(VADDR(VA_VMAP + (n << PAGE_SHIFT)), f, VATTR_R) == 0)
        n++;
    EXHAUSTED(vmap_kern(VADDR(VA_VMAP + (n << PAGE_SHIFT)), f, VATTR_R));
    for (uint32_t i = 0; i < MIN(count, 200); i += 20)
        OK(put_frame(held[i]));
    OK(vmap_kern(VADDR(VA_VMAP + (n << PAGE_SHIFT)), f, VATTR_R));
    SAME(mm_check(), 0);
}

static void device_exhausted(void)
{
    frame_t *f;

    machine_reset();
    machine.phys_bits = 46;
    machine_usual(8 * MIB);
    machine_start();
    take_all(0);
    for (uint64_t at = 2 * TIB;; at += 2 * TIB) {
        CHECK(at < 60 * TIB);
        if (get_device_frame(PADDR(at), 0, &f))
            break;
    }
    CHECK(f == NULL);
    EXHAUSTED(get_device_frame(PADDR(62 * TIB), 0, &f));
    for (uint64_t at = 5 * GIB; get_device_frame(PADDR(at), 0, &f) == 0; at += GIB)
        CHECK(at < 64 * GIB);
    EXHAUSTED(get_device_frame(PADDR(100 * GIB), 0, &f));
    SAME(mm_check(), 0);
}

static void finds(void)
{
    machine_boot(16 * MIB);
    CHECK(find_mfn_frame(MFN(UINT64_MAX)) == NULL);
    CHECK(find_mfn_frame(MFN(UINT64_C(1) << 40)) == NULL);
    CHECK(find_mfn_frame(MFN(UINT64_C(1) << 29)) == NULL);
    CHECK(find_mfn_frame(MFN(0xa0)) == NULL);
    CHECK(find_paddr_frame(PADDR(UINT64_MAX)) == NULL);
    CHECK(find_paddr_frame(PADDR(0x100000))->kind == FRAME_IMAGE);
    CHECK(find_kern_va_frame(NULL) == NULL);
    CHECK(find_kern_va_frame((void *)0x800000000000) == NULL);
    CHECK(find_kern_va_frame((void *)(VA_IMAGE + 0x102345))->kind == FRAME_TEXT);
    CHECK(find_kern_va_frame((void *)VA_FRAMES)->kind == FRAME_METADATA);
    CHECK(frame_kind_name(FRAME_DEVICE)[0] == 'd' && frame_kind_name(1000)[0] == '?');
    SAME(mm_free_blocks(99), 0);
    SAME(mm_used_blocks(99), 0);
}

// The manager gives back a page that somebody else holds a reference of.
static void metadata_referenced(void)
{
    struct vlookup at;
    uint64_t va, n = 0;
    frame_t *f, *page;

    machine_boot(16 * MIB);
    OK(get_frame(0, &f));
    for (; n < 1000; n++)
        OK(vmap_kern(VADDR(VA_VMAP + (n << PAGE_SHIFT)), f, VATTR_R));
    va = VA_MAPPINGS + (uint64_t)(mm.arena[ARENA_MAPPINGS].pages - 1) * PAGE_SIZE;
    OK(vmap_lookup(NULL, VADDR(va), &at));
    page = at.frame;
    OK(ref_frame(page));
    while (n--)
        OK(vput(NULL, VADDR(VA_VMAP + (n << PAGE_SHIFT)), f));
    mm_trim();
    RETURNS(-ENOENT, vmap_lookup(NULL, VADDR(va), &at));
    OK(put_frame(page));
    SAME(mm_check(), 0);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"frame_get_errors", get_errors},
        {"frame_all_orders", get_all_orders},
        {"frame_put_errors", put_errors},
        {"frame_double_put", double_put},
        {"frame_mapped_without_owner", mapped_without_owner},
        {"frame_refs_overflow", refs_overflow},
        {"frame_find", finds},
        {"frame_metadata_referenced", metadata_referenced},
        {"frame_exhaust_and_map", exhaust_and_map},
        {"frame_take_and_map_each", take_and_map_each},
        {"frame_exhaust_orders", exhaust_orders},
        {"frame_stock_refills", stock_refills},
        {"device_errors", device_errors},
        {"device_every_order", device_low},
        {"device_above_2t", device_above_2t},
        {"device_in_hole", device_in_hole},
        {"device_exhausted", device_exhausted},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
