// SPDX-License-Identifier: BSD-2-Clause
// The benchmark's frames: get, put and find while ten to a million are held; the manager's memory.
#include "lib/panic.h"
#include "tests/guest/bench.h"
#include "tests/guest/test.h"

enum {
    SAMPLE_MAX = 1000, // frames that are put and taken in turn
};

static frame_t **const held = (frame_t **)(uintptr_t)BENCH_ARRAY;
static uint64_t held_count;

static uint64_t random_below(uint64_t limit)
{
    static uint64_t state = 88172645463325252;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

static vaddr_t held_va(uint64_t i)
{
    return VADDR(BENCH_VA + (i << PAGE_SHIFT));
}

static bool buddy_is_held(const frame_t *frame)
{
    const frame_t *buddy = find_mfn_frame(MFN(frame->mfn ^ 1));

    return buddy && buddy != frame && !buddy->order && buddy->refcount;
}

// Brings frames of the held ones, in random order, to the front of held[]: as many as there are
// of which no two are buddies and whose buddies are in use, so that a put does not merge. How many.
static uint64_t choose_sample(void)
{
    uint64_t count = 0;

    for (uint64_t at = 0; at < held_count && count < SAMPLE_MAX; at++) {
        uint64_t other = at + random_below(held_count - at);
        frame_t *frame = held[other];

        held[other] = held[at];
        held[at] = held[count];
        if ((frame->mfn & 1) || !buddy_is_held(frame)) {
            held[at] = frame;
            continue;
        }
        held[count++] = frame;
    }
    if (!count)
        panic("bench: no frame that could be put without a merge");
    return count;
}

// The same loop, which only reads its operand.
#define EMPTY_LOOP(ticks, count) BENCH_LOOP(ticks, i, count, __asm__ volatile("" : : "r"(held[i])))

static void say_for(const char *name, uint64_t ticks, uint64_t ops)
{
    char key[40];

    snprintk(key, sizeof(key), "%s[%lu]", name, held_count);
    bench_say_plain(key, ticks, ops);
}

static void bench_get_put(void)
{
    uint64_t sample = choose_sample(), get = 0, put = 0, ops = 0, empty = 0;
    int err = 0;

    for (; ops < BENCH_MIN; ops += sample) {
        BENCH_LOOP(put, i, sample, err |= put_frame(held[i]));
        BENCH_LOOP(get, i, sample, err |= get_frame(0, &held[i]));
        EMPTY_LOOP(empty, sample);
    }
    bench_check(err, "get and put");
    say_for("get_frame", get - empty, ops);
    say_for("put_frame", put - empty, ops);
}

static uint64_t mfns[SAMPLE_MAX], paddrs[SAMPLE_MAX];

// With few frames held each is looked for several times in a loop, whose start and end count else.
static void bench_find(void)
{
    uint64_t sample = choose_sample(), mfn = 0, paddr = 0, ops = 0, empty = 0, wrong = 0;

    for (uint64_t i = 0; i < SAMPLE_MAX; i++) {
        frame_t *frame = held[i % sample];

        mfns[i] = frame->mfn;
        paddrs[i] = mfns[i] << PAGE_SHIFT;
        wrong |= find_mfn_frame(MFN(mfns[i])) != frame;
        wrong |= find_paddr_frame(PADDR(paddrs[i])) != frame;
    }
    for (; ops < BENCH_MIN; ops += SAMPLE_MAX) {
        BENCH_LOOP(mfn, i, SAMPLE_MAX, (void)find_mfn_frame(MFN(mfns[i])));
        BENCH_LOOP(paddr, i, SAMPLE_MAX, (void)find_paddr_frame(PADDR(paddrs[i])));
        BENCH_LOOP(empty, i, SAMPLE_MAX, __asm__ volatile("" : : "r"(mfns[i])));
    }
    if (wrong)
        panic("bench: another frame was found");
    say_for("find_mfn_frame", mfn - empty, ops);
    say_for("find_paddr_frame", paddr - empty, ops);
}

static uint64_t va_index[SAMPLE_MAX];
static const void *vas[SAMPLE_MAX];

// All that is held is mapped, then looked for at random addresses.
static void bench_find_va(void)
{
    uint64_t ticks = 0, ops = 0, empty = 0, wrong = 0;
    int err = 0;

    for (uint64_t i = 0; i < held_count; i++)
        err |= vmap_4k(NULL, held_va(i), held[i], VATTR_W);
    bench_check(err, "mapping what is held");
    for (unsigned i = 0; i < SAMPLE_MAX; i++) {
        va_index[i] = random_below(held_count);
        vas[i] = vaddr_ptr(held_va(va_index[i]));
    }
    for (; ops < BENCH_MIN; ops += SAMPLE_MAX) {
        BENCH_LOOP(ticks, i, SAMPLE_MAX, (void)find_kern_va_frame(vas[i]));
        EMPTY_LOOP(empty, SAMPLE_MAX);
    }
    for (unsigned i = 0; i < SAMPLE_MAX; i++)
        wrong |= find_kern_va_frame(vas[i]) != held[va_index[i]];
    if (wrong)
        panic("bench: another frame was found");
    say_for("find_kern_va_frame", ticks - empty, ops);
    for (uint64_t i = 0; i < held_count; i++)
        err |= vunmap(NULL, held_va(i), held[i]);
    bench_check(err, "unmapping what is held");
}

// Room for so many frames in held[]; the block behind it.
static frame_t *array_make(uint64_t count)
{
    unsigned order = 0;
    frame_t *frame;

    while (((uint64_t)PAGE_SIZE << order) < count * sizeof(*held))
        order++;
    frame = bench_get(order);
    bench_check(vmap_kern(VADDR(BENCH_ARRAY), frame, VATTR_W), "array of frames");
    return frame;
}

static void array_free(frame_t *frame)
{
    bench_check(vunmap(NULL, VADDR(BENCH_ARRAY), frame), "array of frames");
    put_frame(frame);
}

void bench_frames(void)
{
    uint64_t pages = mm_free_pages();
    uint64_t most = 10;
    frame_t *array;

    // What mapping them takes: a descriptor, a record, a shadow and a table's entry a page.
    while (most < BENCH_HELD_MAX && most * 10 * (PAGE_SIZE + 66) <= (pages - 3000) * PAGE_SIZE)
        most *= 10;
    array = array_make(most);
    held_count = 0;
    for (uint64_t count = 10; count <= most; count *= 10) {
        while (held_count < count)
            held[held_count++] = bench_get(ORDER_4K);
        bench_get_put();
        bench_find();
        bench_find_va();
    }
    while (held_count)
        put_frame(held[--held_count]);
    array_free(array);
}

static uint64_t metadata_pages(void)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < ARENA_COUNT; i++)
        pages += mm.arena[i].pages;
    return pages;
}

// Takes all of the memory as 4K pages and maps each, `step` pages from one to the next; how many.
static uint64_t fill(uint64_t step)
{
    uint64_t mapped = 0;
    frame_t *frame;

    while (get_frame(ORDER_4K, &frame) == 0) {
        if (vmap_4k(NULL, held_va(mapped * step), frame, VATTR_W)) {
            put_frame(frame);
            break;
        }
        mapped++;
    }
    return mapped;
}

static void empty(uint64_t mapped)
{
    int err = 0;

    for (uint64_t i = 0; i < mapped; i++) {
        frame_t *frame = find_kern_va_frame(vaddr_ptr(held_va(i)));

        err |= vunmap(NULL, held_va(i), frame);
        err |= put_frame(frame);
    }
    bench_check(err, "giving all memory back");
}

static void say_full(uint64_t mapped)
{
    uint64_t available = 0;

    for (unsigned i = 0; i < mm.region_count; i++)
        if (mm.region[i].kind == FRAME_AVAILABLE)
            available += (mm.region[i].end - mm.region[i].start) >> PAGE_SHIFT;
    printk("bench: %lu of %lu pages held and mapped, metadata %lu pages\n", mapped, available,
           metadata_pages());
    bench_say_plain("metadata_full_percent", metadata_pages() * 100, available);
}

void bench_full(void)
{
    say_full(fill(1));
}

void bench_apart(void)
{
    say_full(fill(2));
}

void bench_metadata(void)
{
    uint64_t mapped = fill(1);

    say_full(mapped);
    empty(mapped);
    mm_trim();
}
