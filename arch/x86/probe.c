// SPDX-License-Identifier: BSD-2-Clause
// What the last failed probe of a CPU left.
#include "arch/x86/probe.h"

#include "arch/x86/percpu.h"

const struct probe_fault *probe_last(void)
{
    return &this_cpu()->probe;
}
