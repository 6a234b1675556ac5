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
 * and out unchanged, if there is none. Prints a warning where it cuts a value that does not fit.
 */
bool cmdline_get(const char *key, char *out, size_t len);

/* The same of the n-th one, counted from 0. */
bool cmdline_get_nth(const char *key, unsigned n, char *out, size_t len);

/* Prints each word that is not known; each has len characters. Returns how many there are. */
int cmdline_check(bool (*known)(const char *word, size_t len));
