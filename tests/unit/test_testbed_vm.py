"""What virtual machines are asked for and how the emulator is started, without starting one."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import machine, vm
from testbed.common import TestbedError


def plan(existing: vm.Vm | None = None, **wishes: object) -> vm.Vm:
    settings: dict[str, object] = {"ssh_port": None, "publish": [], "memory": None, "disks": {}, **wishes}
    return vm.plan("one", existing=existing, **settings)  # type: ignore[arg-type]


def test_a_new_machine_gets_free_ports_of_its_own() -> None:
    found = plan(publish=[":443", "30199:80"])
    assert found.published["80"] == 30199
    assert {found.ssh_port, found.published["443"]} <= set(machine.PORTS)
    assert found.ssh_port != found.published["443"]
    assert found.memory == vm.MEMORY
    assert found.directory == vm.VMS / "one"


def test_asked_again_it_stays_as_it_is() -> None:
    before = replace(plan(publish=[":443"], disks={"/srv": "/disk.img"}), root="/root")
    assert plan(before) == before
    assert plan(before, publish=[":443"], disks={"/srv": "/disk.img"}, ssh_port=before.ssh_port) == before


@pytest.mark.parametrize("wish", [{"memory": 512}, {"publish": [":80"]}, {"ssh_port": 30198}, {"disks": {"/a": "/b"}}])
def test_other_settings_are_refused(wish: dict[str, object]) -> None:
    with pytest.raises(TestbedError, match="vm down one"):
        plan(plan(publish=[":443"], ssh_port=30197), **wish)


def test_the_emulator_gets_ports_and_disks() -> None:
    found = replace(plan(ssh_port=30197, publish=["30199:443"], disks={"/srv": "/disk.img"}), root="/new")
    line = " ".join(vm.qemu_arguments(found, 2))
    assert "hostfwd=tcp:127.0.0.1:30197-10.41.0.100:22" in line
    assert "hostfwd=tcp:127.0.0.1:30199-10.41.0.100:443" in line
    assert "-kernel /new/vmlinuz -initrd /new/initrd.img" in line
    assert "disk0.qcow2" in line
    assert "disk1.qcow2" in line
    assert "systemd.mount-extra=/dev/vdb:/srv:ext4" in line
    assert "-no-reboot" not in line


def test_keys_come_with_modes_that_sshd_accepts() -> None:
    lines = [line.split() for line in vm.credentials("one", "user key\n", "host key\n").splitlines()]
    files = {line[1]: (line[2], line[3], base64.b64decode(line[-1]).decode()) for line in lines if line[0] == "f+~"}
    assert files["/home/hostadmin/.ssh/authorized_keys"] == ("0600", "hostadmin", "user key\n")
    assert files["/etc/ssh/ssh_host_ed25519_key"] == ("0600", "root", "host key\n")
    assert "127.0.1.1 one" in files["/etc/hosts"][2]


def test_a_foreign_process_is_not_taken_for_the_emulator(tmp_path: Path) -> None:
    found = replace(plan(), ssh_key=str(tmp_path / "id_ed25519"))
    assert found.pid() == 0
    (tmp_path / "qemu.pid").write_text("1\n")
    assert found.pid() == 0


def test_power_that_is_cut_takes_connections_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, done = plan(), []
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    monkeypatch.setattr(vm, "VMS", tmp_path)
    monkeypatch.setattr(vm.Vm, "sockets", sockets)
    monkeypatch.setattr(vm, "load", lambda _name: found)
    monkeypatch.setattr(vm.emulator, "end", lambda container: done.append(f"end {container.rpartition('-')[2]}"))
    monkeypatch.setattr(vm, "_start", lambda started: done.append(f"start {started.name}, {sockets.exists()}"))
    monkeypatch.setattr(machine, "wait_for_systemd", lambda _started: done.append("systemd"))
    monkeypatch.setattr(machine, "settle", lambda _started: done.append("settled"))
    assert vm.crash("one") is found
    assert done == ["end emulator", "start one, False", "systemd", "settled"]
