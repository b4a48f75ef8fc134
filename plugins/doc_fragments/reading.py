# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of all modules says that only look."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of a module that never changes anything."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: It never changes anything.
  diff_mode:
    support: none
    description: It never changes anything.
  idempotent:
    support: full
    description: It never changes anything.
"""
