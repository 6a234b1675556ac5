# SPDX-License-Identifier: BSD-2-Clause
"""stub"""
from .command import Command
COMMANDS: list[Command] = []
