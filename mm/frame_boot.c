// SPDX-License-Identifier: BSD-2-Clause
// The boot map made sane: sorted regions of whole pages, each of one kind, without overlap.
#include "arch/x86/memtype.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "mm/boot.h"

enum {
    LOW_END = 1 << 20,
    CLAIM_MAX = 3 * BOOT_MEM_MAX + BOOT_MODULE_MAX + 96, // available: edges, low part, the rest
};

// Somebody says that a stretch is of that kind. Where claims overlap, the higher rank is believed.
struct claim {
    uint64_t start;
    uint64_t end;
    uint32_t kind;
    uint32_t rank;
};

// What is broken or in use counts more than what is said to be free; the rest of a half-covered
// page counts least.
enum rank {
    RANK_EDGE,
    RANK_AVAILABLE,
    RANK_LOW,
    RANK_RESERVED,
    RANK_ACPI,
    RANK_NVS,
    RANK_BAD,
    RANK_LOADED,
};

static struct claim claims[CLAIM_MAX];
static uint64_t edges[2 * CLAIM_MAX];
static unsigned claim_count;

static void add_claim(uint64_t start, uint64_t end, uint32_t kind, uint32_t rank)
{
    if (start >= end)
        return;
    if (claim_count == CLAIM_MAX)
        panic("boot map: more than %u parts", (unsigned)CLAIM_MAX);
    claims[claim_count++] = (struct claim){start, end, kind, rank};
}

// Memory that the MTRRs do not make write-back is not for handing out.
static void add_uncached(uint64_t start, uint64_t end)
{
    while (mtrr_active(&mtrr) && start < end) {
        enum cache_type type = mtrr_type(&mtrr, start);
        uint64_t next = start;

        while (next < end && mtrr_type(&mtrr, next) == type)
            next = MIN(mtrr_next_change(&mtrr, next), end);
        if (type != CACHE_WB) {
            printk("boot map: 0x%lx to 0x%lx is %s by the MTRRs, reserved\n", start, next,
                   cache_type_name(type));
            add_claim(start, next, FRAME_RESERVED, RANK_RESERVED);
        }
        start = next;
    }
}

static void add_available(uint64_t start, uint64_t end)
{
    uint64_t first = ROUND_UP(start, PAGE_SIZE);
    uint64_t last = ROUND_DOWN(end, PAGE_SIZE);

    add_claim(ROUND_DOWN(start, PAGE_SIZE), ROUND_UP(end, PAGE_SIZE), FRAME_RESERVED, RANK_EDGE);
    add_uncached(first, last);
    add_claim(first, MIN(last, LOW_END), FRAME_LOW, RANK_LOW);
    add_claim(MAX(first, LOW_END), last, FRAME_AVAILABLE, RANK_AVAILABLE);
}

static void add_entry(uint64_t start, uint64_t end, uint32_t type)
{
    uint64_t first = ROUND_DOWN(start, PAGE_SIZE);
    uint64_t last = ROUND_UP(end, PAGE_SIZE);

    if (start >= end) // all of it lies beyond what the CPU can address; rounding might wrap
        return;
    switch (type) {
    case BOOT_MEM_AVAILABLE:
        add_available(start, end);
        break;
    case BOOT_MEM_ACPI:
        add_claim(first, last, FRAME_ACPI, RANK_ACPI);
        break;
    case BOOT_MEM_NVS:
        add_claim(first, last, FRAME_NVS, RANK_NVS);
        break;
    case BOOT_MEM_BAD:
        add_claim(first, last, FRAME_BAD, RANK_BAD);
        break;
    default:
        add_claim(first, last, FRAME_RESERVED, RANK_RESERVED);
        break;
    }
}

// The end of an entry, cut to what the CPU can address; says so if it had to.
static uint64_t entry_end(unsigned number, const struct boot_mem *m)
{
    if (m->start.v < mm.phys_limit && m->bytes <= mm.phys_limit - m->start.v)
        return m->start.v + m->bytes;
    printk("boot map: entry %u (0x%lx, 0x%lx bytes) goes beyond physical address 0x%lx, cut\n",
           number, m->start.v, m->bytes, mm.phys_limit);
    return mm.phys_limit;
}

static void tell_oddities(const struct boot_info *bi, unsigned number)
{
    const struct boot_mem *m = &bi->mem[number];

    if (!IS_ALIGNED(m->start.v | m->bytes, PAGE_SIZE))
        printk("boot map: entry %u (0x%lx, 0x%lx bytes) is not page-aligned, its odd parts are "
               "reserved\n",
               number, m->start.v, m->bytes);
    if (number && m->start.v < bi->mem[number - 1].start.v)
        printk("boot map: entry %u (0x%lx) is out of order, sorted\n", number, m->start.v);
    for (unsigned i = 0; i < number; i++) {
        const struct boot_mem *o = &bi->mem[i];

        if (o->bytes && m->start.v - o->start.v < o->bytes)
            printk("boot map: entry %u (0x%lx) overlaps entry %u, the stricter kind counts\n",
                   number, m->start.v, i);
        else if (o->start.v - m->start.v < m->bytes && o->bytes)
            printk("boot map: entry %u (0x%lx) overlaps entry %u, the stricter kind counts\n",
                   number, m->start.v, i);
    }
}

static void collect_claims(const struct boot_info *bi)
{
    claim_count = 0;
    for (unsigned i = 0; i < bi->mem_count; i++) {
        if (!bi->mem[i].bytes) {
            printk("boot map: entry %u (0x%lx) is empty, ignored\n", i, bi->mem[i].start.v);
            continue;
        }
        tell_oddities(bi, i);
        add_entry(bi->mem[i].start.v, entry_end(i, &bi->mem[i]), bi->mem[i].type);
    }
    for (unsigned i = 0; i < mm_image.count; i++)
        add_claim(mm_image.part[i].start, mm_image.part[i].end, mm_image.part[i].kind, RANK_LOADED);
    add_claim(ROUND_DOWN(bi->mbi_start.v, PAGE_SIZE), ROUND_UP(bi->mbi_end.v, PAGE_SIZE),
              FRAME_BOOT, RANK_LOADED);
    for (unsigned i = 0; i < bi->module_count; i++)
        add_claim(ROUND_DOWN(bi->module[i].start.v, PAGE_SIZE),
                  ROUND_UP(bi->module[i].end.v, PAGE_SIZE), FRAME_BOOT, RANK_LOADED);
}

static unsigned sort_edges(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < 2 * claim_count; i++) {
        uint64_t edge = i & 1 ? claims[i / 2].end : claims[i / 2].start;
        unsigned at = count;

        while (at && edges[at - 1] > edge) {
            edges[at] = edges[at - 1];
            at--;
        }
        edges[at] = edge;
        count++;
    }
    return count;
}

static const struct claim *strongest(uint64_t start)
{
    const struct claim *best = NULL;

    for (unsigned i = 0; i < claim_count; i++)
        if (claims[i].start <= start && start < claims[i].end &&
            (!best || claims[i].rank >= best->rank))
            best = &claims[i];
    return best;
}

static void add_region(uint64_t start, uint64_t end, uint32_t kind)
{
    struct region *last = mm.region_count ? &mm.region[mm.region_count - 1] : NULL;

    if (last && last->end == start && last->kind == kind) {
        last->end = end;
        return;
    }
    if (mm.region_count == REGION_MAX)
        panic("boot map: more than %u regions", (unsigned)REGION_MAX);
    mm.region[mm.region_count++] = (struct region){start, end, kind, 0};
}

void bootmap_build(const struct boot_info *bi)
{
    unsigned count;

    collect_claims(bi);
    count = sort_edges();
    mm.region_count = 0;
    for (unsigned i = 0; i + 1 < count; i++) {
        const struct claim *best = edges[i] < edges[i + 1] ? strongest(edges[i]) : NULL;

        if (best)
            add_region(edges[i], edges[i + 1], best->kind);
    }
}
