// SPDX-License-Identifier: BSD-2-Clause
// The memory order that mm/ asks for when it pins a frame. An x86 CPU gives more order than that,
// and no test can see on it what is missing. So mm/ is built with -fsanitize=thread here: each
// access to memory calls a function of this file, and each atomic one says its order.
#include "tests/host/support.h"

#include "lib/string.h"

#define BLOCK VADDR(VA_VMAP)           // where blocks of 2 MiB are mapped
#define PAGE  VADDR(VA_VMAP + 2 * MIB) // where pages are mapped

// What was done to the frame. It is pinned when its mapcount rises by a compare-and-exchange of
// both counts: only then its descriptor says what it is.
static struct {
    const frame_t *frame; // NULL: nothing is noted
    bool pinned;
    bool acquired; // the pin was an acquire
    unsigned pins;
    unsigned looks;       // at the descriptor's first word or its list, pinned
    unsigned early;       // of them those that may have been done before the pin
    unsigned unpins;      // mapcount fell
    unsigned unreleased;  // of them those that were no release
    unsigned published;   // refcount rose from 0
    unsigned unpublished; // of them those that were no release
} seen;

static bool is_acquire(int order)
{
    return order == __ATOMIC_ACQUIRE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static bool is_release(int order)
{
    return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static void saw_read(const volatile void *at)
{
    uint64_t byte = (uintptr_t)at - (uintptr_t)seen.frame;

    if (!seen.frame || !seen.pinned || (byte >= 8 && byte != offsetof(frame_t, maps)))
        return;
    seen.looks++;
    seen.early += !seen.acquired;
}

static void saw_counts(uint64_t before, uint64_t after, int order)
{
    uint32_t mapped = before >> COUNT_MAP_SHIFT, maps = after >> COUNT_MAP_SHIFT;

    if (maps > mapped) {
        seen.pins++;
        seen.pinned = true;
        seen.acquired = is_acquire(order);
    } else if (maps < mapped) {
        seen.unpins++;
        seen.unreleased += !is_release(order);
    }
}

static void saw_write(const volatile void *at)
{
    if (seen.frame && at == &seen.frame->refcount && !seen.frame->refcount) {
        seen.published++;
        seen.unpublished++;
    }
}

static void saw_change(const volatile void *at, unsigned bytes, uint64_t before, uint64_t after,
                       int order)
{
    if (!seen.frame || at != &seen.frame->refcount)
        return;
    if (bytes == 8)
        saw_counts(before, after, order);
    if (!(uint32_t)before && (uint32_t)after) {
        seen.published++;
        seen.unpublished += !is_release(order);
    }
}

/* --- what code built with -fsanitize=thread calls --------------------------------------------- */

void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);
void __tsan_read_range(void *at, unsigned long bytes);
void __tsan_write_range(void *at, unsigned long bytes);

void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void)
{
}

void __tsan_read_range(void *at, unsigned long bytes)
{
    (void)bytes;
    saw_read(at);
}

void __tsan_write_range(void *at, unsigned long bytes)
{
    (void)bytes;
    saw_write(at);
}

#define PLAIN(bytes)                                                                               \
    void __tsan_read##bytes(void *at);                                                             \
    void __tsan_write##bytes(void *at);                                                            \
    void __tsan_unaligned_read##bytes(void *at);                                                   \
    void __tsan_unaligned_write##bytes(void *at);                                                  \
    void __tsan_read##bytes(void *at)                                                              \
    {                                                                                              \
        saw_read(at);                                                                              \
    }                                                                                              \
    void __tsan_write##bytes(void *at)                                                             \
    {                                                                                              \
        saw_write(at);                                                                             \
    }                                                                                              \
    void __tsan_unaligned_read##bytes(void *at)                                                    \
    {                                                                                              \
        saw_read(at);                                                                              \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *at)                                                   \
    {                                                                                              \
        saw_write(at);                                                                             \
    }

PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

// One operation that reads, changes and writes; the machine's own is an ordered one.
#define CHANGE(bits, name, builtin)                                                                \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *at, uint##bits##_t value, \
                                                int order);                                        \
    uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *at, uint##bits##_t value, \
                                                int order)                                         \
    {                                                                                              \
        uint##bits##_t before = builtin(at, value, __ATOMIC_SEQ_CST);                              \
                                                                                                   \
        saw_change(at, bits / 8, before, *at, order);                                              \
        return before;                                                                             \
    }

#define COMPARE(bits, name)                                                                        \
    bool __tsan_atomic##bits##_##name(volatile uint##bits##_t *at, uint##bits##_t *want,           \
                                      uint##bits##_t value, int order, int failed);                \
    bool __tsan_atomic##bits##_##name(volatile uint##bits##_t *at, uint##bits##_t *want,           \
                                      uint##bits##_t value, int order, int failed)                 \
    {                                                                                              \
        uint##bits##_t before = *want;                                                             \
        bool done = __atomic_compare_exchange_n(at, want, value, false, __ATOMIC_SEQ_CST,          \
                                                __ATOMIC_SEQ_CST);                                 \
                                                                                                   \
        (void)failed;                                                                              \
        if (done)                                                                                  \
            saw_change(at, bits / 8, before, value, order);                                        \
        return done;                                                                               \
    }

#define ATOMIC(bits)                                                                               \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int order);       \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value,            \
                                     int order);                                                   \
    uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int order)        \
    {                                                                                              \
        (void)order;                                                                               \
        return *at;                                                                                \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value, int order) \
    {                                                                                              \
        saw_change(at, bits / 8, *at, value, order);                                               \
        *at = value;                                                                               \
    }                                                                                              \
    CHANGE(bits, exchange, __atomic_exchange_n)                                                    \
    CHANGE(bits, fetch_add, __atomic_fetch_add)                                                    \
    CHANGE(bits, fetch_sub, __atomic_fetch_sub)                                                    \
    CHANGE(bits, fetch_and, __atomic_fetch_and)                                                    \
    CHANGE(bits, fetch_or, __atomic_fetch_or)                                                      \
    CHANGE(bits, fetch_xor, __atomic_fetch_xor)                                                    \
    COMPARE(bits, compare_exchange_strong)                                                         \
    COMPARE(bits, compare_exchange_weak)

ATOMIC(8)
ATOMIC(32)
ATOMIC(64)

/* --- the ways to map -------------------------------------------------------------------------- */

// Maps a frame of that order, then unmaps it, and watches it.
static void watch(unsigned order, int (*map)(frame_t *frame), int (*unmap)(frame_t *frame))
{
    frame_t *keeper, *frame;

    machine_boot(64 * MIB);
    OK(get_frame(0, &keeper));
    OK(vmap_4k(NULL, VADDR(PAGE.v + 8 * PAGE_SIZE), keeper, VATTR_W)); // keeps the tables
    OK(get_frame(order, &frame));
    for (unsigned i = 0; i < 2; i++) { // the second time without upkeep
        memset(&seen, 0, sizeof(seen));
        seen.frame = frame;
        OK(map(frame));
        seen.pinned = false;
        OK(unmap(frame));
        seen.frame = NULL;
        CHECK(seen.pins && seen.looks);
        SAME(seen.early, 0);
        CHECK(seen.unpins);
        SAME(seen.unreleased, 0);
    }
    SAME(mm_check(), 0);
}

static int map_4k(frame_t *frame)
{
    return vmap_4k(NULL, PAGE, frame, VATTR_W);
}

static int map_2m(frame_t *frame)
{
    return vmap_2m(NULL, BLOCK, frame, VATTR_W);
}

static int map_block(frame_t *frame)
{
    return vmap(NULL, BLOCK, frame, VATTR_W);
}

static int map_page(frame_t *frame)
{
    return vmap_page(PAGE, frame, 1, VATTR_W, NULL);
}

static int map_range(frame_t *frame)
{
    return vmap_range(NULL, PAGE, frame, 0, 1, VATTR_W);
}

static int map_frames(frame_t *frame)
{
    return vmap_frames(NULL, PAGE, &frame, 1, VATTR_W);
}

static int unmap_4k(frame_t *frame)
{
    return vunmap(NULL, PAGE, frame);
}

static int unmap_block(frame_t *frame)
{
    return vunmap(NULL, BLOCK, frame);
}

static int unmap_page(frame_t *frame)
{
    return vput_page(PAGE, frame, 1, NULL);
}

static int unmap_range(frame_t *frame)
{
    return vunmap_range(NULL, PAGE, frame, 0, 1);
}

static int unmap_frames(frame_t *frame)
{
    return vput_frames(NULL, PAGE, &frame, 1);
}

static void page_4k(void)
{
    watch(0, map_4k, unmap_4k);
}

static void page_2m(void)
{
    watch(9, map_2m, unmap_block);
}

static void general(void)
{
    watch(9, map_block, unmap_block);
}

static void page_of_block(void)
{
    watch(6, map_page, unmap_page);
}

static void range(void)
{
    watch(0, map_range, unmap_range);
}

static void frames(void)
{
    watch(0, map_frames, unmap_frames);
}

// A frame that is handed out has its descriptor first, then its reference.
static void handed_out(void)
{
    frame_t *frame;

    machine_boot(64 * MIB);
    for (unsigned order = 0; order <= 9; order++) {
        OK(get_frame(order, &frame));
        OK(put_frame(frame));
        memset(&seen, 0, sizeof(seen));
        seen.frame = frame; // the one that is taken next, or the first page of a larger block
        OK(get_frame(order, &frame));
        SAME((uintptr_t)frame, (uintptr_t)seen.frame);
        seen.frame = NULL;
        SAME(seen.published, 1);
        SAME(seen.unpublished, 0);
        OK(put_frame(frame));
    }
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"order_vmap_4k", page_4k},       {"order_vmap_2m", page_2m},
        {"order_vmap", general},          {"order_vmap_page", page_of_block},
        {"order_vmap_range", range},      {"order_vmap_frames", frames},
        {"order_handed_out", handed_out},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
