// SPDX-License-Identifier: BSD-2-Clause
// The L1 tables through which boot_window.c shows metadata. They are linked at their physical
// addresses, as all of the boot part; boot.S hangs them under the boot's other tables.

    .section .boot.bss, "aw", @nobits
    .balign 4096
    .globl boot_l1_frames, boot_l1_mappings, boot_l1_window, boot_l1_shadows
    .globl boot_l1_nodes, boot_l1_tables, boot_l1_spaces
boot_l1_frames:   .skip 4096
boot_l1_mappings: .skip 4096
boot_l1_window:   .skip 4096
boot_l1_shadows:  .skip 4096
boot_l1_nodes:    .skip 4096
boot_l1_tables:   .skip 4096
boot_l1_spaces:   .skip 4096

    .section .note.GNU-stack, "", @progbits
