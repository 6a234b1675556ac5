// SPDX-License-Identifier: BSD-2-Clause
// Memory and string functions that gcc expects of every environment, and a few more.
#include "lib/string.h"

#include "lib/types.h"

size_t string_copy(char *to, const char *from, size_t size)
{
    size_t len = strlen(from), n = MIN(len, size - 1);

    memcpy(to, from, n);
    to[n] = '\0';
    return len;
}

#ifndef KTF_HOST

// String instructions: small, quick on a real CPU, and gcc can't turn them into a call of the
// function itself.
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *start = to;
    size_t words = n / 8;

    n %= 8;
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

void *memmove(void *to, const void *from, size_t n)
{
    char *end_to = (char *)to + n - 1;
    const char *end_from = (const char *)from + n - 1;

    // Forwards unless 'to' lies inside the source.
    if ((uintptr_t)to - (uintptr_t)from >= n)
        return memcpy(to, from, n);
    __asm__ volatile("std; rep movsb; cld"
                     : "+D"(end_to), "+S"(end_from), "+c"(n)
                     :
                     : "memory", "cc");
    return to;
}

void *memset(void *to, int byte, size_t n)
{
    void *start = to;
    uint64_t pattern = (uint8_t)byte * 0x0101010101010101ULL;
    size_t words = n / 8;

    n %= 8;
    __asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(pattern) : "memory");
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(pattern) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *p = a, *q = b;

    for (; n > 0; n--, p++, q++) {
        if (*p != *q)
            return *p - *q;
    }
    return 0;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n] != '\0')
        n++;
    return n;
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (; n > 0; n--, a++, b++) {
        if (*a != *b)
            return (unsigned char)*a - (unsigned char)*b;
        if (*a == '\0')
            break;
    }
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

char *strchr(const char *s, int c)
{
    for (;; s++) {
        if (*s == (char)c)
            return (char *)(uintptr_t)s;
        if (*s == '\0')
            return NULL;
    }
}

#endif
