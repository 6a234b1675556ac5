// SPDX-License-Identifier: BSD-2-Clause
// The only program of a Linux guest: says what Linux sees of ACPI, tables and devices, a line each,
// then that it is ready, and spins.
#include "linux_calls.h"

enum {
    DIRECTORY = 0200000, // O_DIRECTORY
    NAME_AT = 19,        // in what getdents64() writes: d_reclen stands at 16, d_name at 19
    PATH_MAX = 512,
};

static void say(const char *text)
{
    long size = 0;

    while (text[size])
        size++;
    call(SYS_WRITE, 1, (long)text, size, 0, 0, 0);
}

static void say_hex(const unsigned char *data, long size)
{
    static const char digits[] = "0123456789abcdef";
    static char text[8192];

    for (long i = 0; i < size; i++) {
        text[2 * i] = digits[data[i] >> 4];
        text[2 * i + 1] = digits[data[i] & 15];
    }
    call(SYS_WRITE, 1, (long)text, 2 * size, 0, 0, 0);
}

// All bytes of a file in hexadecimal digits, or as they are.
static void say_file(const char *path, int hex)
{
    static unsigned char data[4096];
    long fd = call(SYS_OPEN, (long)path, 0, 0, 0, 0, 0), size;

    while ((size = call(SYS_READ, fd, (long)data, sizeof(data), 0, 0, 0)) > 0) {
        if (hex)
            say_hex(data, size);
        else
            call(SYS_WRITE, 1, (long)data, size, 0, 0, 0);
    }
    call(SYS_CLOSE, fd, 0, 0, 0, 0, 0);
}

static void join(char *to, const char *a, const char *b, const char *c)
{
    const char *part[] = {a, b, c};
    int at = 0;

    for (int i = 0; i < 3; i++) {
        for (const char *p = part[i]; *p && at < PATH_MAX - 1; p++)
            to[at++] = *p;
    }
    to[at] = 0;
}

// For each name in a directory a line: word, name, and what the file DIRECTORY/NAME/rest holds.
static void say_all(const char *word, const char *directory, const char *rest, int hex)
{
    static char entries[8192], path[PATH_MAX];
    long fd = call(SYS_OPEN, (long)directory, DIRECTORY, 0, 0, 0, 0), size;

    while ((size = call(SYS_GETDENTS64, fd, (long)entries, sizeof(entries), 0, 0, 0)) > 0) {
        for (long at = 0; at < size; at += *(unsigned short *)(entries + at + NAME_AT - 3)) {
            const char *name = entries + at + NAME_AT;

            if (name[0] == '.')
                continue;
            join(path, word, " ", name);
            say(path);
            say(" ");
            join(path, directory, name, rest);
            say_file(path, hex);
            say("\n");
        }
    }
    call(SYS_CLOSE, fd, 0, 0, 0, 0, 0);
}

void _start(void);

void _start(void)
{
    call(SYS_MOUNT, (long)"sysfs", (long)"/sys", (long)"sysfs", 0, 0, 0);
    say("\n");
    say_all("table", "/sys/firmware/acpi/tables/", "", 1);
    say_all("device", "/sys/bus/acpi/devices/", "/path", 0);
    say("ktf-linux-ready\n");
    for (;;)
        ;
}
