// SPDX-License-Identifier: BSD-2-Clause
// Accesses that may fault, for tests and for reports that must not die of what they report.
#pragma once

#include "lib/types.h"

// How a probe failed.
struct probe_fault {
    uint64_t vector;
    uint64_t error;   // of a page fault: enum pf_error
    uint64_t address; // CR2 of a page fault, else 0
};

/* The last fault that a probe of this CPU ran into. */
const struct probe_fault *probe_last(void);

/* Reads eight bytes at va into *out. 0, or -1 if it faulted: probe_last() says how, *out is
 * unchanged. */
int probe_read(vaddr_t va, uint64_t *out);

/* Writes eight bytes at va. 0, or -1 if it faulted. */
int probe_write(vaddr_t va, uint64_t value);

/* Calls va, where at least a 'ret' must be if it can be executed. 0, or -1 if the fetch faulted. */
int probe_exec(vaddr_t va);
