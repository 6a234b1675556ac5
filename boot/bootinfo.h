// SPDX-License-Identifier: BSD-2-Clause
// What the boot loader passed to us, copied out of its memory before any of that is touched.
#pragma once

#include "lib/types.h"

// As in the multiboot2 memory map (type field); the values are the specification's (section 3.6.8).
enum boot_mem_type {
    BOOT_MEM_AVAILABLE = 1,
    BOOT_MEM_RESERVED = 2,
    BOOT_MEM_ACPI = 3,
    BOOT_MEM_NVS = 4,
    BOOT_MEM_BAD = 5,
};

struct boot_mem {
    paddr_t start;
    uint64_t bytes;
    uint32_t type; // enum boot_mem_type; any other number counts as reserved
};

struct boot_module {
    paddr_t start; // byte range [start, end) in physical memory
    paddr_t end;
    char name[64];
};

enum {
    BOOT_MEM_MAX = 256,
    BOOT_MODULE_MAX = 16,
    BOOT_CMDLINE_MAX = 1024,
};

struct boot_info {
    char cmdline[BOOT_CMDLINE_MAX]; // fw_cfg's opt/ktf/cmdline if there is one, else multiboot2's
    paddr_t mbi_start;              // the multiboot information itself, [start, end)
    paddr_t mbi_end;
    paddr_t rsdp; // physical address of the ACPI root pointer's copy inside the multiboot
                  // information, 0 if none
    uint32_t mem_count;
    uint32_t module_count;
    struct boot_mem mem[BOOT_MEM_MAX]; // as given: may overlap, be unsorted, empty or unaligned
    struct boot_module module[BOOT_MODULE_MAX];
};

extern struct boot_info boot_info;
