// SPDX-License-Identifier: BSD-2-Clause
// Lets the n-th allocation of the manager fail.
#pragma once

#include "lib/types.h"

/* From now on the n-th allocation (1 is the next) fails; all behind it as well if `lasting`. */
void inject_arm(uint64_t n, bool lasting);
/* No more failures. True if one has happened since inject_arm(). */
bool inject_disarm(void);
