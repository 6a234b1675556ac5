// SPDX-License-Identifier: BSD-2-Clause
// Ring 3 for real: what a user space maps can be used there, and nothing else.
#include "kernel/user.h"

#include "arch/x86/cpu.h"
#include "arch/x86/probe.h"
#include "boot/image.h"
#include "lib/string.h"
#include "mm/mm.h"
#include "mm/vmap.h"
#include "tests/guest/test.h"

// The program, tests/guest/user_program.S: rdi chooses, rsi is an address, rdx a value.
extern const char user_program[], user_program_end[];

enum user_call {
    USER_READ = 0,
    USER_WRITE = 1,
    USER_JUMP = 2,
    USER_PUSH = 3, // and pops it again
    USER_HALT = 4, // not allowed
};

#define CODE   VADDR(0x400000)
#define STACK  VADDR(0x7ffffffe0000)
#define DATA   VADDR(0x600000)
#define CLOSED VADDR(0x601000) // mapped in the user's space, but not for the user
#define CONST  VADDR(0x602000) // the same frame as DATA, read-only
#define WINDOW VADDR(VA_VMAP)  // the code's frame, for the kernel to write

static space_t *space;
static frame_t *code, *stack, *data, *closed;

static struct user_exit run(enum user_call call, uint64_t address, uint64_t value)
{
    return user_run(CODE, VADDR(STACK.v + PAGE_SIZE), call, address, value);
}

static bool load_program(void)
{
    int err = vmap_kern(WINDOW, code, VATTR_W);

    if (err)
        return false;
    memcpy(vaddr_ptr(WINDOW), user_program, (size_t)(user_program_end - user_program));
    return vput(NULL, WINDOW, code) == 0;
}

static bool set_up(void)
{
    if (get_frame(0, &code) || get_frame(0, &stack) || get_frame(0, &data) ||
        get_frame(0, &closed) || space_create("ring 3", &space) || !load_program())
        return false;
    if (vmap_user(space, CODE, code, VATTR_X) || vmap_user(space, STACK, stack, VATTR_W) ||
        vmap_user(space, DATA, data, VATTR_W) || vmap(space, CLOSED, closed, VATTR_W) ||
        vmap_user(space, CONST, data, VATTR_R))
        return false;
    return space_switch(space) == 0;
}

static bool take_down(void)
{
    if (space_switch(kernel_space()) || space_destroy(space))
        return false;
    return put_frame(code) == 0 && put_frame(stack) == 0 && put_frame(data) == 0 &&
           put_frame(closed) == 0;
}

// A page fault from ring 3, with just these bits beside PF_USER.
static bool faulted(const struct user_exit *e, uint64_t error, uint64_t address)
{
    if (e->vector == VECTOR_PF && e->error == (error | PF_USER) && e->address == address)
        return true;
    printk("  ring 3 was left by vector %lu, error 0x%lx, address 0x%lx, rip 0x%lx\n", e->vector,
           e->error, e->address, e->rip);
    return false;
}

static bool returned(const struct user_exit *e, uint64_t value)
{
    if (e->vector == VECTOR_USER_EXIT && e->rax == value)
        return true;
    printk("  ring 3 was left by vector %lu, error 0x%lx, address 0x%lx, rax 0x%lx\n", e->vector,
           e->error, e->address, e->rax);
    return false;
}

GUEST_TEST(user_own_pages)
{
    struct user_exit e;

    CHECK(set_up());
    e = run(USER_WRITE, DATA.v + 24, 0x1122334455667788);
    CHECK(returned(&e, 0));
    e = run(USER_READ, DATA.v + 24, 0);
    CHECK(returned(&e, 0x1122334455667788));
    e = run(USER_READ, CONST.v + 24, 0);
    CHECK(returned(&e, 0x1122334455667788));
    e = run(USER_PUSH, 0, 0x42);
    CHECK(returned(&e, 0x42));
    e = run(USER_READ, CODE.v, 0);
    CHECK_EQ(e.vector, VECTOR_USER_EXIT);
    CHECK_EQ(mm_check(), 0);
    CHECK(take_down());
}

GUEST_TEST(user_faults)
{
    struct user_exit e;

    CHECK(set_up());
    e = run(USER_READ, (uintptr_t)image_text_start, 0);
    CHECK(faulted(&e, PF_PRESENT, (uintptr_t)image_text_start));
    e = run(USER_READ, VA_FRAMES, 0);
    CHECK(faulted(&e, PF_PRESENT, VA_FRAMES));
    e = run(USER_WRITE, (uintptr_t)&space, 0);
    CHECK(faulted(&e, PF_PRESENT | PF_WRITE, (uintptr_t)&space));
    e = run(USER_JUMP, (uintptr_t)image_text_start, 0);
    CHECK(faulted(&e, PF_PRESENT | PF_FETCH, (uintptr_t)image_text_start));
    e = run(USER_READ, CLOSED.v, 0);
    CHECK(faulted(&e, PF_PRESENT, CLOSED.v));
    e = run(USER_WRITE, CLOSED.v, 0);
    CHECK(faulted(&e, PF_PRESENT | PF_WRITE, CLOSED.v));
    e = run(USER_WRITE, CONST.v, 0);
    CHECK(faulted(&e, PF_PRESENT | PF_WRITE, CONST.v));
    e = run(USER_WRITE, CODE.v, 0);
    CHECK(faulted(&e, PF_PRESENT | PF_WRITE, CODE.v));
    e = run(USER_JUMP, STACK.v, 0);
    CHECK(faulted(&e, PF_PRESENT | PF_FETCH, STACK.v));
    e = run(USER_READ, CLOSED.v + 2 * PAGE_SIZE, 0);
    CHECK(faulted(&e, 0, CLOSED.v + 2 * PAGE_SIZE));
    e = run(USER_HALT, 0, 0);
    CHECK_EQ(e.vector, VECTOR_GP);
    CHECK(take_down());
}

// A page that the kernel unmaps, or opens, while the user is away is so at once.
GUEST_TEST(user_sees_changes)
{
    struct user_exit e;

    CHECK(set_up());
    e = run(USER_READ, DATA.v, 0);
    CHECK_EQ(e.vector, VECTOR_USER_EXIT);
    CHECK_EQ(vput(space, DATA, data), 0);
    e = run(USER_READ, DATA.v, 0);
    CHECK(faulted(&e, 0, DATA.v));
    CHECK_EQ(vprotect(space, CLOSED, closed, VATTR_U), 0);
    e = run(USER_READ, CLOSED.v, 0);
    CHECK_EQ(e.vector, VECTOR_USER_EXIT);
    e = run(USER_WRITE, CLOSED.v, 0);
    CHECK(faulted(&e, PF_PRESENT | PF_WRITE, CLOSED.v));
    CHECK(take_down());
}

// The kernel itself keeps off the user's pages: SMEP, SMAP, where the processor has them.
GUEST_TEST(user_kept_from_kernel)
{
    uint64_t value;

    CHECK(set_up());
    if (read_cr4() & CR4_SMEP) {
        CHECK_EQ(probe_exec(CODE), -1);
        CHECK_EQ(probe_last()->error, PF_PRESENT | PF_FETCH);
    }
    if (cpu_has_smap()) {
        CHECK_EQ(probe_read(DATA, &value), -1);
        CHECK_EQ(probe_last()->error, PF_PRESENT);
        CHECK_EQ(probe_write(DATA, 1), -1);
        CHECK_EQ(probe_last()->error, PF_PRESENT | PF_WRITE);
    }
    user_access_begin();
    value = *(volatile uint64_t *)vaddr_ptr(DATA);
    user_access_end();
    CHECK_EQ(probe_read(CLOSED, &value), 0); // no user page, though in the user's half
    CHECK(take_down());
}
