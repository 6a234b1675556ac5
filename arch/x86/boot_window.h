// SPDX-License-Identifier: BSD-2-Clause
// Makes metadata visible at its final address while the boot page tables are still in use.
#pragma once

#include "lib/types.h"

/*
 * Maps the 4K page mfn at va (page-aligned, in the first 2 MiB of one of the metadata windows of
 * layout.h) in the boot page tables, writable and not executable. Panics outside of these. Does
 * nothing after arch_meta_final().
 */
void arch_meta_map(vaddr_t va, mfn_t mfn);

/* Takes away what arch_meta_map() put at va. Does nothing after arch_meta_final(). */
void arch_meta_unmap(vaddr_t va);

/* The final page tables are loaded: from now on the two above do nothing. */
void arch_meta_final(void);
