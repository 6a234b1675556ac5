# SPDX-License-Identifier: BSD-2-Clause
"""What was found as text and JSON: ranges, one address's walk, a frame, differences of two stops."""
