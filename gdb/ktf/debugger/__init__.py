# SPDX-License-Identifier: BSD-2-Clause
"""All that talks to gdb: the target, registers, expressions, breakpoints, printers, registration."""
