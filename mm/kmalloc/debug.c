// SPDX-License-Identifier: BSD-2-Clause
// kmalloc's debug part: junk, red zones, and who asked. Empty in builds without it.
//
// A slot: the object, red zone from its end on, the tag 8 bytes behind the class's size, red zone
// up to the next slot. A free slot: junk up to the tag, which names who freed it.
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/kmalloc/internal.h"

// The first of `bytes` bytes at p that is not `junk`; `bytes` if all are.
static size_t first_other(const uint8_t *p, size_t bytes, uint8_t junk)
{
    size_t i = 0;

    while (i < bytes && p[i] == junk)
        i++;
    return i;
}

static int report(const void *object, const char *what, uint64_t distance, const struct ktag *tag)
{
    printk("kmalloc: %p of %u bytes, number %u, caller 0x%lx: %s, at byte %ld\n", object, tag->size,
           tag->serial, tag->caller, what, (long)distance);
    return -ECORRUPT;
}

// The bytes of a large object's last page that it has not asked for.
static size_t large_tail(const struct kpage *k)
{
    return ((size_t)k->pages << PAGE_SHIFT) - k->bytes;
}

void kdebug_alloc_large(uint32_t page, const void *caller)
{
    struct kpage *k = kpage_at(page);
    uint8_t *p = (uint8_t *)(uintptr_t)kpage_va(page);

    k->tag = (struct ktag){(uintptr_t)caller, kmalloc_state.serial,
                           (uint32_t)MIN(k->bytes, (uint64_t)UINT32_MAX)};
    if (!KMALLOC_DEBUG)
        return;
    memset(p, JUNK_ALLOC, k->bytes);
    memset(p + k->bytes, JUNK_RED, large_tail(k));
}

void kdebug_resize_large(uint32_t page, size_t size)
{
    struct kpage *k = kpage_at(page);
    uint8_t *p = (uint8_t *)(uintptr_t)kpage_va(page);

    if (KMALLOC_DEBUG && size > k->bytes)
        memset(p + k->bytes, JUNK_ALLOC, size - k->bytes);
    k->bytes = size;
    k->tag.size = (uint32_t)MIN(size, (size_t)UINT32_MAX);
    if (KMALLOC_DEBUG)
        memset(p + size, JUNK_RED, large_tail(k));
}

int kdebug_check_large(uint32_t page)
{
    const struct kpage *k = kpage_at(page);
    const uint8_t *p = (const uint8_t *)(uintptr_t)kpage_va(page);
    size_t bad;

    if (!KMALLOC_DEBUG)
        return 0;
    bad = first_other(p + k->bytes, large_tail(k), JUNK_RED);
    return bad == large_tail(k) ? 0 : report(p, "written beyond its end", k->bytes + bad, &k->tag);
}

#if KMALLOC_DEBUG

// From the object to its tag, and what follows the tag.
static size_t to_tag(uint32_t page)
{
    return MAX(class_bytes(kpage_at(page)->class), 32u) + RED_BYTES;
}

static size_t behind_tag(uint32_t page)
{
    return class_stride(kpage_at(page)->class) - to_tag(page) - sizeof(struct ktag);
}

struct ktag *kdebug_tag(uint32_t page, uint32_t slot)
{
    return (struct ktag *)(slot_at(page, slot) + to_tag(page));
}

void kdebug_new_slab(uint32_t page)
{
    for (uint32_t slot = 0; slot < class_slots(kpage_at(page)->class); slot++) {
        uint8_t *p = slot_at(page, slot);

        memset(p, JUNK_FREE, to_tag(page));
        *kdebug_tag(page, slot) = (struct ktag){0};
        memset(p + to_tag(page) + sizeof(struct ktag), JUNK_RED, behind_tag(page));
    }
}

void kdebug_alloc(uint32_t page, uint32_t slot, size_t size, const void *caller)
{
    uint8_t *p = slot_at(page, slot);

    *kdebug_tag(page, slot) =
        (struct ktag){(uintptr_t)caller, kmalloc_state.serial, (uint32_t)size};
    memset(p, JUNK_ALLOC, size);
    memset(p + size, JUNK_RED, to_tag(page) - size);
}

void kdebug_resize(uint32_t page, uint32_t slot, size_t size)
{
    struct ktag *tag = kdebug_tag(page, slot);
    uint8_t *p = slot_at(page, slot);

    if (size > tag->size)
        memset(p + tag->size, JUNK_ALLOC, size - tag->size);
    tag->size = (uint32_t)size;
    memset(p + size, JUNK_RED, to_tag(page) - size);
}

void kdebug_free(uint32_t page, uint32_t slot, const void *caller)
{
    kdebug_tag(page, slot)->caller = (uintptr_t)caller;
    memset(slot_at(page, slot), JUNK_FREE, to_tag(page));
}

// The slot before ends where this one begins: who writes there has run backwards.
static int check_before(uint32_t page, uint32_t slot)
{
    const uint8_t *p = slot_at(page, slot);
    size_t bytes = behind_tag(page);

    if (!slot || first_other(p - bytes, bytes, JUNK_RED) == bytes)
        return 0;
    return report(p, "written before its start", first_other(p - bytes, bytes, JUNK_RED) - bytes,
                  kdebug_tag(page, slot));
}

int kdebug_check_slot(uint32_t page, uint32_t slot)
{
    const struct ktag *tag = kdebug_tag(page, slot);
    const uint8_t *p = slot_at(page, slot);
    bool used = bit_get(kpage_at(page)->map, slot);
    size_t from = used ? tag->size : 0;
    size_t bad;

    if (used && (!from || from > class_bytes(kpage_at(page)->class)))
        return report(p, "its tag was written over", to_tag(page), tag);
    bad = first_other(p + from, to_tag(page) - from, used ? JUNK_RED : JUNK_FREE);
    if (bad != to_tag(page) - from)
        return report(p, used ? "written beyond its end" : "written after it was freed", from + bad,
                      tag);
    bad = first_other(p + to_tag(page) + sizeof(*tag), behind_tag(page), JUNK_RED);
    if (bad != behind_tag(page))
        return report(p, "written beyond its end, or before the next one's start",
                      to_tag(page) + sizeof(*tag) + bad, tag);
    return check_before(page, slot);
}

#else

struct ktag *kdebug_tag(uint32_t page, uint32_t slot)
{
    (void)page;
    (void)slot;
    return NULL;
}

void kdebug_new_slab(uint32_t page)
{
    (void)page;
}

void kdebug_alloc(uint32_t page, uint32_t slot, size_t size, const void *caller)
{
    (void)page;
    (void)slot;
    (void)size;
    (void)caller;
}

void kdebug_resize(uint32_t page, uint32_t slot, size_t size)
{
    (void)page;
    (void)slot;
    (void)size;
}

void kdebug_free(uint32_t page, uint32_t slot, const void *caller)
{
    (void)page;
    (void)slot;
    (void)caller;
}

int kdebug_check_slot(uint32_t page, uint32_t slot)
{
    (void)page;
    (void)slot;
    return 0;
}
#endif
