// SPDX-License-Identifier: BSD-2-Clause
// Who called whom, by frame pointers.
#pragma once

#include "lib/types.h"

/*
 * Prints the chain of return addresses that starts at frame pointer rbp, after rip unless that is
 * 0. Follows only what lies on a known stack, a bounded number of steps, and says why it ended.
 */
void backtrace_print(uint64_t rip, uint64_t rbp);
