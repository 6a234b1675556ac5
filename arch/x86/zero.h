// SPDX-License-Identifier: BSD-2-Clause
// Zeroing a page.
#pragma once

#ifdef KTF_HOST
#include <string.h>

static inline void page_zero(void *page)
{
    memset(page, 0, 4096);
}
#else
/* 4096 bytes, aligned to as many. Needs CR4.OSFXSR: cpu_init() has run. */
void page_zero(void *page);
#endif
