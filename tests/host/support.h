// SPDX-License-Identifier: BSD-2-Clause
// A machine for host tests: physical memory is a file, and what boot code and page tables make
// visible is mmap.
#pragma once

#include <setjmp.h>

#include "arch/x86/layout.h"
#include "arch/x86/machine.h"
#include "mm/boot.h"
#include "mm/frame_word.h"
#include "mm/mm.h"
#include "mm/vmap.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)

// What the machine is like. machine_reset() makes it a CPU with 40-bit addresses, 1G pages and 4
// levels, without memory.
struct machine {
    unsigned phys_bits;
    bool has_1g;
    unsigned levels;
    unsigned part_count;
    struct region part[8]; // of the kernel's image
    struct boot_info info;
    bool verbose;         // what mm says is printed, not only kept
    char said[64 * 1024]; // what mm said since machine_reset()
    uint64_t said_bytes;
    uint64_t cr3;           // as arch_load_space() got it
    int64_t visible_pages;  // that arch_meta_map() shows now
    uint64_t resting;       // CPUs that need not be asked to flush
    uint64_t asked;         // CPUs that were, and have not answered
    void (*flushing)(void); // called when a CPU is about to flush; NULL: nobody looks on
};
extern struct machine machine;

/* Forgets everything: the manager, the memory's contents, what was visible. */
void machine_reset(void);
/* Adds an entry to the boot map. */
void machine_map(uint64_t start, uint64_t bytes, uint32_t type);
/* A usual boot map of that much RAM, at least 4 MiB: low memory, a hole, an image, boot data, a
 * module, ACPI. */
void machine_usual(uint64_t ram);
/* mm_init() with the map as it is now. */
void machine_start(void);
/* machine_reset(), machine_usual(), machine_start(). */
void machine_boot(uint64_t ram);
/* True if mm said that. */
bool machine_said(const char *text);

/* Another CPU runs in the kernel's space from now on, and answers when it is asked to flush. */
void machine_start_cpu(uint32_t cpu);

/* Reads physical memory, past the manager's own windows. */
void phys_read(uint64_t paddr, void *to, size_t bytes);

/* --- tests ------------------------------------------------------------------------------------ */

struct host_test {
    const char *name;
    void (*run)(void);
};

/* Runs the tests whose name contains argv[1], if it is given; prints `ok NAME` or `not ok NAME
 * why`. 0 or 1. */
int host_main(int argc, char **argv, const struct host_test *tests, size_t count);
/* Runs one; true if it passed. */
bool host_run(const struct host_test *test);
/* Runs it without a word: why it failed, NULL if it passed. */
const char *host_try(void (*run)(void));
/* Ends the running test as a failure. */
_Noreturn void test_fail(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x))                                                                                  \
            test_fail(__FILE__, __LINE__, "%s", #x);                                               \
    } while (0)

// The two numbers are equal.
#define SAME(a, b)                                                                                 \
    do {                                                                                           \
        uint64_t a_ = (a), b_ = (b);                                                               \
        if (a_ != b_)                                                                              \
            test_fail(__FILE__, __LINE__, "%s is 0x%llx, not %s = 0x%llx", #a,                     \
                      (unsigned long long)a_, #b, (unsigned long long)b_);                         \
    } while (0)

// The call returns that error (0, -EALIGN, ...).
#define RETURNS(want, call)                                                                        \
    do {                                                                                           \
        int got_ = (call);                                                                         \
        if (got_ != (want))                                                                        \
            test_fail(__FILE__, __LINE__, "%s returns %s, not %s", #call, error_name(got_),        \
                      error_name(want));                                                           \
    } while (0)

#define OK(call) RETURNS(0, call)

// The call returns that error, and not a bit of the manager's memory has changed.
#define REFUSES(want, call)                                                                        \
    do {                                                                                           \
        uint64_t before_ = digest_raw();                                                           \
        RETURNS(want, call);                                                                       \
        if (digest_raw() != before_)                                                               \
            test_fail(__FILE__, __LINE__, "%s has changed something", #call);                      \
    } while (0)

// The call returns -ENOMEM, and nothing that a caller can see has changed.
#define EXHAUSTED(call)                                                                            \
    do {                                                                                           \
        uint64_t before_ = digest_seen();                                                          \
        RETURNS(-ENOMEM, call);                                                                    \
        if (digest_seen() != before_)                                                              \
            test_fail(__FILE__, __LINE__, "%s has changed something", #call);                      \
        SAME(mm_check(), 0);                                                                       \
    } while (0)

/* True if fn panics. */
bool panics(void (*fn)(void));

/* --- what the state is, in one number --------------------------------------------------------- */

/* Every byte of the manager: its root object, its arenas, its page tables. */
uint64_t digest_raw(void);
/* What callers can see: entries, permissions and refs of every space but the manager's windows,
 * frames in use, pages that are free or in the manager's stock. */
uint64_t digest_seen(void);
/* Every free block, after mm_trim(). */
uint64_t digest_free(void);

/* A leaf entry as the page tables have it in physical memory. */
struct leaf {
    uint64_t va;
    uint64_t mfn;
    pgentry_t entry;
    unsigned level;
    bool writable, user, executable; // by all levels
};
/* Calls fn for each leaf entry under cr3, by ascending index; the root's entries [first, end) only.
 */
void walk_leaves(uint64_t cr3, unsigned levels, unsigned first, unsigned end,
                 void (*fn)(const struct leaf *leaf, void *arg), void *arg);
/* The leaf entry for va, false if there is none. */
bool walk_va(const space_t *space, uint64_t va, struct leaf *out);
/* True if the address lies in the manager's own windows. */
bool in_windows(uint64_t va);
