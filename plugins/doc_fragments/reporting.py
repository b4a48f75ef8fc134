# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of modules says that put together what hosts told."""

from __future__ import annotations


class ModuleDocFragment:
    """Whom a report is about, and that it changes none of them."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    support: full
    description: It writes the report in check mode, too, as it changes no host.
  diff_mode:
    support: none
    description: It changes no host.
  action:
    support: full
    description: Is an action plugin; everything happens on the controller.
options:
  hubs:
    description: The hubs' inventory hosts.
    type: list
    elements: str
    required: true
  machines:
    description: The machines' inventory hosts.
    type: list
    elements: str
    required: true
"""
