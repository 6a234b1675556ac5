// SPDX-License-Identifier: BSD-2-Clause
// What ACPICA puts off: a queue that interrupt handlers fill and CPUs outside of them empty.
#include "acpi/osl.h"

#include "arch/x86/tlb.h"
#include "lib/printk.h"

enum {
    JOBS = 256, // a handler can't wait for memory, so there is room for so many
};

struct job {
    acpi_osd_exec_callback run;
    void *context;
};

// A ring, guarded by its lock: `waiting` jobs from `first` on, `running` ones taken out of it.
static struct {
    struct acpi_lock lock;
    uint32_t first;
    uint32_t waiting;
    uint32_t running;
    struct job job[JOBS];
} queue;

acpi_status acpi_os_execute(acpi_execute_type type, acpi_osd_exec_callback function, void *context)
{
    uint64_t flags;
    bool room;

    (void)type; // one queue, in order, for all
    if (!function)
        return AE_BAD_PARAMETER;
    flags = osl_lock(&queue.lock);
    room = queue.waiting < JOBS;
    if (room) {
        queue.job[(queue.first + queue.waiting) % JOBS] = (struct job){function, context};
        queue.waiting++;
        osl_machine->idle_job(ktf_acpi_work);
    }
    osl_unlock(&queue.lock, flags);
    return room ? AE_OK : AE_NO_MEMORY;
}

static bool take(struct job *job)
{
    uint64_t flags = osl_lock(&queue.lock);
    bool some = queue.waiting > 0;

    if (some) {
        *job = queue.job[queue.first];
        queue.first = (queue.first + 1) % JOBS;
        queue.waiting--;
        queue.running++;
    } else {
        osl_machine->idle_job(NULL);
    }
    osl_unlock(&queue.lock, flags);
    return some;
}

static void done(void)
{
    uint64_t flags = osl_lock(&queue.lock);

    queue.running--;
    osl_unlock(&queue.lock, flags);
}

void ktf_acpi_work(void)
{
    struct job job;

    while (take(&job)) {
        job.run(job.context);
        done();
    }
}

static bool busy(void)
{
    uint64_t flags = osl_lock(&queue.lock);
    bool some = queue.waiting || queue.running;

    osl_unlock(&queue.lock, flags);
    return some;
}

void acpi_os_wait_events_complete(void)
{
    while (busy()) {
        ktf_acpi_work();
        tlb_answer();
        cpu_relax();
    }
}
