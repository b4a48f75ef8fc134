# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of modules says that change something, and can be run again."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of such a module."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  idempotent:
    support: full
    description: Running it again changes nothing.
"""

    IN_WORDS = r"""
attributes:
  diff_mode:
    support: none
    description: The list of actions says what changes.
"""
