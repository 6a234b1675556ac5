// SPDX-License-Identifier: BSD-2-Clause
// kmalloc: sizes and alignment, what debug builds catch, running out of memory, and random use
// against a model.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/kmalloc/kmalloc.h"
#include "mm/kmalloc/internal.h"
#include "tests/host/kmalloc_ops.h"
#include "tests/host/ops.h"

static uint64_t free_at_start;

static void start(void)
{
    machine_boot(32 * MIB);
    free_at_start = digest_free();
}

// Nothing is left, and every frame is back.
static void end(void)
{
    SAME(kmalloc_usage().objects, 0);
    SAME(kmalloc_usage().pages, 0);
    SAME(kmalloc_leaks(0), 0);
    SAME(mm_check(), 0);
    SAME(digest_free(), free_at_start);
}

static void sizes(void)
{
    static const size_t size[] = {1,    2,    7,     8,      15,     16,     17,
                                  31,   33,   64,    100,    128,    255,    512,
                                  1000, 1024, 1025,  2047,   2048,   2049,   4095,
                                  4096, 4097, 65536, 250000, 253952, 300001, 3000000};
    uint8_t *p[ARRAY_SIZE(size)];

    start();
    for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
        p[i] = kmalloc(size[i]);
        CHECK(p[i]);
        SAME((uintptr_t)p[i] % kmalloc_alignment(size[i]), 0);
        CHECK(kmalloc_size(p[i]) >= size[i]);
        memset(p[i], (int)i, kmalloc_size(p[i]));
    }
    SAME(kmalloc_usage().objects, ARRAY_SIZE(size));
    SAME(mm_check(), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
        for (size_t n = 0; n < size[i]; n++)
            SAME(p[i][n], i);
        OK(kfree(p[i]));
        RETURNS(-EFREE, kfree(p[i]));
        SAME(kmalloc_size(p[i]), 0);
    }
    end();
}

static void refusals(void)
{
    char local[64];
    char *p;

    start();
    CHECK(!kmalloc(0) && !kzalloc(0) && !kmalloc(SIZE_MAX) && !kmalloc(VA_KMALLOC_SIZE));
    CHECK(!krealloc(NULL, 0));
    OK(kfree(NULL));
    RETURNS(-EINVAL, kfree(local));
    RETURNS(-EINVAL, kfree((void *)VA_FRAMES));
    RETURNS(-EFREE, kfree((void *)VA_KMALLOC));
    RETURNS(-EFREE, kfree((void *)(VA_KMALLOC + VA_KMALLOC_SIZE - 16)));
    p = kmalloc(40);
    RETURNS(-EINVAL, kfree(p + 1));
    RETURNS(-EINVAL, kfree(p + 16));
    RETURNS(-EFREE, kfree((void *)ROUND_DOWN((uintptr_t)p, PAGE_SIZE * CHUNK_PAGES)));
    CHECK(!krealloc(p + 8, 100) && !krealloc(local, 100) && !krealloc(p, 0));
    OK(kfree(p));
    CHECK(!krealloc(p, 10));
    p = kmalloc(400000); // more than one chunk
    RETURNS(-EINVAL, kfree(p + PAGE_SIZE));
    RETURNS(-EFREE, kfree(p + 300000 / PAGE_SIZE * PAGE_SIZE));
    OK(kfree(p));
    end();
}

static void zeroed(void)
{
    static const size_t size[] = {24, 2000, 70000};

    start();
    for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
        uint8_t *p = kmalloc(size[i]), *q;

        memset(p, 0xff, size[i]);
        OK(kfree(p));
        q = kzalloc(size[i]);
        for (size_t n = 0; n < size[i]; n++)
            SAME(q[n], 0);
        OK(kfree(q));
    }
    end();
}

static void realloc_keeps_bytes(void)
{
    static const size_t size[] = {1,    20,  30,     33,     2048, 2049, 5000,
                                  4097, 100, 300000, 299999, 16,   3};
    uint8_t *p = NULL;

    start();
    for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
        p = krealloc(p, size[i]);
        CHECK(p);
        for (size_t n = 0; i && n < MIN(size[i], size[i - 1]); n++)
            SAME(p[n], (uint8_t)(i - 1 + n));
        for (size_t n = 0; n < size[i]; n++)
            p[n] = (uint8_t)(i + n);
        SAME(kmalloc_usage().objects, 1);
        SAME(mm_check(), 0);
    }
    OK(kfree(p));
    end();
}

// The whole of memory, then back; some pages of it the page tables need.
static void out_of_memory(void)
{
    void **last = NULL, **p;
    unsigned count = 0;

    start();
    while ((p = kmalloc(sizeof(void *) * 100))) {
        *p = last;
        last = p;
        count++;
    }
    CHECK(count > 3000);
    SAME(mm_check(), 0);
    CHECK(!kmalloc(100000));
    p = krealloc(last, 5000);
    CHECK(!p);
    for (; last; last = p) {
        p = *last;
        OK(kfree(last));
    }
    end();
}

// Large objects fail half way and leave nothing behind.
static void large_fails_whole(void)
{
    void *p = kmalloc(0);
    size_t size = 32 * MIB;

    start();
    while (!(p = kmalloc(size))) {
        SAME(kmalloc_usage().pages, 0);
        size -= 64 * KIB;
    }
    CHECK(size > 25 * MIB);
    OK(kfree(p));
    end();
}

/* --- what debug builds catch ------------------------------------------------------------------ */

#if KTF_DEBUG
// Writes one byte at p[at], sees that it is caught, puts it right again.
static void overrun(size_t size, ptrdiff_t at, const char *words)
{
    uint8_t *p[20], *victim, before;

    start();
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
        p[i] = kmalloc(size);
    victim = p[5];
    before = victim[at];
    victim[at] ^= 0x55;
    CHECK(kmalloc_check() > 0);
    CHECK(machine_said(words));
    CHECK(mm_check() > 0);
    RETURNS(-ECORRUPT, kfree(victim));
    SAME(kmalloc_usage().objects, ARRAY_SIZE(p));
    victim[at] = before;
    SAME(kmalloc_check(), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
        OK(kfree(p[i]));
    end();
}

static void overruns(void)
{
    static const size_t size[] = {1, 16, 24, 32, 33, 64, 100, 512, 1000, 2047, 2048};

    for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
        overrun(size[i], (ptrdiff_t)size[i], "written beyond its end");
        overrun(size[i], (ptrdiff_t)size[i] + 7, "written beyond its end");
        if (size[i] <= 1024)
            overrun(size[i], -1, "written before its start");
    }
    overrun(3000, 3000, "written beyond its end");
    overrun(3000, 4095, "written beyond its end");
}

static void use_after_free(void)
{
    uint8_t *p[8];

    start();
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
        p[i] = kmalloc(50);
    memset(p[3], 0, 50);
    OK(kfree(p[3]));
    SAME(p[3][0], JUNK_FREE);
    p[3][49] = 1;
    CHECK(kmalloc_check() > 0);
    CHECK(machine_said("written after it was freed"));
    p[3][49] = JUNK_FREE;
    SAME(kmalloc_check(), 0);
    p[3] = kmalloc(50);
    SAME(p[3][0], JUNK_ALLOC);
    for (unsigned i = 0; i < ARRAY_SIZE(p); i++)
        OK(kfree(p[i]));
    end();
}

static void double_free(void)
{
    uint8_t *p, *q;

    start();
    p = kmalloc(50);
    q = kmalloc(50);
    OK(kfree(p));
    RETURNS(-EFREE, kfree(p));
    CHECK(machine_said("EFREE"));
    OK(kfree(q));
    RETURNS(-EFREE, kfree(q)); // its page is gone as well
    end();
}

static void leaks(void)
{
    void *old, *p[3];
    uint32_t mark;
    char text[64];

    start();
    old = kmalloc(10);
    mark = kmalloc_mark();
    p[0] = kmalloc(100);
    p[1] = kmalloc(200);
    p[2] = kmalloc(30000);
    OK(kfree(p[0]));
    SAME(kmalloc_leaks(mark), 2);
    snprintf(text, sizeof(text), "leak: %p, 200 bytes, number 2, caller 0x", p[1]);
    CHECK(machine_said(text));
    snprintf(text, sizeof(text), "leak: %p, 30000 bytes, number 3, caller 0x", p[2]);
    CHECK(machine_said(text));
    SAME(kmalloc_leaks(0), 3);
    OK(kfree(p[1]));
    OK(kfree(p[2]));
    SAME(kmalloc_leaks(mark), 0);
    OK(kfree(old));
    end();
}
#endif

/* --- random use ------------------------------------------------------------------------------- */

enum {
    STEPS = 20000,
};

static uint64_t state;

static uint64_t generator(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state * UINT64_C(0x2545f4914f6cdd1d) >> 20) % n;
}

static void random_use(uint64_t seed)
{
    state = seed * UINT64_C(0x9e3779b97f4a7c15);
    ops.random = generator;
    start();
    kmalloc_forget();
    for (unsigned i = 0; i < STEPS; i++) {
        kmalloc_step();
        if (i % 500 == 0)
            SAME(mm_check(), 0);
    }
    kmalloc_take_apart();
    end();
}

static void random_seeds(void)
{
    for (uint64_t seed = 1; seed <= 5; seed++)
        random_use(seed);
}

int main(int argc, char **argv)
{
    static const struct host_test tests[] = {
        {"sizes", sizes},
        {"refusals", refusals},
        {"zeroed", zeroed},
        {"realloc_keeps_bytes", realloc_keeps_bytes},
        {"out_of_memory", out_of_memory},
        {"large_fails_whole", large_fails_whole},
#if KTF_DEBUG
        {"overruns", overruns},
        {"use_after_free", use_after_free},
        {"double_free", double_free},
        {"leaks", leaks},
#endif
        {"random", random_seeds},
    };

    return host_main(argc, argv, tests, ARRAY_SIZE(tests));
}
