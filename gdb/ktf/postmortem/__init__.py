# SPDX-License-Identifier: BSD-2-Clause
"""Why the guest stopped: which CPU failed, its chain of exceptions, and the causes."""
