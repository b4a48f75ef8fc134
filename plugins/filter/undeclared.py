# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell changes of a container that come with its next image from those that are lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: undeclared
short_description: What a hub's next image will not have
version_added: 0.1.0
author: The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Of what has been changed in a hub's container, as M(ananke.jupyterhub.hub_info) tells it, those changes that are not declared, so that the hub's
    next image will be without them.
positional: _input
options:
  _input:
    description: RV(ananke.jupyterhub.hub_info#module:drift).
    type: list
    elements: dict
    required: true
  features:
    description: All features that are declared.
    type: list
    elements: str
    default: []
  environments:
    description: Names of the environments that are declared.
    type: list
    elements: str
    default: []
  apt:
    description: Debian packages that are declared.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Nothing is lost with the next image
  ansible.builtin.assert:
    that: math101.drift | ananke.jupyterhub.undeclared(features=['lsp']) | length == 0
"""

RETURN = r"""
_value:
  description: Those of the changes, unchanged.
  type: list
  elements: dict
"""


def undeclared(
    drift: Iterable[Mapping[str, Any]],
    features: Collection[str] = (),
    environments: Collection[str] = (),
    apt: Collection[str] = (),
) -> list[Mapping[str, Any]]:
    """The changes that the next image will not have."""
    # a feature may be declared with its variant, as NAME:VARIANT
    declared = {"feature": {wish.partition(":")[0] for wish in features}, "environment": environments, "debian": apt}

    def lost(change: Mapping[str, Any]) -> bool:
        if None not in (change["image"], change["now"]):
            return True  # another version
        return (change["now"] is not None) != (change["name"] in declared.get(change["kind"], ()))

    return [change for change in drift if lost(change)]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"undeclared": undeclared}
