"""Turns: as many as the CPUs start well, free again when their holder ends, and no reason to wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import turns


def test_as_many_turns_as_the_cpus_start_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert not turns.provided(str(tmp_path / "turns"))
    turns.provide(str(tmp_path / "turns"))
    assert turns.provided(str(tmp_path / "turns"))
    turns.provide(str(tmp_path / "turns"))
    made = sorted((tmp_path / "turns").iterdir())
    assert len(made) == 3 * turns.PER_CPU
    assert {path.stat().st_mode & 0o777 for path in made} == {0o644}
    made[1].unlink()
    assert not turns.provided(str(tmp_path / "turns"))


def test_a_turn_is_waited_for_and_comes_free(tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    with turns.take(str(tmp_path)) as first:
        assert first
        with turns.take(str(tmp_path), patience=0.2) as second:
            assert not second
    with turns.take(str(tmp_path), patience=0.2) as third:
        assert third


def test_two_turns_let_two_go_and_the_third_wait(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / str(number)).touch()
    with (
        turns.take(str(tmp_path)) as one,
        turns.take(str(tmp_path)) as two,
        turns.take(str(tmp_path), patience=0) as three,
    ):
        assert (one, two, three) == (True, True, False)


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    script = (
        "import sys, time\n"
        "from ansible_collections.ananke.jupyterhub.plugins.module_utils import turns\n"
        "with turns.take(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with turns.take(str(tmp_path), patience=0) as early:
            assert not early
        holder.kill()
        started = time.monotonic()
        with turns.take(str(tmp_path), patience=30) as late:
            assert late
        assert time.monotonic() - started < 30
    finally:
        holder.kill()
        holder.wait()


def test_where_nobody_provides_turns_nobody_waits(tmp_path: Path) -> None:
    with turns.take(str(tmp_path / "none"), patience=60) as turn:
        assert not turn
