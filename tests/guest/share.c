// SPDX-License-Identifier: BSD-2-Clause
// All CPUs count the same mapping up and down: none may take away what another one still holds.
#include "arch/x86/smp.h"
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
