# SPDX-License-Identifier: GPL-3.0-or-later
"""Ten thousand lives of a home: whatever happens to it, our modules leave every file with whom it belongs to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ownership_support import Life, needs_root

pytestmark = needs_root

PEACEFUL = ("start", "stop", "command", "replace", "write")
"""What happens in a hub whose admins use our modules."""
ALL = (*PEACEFUL, "theft", "thief_ends", "consistent", "admin", "restored", "cut")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@given(st.lists(st.sampled_from(PEACEFUL), max_size=15))
@settings(max_examples=3000, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_commands_never_take_a_home_away(root: Path, acts: list[str]) -> None:
    life = Life(root)
    for act in acts:
        getattr(life, act)()
        life.check()
    assert life.mark() is None


@given(st.lists(st.sampled_from(ALL), max_size=15))
@settings(max_examples=7000, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happened_is_put_right(root: Path, acts: list[str]) -> None:
    life = Life(root)
    for act in acts:
        getattr(life, act)()
    life.consistent()
    life.restored()
    if not life.handed_over:
        assert life.mark() is None


def test_a_theft_is_seen_by_the_check(root: Path) -> None:
    """The existing system's race does break a home: without our module the check fails."""
    life = Life(root)
    life.start()
    life.theft()
    with pytest.raises(AssertionError):
        life.check()
    life.consistent()
