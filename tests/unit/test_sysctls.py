"""Kernel settings: the file, the running kernel, and who comes later at boot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import sysctls

VALUES = {"kernel.dmesg_restrict": "1", "net.ipv4.ping_group_range": "0 5", "no.such_key": "1"}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A kernel."""
    for key, value in (("kernel/dmesg_restrict", "0\n"), ("net/ipv4/ping_group_range", "0\t5\n")):
        file = tmp_path / "proc" / key
        file.parent.mkdir(parents=True)
        file.write_text(value)
    return tmp_path / "proc"


def test_the_file_and_the_running_kernel_are_set(tmp_path: Path, proc: Path) -> None:
    path = tmp_path / "etc/60-a.conf"
    foretold = sysctls.ensure(str(path), VALUES, True, [str(path.parent)], str(proc))
    assert not path.exists()
    assert (proc / "kernel/dmesg_restrict").read_text() == "0\n"
    done = sysctls.ensure(str(path), VALUES, False, [str(path.parent)], str(proc))
    assert (done.set, done.missing, done.written) == (foretold.set, foretold.missing, foretold.written)
    assert done.set == {"kernel.dmesg_restrict": ("0", "1")}
    assert done.missing == ["no.such_key"]
    assert sysctls.parsed(path.read_text()) == VALUES
    assert (proc / "kernel/dmesg_restrict").read_text() == "1"
    again = sysctls.ensure(str(path), VALUES, False, [str(path.parent)], str(proc))
    assert not again.written
    assert not again.set


def test_what_somebody_has_set_otherwise_since_is_set_again(tmp_path: Path, proc: Path) -> None:
    path = tmp_path / "60-a.conf"
    sysctls.ensure(str(path), VALUES, False, [], str(proc))
    (proc / "kernel/dmesg_restrict").write_text("0\n")
    done = sysctls.ensure(str(path), VALUES, False, [], str(proc))
    assert not done.written
    assert set(done.set) == {"kernel.dmesg_restrict"}


def test_files_are_read_as_systemd_reads_them() -> None:
    text = "# comment\n; comment\n-kernel/dmesg_restrict = 0\nnet.a=1\n junk\nnet.b =  1   2\n"
    assert sysctls.parsed(text) == {"kernel.dmesg_restrict": "0", "net.a": "1", "net.b": "1 2"}


def test_a_later_file_with_another_value_is_named(tmp_path: Path) -> None:
    strong, weak = tmp_path / "etc", tmp_path / "usr"
    strong.mkdir()
    weak.mkdir()
    (weak / "10-early.conf").write_text("kernel.dmesg_restrict=0\n")
    (weak / "90-late.conf").write_text("kernel.dmesg_restrict=0\n")
    (weak / "95-same.conf").write_text("net.ipv4.ping_group_range = 0  5\n")
    found = sysctls.overridden(str(strong / "60-a.conf"), VALUES, [str(strong), str(weak)])
    assert len(found) == 1
    assert f"{weak}/90-late.conf sets kernel.dmesg_restrict to 0" in found[0]
    # a file of that name in /etc takes the other's place
    (strong / "90-late.conf").write_text("")
    assert sysctls.overridden(str(strong / "60-a.conf"), VALUES, [str(strong), str(weak)]) == []


def test_what_the_kernel_does_not_let_go_of_waits_for_the_next_boot(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, mode: str = "r", **options: Any) -> Any:
        if mode == "w" and path.startswith(str(proc)):
            raise PermissionError(1, "Operation not permitted", path)
        return open(path, mode, **options)

    monkeypatch.setattr(sysctls, "open", refuse, raising=False)
    done = sysctls.ensure(str(tmp_path / "60-a.conf"), VALUES, False, [], str(proc))
    assert done.written
    assert (done.set, done.locked) == ({}, ["kernel.dmesg_restrict"])


@pytest.mark.parametrize(
    ("enabled", "command_line", "said"),
    [
        ("Y\n", "root=/dev/vda1 apparmor=1 quiet\n", ""),
        ("N\n", "root=/dev/vda1 apparmor=0 quiet\n", "take apparmor=0 off the kernel's command line"),
        ("N\n", "security=selinux apparmor=1\n", "take security=selinux off the kernel's command line"),
        ("N\n", "lsm=landlock,yama quiet\n", "take lsm=landlock,yama off the kernel's command line"),
        ("N\n", "lsm=landlock,apparmor apparmor=0\n", "take apparmor=0 off the kernel's command line"),
        (None, "quiet\n", "install a kernel that has it, such as Debian's, and reboot"),
    ],
)
def test_a_kernel_without_apparmor(tmp_path: Path, enabled: str | None, command_line: str, said: str) -> None:
    if enabled:
        (tmp_path / "enabled").write_text(enabled)
    (tmp_path / "cmdline").write_text(command_line)
    warning = sysctls.without_apparmor(str(tmp_path / "enabled"), str(tmp_path / "cmdline"))
    assert bool(warning) == bool(said)
    assert said in warning
    assert not said or "baseline_apparmor: false" in warning
