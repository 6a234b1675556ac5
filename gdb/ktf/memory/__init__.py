# SPDX-License-Identifier: BSD-2-Clause
"""Where the bytes come from: the RAM file, QEMU's memory, the gdbstub, a core; and which of them can be had."""
