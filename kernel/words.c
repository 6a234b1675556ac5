// SPDX-License-Identifier: BSD-2-Clause
// Runs what the words of the command line ask for.
#include "kernel/words.h"

#include "boot/bootinfo.h"
#include "boot/cmdline.h"
#include "lib/string.h"

extern const struct word words_start[], words_end[]; // kernel.ld

bool word_known(const char *text, size_t len)
{
    for (const struct word *w = words_start; w < words_end; w++) {
        size_t n = strlen(w->name);

        if (len < n || memcmp(text, w->name, n) != 0)
            continue;
        if (w->takes_value ? len > n && text[n] == '=' : len == n)
            return true;
    }
    return false;
}

static void run_values(const struct word *w, struct verdict *verdict)
{
    static char value[BOOT_CMDLINE_MAX];

    for (unsigned n = 0; cmdline_get_nth(w->name, n, value, sizeof(value)); n++) {
        w->run(value, verdict);
        if (!w->repeats)
            return;
    }
}

void words_run(enum word_time time, struct verdict *verdict)
{
    for (const struct word *w = words_start; w < words_end; w++) {
        if (w->time != time)
            continue;
        if (w->takes_value)
            run_values(w, verdict);
        else if (cmdline_has(w->name))
            w->run(NULL, verdict);
    }
}

bool words_watched(void)
{
    for (const struct word *w = words_start; w < words_end; w++) {
        bool stands = w->takes_value ? cmdline_has_key(w->name) : cmdline_has(w->name);

        if (w->ends_in_failure && stands)
            return true;
    }
    return false;
}
