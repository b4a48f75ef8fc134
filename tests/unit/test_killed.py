# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed goes with all of its processes."""

from __future__ import annotations

import os
import subprocess
import sys

import killed

PROGRAM = "import os, subprocess, sys, time; subprocess.Popen(['sleep', '600'], start_new_session=True); print(1, flush=True); time.sleep(600)"


def test_processes_with_sessions_of_their_own_go_too() -> None:
    mark = f"ANANKE_KILLED=test-{os.getpid()}"
    name, _equals, value = mark.partition("=")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env={**os.environ, name: value}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "1\n"
        marked = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if killed.marked(pid, mark.encode())
        ]
        assert len(marked) == 2
        killed.end_marked(mark.encode())
        assert process.wait(10) < 0
    assert not any(killed.marked(pid, mark.encode()) for pid in marked)


def test_others_stay() -> None:
    killed.end_marked(b"ANANKE_KILLED=nobody")
