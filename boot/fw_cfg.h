// SPDX-License-Identifier: BSD-2-Clause
// Files that QEMU hands to the guest (-fw_cfg name=...,string=...).
#pragma once

#include "lib/types.h"

/*
 * Copies the file's bytes into buf, cut to size - 1 and ended by a NUL (size > 0). False, and buf
 * unchanged, without QEMU's fw_cfg device or without such a file.
 */
bool fw_cfg_read(const char *name, char *buf, size_t size);

/* How many CPUs QEMU says the machine has; 1 without the device. */
uint32_t fw_cfg_cpus(void);
