// SPDX-License-Identifier: BSD-2-Clause
// kmalloc: slots of size classes on slab pages, and whole pages for what is larger.
#include "mm/kmalloc/kmalloc.h"

#include "arch/x86/spinlock.h"
#include "lib/panic.h"
#include "lib/printk.h"
#include "lib/string.h"
#include "mm/kmalloc/internal.h"

enum {
    SLOT_LARGE = 0xffffffff, // in place of a slot: a large object
};

struct kmalloc kmalloc_state;

// Everything of kmalloc is under one lock, which is taken before any lock of mm/.
static spinlock_t kmalloc_lock = {.rank = RANK_KMALLOC};

static void lock(void)
{
    spin_lock(&kmalloc_lock);
}

static void unlock(void)
{
    spin_unlock(&kmalloc_lock);
}

static unsigned class_of(size_t size)
{
    return size <= 16 ? 0 : 64 - (unsigned)__builtin_clzll(size - 1) - CLASS_SHIFT;
}

/* --- slabs ------------------------------------------------------------------------------------ */

static void slab_add(uint32_t page)
{
    struct kpage *k = kpage_at(page);
    uint32_t *list = &kmalloc_state.slabs[k->class];

    k->prev = 0;
    k->next = *list;
    if (k->next)
        kpage_at(k->next - 1)->prev = page + 1;
    *list = page + 1;
}

static void slab_remove(uint32_t page)
{
    const struct kpage *k = kpage_at(page);

    if (k->prev)
        kpage_at(k->prev - 1)->next = k->next;
    else
        kmalloc_state.slabs[k->class] = k->next;
    if (k->next)
        kpage_at(k->next - 1)->prev = k->prev;
}

static int slab_create(unsigned class)
{
    uint32_t page;
    int err = kpages_take(1, false, &page);

    if (err)
        return err;
    *kpage_at(page) = (struct kpage){.kind = KPAGE_SLAB, .class = class, .pages = 1};
    kdebug_new_slab(page);
    slab_add(page);
    return 0;
}

static uint32_t free_slot(const struct kpage *k)
{
    uint32_t word = 0;

    while (!~k->map[word])
        word++;
    return word * 64 + (uint32_t)__builtin_ctzll(~k->map[word]);
}

static void *alloc_small(size_t size, const void *caller)
{
    unsigned class = class_of(size);
    uint32_t page, slot;
    struct kpage *k;

    if (!kmalloc_state.slabs[class] && slab_create(class))
        return NULL;
    page = kmalloc_state.slabs[class] - 1;
    k = kpage_at(page);
    slot = free_slot(k);
    if (kdebug_check_slot(page, slot))
        printk("kmalloc: that slot is handed out again\n");
    bit_set(k->map, slot, true);
    if (++k->used == class_slots(class))
        slab_remove(page);
    kdebug_alloc(page, slot, size, caller);
    return slot_at(page, slot);
}

static void free_small(uint32_t page, uint32_t slot, const void *caller)
{
    struct kpage *k = kpage_at(page);
    bool was_full = k->used == class_slots(k->class);

    bit_set(k->map, slot, false);
    kdebug_free(page, slot, caller);
    if (was_full)
        slab_add(page);
    if (--k->used)
        return;
    slab_remove(page);
    kpages_give(page, 1, 0);
}

/* --- large objects ---------------------------------------------------------------------------- */

static uint32_t page_count(size_t size)
{
    return (uint32_t)(ROUND_UP(size, PAGE_SIZE) >> PAGE_SHIFT);
}

static void *alloc_large(size_t size, const void *caller)
{
    struct kpage *k;
    uint32_t page;

    if (size > VA_KMALLOC_SIZE / 2 || kpages_take(page_count(size), true, &page))
        return NULL;
    k = kpage_at(page);
    k->kind = KPAGE_LARGE;
    k->pages = page_count(size);
    k->bytes = size;
    kdebug_alloc_large(page, caller);
    return (void *)(uintptr_t)kpage_va(page);
}

/* --- from an address -------------------------------------------------------------------------- */

// The page and slot of the object at p. -EINVAL no object of kmalloc's begins there, -EFREE it is
// free.
static int locate(const void *p, uint32_t *page, uint32_t *slot)
{
    uint64_t byte = (uintptr_t)p - VA_KMALLOC;
    const struct kpage *k;
    uint32_t in_page;

    if (byte >= VA_KMALLOC_SIZE)
        return -EINVAL;
    if (!kpages_find(p, page))
        return -EFREE;
    k = kpage_at(*page);
    in_page = byte % PAGE_SIZE;
    *slot = SLOT_LARGE;
    if (k->kind != KPAGE_SLAB)
        return k->kind == KPAGE_LARGE && !in_page ? 0 : -EINVAL;
    if (in_page % class_stride(k->class))
        return -EINVAL;
    *slot = in_page / class_stride(k->class);
    return bit_get(k->map, *slot) ? 0 : -EFREE;
}

// The same, and nothing around it was written.
static int locate_sound(const void *p, uint32_t *page, uint32_t *slot)
{
    int err = locate(p, page, slot);

    if (err)
        return err;
    return *slot == SLOT_LARGE ? kdebug_check_large(*page) : kdebug_check_slot(*page, *slot);
}

static size_t object_size(uint32_t page, uint32_t slot)
{
    const struct kpage *k = kpage_at(page);

    if (slot == SLOT_LARGE)
        return k->bytes;
    return KMALLOC_DEBUG ? kdebug_tag(page, slot)->size : class_bytes(k->class);
}

/* --- for callers ------------------------------------------------------------------------------ */

static void *alloc_locked(size_t size, const void *caller)
{
    void *p = NULL;

    if (size)
        p = size <= class_bytes(CLASS_COUNT - 1) ? alloc_small(size, caller)
                                                 : alloc_large(size, caller);
    if (p) {
        kmalloc_state.objects++;
        kmalloc_state.serial++;
    }
    return p;
}

static void free_locked(uint32_t page, uint32_t slot, const void *caller)
{
    kmalloc_state.objects--;
    if (slot == SLOT_LARGE)
        kpages_give(page, kpage_at(page)->pages, 1);
    else
        free_small(page, slot, caller);
}

static void complain(const char *what, const void *p, int err, const void *caller)
{
    if (KMALLOC_DEBUG)
        printk("kmalloc: %s(%p) of caller %p: %s\n", what, p, caller, error_name(err));
}

void *kmalloc(size_t size)
{
    void *p;

    lock();
    p = alloc_locked(size, __builtin_return_address(0));
    unlock();
    return p;
}

void *kzalloc(size_t size)
{
    void *p;

    lock();
    p = alloc_locked(size, __builtin_return_address(0));
    unlock();
    return p ? memset(p, 0, size) : NULL;
}

int kfree(void *p)
{
    const void *caller = __builtin_return_address(0);
    uint32_t page, slot;
    int err;

    if (!p)
        return 0;
    lock();
    err = locate_sound(p, &page, &slot);
    if (err)
        complain("kfree", p, err, caller);
    else
        free_locked(page, slot, caller);
    unlock();
    return err;
}

// True if the object has room for the new size where it is, and not twice as much.
static bool resize_in_place(uint32_t page, uint32_t slot, size_t size)
{
    const struct kpage *k = kpage_at(page);

    if (slot == SLOT_LARGE) {
        if (size <= class_bytes(CLASS_COUNT - 1) || size > VA_KMALLOC_SIZE / 2 ||
            page_count(size) != k->pages)
            return false;
        kdebug_resize_large(page, size);
        return true;
    }
    if (size > class_bytes(CLASS_COUNT - 1) || class_of(size) != k->class)
        return false;
    kdebug_resize(page, slot, size);
    return true;
}

static void *realloc_locked(void *p, size_t size, const void *caller)
{
    uint32_t page, slot;
    int err = locate_sound(p, &page, &slot);
    void *to;

    if (err) {
        complain("krealloc", p, err, caller);
        return NULL;
    }
    if (!size)
        return NULL;
    if (resize_in_place(page, slot, size))
        return p;
    to = alloc_locked(size, caller);
    if (!to)
        return NULL;
    memcpy(to, p, MIN(size, object_size(page, slot)));
    free_locked(page, slot, caller);
    return to;
}

void *krealloc(void *p, size_t size)
{
    const void *caller = __builtin_return_address(0);
    void *to;

    lock();
    to = p ? realloc_locked(p, size, caller) : alloc_locked(size, caller);
    unlock();
    return to;
}

size_t kmalloc_size(const void *p)
{
    uint32_t page, slot;
    size_t size;

    lock();
    size = locate(p, &page, &slot) ? 0 : object_size(page, slot);
    unlock();
    return size;
}

/* --- looking at all of it --------------------------------------------------------------------- */

enum {
    LEAKS_PRINTED = 50,
};

// Calls fn for each page that a chunk's head describes; the sum of what it returns.
static uint64_t each_page(uint64_t (*fn)(uint32_t page, const void *arg), const void *arg)
{
    uint64_t sum = 0;

    for (uint32_t number = 0; number < CHUNK_COUNT; number++)
        for (uint32_t i = 1; bit_get(kmalloc_state.heads, number) && i < CHUNK_PAGES; i++)
            sum += fn(number * CHUNK_PAGES + i, arg);
    return sum;
}

static uint64_t count_bits(const uint64_t *map, uint32_t words)
{
    uint64_t bits = 0;

    for (uint32_t i = 0; i < words; i++)
        for (uint64_t left = map[i]; left; left &= left - 1)
            bits++;
    return bits;
}

static uint64_t count_objects(uint32_t page, const void *arg)
{
    const struct kpage *k = kpage_at(page);

    (void)arg;
    return k->kind == KPAGE_SLAB ? count_bits(k->map, ARRAY_SIZE(k->map)) : k->kind == KPAGE_LARGE;
}

static uint64_t count_pages(uint32_t page, const void *arg)
{
    const struct kpage *k = kpage_at(page);

    (void)arg;
    return k->kind == KPAGE_SLAB ? 1 : k->kind == KPAGE_LARGE ? k->pages : 0;
}

static uint64_t check_page(uint32_t page, const void *arg)
{
    const struct kpage *k = kpage_at(page);
    const struct kchunk *c = chunk_at(page / CHUNK_PAGES);
    uint64_t bad = 0;

    (void)arg;
    if ((c->taken >> (page % CHUNK_PAGES) & 1) != (k->kind != KPAGE_FREE)) {
        printk("mm_check: kmalloc: page 0x%lx is of kind %u, its chunk says the opposite\n",
               kpage_va(page), k->kind);
        bad++;
    }
    if (k->kind == KPAGE_LARGE)
        return bad + (kdebug_check_large(page) != 0);
    if (k->kind != KPAGE_SLAB)
        return bad;
    if (k->class >= CLASS_COUNT || count_bits(k->map, ARRAY_SIZE(k->map)) != k->used || !k->used) {
        printk("mm_check: kmalloc: slab 0x%lx counts %u objects, it has %lu\n", kpage_va(page),
               k->used, count_bits(k->map, ARRAY_SIZE(k->map)));
        return bad + 1;
    }
    for (uint32_t slot = 0; slot < class_slots(k->class); slot++)
        bad += kdebug_check_slot(page, slot) != 0;
    return bad;
}

int kmalloc_check(void)
{
    uint64_t bad, objects, pages;

    lock();
    bad = each_page(check_page, NULL);
    objects = each_page(count_objects, NULL);
    pages = each_page(count_pages, NULL) +
            count_bits(kmalloc_state.heads, ARRAY_SIZE(kmalloc_state.heads));
    if (objects != kmalloc_state.objects || pages != kmalloc_state.pages) {
        printk("mm_check: kmalloc: %lu objects on %lu pages, the counts say %lu on %lu\n", objects,
               pages, kmalloc_state.objects, kmalloc_state.pages);
        bad++;
    }
    unlock();
    return (int)MIN(bad, (uint64_t)INT32_MAX);
}

uint32_t kmalloc_mark(void)
{
    return kmalloc_state.serial;
}

struct leaks {
    uint32_t mark;
    uint64_t printed;
};

static uint64_t print_leak(const void *p, size_t size, const struct ktag *tag, struct leaks *leaks)
{
    if (tag && tag->serial < leaks->mark)
        return 0;
    if (leaks->printed++ >= LEAKS_PRINTED)
        return 1;
    if (tag)
        printk("leak: %p, %zu bytes, number %u, caller 0x%lx\n", p, size, tag->serial, tag->caller);
    else
        printk("leak: %p, up to %zu bytes\n", p, size);
    return 1;
}

static uint64_t page_leaks(uint32_t page, const void *arg)
{
    struct leaks *leaks = (struct leaks *)(uintptr_t)arg;
    const struct kpage *k = kpage_at(page);
    uint64_t count = 0;

    if (k->kind == KPAGE_LARGE)
        return print_leak((void *)(uintptr_t)kpage_va(page), k->bytes, &k->tag, leaks);
    if (k->kind != KPAGE_SLAB)
        return 0;
    for (uint32_t slot = 0; slot < class_slots(k->class); slot++)
        if (bit_get(k->map, slot))
            count += print_leak(slot_at(page, slot), object_size(page, slot),
                                kdebug_tag(page, slot), leaks);
    return count;
}

uint64_t kmalloc_leaks(uint32_t mark)
{
    struct leaks leaks = {mark, 0};
    uint64_t count;

    lock();
    count = each_page(page_leaks, &leaks);
    if (count > LEAKS_PRINTED)
        printk("leak: and %lu more\n", count - LEAKS_PRINTED);
    unlock();
    return count;
}

struct kmalloc_usage kmalloc_usage(void)
{
    return (struct kmalloc_usage){kmalloc_state.objects, kmalloc_state.pages};
}
