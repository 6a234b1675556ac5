# SPDX-License-Identifier: BSD-2-Clause
"""ACPI's tables as the guest has them, and what of them is mapped."""
