// SPDX-License-Identifier: BSD-2-Clause
// All CPUs at the same mapping or frame: none may take away what another one still holds, nor die
// of what another one gave back.
#include "kernel/smp.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

#define SHARED_VA VADDR(VA_VMAP + 0x3800000000)

enum {
    ROUNDS = 5000,
};

static struct {
    frame_t *frame;
    uint32_t failures;
} share;

static void share_work(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        int err = vmap_kern(SHARED_VA, share.frame, VATTR_W);

        // While this CPU holds it, the page can be written whatever the others do.
        if (!err)
            __atomic_fetch_add((uint64_t *)vaddr_ptr(SHARED_VA), 1, __ATOMIC_RELAXED);
        if (err || vput(NULL, SHARED_VA, share.frame))
            __atomic_fetch_add(&share.failures, 1, __ATOMIC_SEQ_CST);
    }
}

GUEST_TEST(share_counting)
{
    share.failures = 0;
    CHECK_EQ(get_frame(0, &share.frame), 0);
    for (uint32_t cpu = 1; cpu < smp_count(); cpu++)
        smp_run(cpu, share_work, NULL);
    share_work(NULL);
    for (uint32_t cpu = 1; cpu < smp_count(); cpu++)
        smp_wait(cpu);
    CHECK_EQ(share.failures, 0);
    CHECK_EQ(share.frame->mapcount, 0);
    CHECK_EQ(put_frame(share.frame), 0);
}

/* --- frames that nobody holds ----------------------------------------------------------------- */

enum {
    FIND_FRAMES = 1200, // more descriptors than are in stock
    FIND_ROUNDS = 100,
};

static struct {
    frame_t *frame[FIND_FRAMES];
    uint64_t mfn; // of the last one
    uint64_t found;
    uint32_t stop;
} find;

static void find_all(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&find.stop, __ATOMIC_SEQ_CST)) {
        mfn_t mfn = MFN(__atomic_load_n(&find.mfn, __ATOMIC_SEQ_CST));

        find.found += find_mfn_frame(mfn) || find_paddr_frame(mfn_paddr(mfn));
    }
}

// What leads to a frame goes when the frame does, while others may be on their way there.
GUEST_TEST(share_find)
{
    find.found = find.stop = 0;
    if (smp_count() > 1)
        smp_run(1, find_all, NULL);
    for (unsigned round = 0; round < FIND_ROUNDS; round++) {
        for (unsigned i = 0; i < FIND_FRAMES; i++)
            CHECK_EQ(get_frame(0, &find.frame[i]), 0);
        __atomic_store_n(&find.mfn, find.frame[FIND_FRAMES - 1]->mfn, __ATOMIC_SEQ_CST);
        for (unsigned i = 0; i < FIND_FRAMES; i++)
            CHECK_EQ(put_frame(find.frame[i]), 0);
        mm_trim();
    }
    __atomic_store_n(&find.stop, 1, __ATOMIC_SEQ_CST);
    if (smp_count() > 1) {
        smp_wait(1);
        CHECK(find.found > 0);
    }
}
