// SPDX-License-Identifier: BSD-2-Clause
// Error numbers. Functions return 0 or one of these negated; each refusal has its own.
#pragma once

enum error {
    EINVAL = 1, // a NULL, an attribute or a length that makes no sense
    EALIGN,     // address not aligned to the block or page
    ECANON,     // address not canonical, or outside the space's half
    EORDER,     // order above ORDER_MAX, or page size and block do not fit
    EUNKNOWN,   // not the descriptor of any frame
    EFREE,      // the frame is free (also: a second put)
    ERESERVED,  // the last reference of a reserved frame is the system's
    EEXIST,     // another frame is mapped there
    EATTR,      // the frame is mapped there with other permissions or memory type
    ELARGE,     // a large page is in the way of a smaller one
    ETABLE,     // a page table is in the way of a large page
    ETYPE,      // the memory type conflicts with another mapping of the frame
    ENOENT,     // nothing is mapped there, or no such frame
    EOTHER,     // something else than the named frame is mapped there
    EBEYOND,    // outside the block, or past the end of the address space
    EBUSY,      // still in use
    EOVERFLOW,  // a count is at its maximum
    ENOMEM,     // no frame left for what is needed
    ECORRUPT,   // bytes were written that do not belong to the writer
    ERROR_COUNT,
};

/* The name of error number err (positive or negated), "OK" for 0. Never NULL. */
const char *error_name(int err);
