// SPDX-License-Identifier: BSD-2-Clause
// The only program of a Linux guest: maps memory of all sorts, forks so that each CPU has an
// address space of its own, says that it is ready, and spins.

#include "linux_calls.h"

enum {
    PROT_READ = 1,
    PROT_WRITE = 2,
    PROT_EXEC = 4,
    MAP_SHARED = 1,
    MAP_PRIVATE = 2,
    MAP_ANONYMOUS = 0x20,
    MADV_HUGEPAGE = 14,
    PAGE = 4096,
    LARGE = 2 << 20,
};

// Memory of that size, each page touched, then with those rights.
static void map(long size, int flags, int rights)
{
    long at = call(SYS_MMAP, 0, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

    call(SYS_MADVISE, at, size, MADV_HUGEPAGE, 0, 0, 0);
    for (long i = 0; i < size; i += PAGE)
        ((volatile char *)at)[i] = 1;
    call(SYS_MPROTECT, at, size, rights, 0, 0, 0);
}

void _start(void);

void _start(void)
{
    static const char ready[] = "ktf-linux-ready\n";

    map(16 * PAGE, MAP_PRIVATE, PROT_READ | PROT_WRITE);
    map(3 * PAGE, MAP_SHARED, PROT_READ);
    map(2 * PAGE, MAP_PRIVATE, PROT_READ | PROT_EXEC);
    map(4 * LARGE, MAP_PRIVATE, PROT_READ | PROT_WRITE);
    if (call(SYS_FORK, 0, 0, 0, 0, 0, 0) == 0)
        map(5 * PAGE, MAP_PRIVATE, PROT_READ | PROT_WRITE);
    else
        call(SYS_WRITE, 1, (long)ready, sizeof(ready) - 1, 0, 0, 0);
    for (;;)
        ;
}
