"""How exposed systemd finds units: ``systemd-analyze security``."""

from __future__ import annotations

import re
from collections.abc import Callable

LEVEL = re.compile(r"Overall exposure level for (\S+)\.service: ([0-9.]+)")


def exposures(shell: Callable[[str], str], pattern: str) -> dict[str, float]:
    """Unit's name -> level, 0 (best) to 10, of all services whose names match a pattern of systemd's.

    ``shell`` runs a script where systemd is and returns its output.
    """
    said = shell(
        f"for unit in $(systemctl list-units --all --plain --no-legend '{pattern}.service' | cut -d ' ' -f 1)"
        f" $(systemctl list-unit-files --no-legend '{pattern}.service' | cut -d ' ' -f 1);"
        " do systemd-analyze security --no-pager $unit | tail -n 1; done"
    )
    return {name: float(level) for name, level in LEVEL.findall(said)}
