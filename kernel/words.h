// SPDX-License-Identifier: BSD-2-Clause
// Words of the command line that make the kernel do something, from any file of the image.
#pragma once

#include "lib/types.h"

// What the words have made of this boot.
struct verdict {
    bool watched; // a script waits: the guest ends when all words are done
    bool failed;  // ... and not as a success
};

enum word_time {
    WORD_READ,         // other code looks for it
    WORD_BEFORE_READY, // all is up, ktf_ready() not yet called
    WORD_AFTER_READY,
};

// Aligned to its size, so that the linker's section is an array.
struct word {
    const char *name;
    void (*run)(const char *value, struct verdict *verdict); // value: NULL without takes_value
    uint8_t time;                                            // enum word_time
    bool takes_value;                                        // it is 'name=value'
    bool repeats;                                            // run for each one, not the first
    bool ends_in_failure; // where it stands, a panic ends the guest as a failure
} __attribute__((aligned(32)));

/* WORD(place) = {...}; the words of one time run in the order of their places. */
#define WORD(place)                                                                                \
    static const struct word word_##place __attribute__((used, section(".words." #place)))

/* True if the len characters at `text` are a word that there is, with its value. */
bool word_known(const char *text, size_t len);

/* Runs the words of that time that stand on the command line. */
void words_run(enum word_time time, struct verdict *verdict);

/* True if a word with ends_in_failure stands on the command line. */
bool words_watched(void);
