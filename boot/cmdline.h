// SPDX-License-Identifier: BSD-2-Clause
// The words of the command line.
#pragma once

#include "lib/types.h"

/* True if word stands alone on the command line. */
bool cmdline_has(const char *word);

/* True if 'key=...' stands on the command line, whatever its value. */
bool cmdline_has_key(const char *key);

/*
 * Copies the value of the first 'key=value' to out of len bytes, ended by a NUL (len > 0). False,
 * and out unchanged, if there is none. A value that doesn't fit is cut and told on the console.
 */
bool cmdline_get(const char *key, char *out, size_t len);

/* The same of the n-th, counted from 0, for words that may come more than once. */
bool cmdline_get_nth(const char *key, unsigned n, char *out, size_t len);

/* Tells on the console each word that is not among the known ones. Returns how many there are. */
int cmdline_check(void);
