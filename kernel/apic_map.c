// SPDX-License-Identifier: BSD-2-Clause
// The local APIC, mapped through its device frame.
#include "kernel/apic_map.h"

#include "arch/x86/apic.h"
#include "arch/x86/layout.h"
#include "mm/frame.h"
#include "mm/vmap.h"

int apic_map(void)
{
    frame_t *frame;
    int err = get_device_frame(apic_paddr(), ORDER_4K, &frame);

    if (err != 0)
        return err;
    err = vmap_kern(VADDR(VA_DEVICES), frame, VATTR_W | VATTR_UC);
    if (err != 0)
        put_frame(frame);
    return err;
}
