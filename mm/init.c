// SPDX-License-Identifier: BSD-2-Clause
// Start-up: from the boot map to frames, then to a kernel space in which everything is mapped
// through its frame.
#include "arch/x86/boot_window.h"
#include "arch/x86/cpu.h"
#include "arch/x86/machine.h"
#include "arch/x86/tlb.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/boot.h"
#include "mm/frame_block.h"
#include "mm/frame_tree.h"
#include "mm/journal.h"
#include "mm/lock.h"
#include "mm/mapping_internal.h"
#include "mm/mm.h"
#include "mm/space.h"
#include "mm/table.h"
#include "mm/table_flush.h"
#include "mm/vmap.h"

enum {
    POOL_ORDER = ORDER_2M, // as much as the boot windows can show
    POOL_PAGES = 1 << POOL_ORDER,
};

// The first pages come from here, as long as nothing can be mapped through a frame yet.
static struct {
    uint64_t mfn;            // first of POOL_PAGES pages
    uint32_t used;           // pages handed out
    uint64_t va[POOL_PAGES]; // where each of them is
} pool;

void boot_pool_choose(void)
{
    uint64_t bytes = (uint64_t)POOL_PAGES * PAGE_SIZE;

    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];
        uint64_t start = ROUND_UP(r->start, bytes);

        if (r->kind == FRAME_AVAILABLE && start < r->end && r->end - start >= bytes) {
            pool.mfn = start >> PAGE_SHIFT;
            pool.used = 0;
            return;
        }
    }
    panic("no 2 MiB of available memory, aligned, for the memory manager: give the guest more");
}

void boot_pool_back(vaddr_t va)
{
    if (pool.used == POOL_PAGES)
        panic("boot map: too many small regions, 2 MiB do not hold their descriptors");
    arch_meta_map(va, MFN(pool.mfn + pool.used));
    pool.va[pool.used++] = va.v;
}

void boot_pool_map(void)
{
    for (uint32_t i = 0; i < pool.used; i++)
        if (mapping_create_own(VADDR(pool.va[i]), find_mfn_frame(MFN(pool.mfn + i))))
            panic("no memory to map the memory manager");
}

static unsigned largest_order(uint64_t mfn, uint64_t end)
{
    unsigned order = ORDER_MAX;

    while ((mfn & ((UINT64_C(1) << order) - 1)) || mfn + (UINT64_C(1) << order) > end)
        order--;
    return order;
}

// Frames for the pages [mfn, end), as large as they fit.
static void create_frames(uint64_t mfn, uint64_t end, uint32_t kind, uint32_t refcount)
{
    while (mfn < end) {
        unsigned order = largest_order(mfn, end);

        if (frame_create(mfn, order, kind, refcount))
            panic("no memory for the frame at mfn 0x%lx", mfn);
        mfn += UINT64_C(1) << order;
    }
}

// The pool's used pages become frames of their own, the rest goes to the orders and merges there.
static void create_pool_frames(void)
{
    uint64_t end = pool.mfn + POOL_PAGES;
    uint32_t used;

    do {
        used = pool.used;
        for (uint64_t mfn = pool.mfn; mfn <= pool.mfn + used; mfn += FRAME_PAGE_COUNT)
            if (tree_prepare(mfn, 0))
                panic("no memory for the first descriptors");
        mm_upkeep();
    } while (used != pool.used);
    for (uint64_t mfn = pool.mfn; mfn < pool.mfn + used; mfn++)
        create_frames(mfn, mfn + 1, FRAME_METADATA, 1);
    for (uint64_t mfn = pool.mfn + used; mfn < end;) {
        unsigned order = largest_order(mfn, end);

        create_frames(mfn, mfn + (UINT64_C(1) << order), FRAME_AVAILABLE, 1);
        frame_drop(find_mfn_frame(MFN(mfn)));
        mfn += UINT64_C(1) << order;
    }
    if (used != pool.used)
        panic("the first descriptors took more memory than foreseen");
}

void boot_frames(void)
{
    uint64_t pool_end = pool.mfn + POOL_PAGES;

    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];
        uint64_t mfn = r->start >> PAGE_SHIFT;
        uint64_t end = r->end >> PAGE_SHIFT;
        uint32_t refcount = r->kind == FRAME_AVAILABLE ? 0 : 1;

        if (mfn <= pool.mfn && pool.mfn < end) {
            create_frames(mfn, pool.mfn, r->kind, refcount);
            create_frames(pool_end, end, r->kind, refcount);
        } else {
            create_frames(mfn, end, r->kind, refcount);
        }
    }
    create_pool_frames();
    mm.magic = MM_MAGIC;
}

static void setup_rings(void)
{
    for (unsigned order = 0; order <= ORDER_MAX; order++) {
        uint32_t head = arena_alloc(ARENA_FRAMES);

        assert(head == order + 1);
        mm.order[order].head = mm.order[order].last_free = head;
        frame_at(head)->next = head;
        frame_at(head)->prev = head;
    }
}

static void setup_arenas(void)
{
    arena_setup();
    if (arena_grow(ARENA_FRAMES) || tree_setup() || arena_grow(ARENA_SPACES) || slots_grow(0))
        panic("no memory for the first arenas");
    setup_rings();
    mm.work = MM_GROW;
    mm_upkeep();
}

static void map_boot_data(void)
{
    uint64_t va = VA_BOOTDATA;

    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];
        uint64_t pages = (r->end - r->start) >> PAGE_SHIFT;
        int err;

        if (r->kind != FRAME_BOOT)
            continue;
        err = vmap_range(NULL, VADDR(va), find_paddr_frame(PADDR(r->start)), 0, pages, VATTR_R);
        if (err)
            printk("boot data at 0x%lx can't be mapped: %s\n", r->start, error_name(err));
        va += r->end - r->start;
    }
}

static void fill_leaf_bits(void)
{
    for (unsigned attr = 0; attr <= VATTR_ALL; attr++)
        for (unsigned level = 1; level <= 2; level++)
            mm.leaf_bits[level - 1][attr] = leaf_bits_of(level, attr);
}

struct image mm_image;

static void map_section(const struct region *r)
{
    unsigned attr = r->kind == FRAME_TEXT ? VATTR_X : r->kind == FRAME_RODATA ? VATTR_R : VATTR_W;
    uint64_t pages = (r->end - r->start) >> PAGE_SHIFT;
    frame_t *first = find_paddr_frame(PADDR(r->start));
    int err = 0;

    if (pages)
        err = vmap_range(NULL, VADDR(VA_IMAGE + r->start), first,
                         (r->start >> PAGE_SHIFT) - first->mfn, pages, attr);
    if (err)
        panic("the image's part at 0x%lx can't be mapped: %s", r->start, error_name(err));
}

// The boot part is not needed any more.
static void map_image(void)
{
    for (unsigned i = 0; i < mm_image.count; i++)
        if (mm_image.part[i].kind != FRAME_IMAGE)
            map_section(&mm_image.part[i]);
}

uint64_t kernel_cr3;

void mm_init(const struct boot_info *bi, const struct region *image, unsigned parts)
{
    uint64_t start = rdtsc();
    space_t *kernel;

    mm_image = (struct image){image, parts};
    tlb_answer_hook = shootdown_answer;
    mm.map_lock.rank = RANK_MAP;
    mm.frame_lock.rank = RANK_FRAME;
    mm.phys_limit = UINT64_C(1) << arch_phys_bits();
    mm.page_1g = arch_has_1g();
    mm.levels = arch_levels();
    mm.window = VA_WINDOW;
    mm.journal_on = 1;
    mm.journal_seq = JOURNAL_STEP;
    fill_leaf_bits();
    bootmap_build(bi);
    type_init();
    boot_pool_choose();
    setup_arenas();
    boot_frames();
    mm.boot_ticks = rdtsc() - start;
    kernel = space_setup_kernel();
    pt_boot(kernel);
    boot_pool_map();
    mm.work = MM_GROW;
    mm_upkeep();
    map_image();
    map_boot_data();
    arch_load_space(kernel->cr3);
    arch_meta_final();
    kernel_cr3 = kernel->cr3; // with mm.live: the debugger checks from here on
    mm.live = 1;
    mm_trim();
}
