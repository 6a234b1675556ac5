// SPDX-License-Identifier: BSD-2-Clause
// Test: 10,000 random calls of AcpiOsMapMemory() and AcpiOsUnmapMemory() from all CPUs, against a
// model.
#include <acpi/acpi.h>

#include "kernel/smp.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/acpi.h"
#include "tests/guest/test.h"

enum {
    CALLS = 10000, // by all CPUs together
    ROUNDS = 10,   // after each of which all is compared
    WORKERS_MAX = 8,
    HELD_MAX = 24, // mappings of a worker
    SMALL_FRAMES = 16,
    LARGE_ORDER = 5,
    DEVICE_PAGES = 3,
    PAGES = SMALL_FRAMES + (1 << LARGE_ORDER) + DEVICE_PAGES,
    LENGTH_PAGES_MAX = 9,
};
#define DEVICE_PADDR UINT64_C(0xfed80000) // no device of QEMU's machines, and never touched

// A call that is still to be undone.
struct held {
    uint64_t paddr;
    uint64_t length; // 0: none
};

struct worker {
    uint64_t random;
    uint32_t calls; // of a round
    uint32_t maps, unmaps;
    struct held held[HELD_MAX];
};

// Pages that are mapped, by address; byte i of page n holds n, devices' pages are not touched.
static struct {
    uint64_t paddr[PAGES];
    uint32_t beside[PAGES]; // references of the page behind: ACPI itself may have it mapped
    frame_t *small[SMALL_FRAMES], *large;
    struct worker worker[WORKERS_MAX];
    uint32_t workers;
    uint32_t failures;
    const char *failed;
} pool;

static void fail(const char *what)
{
    if (!__atomic_fetch_add(&pool.failures, 1, __ATOMIC_SEQ_CST))
        pool.failed = what;
}

static uint64_t random_below(struct worker *w, uint64_t limit)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random % limit;
}

/* --- the pool --------------------------------------------------------------------------------- */

static void add_page(unsigned *count, uint64_t paddr)
{
    unsigned i = (*count)++;

    for (; i && pool.paddr[i - 1] > paddr; i--)
        pool.paddr[i] = pool.paddr[i - 1];
    pool.paddr[i] = paddr;
}

static bool is_device(unsigned page)
{
    return pool.paddr[page] >= DEVICE_PADDR;
}

static bool ends_stretch(unsigned page)
{
    return page + 1 == PAGES || pool.paddr[page + 1] != pool.paddr[page] + PAGE_SIZE;
}

static void remember_beside(void)
{
    for (unsigned page = 0; page < PAGES; page++)
        pool.beside[page] = acpi_refs(pool.paddr[page] + PAGE_SIZE);
}

static bool make_pool(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < SMALL_FRAMES; i++) {
        if (get_frame(ORDER_4K, &pool.small[i]))
            return false;
        add_page(&count, frame_paddr(pool.small[i]).v);
    }
    if (get_frame(LARGE_ORDER, &pool.large))
        return false;
    for (unsigned i = 0; i < 1 << LARGE_ORDER; i++)
        add_page(&count, frame_paddr(pool.large).v + i * PAGE_SIZE);
    for (unsigned i = 0; i < DEVICE_PAGES; i++)
        add_page(&count, DEVICE_PADDR + i * PAGE_SIZE);
    for (unsigned page = 0; page < PAGES && !is_device(page); page++) {
        uint8_t *p = acpi_os_map_memory(pool.paddr[page], PAGE_SIZE);

        if (!p)
            return false;
        memset(p, (int)page, PAGE_SIZE);
        acpi_os_unmap_memory(p, PAGE_SIZE);
    }
    return true;
}

static bool drop_pool(void)
{
    int err = put_frame(pool.large);

    for (unsigned i = 0; i < SMALL_FRAMES; i++)
        err |= put_frame(pool.small[i]);
    return !err;
}

/* --- calls ------------------------------------------------------------------------------------ */

// Bytes from there to the end of the pages that follow without a gap.
static uint64_t room(unsigned page, uint64_t offset)
{
    uint64_t pages = 1;

    while (pages < LENGTH_PAGES_MAX && page + pages < PAGES &&
           pool.paddr[page + pages] == pool.paddr[page] + pages * PAGE_SIZE)
        pages++;
    return pages * PAGE_SIZE - offset;
}

// A piece of a page, one whole page, one that crosses into the next, or many.
static struct held choose(struct worker *w)
{
    unsigned page = (unsigned)random_below(w, PAGES);
    uint64_t offset = random_below(w, PAGE_SIZE), most;

    switch (random_below(w, 4)) {
    case 0:
        most = PAGE_SIZE - offset;
        break;
    case 1:
        return (struct held){pool.paddr[page], PAGE_SIZE};
    case 2:
        offset = PAGE_SIZE - 1 - random_below(w, 16);
        most = MIN(room(page, offset), UINT64_C(32));
        break;
    default:
        most = room(page, offset);
    }
    return (struct held){pool.paddr[page] + offset, 1 + random_below(w, most)};
}

static unsigned page_of(uint64_t paddr)
{
    unsigned page = 0;

    while (pool.paddr[page] != ROUND_DOWN(paddr, PAGE_SIZE))
        page++;
    return page;
}

// The first byte, the last one, and one of each page between.
static void read_all(const struct held *h)
{
    uint64_t last = h->paddr + h->length - 1;

    for (uint64_t paddr = h->paddr; paddr <= last; paddr = ROUND_DOWN(paddr, PAGE_SIZE) + PAGE_SIZE)
        if (!is_device(page_of(paddr)) &&
            *(volatile uint8_t *)vaddr_ptr(VADDR(VA_ACPI + paddr)) != page_of(paddr))
            fail("a page holds what another one should");
    if (!is_device(page_of(last)) &&
        *(volatile uint8_t *)vaddr_ptr(VADDR(VA_ACPI + last)) != page_of(last))
        fail("the last page holds what another one should");
}

static void call(struct worker *w)
{
    struct held *h = &w->held[random_below(w, HELD_MAX)];
    void *at;

    if (h->length) {
        read_all(h); // whatever others have unmapped
        acpi_os_unmap_memory(vaddr_ptr(VADDR(VA_ACPI + h->paddr)), h->length);
        h->length = 0;
        w->unmaps++;
        return;
    }
    *h = choose(w);
    at = acpi_os_map_memory(h->paddr, h->length);
    w->maps++;
    if (at == vaddr_ptr(VADDR(VA_ACPI + h->paddr))) {
        read_all(h);
        return;
    }
    fail(at ? "mapped at another address" : "not mapped");
    h->length = 0;
}

static void work(void *arg)
{
    struct worker *w = arg;

    for (uint32_t i = 0; i < w->calls && !__atomic_load_n(&pool.failures, __ATOMIC_SEQ_CST); i++)
        call(w);
}

static void run_round(void)
{
    for (uint32_t i = 1; i < pool.workers; i++)
        smp_run(i, work, &pool.worker[i]);
    work(&pool.worker[0]);
    for (uint32_t i = 1; i < pool.workers; i++)
        smp_wait(i);
}

/* --- the model -------------------------------------------------------------------------------- */

// How many of the calls that are still to be undone touch that page.
static uint32_t model_refs(uint64_t page)
{
    uint32_t refs = 0;

    for (uint32_t i = 0; i < pool.workers; i++) {
        for (unsigned n = 0; n < HELD_MAX; n++) {
            const struct held *h = &pool.worker[i].held[n];

            refs += h->length && ROUND_DOWN(h->paddr, PAGE_SIZE) <= page &&
                    page <= h->paddr + h->length - 1;
        }
    }
    return refs;
}

// Pages, frames and the pages next to them.
static bool as_in_model(void)
{
    uint64_t large = 0;

    for (unsigned page = 0; page < PAGES; page++) {
        uint64_t paddr = pool.paddr[page];
        uint32_t refs = model_refs(paddr);
        frame_t *frame = find_paddr_frame(PADDR(paddr));

        if (acpi_refs(paddr) != refs || (refs && !frame)) {
            printk("  page 0x%lx has %u references, should have %u\n", paddr, acpi_refs(paddr),
                   refs);
            return false;
        }
        large += frame == pool.large ? refs : 0;
        if (frame && frame != pool.large && frame->mapcount != refs)
            return false;
        if (ends_stretch(page) && acpi_refs(paddr + PAGE_SIZE) != pool.beside[page]) {
            printk("  page 0x%lx is mapped or unmapped, nobody asked for it\n", paddr + PAGE_SIZE);
            return false;
        }
    }
    return pool.large->mapcount == large;
}

static void unmap_rest(struct worker *w)
{
    for (unsigned n = 0; n < HELD_MAX; n++) {
        struct held *h = &w->held[n];

        if (h->length)
            acpi_os_unmap_memory(vaddr_ptr(VADDR(VA_ACPI + h->paddr)), h->length);
        h->length = 0;
    }
}

GUEST_TEST(acpi_random)
{
    uint32_t maps = 0, unmaps = 0;

    memset(&pool, 0, sizeof(pool));
    pool.workers = MIN(smp_count(), (uint32_t)WORKERS_MAX);
    CHECK(make_pool());
    remember_beside();
    for (uint32_t i = 0; i < pool.workers; i++) {
        pool.worker[i].random = UINT64_C(0x9e3779b97f4a7c15) * (i + 1);
        pool.worker[i].calls = CALLS / ROUNDS / pool.workers + 1;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        run_round();
        CHECK_EQ(pool.failures, 0);
        CHECK(as_in_model());
        CHECK_EQ(mm_check(), 0);
    }
    for (uint32_t i = 0; i < pool.workers; i++) {
        maps += pool.worker[i].maps;
        unmaps += pool.worker[i].unmaps;
        unmap_rest(&pool.worker[i]);
    }
    printk("  %u CPUs: %u maps, %u unmaps\n", pool.workers, maps, unmaps);
    CHECK(maps + unmaps >= CALLS);
    CHECK(as_in_model());
    CHECK(!find_paddr_frame(PADDR(DEVICE_PADDR))); // it went with its last mapping
    CHECK(drop_pool());
}
