# SPDX-License-Identifier: GPL-3.0-or-later
"""How the module hub has systemd start a container, with systemd's answers made up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ansible_collections.ananke.jupyterhub.plugins.modules import hub


class Started(hub.Hub):
    """A hub whose container's unit fails to start so many times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.service, self.quadlet = failures, "ananke-a.service", True
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], stdin: str | None = None, **environment: str) -> tuple[int, str]:
        self.asked.append(" ".join(argv[2:]))
        if argv[2] == "restart" and self.failures:
            self.failures -= 1
            return 1, "Job for ananke-a.service failed"
        return 0, ""


@pytest.mark.parametrize("failures", [0, 1])
def test_a_start_that_fails_once_is_tried_again(failures: int) -> None:
    started = Started(failures)
    started.restart_container()
    assert started.asked == ["daemon-reload", *["restart ananke-a.service"] * (failures + 1)]


def test_a_start_that_fails_twice_has_failed() -> None:
    with pytest.raises(hub.HubError, match=r"restart ananke-a\.service failed: Job for"):
        Started(2).restart_container()
