// SPDX-License-Identifier: BSD-2-Clause
// The words of the command line: blank-separated, 'word' or 'key=value'.
#include "boot/cmdline.h"

#include "boot/bootinfo.h"
#include "lib/printk.h"
#include "lib/string.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// The word at or behind p, its length in *len; NULL at the end.
static const char *next_word(const char *p, size_t *len)
{
    while (is_blank(*p))
        p++;
    for (*len = 0; p[*len] != '\0' && !is_blank(p[*len]);)
        ++*len;
    return *len > 0 ? p : NULL;
}

bool cmdline_has(const char *word)
{
    size_t len, wanted = strlen(word);

    for (const char *p = next_word(boot_info.cmdline, &len); p != NULL;
         p = next_word(p + len, &len)) {
        if (len == wanted && memcmp(p, word, len) == 0)
            return true;
    }
    return false;
}

// The value of the n-th 'key=value', counted from 0, its length in *len; NULL if there is none.
static const char *find_value(const char *key, unsigned n, size_t *len)
{
    size_t key_len = strlen(key);

    for (const char *p = next_word(boot_info.cmdline, len); p != NULL;
         p = next_word(p + *len, len)) {
        if (*len > key_len && memcmp(p, key, key_len) == 0 && p[key_len] == '=' && n-- == 0) {
            *len -= key_len + 1;
            return p + key_len + 1;
        }
    }
    return NULL;
}

bool cmdline_has_key(const char *key)
{
    size_t len;

    return find_value(key, 0, &len) != NULL;
}

bool cmdline_get(const char *key, char *out, size_t size)
{
    return cmdline_get_nth(key, 0, out, size);
}

bool cmdline_get_nth(const char *key, unsigned n, char *out, size_t size)
{
    size_t len;
    const char *value = find_value(key, n, &len);

    if (value == NULL)
        return false;
    if (len >= size) {
        printk("boot: the value of '%s=' is cut to %zu characters\n", key, size - 1);
        len = size - 1;
    }
    memcpy(out, value, len);
    out[len] = '\0';
    return true;
}

int cmdline_check(bool (*known)(const char *word, size_t len))
{
    size_t len;
    int unknown = 0;

    for (const char *p = next_word(boot_info.cmdline, &len); p != NULL;
         p = next_word(p + len, &len)) {
        if (known(p, len))
            continue;
        printk("boot: unknown word on the command line: '%.*s'\n", (int)len, p);
        unknown++;
    }
    return unknown;
}
