/* SPDX-License-Identifier: BSD-2-Clause */
/* Asked for by one of ACPICA's files in Linux's tree: nothing looks for leaks that way here. */
#pragma once

#define kmemleak_not_leak(object) ((void)(object))
