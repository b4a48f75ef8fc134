"""The holder of podman's mount namespace, with real processes and a namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import podman
from testbed.common import TestbedError
from testbed.waiting import until

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="making a mount namespace needs root; `make test` runs as root"
)
UNUSUAL = podman.Facts(cgroup2=False, systemd=False, sys_resource=False, nofile=1024)


@pytest.fixture
def _own_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the test have its own holder, whatever this machine is like, and end it."""
    for name in ("CONF", "HOLDER", "LOCK"):
        monkeypatch.setattr(podman, name, tmp_path / name.lower())
    monkeypatch.setattr(podman, "MARKER", f"testbed-test-{os.getpid()}")
    monkeypatch.setattr(podman, "look", lambda: UNUSUAL)
    yield
    for pid in list(podman._pids()):
        if podman._marked(pid):
            os.kill(pid, signal.SIGKILL)


def _holder(line: list[str]) -> int:
    return int(line[line.index("--target") + 1])


def _end(pid: int) -> None:
    started = podman.start_time(pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: podman.start_time(pid) != started, 5, "the process has ended")


@pytest.fixture
def inhabitant(_own_holder: None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in the holder's namespace, as a running container is one."""
    line = podman.command(["ignored"])
    process = subprocess.Popen([*line[: line.index("--") + 1], "sleep", "600"])
    while (podman.PROC / str(process.pid) / "comm").read_text() != "sleep\n":
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


@needs_root
@pytest.mark.usefixtures("_own_holder")
def test_the_namespace_is_ours_alone_and_has_cgroup_v2() -> None:
    line = podman.command(["info"], cwd="/usr")
    inside = [*line[: line.index("--") + 1], "stat", "-fc", "%T", "/sys/fs/cgroup"]
    assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "cgroup2fs\n"
    assert not podman._marked(os.getpid())
    assert line[-2:] == ["podman", "info"]
    assert "--chdir=/usr" in line
    assert podman.CONF.read_text() == podman.containers_conf(UNUSUAL)


@needs_root
@pytest.mark.usefixtures("_own_holder")
def test_the_holder_is_found_again_and_survives_the_session() -> None:
    first = _holder(podman.command(["ps"]))
    assert _holder(podman.command(["ps"])) == first
    assert os.getsid(first) != os.getsid(0)


@needs_root
@pytest.mark.usefixtures("_own_holder")
def test_another_process_with_the_recorded_pid_is_not_the_holder() -> None:
    first = _holder(podman.command(["ps"]))
    record = json.loads(podman.HOLDER.read_text())
    podman.HOLDER.write_text(json.dumps({**record, "start_time": record["start_time"] + 1}))
    assert podman._known_holder() is None
    podman.HOLDER.write_text(json.dumps({"pid": os.getpid(), "start_time": podman.start_time(os.getpid())}))
    assert podman._known_holder() is None
    podman.HOLDER.write_text("not even json")
    assert podman._namespace(_holder(podman.command(["ps"]))) == podman._namespace(first)


@needs_root
def test_a_killed_holder_is_replaced_in_the_namespace_of_the_containers(inhabitant: subprocess.Popen[bytes]) -> None:
    first = _holder(podman.command(["ps"]))
    namespace = podman._namespace(first)
    _end(first)
    second = _holder(podman.command(["ps"]))
    assert second != first
    assert podman._namespace(second) == namespace == podman._namespace(inhabitant.pid)


@needs_root
def test_release_spares_what_still_runs(inhabitant: subprocess.Popen[bytes]) -> None:
    holder = _holder(podman.command(["ps"]))
    assert not podman.release()
    assert podman._known_holder() == holder
    inhabitant.kill()
    inhabitant.wait()
    started = podman.start_time(holder)
    assert podman.release()
    assert not podman.HOLDER.exists()
    until(lambda: podman.start_time(holder) != started, 5, "the holder has ended")
    assert not any(podman._marked(pid) for pid in podman._pids())
    assert podman.release()


@needs_root
def test_where_podman_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(TestbedError, match="make setup"):
        podman.command(["ps"])


def test_an_ordinary_machine_is_called_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "look", lambda: podman.Facts(True, True, True))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(podman.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert podman.command(["run", "--rm", "x"]) == ["podman", "run", "--rm", "x"]


@pytest.mark.parametrize("facts", [podman.Facts(True, True, False), podman.Facts(True, False, True)])
def test_where_cgroup_v2_is_mounted_no_namespace_is_made(
    facts: podman.Facts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(podman, "look", lambda: facts)
    monkeypatch.setattr(podman, "CONF", tmp_path / "containers.conf")
    monkeypatch.setattr(podman, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(podman, "_start_holder", lambda: pytest.fail("a holder was started"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(podman.shutil, "which", lambda name: f"/usr/bin/{name}")
    line = podman.command(["info"], cwd="/usr")
    assert line == ["env", "--chdir=/usr", f"CONTAINERS_CONF={tmp_path / 'containers.conf'}", "podman", "info"]


def test_an_ordinary_user_is_told_to_be_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TestbedError, match="root"):
        podman.command(["ps"])


def test_start_time_of_nobody() -> None:
    assert podman.start_time(2**22 + 1) is None
    assert podman.start_time(os.getpid()) is not None
