// SPDX-License-Identifier: BSD-2-Clause
// Formatted text to the console and into buffers.
#pragma once

#include "lib/types.h"

#include <stdarg.h>

// Where the text of printk() goes.
struct console {
    bool (*begin)(void); // before each text; end() gets its result
    void (*write)(const char *buf, size_t len);
    void (*end)(bool begun);
};
// kernel/ sets it. Without one the text is lost.
extern const struct console *printk_console;

/*
 * Conversions: %d %i %u %x %X %o %c %s %p %%, with l, ll, z, h, hh; the flags - and 0, a width, a
 * precision of %s (also as *). An unknown conversion is printed as it stands. A NULL string is
 * "(null)"; %p is 0x and 16 digits.
 */
void printk(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void vprintk(const char *fmt, va_list args) __attribute__((format(printf, 1, 0)));

/*
 * The same into buf of size bytes, always ended by a NUL if size > 0. Returns the length that the
 * whole text has, which is size or more if it was cut.
 */
int snprintk(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int vsnprintk(char *buf, size_t size, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));
