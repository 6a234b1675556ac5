# SPDX-License-Identifier: BSD-2-Clause
"""The processor's side: page tables, registers, exceptions, memory types and operands, from the manuals alone."""
