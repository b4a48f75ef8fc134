# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of modules says that are told which hub they are for."""

from __future__ import annotations


class ModuleDocFragment:
    """By its name, by its account or by its container."""

    DOCUMENTATION = r"""
options:
  name:
    description: Name of the hub.
    type: str
    required: true
"""

    ACCOUNT = r"""
options:
  container_admin:
    description: Name of the account that has it.
    type: str
    required: true
"""

    CONTAINER = r"""
options:
  container:
    description: The hub's container. If not given, the hub is looked for on the host itself.
    type: str
"""
