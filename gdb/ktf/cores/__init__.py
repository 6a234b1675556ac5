# SPDX-License-Identifier: BSD-2-Clause
"""ELF cores: read as a guest, and written from one."""
