// SPDX-License-Identifier: BSD-2-Clause
// panic(), and what it leaves for the debugger. The report is the hook's.
#include "lib/panic.h"

// On a page of their own (boot/kernel.ld): they are lost alone, or stay while others are lost.
#define PANIC_PAGE __attribute__((section(".bss.panic")))
char panic_message[256] PANIC_PAGE;
uint32_t panic_owner PANIC_PAGE;
struct panic_record panic_record PANIC_PAGE;

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
