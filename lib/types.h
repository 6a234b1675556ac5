// SPDX-License-Identifier: BSD-2-Clause
// The three kinds of number that must never be mixed (mfn, paddr, vaddr), page sizes, small macros.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// One-member structs, so that the compiler rejects a physical address where a virtual one belongs.
typedef struct {
    uint64_t v; // machine frame number: physical address / 4096
} mfn_t;
typedef struct {
    uint64_t v; // physical address, bytes
} paddr_t;
typedef struct {
    uint64_t v; // virtual address, bytes
} vaddr_t;

#define MFN(x)   ((mfn_t){(uint64_t)(x)})
#define PADDR(x) ((paddr_t){(uint64_t)(x)})
#define VADDR(x) ((vaddr_t){(uint64_t)(x)})

enum {
    PAGE_SHIFT = 12,
    PAGE_SIZE = 1 << PAGE_SHIFT,
};

// Orders: a block has 2^order pages of 4 KiB.
enum {
    ORDER_4K = 0,
    ORDER_2M = 9,
    ORDER_1G = 18,
    ORDER_MAX = ORDER_1G,
    ORDER_COUNT = ORDER_MAX + 1,
};

static inline mfn_t paddr_mfn(paddr_t pa)
{
    return MFN(pa.v >> PAGE_SHIFT);
}

static inline paddr_t mfn_paddr(mfn_t mfn)
{
    return PADDR(mfn.v << PAGE_SHIFT);
}

static inline void *vaddr_ptr(vaddr_t va)
{
    return (void *)(uintptr_t)va.v;
}

static inline vaddr_t ptr_vaddr(const void *p)
{
    return VADDR((uintptr_t)p);
}

#define ARRAY_SIZE(a)     (sizeof(a) / sizeof((a)[0]))
#define likely(x)         __builtin_expect(!!(x), 1)
#define unlikely(x)       __builtin_expect(!!(x), 0)
#define always_inline     inline __attribute__((always_inline))
#define must_check        __attribute__((warn_unused_result))
#define ROUND_DOWN(x, to) ((x) & ~((uint64_t)(to)-1))
#define ROUND_UP(x, to)   ROUND_DOWN((x) + (uint64_t)(to)-1, to)
#define IS_ALIGNED(x, to) (((x) & ((uint64_t)(to)-1)) == 0)
#define MIN(a, b)         ((a) < (b) ? (a) : (b))
#define MAX(a, b)         ((a) > (b) ? (a) : (b))
