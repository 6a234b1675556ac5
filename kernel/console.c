// SPDX-License-Identifier: BSD-2-Clause
// The console: the serial port, one CPU at a time.
#include "kernel/console.h"

#include "arch/x86/serial.h"
#include "arch/x86/spinlock.h"
#include "lib/panic.h"
#include "lib/printk.h"

// Keeps the texts of two CPUs apart. No lock is taken after it.
static spinlock_t console_lock = {.rank = RANK_CONSOLE};

// An exception may have come while this CPU was printing; in a panic all others are stopped.
static bool begin(void)
{
    bool locked = !panicking() && !spin_held(&console_lock);

    if (locked)
        spin_lock(&console_lock);
    return locked;
}

static void end(bool locked)
{
    if (locked)
        spin_unlock(&console_lock);
}

void console_init(void)
{
    static const struct console serial = {.begin = begin, .write = serial_write, .end = end};

    serial_init();
    printk_console = &serial;
}
