// SPDX-License-Identifier: BSD-2-Clause
// Where things lie in the kernel's half of the address space. The only file that says so.
#pragma once

// All windows lie in the last top-level slot (512 GiB below the end), so that they share one L3
// table, and the small ones in one GiB, so that they share one L2 table as well.
#ifdef KTF_HOST
#define LAYOUT_BASE 0x200000000000 // host tests: any 512 GiB that mmap can give
#else
#define LAYOUT_BASE 0xffffff8000000000
#endif

#define LAYOUT_SIZE 0x8000000000 // 512 GiB

#define VA_FRAMES   (LAYOUT_BASE + 0x0000000000) // frame descriptors, 64 GiB
#define VA_MAPPINGS (LAYOUT_BASE + 0x1000000000) // mapping records, 64 GiB
#define VA_WINDOW                                                                                  \
    (LAYOUT_BASE + 0x2000000000) // page tables, one slot of 4K each: the only place to write them
#define VA_SHADOWS                                                                                 \
    (LAYOUT_BASE + 0x3000000000) // what each entry of a page table stands for, 2K a slot
#define VA_SMALL    (LAYOUT_BASE + 0x4000000000) // the small windows:
#define VA_NODES    (VA_SMALL + 0x00000000)      //   nodes of the mfn tree, 512 MiB
#define VA_TABLES   (VA_SMALL + 0x20000000)      //   one struct table a slot, 256 MiB
#define VA_SPACES   (VA_SMALL + 0x30000000)      //   address spaces, 64 MiB
#define VA_STACKS   (VA_SMALL + 0x34000000)      //   stacks with guard pages, 32 MiB
#define VA_JOURNALS (VA_SMALL + 0x36000000)      //   the journal's rings, 32 MiB
#define VA_BOOTDATA (VA_SMALL + 0x38000000)      //   what the boot loader left, read-only, 64 MiB
#define VA_DEVICES  (VA_SMALL + 0x3c000000) //   the kernel's own devices (local APIC, ...), 64 MiB

#define VA_JOURNALS_SIZE (32 << 20)

#define VA_IOAPICS (VA_DEVICES + 0x10000) // I/O APICs, a page each

#define VA_KMALLOC      (LAYOUT_BASE + 0x5000000000) // objects of kmalloc
#define VA_KMALLOC_SIZE 0x400000000                  // 16 GiB

#define VA_IMAGE 0xffffffff80000000 // the kernel's image, at its physical address + this

// Free for callers of vmap_kern(): 0xffff800000000000 up to LAYOUT_BASE.
#define VA_KERNEL 0xffff800000000000
#define VA_ACPI   VA_KERNEL // what ACPI maps: physical address p at VA_ACPI + p (acpi/memory.c)
#define VA_VMAP   0xffffc00000000000 // where tests and clients start
