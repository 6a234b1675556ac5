// SPDX-License-Identifier: BSD-2-Clause
// The self-check's part on what the CPU itself needs.
#pragma once

/* From now on mm_check() checks it, too. */
void check_cpu_init(void);
