// SPDX-License-Identifier: BSD-2-Clause
// Fault injection: the n-th allocation fails, in host builds; elsewhere nothing is left of it.
#pragma once

#include "lib/types.h"

#ifdef KTF_HOST
/* True if this allocation is to fail. Called once for each: a frame, a record, an address space, a
 * node or page of descriptors, a table's slot. */
bool inject_failure(void);
#else
static inline bool inject_failure(void)
{
    return false;
}
#endif
