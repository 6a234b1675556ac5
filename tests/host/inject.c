// SPDX-License-Identifier: BSD-2-Clause
// Lets the n-th allocation of the manager fail.
#include "tests/host/inject.h"

#include "mm/inject.h"

static struct {
    uint64_t left; // allocations until one fails; 0: not armed
    bool lasting;
    bool happened;
} state;

void inject_arm(uint64_t n, bool lasting)
{
    state.left = n;
    state.lasting = lasting;
    state.happened = false;
}

bool inject_disarm(void)
{
    state.left = 0;
    return state.happened;
}

bool inject_failure(void)
{
    if (!state.left || --state.left)
        return false;
    state.left = state.lasting;
    state.happened = true;
    return true;
}
