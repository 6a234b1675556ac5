// SPDX-License-Identifier: BSD-2-Clause
// Time for ACPICA: the TSC, measured against the ACPI timer.
#include "acpi/osl.h"

#include "arch/x86/cpu.h"
#include "arch/x86/tlb.h"
#include "lib/printk.h"

enum {
    KHZ_GUESS = 1000000,     // until it is measured
    PM_HZ = 3579545,         // of the ACPI timer
    PM_TICKS = PM_HZ / 500,  // 2 ms
    MEASUREMENTS = 3,        // the least disturbed one counts
    PM_READS_MAX = 10000000, // a timer that stands still ends here
};

static uint64_t tsc_khz = KHZ_GUESS;

// Ticks of the TSC in a millisecond, or more: it is read before and after the timer, and whatever
// comes between adds to it. 0: the timer stands still, or there is none.
static uint64_t measure(void)
{
    uint64_t start = rdtsc(), reads = 0;
    u32 first, now, passed = 0;

    if (ACPI_FAILURE(acpi_get_timer(&first)))
        return 0;
    while (passed < PM_TICKS && reads++ < PM_READS_MAX) {
        if (ACPI_FAILURE(acpi_get_timer(&now)))
            return 0;
        passed = (now - first) & 0xffffff; // of 24 bits everywhere
    }
    return passed < PM_TICKS ? 0 : MAX((rdtsc() - start) * PM_HZ / passed / 1000, 1);
}

void osl_clock_calibrate(void)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < MEASUREMENTS; i++) {
        uint64_t khz = measure();

        if (!khz) {
            printk("ACPI: the timer can't be used: time is a guess\n");
            return;
        }
        least = MIN(least, khz);
    }
    tsc_khz = least;
}

uint64_t osl_clock_mhz(void)
{
    return MAX(tsc_khz / 1000, UINT64_C(1));
}

// In units of 100 ns, since the machine was switched on.
u64 acpi_os_get_timer(void)
{
    uint64_t ticks = rdtsc();

    return ticks / tsc_khz * TIMER_PER_MS + ticks % tsc_khz * TIMER_PER_MS / tsc_khz;
}

// Other CPUs must not wait for this one, also where interrupts are off.
static void wait(uint64_t units)
{
    uint64_t start = acpi_os_get_timer();

    while (acpi_os_get_timer() - start < units) {
        tlb_answer();
        cpu_pause();
    }
}

void acpi_os_stall(u32 microseconds)
{
    wait((uint64_t)microseconds * (TIMER_PER_MS / 1000));
}

// There is nothing else that this CPU could do meanwhile: deferred work waits, or another CPU does
// it.
void acpi_os_sleep(u64 milliseconds)
{
    wait(milliseconds * TIMER_PER_MS);
}
