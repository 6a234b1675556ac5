// SPDX-License-Identifier: BSD-2-Clause
// Memory and string functions; in host tests those of the C library.
#pragma once

#ifdef KTF_HOST
#include <string.h>
#else
#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strchr(const char *s, int c);
#endif

#include <stddef.h>

/*
 * Copies from to the buffer to of size bytes, cut if it must be and always ended by a NUL (size >
 * 0). Returns the length of from: size or more says that it was cut.
 */
size_t string_copy(char *to, const char *from, size_t size);
