# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a changed container its next image will not have."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.filter.undeclared import FilterModule, undeclared

DECLARED: dict[str, Any] = {"features": ["lsp", "tensorflow:gpu"], "environments": ["geo"], "apt": ["gnuplot"]}


@pytest.mark.parametrize(
    ("kind", "name", "image", "now", "lost"),
    [
        ("feature", "lsp", None, "", False),
        ("feature", "tensorflow", None, "", False),
        ("feature", "myst", None, "", True),
        ("feature", "lsp", "", None, True),  # it comes back
        ("feature", "myst", "", None, False),
        ("environment", "geo", None, "", False),
        ("environment", "ml", None, "", True),
        ("debian", "gnuplot", None, "6.0", False),
        ("debian", "lsp", None, "1.0", True),  # not the feature of that name
        ("debian", "gnuplot", "6.0", "6.1", True),
        ("package", "numpy", None, "2.3", True),
        ("package", "numpy", "2.2", "2.3", True),
    ],
)
def test_what_is_lost(kind: str, name: str, image: str | None, now: str | None, lost: bool) -> None:
    change = {"kind": kind, "name": name, "image": image, "now": now}
    assert undeclared([change], **DECLARED) == ([change] if lost else [])


def test_ansible_knows_it() -> None:
    assert FilterModule().filters() == {"undeclared": undeclared}
