# SPDX-License-Identifier: BSD-2-Clause
"""The commands: each parses its words, calls what is below, and prints. No module here talks to gdb."""
