// SPDX-License-Identifier: BSD-2-Clause
// panic(), and what it leaves for the debugger. The report is the hook's.
#include "lib/panic.h"

char panic_message[256];
uint32_t panic_owner;
struct panic_record panic_record;

// Before there is a report, nothing could be printed.
static _Noreturn void stay(uint64_t rip, uint64_t rbp, const char *fmt, va_list args)
{
    (void)rip;
    (void)rbp;
    (void)fmt;
    (void)args;
    for (;;)
        ;
}

__attribute__((noreturn)) void (*panic_hook)(uint64_t rip, uint64_t rbp, const char *fmt,
                                             va_list args) = stay;

_Noreturn void panic(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    panic_hook((uintptr_t)__builtin_return_address(0), (uintptr_t)__builtin_frame_address(0), fmt,
               args);
}
