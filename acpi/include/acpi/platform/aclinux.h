/* SPDX-License-Identifier: BSD-2-Clause */
/* ACPICA's platform header: this kernel as the host, in the place of Linux's header of the same
 * name. */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#define ACPI_MACHINE_WIDTH        64
#define COMPILER_DEPENDENT_INT64  long
#define COMPILER_DEPENDENT_UINT64 unsigned long

#define ACPI_USE_DO_WHILE_0
#define ACPI_USE_LOCAL_CACHE           /* objects come from kmalloc, cached by ACPICA itself */
#define ACPI_USE_SYSTEM_CLIBRARY       /* below */
#define ACPI_PCI_CONFIGURED            /* operation regions in PCI configuration space */
#define ACPI_GPE_USE_LOGICAL_ADDRESSES /* mapped once: the SCI's handler may not map */
#define ACPI_IGNORE_PACKAGE_RESOLUTION_ERRORS

#define ACPI_EXPORT_SYMBOL(symbol)
#define ACPI_INIT_FUNCTION
#define ACPI_FLUSH_CPU_CACHE()         __asm__ volatile("wbinvd" : : : "memory")
#define ACPI_STRUCT_INIT(field, value) .field = value

#define acpi_cpu_flags unsigned long
#define acpi_spinlock  struct acpi_lock *
#define acpi_semaphore struct acpi_semaphore_state *

#define __init
#define __iomem
#define __cdecl

struct acpi_lock;
struct acpi_semaphore_state;

/* The C library that ACPICA calls: lib/string.c and acpi/clib.c. */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strcpy(char *to, const char *from);
char *strncpy(char *to, const char *from, size_t n);
char *strcat(char *to, const char *from);
int isdigit(int c);
int isxdigit(int c);
int isspace(int c);
int isprint(int c);
int toupper(int c);
int tolower(int c);
