// SPDX-License-Identifier: BSD-2-Clause
// Tests: what must fault does, with the right error code, and what must not doesn't.
#include "arch/x86/cpu.h"
#include "arch/x86/probe.h"
#include "boot/image.h"
#include "kernel/stack.h"
#include "kernel/traps.h"
#include "tests/guest/test.h"

// Any function that only returns.
__attribute__((noinline)) static void nothing(void)
{
    __asm__ volatile("" : : : "memory");
}

static uint64_t data_word = 0xc3; // a 'ret', were it executable

GUEST_TEST(trap_probe_passes)
{
    uint64_t value = 0;

    CHECK_EQ(probe_read(ptr_vaddr(&data_word), &value), 0);
    CHECK_EQ(value, data_word);
    CHECK_EQ(probe_write(ptr_vaddr(&data_word), 0xc3), 0);
    CHECK_EQ(probe_exec(VADDR((uintptr_t)nothing)), 0);
}

GUEST_TEST(trap_null)
{
    uint64_t value = 5;

    // The boot page tables' identity mapping must be gone.
    CHECK_EQ(probe_read(VADDR(0), &value), -1);
    CHECK_EQ(value, 5);
    CHECK_EQ(probe_last()->vector, VECTOR_PF);
    CHECK_EQ(probe_last()->error, 0);
    CHECK_EQ(probe_last()->address, 0);
    CHECK_EQ(probe_write(VADDR(8), 1), -1);
    CHECK_EQ(probe_last()->error, PF_WRITE);
    CHECK_EQ(probe_last()->address, 8);
    CHECK_EQ(probe_exec(VADDR(0)), -1);
    CHECK_EQ(probe_last()->error, PF_FETCH);
    CHECK_EQ(probe_read(VADDR((uintptr_t)image_boot_start), &value), -1);
}

GUEST_TEST(trap_non_canonical)
{
    uint64_t value;

    CHECK_EQ(probe_read(VADDR(0x0100000000000000), &value), -1);
    CHECK_EQ(probe_last()->vector, VECTOR_GP);
    CHECK_EQ(probe_write(VADDR(0x0100000000000000), 1), -1);
    CHECK_EQ(probe_last()->vector, VECTOR_GP);
    CHECK_EQ(probe_exec(VADDR(0x0100000000000000)), -1);
}

GUEST_TEST(trap_image_permissions)
{
    uint64_t value;

    CHECK_EQ(probe_read(ptr_vaddr(image_text_start), &value), 0);
    CHECK_EQ(probe_write(ptr_vaddr(image_text_start), 0), -1);
    CHECK_EQ(probe_last()->error, PF_PRESENT | PF_WRITE);
    CHECK_EQ(probe_read(ptr_vaddr(image_rodata_start), &value), 0);
    CHECK_EQ(probe_write(ptr_vaddr(image_rodata_start), 0), -1);
    CHECK_EQ(probe_last()->error, PF_PRESENT | PF_WRITE);
    CHECK_EQ(probe_exec(ptr_vaddr(image_rodata_start)), -1);
    CHECK_EQ(probe_last()->error, PF_PRESENT | PF_FETCH);
    CHECK_EQ(probe_exec(ptr_vaddr(&data_word)), -1);
    CHECK_EQ(probe_last()->error, PF_PRESENT | PF_FETCH);
    CHECK_EQ(probe_last()->address, (uintptr_t)&data_word);
    CHECK_EQ(probe_exec(ptr_vaddr(image_bss_start)), -1);
    CHECK_EQ(probe_last()->error, PF_PRESENT | PF_FETCH);
    CHECK_EQ(probe_read(ptr_vaddr(image_bss_end), &value), -1);
    CHECK_EQ(probe_last()->error, 0);
    CHECK_EQ(probe_read(VADDR((uintptr_t)image_text_start - 8), &value), -1);
}

GUEST_TEST(trap_stack_guards)
{
    uint64_t value;

    CHECK(stack_count >= 4);
    for (uint32_t i = 0; i < stack_count; i++) {
        CHECK_EQ(probe_read(stacks[i].bottom, &value), 0);
        CHECK_EQ(probe_read(VADDR(stacks[i].top.v - 8), &value), 0);
        CHECK_EQ(probe_write(VADDR(stacks[i].bottom.v - 8), 0), -1);
        CHECK_EQ(probe_last()->error, PF_WRITE);
        CHECK_EQ(probe_read(VADDR(stacks[i].bottom.v - PAGE_SIZE), &value), -1);
        CHECK_EQ(probe_read(stacks[i].top, &value), -1);
        CHECK_EQ(probe_last()->error, 0);
        CHECK_EQ(probe_read(VADDR(stacks[i].top.v + PAGE_SIZE - 8), &value), -1);
        CHECK_EQ(probe_exec(stacks[i].bottom), -1);
        CHECK_EQ(probe_last()->error, PF_PRESENT | PF_FETCH);
    }
    // This very function runs on a guarded one.
    CHECK(stack_of(ptr_vaddr(&value)) == 0);
}

GUEST_TEST(trap_control_bits)
{
    CHECK(read_cr0() & CR0_WP);
    CHECK(rdmsr(MSR_EFER) & EFER_NXE);
    CHECK_EQ(rdmsr(MSR_PAT), 0x0007010500070406);
}
