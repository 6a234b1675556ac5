// SPDX-License-Identifier: BSD-2-Clause
// The console: COM1, polled.
#pragma once

#include <stddef.h>

/* Sets COM1 to 115200 8N1, without interrupts. Output before it is lost at worst. */
void serial_init(void);

/* Writes len bytes. Never waits for ever: a port that isn't there swallows them. */
void serial_write(const char *buf, size_t len);
