// SPDX-License-Identifier: BSD-2-Clause
// The hook by which CPUs that wait or are interrupted reach TLB shootdown.
#include "arch/x86/tlb.h"

// The boot CPU alone: there is nobody to ask it.
static void nothing_asked(void)
{
}

void (*tlb_answer_hook)(void) = nothing_asked;
