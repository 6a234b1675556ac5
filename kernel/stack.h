// SPDX-License-Identifier: BSD-2-Clause
// Kernel stacks, each between two guard pages.
#pragma once

#include "lib/types.h"

enum {
    STACK_MAX = 272, // four for each of 64 CPUs, and some
    STACK_WINDOW_BYTES = 32 << 20,
};

// Invariant: [bottom, top) is mapped writable in VA_STACKS, the page below bottom and the page at
// top are not mapped.
struct stack_info {
    vaddr_t bottom, top;
    char name[16];
};

extern struct stack_info stacks[STACK_MAX];
extern uint32_t stack_count;

/*
 * Makes a stack of that many pages; *top is where it starts. It stays for ever. 0, or -EINVAL,
 * -ENOMEM or an error of vmap_kern(): then nothing has changed.
 */
int stack_create(const char *name, unsigned pages, vaddr_t *top) must_check;

/* The number of the stack in stacks[] on which va lies; stack_count for the boot stack; -1 for
 * none. */
int stack_of(vaddr_t va);

/* True if va lies on a known stack. */
bool stack_contains(vaddr_t va);

/* Tells on the console on which stack rsp lies, or which one's guard page it hit. */
void stack_print(vaddr_t rsp);

/* Goes on in entry, which never returns, on another stack. */
_Noreturn void stack_switch(vaddr_t top, void (*entry)(void));
