// SPDX-License-Identifier: BSD-2-Clause
// Locks and semaphores for ACPICA.
#include "acpi/osl.h"

#include "arch/x86/cpu.h"
#include "arch/x86/percpu.h"
#include "arch/x86/tlb.h"
#include "lib/panic.h"
#include "mm/kmalloc/kmalloc.h"

// Guarded by its lock. Threads of ACPICA are CPUs here: one that waits keeps its CPU.
struct acpi_semaphore_state {
    struct acpi_lock lock;
    uint32_t units;
    uint32_t max;
};

uint64_t osl_lock(struct acpi_lock *lock)
{
    uint64_t flags = interrupts_save();
    uint32_t none = 0;

    if (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) == cpu_token())
        panic("ACPI: CPU %u takes a lock twice", cpu_number());
    while (!__atomic_compare_exchange_n(&lock->owner, &none, cpu_token(), false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
        tlb_answer(); // interrupts are off: nobody must wait for this CPU
        cpu_relax();
        none = 0;
    }
    return flags;
}

void osl_unlock(struct acpi_lock *lock, uint64_t flags)
{
    __atomic_store_n(&lock->owner, 0, __ATOMIC_RELEASE);
    interrupts_restore(flags);
}

acpi_status acpi_os_create_lock(acpi_spinlock *out_handle)
{
    *out_handle = kzalloc(sizeof(**out_handle));
    return *out_handle ? AE_OK : AE_NO_MEMORY;
}

void acpi_os_delete_lock(acpi_spinlock handle)
{
    kfree(handle);
}

acpi_cpu_flags acpi_os_acquire_lock(acpi_spinlock handle)
{
    return osl_lock(handle);
}

void acpi_os_release_lock(acpi_spinlock handle, acpi_cpu_flags flags)
{
    osl_unlock(handle, flags);
}

/* --- semaphores ------------------------------------------------------------------------------- */

acpi_status acpi_os_create_semaphore(u32 max_units, u32 initial_units, acpi_semaphore *out_handle)
{
    struct acpi_semaphore_state *s;

    if (!out_handle || initial_units > max_units)
        return AE_BAD_PARAMETER;
    s = kzalloc(sizeof(*s));
    if (!s)
        return AE_NO_MEMORY;
    s->units = initial_units;
    s->max = max_units;
    *out_handle = s;
    return AE_OK;
}

acpi_status acpi_os_delete_semaphore(acpi_semaphore handle)
{
    if (!handle)
        return AE_BAD_PARAMETER;
    kfree(handle);
    return AE_OK;
}

static bool take(struct acpi_semaphore_state *s, uint32_t units)
{
    uint64_t flags = osl_lock(&s->lock);
    bool enough = s->units >= units;

    if (enough)
        s->units -= units;
    osl_unlock(&s->lock, flags);
    return enough;
}

acpi_status acpi_os_wait_semaphore(acpi_semaphore handle, u32 units, u16 timeout)
{
    uint64_t start = acpi_os_get_timer(), limit = (uint64_t)timeout * TIMER_PER_MS;

    if (!handle || units < 1)
        return AE_BAD_PARAMETER;
    while (!take(handle, units)) {
        if (timeout != ACPI_WAIT_FOREVER && acpi_os_get_timer() - start >= limit)
            return AE_TIME;
        tlb_answer();
        cpu_relax();
    }
    return AE_OK;
}

acpi_status acpi_os_signal_semaphore(acpi_semaphore handle, u32 units)
{
    acpi_status status = AE_OK;
    uint64_t flags;

    if (!handle || units < 1)
        return AE_BAD_PARAMETER;
    flags = osl_lock(&handle->lock);
    if (units > handle->max - handle->units)
        status = AE_LIMIT;
    else
        handle->units += units;
    osl_unlock(&handle->lock, flags);
    return status;
}

acpi_thread_id acpi_os_get_thread_id(void)
{
    return cpu_token();
}
