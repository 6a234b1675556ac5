// SPDX-License-Identifier: BSD-2-Clause
// Address spaces: the kernel's, and any number of user ones that share its half.
#pragma once

#include "arch/x86/layout.h"
#include "lib/types.h"
#include "mm/frame.h"

// The table of a level that was used last.
struct recent_table {
    uint64_t va;    // first address that it covers
    uint64_t table; // address of its struct table, 0: there is none
    uint64_t count; // its entries: 512, 0 if there is none
    uint32_t at;    // slot * 512: its first entry among those of all slots
    uint32_t zero;
};

// Invariant: every live space is on the list that starts at mm.space_list (the kernel's first);
// root is the slot of its top-level table. Entries 256 to 511 of a user space's top table are those
// of the kernel's.
typedef struct space {
    uint32_t next;   // index of the next space, 0 at the end; see space_at()
    uint32_t prev;   // index of the one before; the kernel's is the first, its prev is 0
    uint32_t root;   // slot of the top-level table
    uint32_t id;     // unique, never used again; the kernel's is 0
    uint64_t cr3;    // physical address of the top-level table
    uint64_t tables; // page tables of its own, the root included
    uint8_t levels;  // 4 or 5
    uint8_t live;    // SPACE_LIVE while on the list, else 0
    char name[22];   // NUL-terminated; "kernel" for the kernel's
    uint64_t cpus;   // mask of the CPUs that may hold its entries; the kernel's: all online
    struct recent_table recent[2]; // of level 1 and 2
} space_t;
_Static_assert(sizeof(space_t) == 128, "one size for kernel, host tests and the debugger");

enum {
    SPACE_LIVE = 0xa5,
};

enum {
    SPACE_KERNEL = 1, // index of the kernel's space
};

/* The kernel's address space. */
static inline space_t *kernel_space(void)
{
    return (space_t *)(uintptr_t)VA_SPACES + SPACE_KERNEL;
}

/* Makes an empty user address space. name is cut to 21 characters.
 *   -EINVAL     a NULL
 *   -ENOMEM     no memory for the space or its root table */
int space_create(const char *name, space_t **out) must_check;
/* Unmaps everything that is mapped in its user half, frees its tables, and the space.
 *   -EINVAL     not a live space, or the kernel's
 *   -EBUSY      a CPU has it in CR3 */
int space_destroy(space_t *space);
/* Loads it in this CPU's CR3.
 *   -EINVAL     not a live space */
int space_switch(space_t *space);
/* For a CPU that has just got the kernel's page tables: it has the kernel's space, and from here on
 * it is asked to flush; what it had cached before is gone. */
void space_go_online(void);
/* The one that this CPU's CR3 holds. */
space_t *space_current(void);

/* --- for mm/ itself --------------------------------------------------------------------------- */

/* True if it is the address of a live space, whatever pointer it is. */
bool space_is_live(const space_t *space);
/* The kernel's space has the upper half (and the manager's windows, wherever they are); a user one
 * the lower. */
bool space_has(const space_t *space, vaddr_t va);
/* The kernel's space, not yet with a root table. Boot only. */
space_t *space_setup_kernel(void);
