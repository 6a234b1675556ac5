# SPDX-License-Identifier: BSD-2-Clause
"""Our kernel's objects as arrays: layouts from DWARF, pools, frames, mapping records, address spaces, journal."""
