// SPDX-License-Identifier: BSD-2-Clause
// What the tests of acpi/ share.
#pragma once

#include "lib/types.h"

/* Starts ACPI, anew if it ran: evaluating its methods makes objects that stay. True if it ran. */
bool acpi_test_begin(void);
/* Takes it down, and starts it again if it ran. */
void acpi_test_end(bool ran);
/* Starts ACPI if it does not run; true if it ran. Afterwards, if not: ktf_acpi_stop(). */
bool acpi_test_need(void);

/* Of the mapping of that page by AcpiOsMapMemory(): its references, 0 if there is none, UINT32_MAX
 * if another page is mapped there. */
uint32_t acpi_refs(uint64_t paddr);
