# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of modules says that look at a machine as browsers see it."""

from __future__ import annotations


class ModuleDocFragment:
    """Where the machine's proxy answers."""

    DOCUMENTATION = r"""
options:
  server_name:
    description: The machine's name in the addresses of its hubs.
    type: str
    required: true
  https_port:
    description: Port of its proxy.
    type: int
    default: 443
"""
