// SPDX-License-Identifier: BSD-2-Clause
// The names of the error numbers.
#include "lib/error.h"

#include "lib/types.h"

const char *error_name(int err)
{
    static const char *const names[ERROR_COUNT] = {
        [0] = "OK",          [EINVAL] = "EINVAL",
        [EALIGN] = "EALIGN", [ECANON] = "ECANON",
        [EORDER] = "EORDER", [EUNKNOWN] = "EUNKNOWN",
        [EFREE] = "EFREE",   [ERESERVED] = "ERESERVED",
        [EEXIST] = "EEXIST", [EATTR] = "EATTR",
        [ELARGE] = "ELARGE", [ETABLE] = "ETABLE",
        [ETYPE] = "ETYPE",   [ENOENT] = "ENOENT",
        [EOTHER] = "EOTHER", [EBEYOND] = "EBEYOND",
        [EBUSY] = "EBUSY",   [EOVERFLOW] = "EOVERFLOW",
        [ENOMEM] = "ENOMEM", [ECORRUPT] = "ECORRUPT",
    };
    unsigned i = err < 0 ? 0u - (unsigned)err : (unsigned)err;

    return i < ERROR_COUNT && names[i] != NULL ? names[i] : "unknown error";
}
