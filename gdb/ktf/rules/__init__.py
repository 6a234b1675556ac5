# SPDX-License-Identifier: BSD-2-Clause
"""The rules of docs/invariants.md. table.py lists them and runs them; each rule is in the file of its family."""
