// SPDX-License-Identifier: BSD-2-Clause
// mm_check(): the rules of docs/invariants.md, as far as the guest can see them itself.
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/arena_internal.h"
#include "mm/boot.h"
#include "mm/check/internal.h"
#include "mm/kmalloc/kmalloc.h"
#include "mm/lock.h"

#include <stdarg.h>

enum {
    PRINT_MAX = 20,
};

const char *mm_check_rule;
void (*check_machine)(struct check *c);

static void say(struct check *c, const char *rule, const char *fmt, va_list args)
{
    char text[200];

    if (!c->violations)
        mm_check_rule = rule;
    if (c->violations++ >= PRINT_MAX)
        return;
    vsnprintk(text, sizeof(text), fmt, args);
    printk("mm_check: %s: %s\n", rule, text);
}

void check_fail(struct check *c, const char *rule, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    say(c, rule, fmt, args);
    va_end(args);
}

void check_blind(struct check *c, const char *rule, const char *fmt, ...)
{
    va_list args;

    c->blind = true;
    va_start(args, fmt);
    say(c, rule, fmt, args);
    va_end(args);
}

/* --- A1, A6: the boot map --------------------------------------------------------------------- */

static bool kind_fits(unsigned region, unsigned frame)
{
    if (region == FRAME_AVAILABLE)
        return frame == FRAME_AVAILABLE || frame == FRAME_TABLE || frame == FRAME_METADATA;
    return region == frame;
}

// Counts the region's frames; each must begin where the one before ends.
static uint64_t check_region(struct check *c, const struct region *r)
{
    uint64_t end = r->end >> PAGE_SHIFT;
    uint64_t count = 0;

    for (uint64_t mfn = r->start >> PAGE_SHIFT; mfn < end; count++) {
        const frame_t *f = find_mfn_frame(MFN(mfn));

        if (!f) { // nor may all that follow: one word can make the region huge
            check_fail(c, "A1", "mfn 0x%lx of the boot map has no frame", mfn);
            break;
        }
        EXPECT(c, "A1", f->mfn == mfn, "mfn 0x%lx: its frame begins at 0x%lx", mfn,
               (uint64_t)f->mfn);
        EXPECT(c, "A1", f->mfn + frame_pages(f) <= end, "frame 0x%lx reaches beyond its region",
               (uint64_t)f->mfn);
        EXPECT(c, "A6", kind_fits(r->kind, f->kind), "frame 0x%lx is %s, the boot map says %s",
               (uint64_t)f->mfn, frame_kind_name(f->kind), frame_kind_name(r->kind));
        EXPECT(c, "A6", r->kind == FRAME_AVAILABLE || f->refcount,
               "reserved frame 0x%lx has no reference", (uint64_t)f->mfn);
        mfn += frame_pages(f);
    }
    return count;
}

// A region and all its frames could be wrong alike: of the image the linker knows.
static void check_image(struct check *c)
{
    const struct region *part = mm_image.part;

    for (unsigned i = 0; i < mm_image.count; i++)
        for (const struct region *r = mm.region; r < mm.region + mm.region_count; r++)
            EXPECT(c, "A6",
                   r->end <= part[i].start || part[i].end <= r->start || r->kind == part[i].kind,
                   "the image's part at 0x%lx is %s, the boot map says %s", part[i].start,
                   frame_kind_name(part[i].kind), frame_kind_name(r->kind));
}

static bool is_blank(const struct region *r)
{
    return !(r->start | r->end | r->kind | r->zero);
}

static void check_regions(struct check *c)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < mm.region_count; i++) {
        const struct region *r = &mm.region[i];

        EXPECT(c, "A1", r->start < r->end && IS_ALIGNED(r->start | r->end, PAGE_SIZE) && !r->zero,
               "region %u is not made of whole pages", i);
        EXPECT(c, "A1", !i || r[-1].end <= r->start, "region %u overlaps the one before", i);
        frames += check_region(c, r);
    }
    for (unsigned i = mm.region_count; i < REGION_MAX; i++)
        EXPECT(c, "A1", is_blank(&mm.region[i]), "region %u, behind the last, is not blank", i);
    check_image(c);
    EXPECT(c, "A1", frames + c->device_frames == c->frames,
           "%lu frames in the boot map and %lu of devices, but %lu on the rings", frames,
           c->device_frames, c->frames);
}

/* --- all of it -------------------------------------------------------------------------------- */

static void check_all(struct check *c)
{
    check_tree(c);
    if (!c->blind)
        check_slot_frames(c);
    if (!c->blind)
        check_windows(c);
    if (!c->blind)
        check_shown(c);
    if (!c->blind)
        check_state(c);
    if (c->blind)
        return;
    check_rings(c);
    check_spaces(c);
    check_regions(c);
    check_arenas(c);
    check_slots(c);
    if (check_machine)
        check_machine(c);
    check_tree_sums(c);
    EXPECT(c, "P4", c->leaves == c->record_entries,
           "%lu entries map something, the records stand for %lu", c->leaves, c->record_entries);
    check_flushed(c);
}

static int check_locked(void)
{
    struct check c;

    memset(&c, 0, sizeof(c));
    check_ranks(&c);
    if (c.blind)
        return c.violations;
    map_lock();
    frame_lock();
    mm_check_rule = NULL;
    check_all(&c);
    frame_unlock();
    map_unlock();
    return c.violations;
}

int mm_check(void)
{
    return check_locked() + kmalloc_check();
}

// Not kmalloc: the operation may be one of its own, under its lock.
static void count_operation(void)
{
    uint32_t operations = __atomic_add_fetch(&mm.operations, 1, __ATOMIC_RELAXED);
    uint32_t every = __atomic_load_n(&mm.check_every, __ATOMIC_RELAXED); // 0 by now, it may be
    int violations;

    if (!every || operations % every || __atomic_exchange_n(&mm.checking, 1, __ATOMIC_ACQUIRE))
        return;
    violations = check_locked();
    __atomic_store_n(&mm.checking, 0, __ATOMIC_RELEASE);
    if (violations)
        panic("mm_check(): %d violations after operation %u", violations, operations);
}

void mm_check_every(uint32_t n)
{
    map_lock();
    mm.check_every = n;
    operation_ended = n ? count_operation : NULL;
    if (n)
        work_add(MM_CHECK);
    spin_unlock(&mm.map_lock);
}
