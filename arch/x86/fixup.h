// SPDX-License-Identifier: BSD-2-Clause
// Reads of memory that another CPU may be unmapping: a fault goes on elsewhere instead (traps.c).
#pragma once

#ifdef KTF_HOST // nothing is unmapped there

#define read_or(value, at, gone)                                                                   \
    do {                                                                                           \
        if (!(at))                                                                                 \
            goto gone;                                                                             \
        (value) = *(at);                                                                           \
    } while (0)
#define goto_if_clear(at, mask, clear, gone)                                                       \
    do {                                                                                           \
        if (!(at))                                                                                 \
            goto gone;                                                                             \
        if (!(*(at) & (mask)))                                                                     \
            goto clear;                                                                            \
    } while (0)

#else

#define FIXUP(gone) ".pushsection .extable, \"a\"; .balign 8; .quad 1b, " gone "; .popsection"

/* value = *at, eight bytes; a fault goes to the label `gone`. */
#define read_or(value, at, gone)                                                                   \
    __asm__ goto("1: movq %1, %0; " FIXUP("%l[" #gone "]") : "=r"(value) : "m"(*(at)) : : gone)

/* Goes to the label `clear` if *at, its lowest byte, has none of the bits of `mask`; a fault goes
 * to the label `gone`. */
#define goto_if_clear(at, mask, clear, gone)                                                       \
    __asm__ goto("1: testb %1, %0; jz %l[" #clear "]; " FIXUP("%l[" #gone "]")                     \
                 :                                                                                 \
                 : "m"(*(at)), "i"(mask)                                                           \
                 : "cc"                                                                            \
                 : clear, gone)

#endif
