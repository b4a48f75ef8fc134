# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The time zone of the machine that this runs on."""

from __future__ import annotations

import os
import re

_NAME = re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*\Z")


def of_machine(root: str = "/") -> str:
    """Name of the machine's time zone; UTC where it has none with a name."""
    try:
        target = os.readlink(os.path.join(root, "etc/localtime"))
    except OSError:  # no link: nothing, or a copy that has no name
        target = ""
    name = target.partition("/zoneinfo/")[2]
    return name if _NAME.match(name) else "UTC"
