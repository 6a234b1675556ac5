// SPDX-License-Identifier: BSD-2-Clause
// A busy memory to be stopped in: several spaces, aliases, parts, every page size, devices.
#include "arch/x86/layout.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

void busy_ready(void);

enum {
    SPACES = 3,
    PAGES = 24,
    FREED = 8, // frames that are free, with an epoch of their own
};
#define BUSY_VA   (VA_VMAP + 0x6000000000)
#define USER_VA   0x40000000
#define DEVICE_PA 0x4000000000 // above every machine's memory

// All of it is there: the place for a breakpoint.
__attribute__((noinline, used)) void busy_ready(void)
{
    __asm__ volatile("" : : : "memory");
}

static vaddr_t at(uint64_t base, uint64_t page)
{
    return VADDR(base + page * PAGE_SIZE);
}

// Single pages of the kernel, each an alias in every space, one more counted twice.
static bool map_pages(space_t **space, frame_t **page)
{
    bool good = true;

    for (unsigned i = 0; i < PAGES; i++) {
        good &= get_frame(0, &page[i]) == 0 &&
                vmap_kern(at(BUSY_VA, 2 * i), page[i], i % 2 ? VATTR_W : VATTR_R) == 0;
        for (unsigned s = 0; good && s < SPACES; s++)
            good &= vmap_user(space[s], at(USER_VA, i * (s + 1)), page[i], VATTR_R) == 0;
        good &= i % 5 || vmap_kern(at(BUSY_VA, 2 * i), page[i], i % 2 ? VATTR_W : VATTR_R) == 0;
    }
    return good;
}

// A large page, a part of it elsewhere, a small block over the end of a table, code.
static bool map_blocks(space_t **space, frame_t **block)
{
    return get_frame(10, &block[0]) == 0 && get_frame(4, &block[1]) == 0 &&
           get_frame(3, &block[2]) == 0 &&
           vmap_2m(NULL, VADDR(BUSY_VA + (1ull << 30)), block[0], VATTR_W) == 0 &&
           vmap_part(space[0], VADDR(0x80000000), block[0], 512, 9, VATTR_U) == 0 &&
           vmap_part(space[1], VADDR(0x80000000), block[0], 64, 4, VATTR_U | VATTR_W) == 0 &&
           vmap_kern(VADDR(BUSY_VA + (2ull << 21) - 8 * PAGE_SIZE), block[1], VATTR_W) == 0 &&
           vmap_user(space[2], VADDR(0x7f0000000000), block[2], VATTR_X) == 0 &&
           vprotect_part(NULL, VADDR(BUSY_VA + (2ull << 21) - 4 * PAGE_SIZE), block[1], 4, 1,
                         VATTR_R) == 0;
}

// A GiB (where the CPU has such pages), a page of registers, and one that is owned alone.
static bool map_devices(frame_t **device)
{
    return get_device_frame(PADDR(DEVICE_PA), 18, &device[0]) == 0 &&
           get_device_frame(PADDR(DEVICE_PA + (3ull << 30)), 0, &device[1]) == 0 &&
           get_device_frame(PADDR(DEVICE_PA + (5ull << 40 >> 4)), 2, &device[2]) == 0 &&
           vmap_kern(VADDR(BUSY_VA + (4ull << 30)), device[0], VATTR_W) == 0 &&
           vmap_kern(VADDR(BUSY_VA + (6ull << 30)), device[1], VATTR_W | VATTR_WC) == 0;
}

// Frames that were mapped and are free again: each has the epoch of its unmapping.
static bool free_some(void)
{
    frame_t *frame[FREED];
    bool good = true;

    for (unsigned i = 0; i < FREED; i++)
        good &= get_frame(0, &frame[i]) == 0 &&
                vmap_kern(at(BUSY_VA + (7ull << 30), i), frame[i], VATTR_W) == 0;
    for (unsigned i = 0; good && i < FREED; i += 2)
        good &=
            vunmap(NULL, at(BUSY_VA + (7ull << 30), i), frame[i]) == 0 && put_frame(frame[i]) == 0;
    for (unsigned i = 1; good && i < FREED; i += 2)
        good &= put_frame(frame[i]) == 0; // mapped, without an owner
    return good;
}

static bool take_apart(space_t **space, frame_t **page, frame_t **block, frame_t **device)
{
    bool good = true;

    for (unsigned s = 0; s < SPACES; s++)
        good &= space_destroy(space[s]) == 0;
    for (unsigned i = 0; i < PAGES; i++)
        good &= vunmap(NULL, at(BUSY_VA, 2 * i), page[i]) == 0 && put_frame(page[i]) == 0;
    good &= vunmap(NULL, VADDR(BUSY_VA + (1ull << 30)), block[0]) == 0;
    good &= vunmap_range(NULL, VADDR(BUSY_VA + (2ull << 21) - 8 * PAGE_SIZE), block[1], 0, 16) == 0;
    good &= vunmap(NULL, VADDR(BUSY_VA + (4ull << 30)), device[0]) == 0;
    good &= vunmap(NULL, VADDR(BUSY_VA + (6ull << 30)), device[1]) == 0;
    for (unsigned i = 0; i < 3; i++)
        good &= put_frame(block[i]) == 0 && put_frame(device[i]) == 0;
    for (unsigned i = 1; i < FREED; i += 2) {
        vaddr_t va = at(BUSY_VA + (7ull << 30), i);

        good &= vunmap(NULL, va, find_kern_va_frame(vaddr_ptr(va))) == 0;
    }
    return good;
}

GUEST_TEST(busy)
{
    static const char *const names[SPACES] = {"shell", "editor", "a-name-of-21-letters"};
    static space_t *space[SPACES];
    static frame_t *page[PAGES], *block[3], *device[3];

    for (unsigned s = 0; s < SPACES; s++)
        CHECK_EQ(space_create(names[s], &space[s]), 0);
    CHECK(map_pages(space, page));
    CHECK(map_blocks(space, block));
    CHECK(map_devices(device));
    CHECK(free_some());
    CHECK_EQ(mm_check(), 0);
    busy_ready();
    CHECK(take_apart(space, page, block, device));
}
