"""Turns: as many as the CPUs start well, free again when their holder ends, and no reason to wait for ever."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import turns


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What root writes for the next boot is in this folder."""
    for name in ("BOOT", "UNIT", "PROGRAM"):
        monkeypatch.setattr(turns, name, str(tmp_path / "system" / name))
    return tmp_path / "system"


def test_as_many_turns_as_the_cpus_start_well(tmp_path: Path, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert str(made[1]) in (system / "BOOT").read_text(), "the next boot makes it"
    turns.provide(str(tmp_path / "turns"))
    assert turns.provided(str(tmp_path / "turns"))
    (system / "UNIT").unlink()
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


class Start:
    """A hub that systemd starts: its turn's unit, and who answers on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status = 503
        start = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(start.status if self.path == "/courses/math/hub/health" else 404)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]
        description = folder / "hubs/math-101/description/hub.json"
        description.parent.mkdir(parents=True)
        description.write_text(json.dumps({"base_url": "/courses/math/"}))
        (folder / "turns").mkdir()
        (folder / "turns/0").touch()
        self.program = folder / "turn"
        self.program.write_text(turns.SCRIPT.replace(turns.DIRECTORY, str(folder / "turns")))
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(str(folder / "notify"))
        self.systemd.settimeout(0.3)
        self.process: subprocess.Popen[bytes]

    def begin(self) -> None:
        environment = {
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "NOTIFY_SOCKET": str(self.folder / "notify"),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(self.program), f"{self.port}-math-101"], env=environment
        )

    def may_start(self, seconds: float) -> bool:
        self.systemd.settimeout(seconds)
        try:
            return self.systemd.recv(100) == b"READY=1"
        except TimeoutError:
            return False

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.server.shutdown()
        self.server.server_close()
        self.systemd.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    start = Start(tmp_path)
    yield start
    start.end()


def test_a_hub_that_systemd_starts_waits_for_a_turn_and_keeps_it_until_it_is_healthy(start: Start) -> None:
    directory = str(start.folder / "turns")
    with turns.take(directory):
        start.begin()
        assert not start.may_start(0.5)
    assert start.may_start(20)
    with turns.take(directory, patience=0.5) as early:
        assert not early
    start.status = 200
    assert start.process.wait(20) == 0
    with turns.take(directory, patience=0) as late:
        assert late


def test_a_hub_that_a_run_starts_needs_no_further_turn(start: Start) -> None:
    with turns.take(str(start.folder / "turns")):
        start.begin()
        assert not start.may_start(0.5)
        with turns.by_run(start.port, "math-101", str(start.folder)):
            assert start.may_start(20)
            assert start.process.wait(20) == 0
    assert not (start.folder / f"ananke-turn@{start.port}-math-101").exists()


def test_a_hub_that_does_not_become_healthy_lets_others_go(start: Start) -> None:
    start.program.write_text(start.program.read_text().replace(f"+ {turns.HOLD}", "+ 1"))
    start.begin()
    assert start.may_start(20)
    assert start.process.wait(20) == 0
