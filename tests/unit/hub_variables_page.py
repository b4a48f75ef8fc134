# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes docs/host-admin/hub-variables.md from the argument specs: `python tests/unit/hub_variables_page.py`."""

from __future__ import annotations

import re
from typing import Any

import yaml
from description_cases import ROOT, specs

PAGE = ROOT / "docs" / "host-admin" / "hub-variables.md"

INTRODUCTION = """\
# Variables of a hub

A hub is a host of the inventory. Set its variables in `host_vars/NAME.yml`, and what all hubs share in `group_vars/hubs.yml`.
The smallest hub is three lines:

    math101:
      hub_machine: north
      hub_port: 8101
      hub_lti_client_ids: kX7ePqT2mZ1vRb4

with the LMS said once for all hubs: `hub_lti_issuer: https://moodle.example.org`.

Every variable is checked before the first change. Unknown names that start with `hub_` or `container_admin_` are refused, and so
are hubs of one machine with the same name, port or path. A message names the hub, the variable, its value and what to write instead:

    math101: hub_port = 80: it is out of range. Write a port that no other hub of the machine uses, from 1024 to 65535.

Sizes are bytes, or a whole number with K, M, G or T (powers of 1024). Times are seconds. `null` means none or no limit.

The hub's address is `https://` and its machine's `reverse_proxy_server_name` (and `reverse_proxy_https_port` unless that is 443),
followed by `hub_path`.

This page is made from the argument specs by `python tests/unit/hub_variables_page.py`.
"""

SECTIONS = (
    ("The hub and its container", "hub", None),
    ("Login from the LMS", "hub_lti", None),
    (
        "The account that owns the container",
        "container_admin",
        (
            "container_admin_uid",
            "container_admin_password_hash",
            "container_admin_password_change",
            "container_admin_authorized_keys",
            "container_admin_home_size",
            "container_admin_home_offline",
        ),
    ),
)


def _text(description: Any) -> str:
    paragraphs = description if isinstance(description, list) else [description]
    return re.sub(r"[CVO]\(([^)]*)\)", r"`\1`", " ".join(" ".join(str(text).split()) for text in paragraphs))


def _default(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    default = yaml.safe_dump(option.get("default"), default_flow_style=True, width=1000).replace("\n...", "").strip()
    return f"`{default}`"


def _rows(options: dict[str, Any], names: tuple[str, ...] | None) -> list[str]:
    rows = ["| variable | default | what |", "| --- | --- | --- |"]
    for name in names or tuple(options):
        option = options[name]
        text = _text(option["description"])
        if option.get("choices"):
            text += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        for inner, detail in option.get("options", {}).items():
            need = "" if detail.get("required") else f" (default {_default(detail)})"
            text += f"<br>`{inner}`{need}: {_text(detail['description'])}"
        rows.append(f"| `{name}` | {_default(option)} | {text} |")
    return rows


def page() -> str:
    """The page's text."""
    parts = [INTRODUCTION]
    for title, role, names in SECTIONS:
        parts.append("\n".join([f"## {title}", "", *_rows(specs(role), names), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
