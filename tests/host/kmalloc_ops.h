// SPDX-License-Identifier: BSD-2-Clause
// Random use of kmalloc against a model; choices come from ops.random.
#pragma once

#include "tests/host/support.h"

enum {
    KMALLOC_OBJECTS = 600,
};

/* What kmalloc() promises for an object of that size. */
size_t kmalloc_alignment(size_t size);
/* Nothing is allocated: after machine_reset(). */
void kmalloc_forget(void);
/* An object is made, gets another size, or is freed; its bytes are looked at. */
void kmalloc_step(void);
/* Frees all that is left; fails unless all is as it should be. */
void kmalloc_take_apart(void);
