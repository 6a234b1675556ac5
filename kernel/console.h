// SPDX-License-Identifier: BSD-2-Clause
// The console.
#pragma once

/* From now on printk() writes to COM1. After percpu_init(). */
void console_init(void);
