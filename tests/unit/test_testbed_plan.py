"""What the test bed decides before it does anything: names, ports, settings, configurations."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from testbed import base, common, machine, podman
from testbed.__main__ import parser
from testbed.common import TestbedError


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MACHINES", tmp_path)
    monkeypatch.delenv("ANANKE_TESTBED_PREFIX", raising=False)
    monkeypatch.delenv("ANANKE_DEBIAN_MIRROR", raising=False)


def test_prefix_tells_checkouts_apart() -> None:
    one, other = common.prefix({}, Path("/src/one")), common.prefix({}, Path("/src/other"))
    assert one != other
    assert one == common.prefix({}, Path("/src/one"))
    assert common.prefix({"ANANKE_TESTBED_PREFIX": "ci-7"}, Path("/src/one")) == "ci-7"


@pytest.mark.parametrize("bad", ["7ci", "UPPER", "a b", "a.b", "a/b", "-", "a" * 31])
def test_prefix_is_refused(bad: str) -> None:
    with pytest.raises(TestbedError, match="ANANKE_TESTBED_PREFIX"):
        common.prefix({"ANANKE_TESTBED_PREFIX": bad})


def test_digest_depends_on_the_division() -> None:
    assert common.digest("ab", "c") != common.digest("a", "bc")
    assert common.digest("ab", b"c") == common.digest(b"ab", "c")


def test_write_file_replaces_with_mode(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "file"
    common.write_file(path, "one", 0o600)
    common.write_file(path, "two", 0o640)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_extra_cas_are_certificates_only(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.crt", "sub/a.crt", "readme.txt"):
        (tmp_path / name).write_text("x")
    assert common.extra_cas(tmp_path) == [tmp_path / "b.crt", tmp_path / "sub/a.crt"]
    assert common.extra_cas(tmp_path / "absent") == []


def test_an_ordinary_machine_needs_no_configuration() -> None:
    facts = podman.Facts(cgroup2=True, systemd=True, sys_resource=True)
    assert facts.ordinary
    assert podman.containers_conf(facts) == ""


@pytest.mark.parametrize(
    ("facts", "present", "absent"),
    [
        (podman.Facts(False, False, False, 20000), ["nofile=20000:20000", 'runtime = "runc"', "pids_limit = 0"], []),
        (podman.Facts(True, False, True), ['cgroup_manager = "cgroupfs"'], ["ulimits", "runc", "pids_limit"]),
        (podman.Facts(True, True, False, 2**40), ["nofile=1048576:1048576", "runc"], ["cgroupfs", "k8s-file"]),
        (podman.Facts(True, True, True, pids=False), ["pids_limit = 0"], ["ulimits", "cgroupfs", "runc", "k8s-file"]),
    ],
)
def test_configuration_holds_what_the_machine_lacks(facts: podman.Facts, present: list[str], absent: list[str]) -> None:
    conf = podman.containers_conf(facts)
    assert not facts.ordinary
    assert all(text in conf for text in present)
    assert not any(text in conf for text in absent)


@pytest.mark.parametrize(
    ("controllers", "counts"), [("cpu io memory pids\n", True), ("hugetlb\n", False), (None, False)]
)
def test_the_controller_of_tasks_is_looked_for(
    controllers: str | None, counts: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "cgroup.controllers"
    if controllers is not None:
        path.write_text(controllers)
    monkeypatch.setattr(podman, "CONTROLLERS", path)
    assert podman.look.__wrapped__().pids is counts


def test_sources_have_updates_and_security() -> None:
    lines = base.sources("trixie", base.mirror({"ANANKE_DEBIAN_MIRROR": "https://mirror.example/debian/"}))
    assert lines == [
        "deb https://mirror.example/debian trixie main",
        "deb https://mirror.example/debian trixie-updates main",
        "deb https://mirror.example/debian-security trixie-security main",
    ]


def test_base_reference_changes_with_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    before = base.reference("trixie")
    assert before.startswith("localhost/ananke-base:trixie-")
    monkeypatch.setenv("ANANKE_DEBIAN_MIRROR", "https://mirror.example/debian")
    assert base.reference("trixie") != before
    with pytest.raises(TestbedError, match="trixie, bookworm"):
        base.reference("sid")


@pytest.mark.parametrize("bad", ["", "Upper", "1st", "a_b", "../a", "a b", "a.b", "-a", "a" * 32])
def test_machine_names(bad: str) -> None:
    with pytest.raises(TestbedError, match="machine"):
        machine.check_name(bad)


def test_volumes_of_machines_with_like_names_differ() -> None:
    assert not machine.volume_name("p-a-b", "home").startswith(machine.volume_name("p-a", ""))


def test_publish() -> None:
    assert machine.parse_publish(["8443:443", ":80", "81"]) == {443: 8443, 80: 0, 81: 0}


@pytest.mark.parametrize("bad", [["a:1"], ["1:0"], ["1:65536"], ["65536:1"], ["1.2.3.4:1:1"], ["1:2", "3:2"], ["-1"]])
def test_publish_refused(bad: list[str]) -> None:
    with pytest.raises(TestbedError, match="publish"):
        machine.parse_publish(bad)


def test_volumes() -> None:
    assert machine.parse_volumes(["data:/srv/data"]) == {**machine.VOLUMES, "data": "/srv/data"}


@pytest.mark.parametrize("bad", ["data", "data:relative", "home:/x", "x:/home", "x:/a:ro", "x:/a,b", "../x:/a"])
def test_volumes_refused(bad: str) -> None:
    with pytest.raises(TestbedError, match="volume"):
        machine.parse_volumes([bad])


def _existing(**changes: Any) -> dict[str, Any]:
    return {**asdict(machine.plan("one", "bookworm", 20022, ["20443:443"], ["data:/srv"])), **changes}


def test_plan_of_a_new_machine() -> None:
    planned = machine.plan("one", publish=[":443"])
    assert planned.suite == "trixie"
    assert planned.ssh_port in machine.PORTS
    assert planned.published["443"] in machine.PORTS
    assert planned.ssh_port != planned.published["443"]
    assert planned.container == f"{common.prefix()}-one"
    assert planned.volumes == machine.VOLUMES


def test_plan_keeps_what_is_not_asked_for() -> None:
    existing = _existing()
    assert asdict(machine.plan("one", existing=existing)) == existing
    assert asdict(machine.plan("one", "bookworm", None, [":443"], existing=existing)) == existing


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"suite": "trixie"}, "suite: bookworm -> trixie"),
        ({"ssh_port": 20023}, "ssh_port: 20022 -> 20023"),
        ({"publish": ["20444:443"]}, "published"),
        ({"volumes": ["more:/more"]}, "volumes"),
    ],
)
def test_plan_refuses_to_change_a_machine(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(TestbedError, match=named) as refusal:
        machine.plan("one", existing=_existing(), **asked)
    assert "machine down one" in str(refusal.value)


def test_only_the_developers_loopback_is_published() -> None:
    arguments = machine.create_arguments(machine.plan("one", None, 20022, ["20443:443"]), "image")
    published = [argument for argument in arguments if argument.startswith("--publish=")]
    assert published == ["--publish=127.0.0.1:20022:22", "--publish=127.0.0.1:20443:443"]
    assert not {"--privileged", "--network=host"} & set(arguments)


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not machine.is_free(port)
    assert machine.is_free(port)


def test_free_port_avoids_those_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PORTS", range(20000, 20002))
    monkeypatch.setattr(machine, "is_free", lambda port: True)
    assert machine.free_port([20000]) == 20001
    with pytest.raises(TestbedError, match="no free port"):
        machine.free_port([20000, 20001])


def test_unknown_machine_says_what_to_do() -> None:
    with pytest.raises(TestbedError, match="machine up absent"):
        machine.load("absent")


def test_a_machine_is_read_back_as_written() -> None:
    planned = machine.plan("one")
    common.write_file(machine.directory("one") / "machine.json", json.dumps(asdict(planned)))
    assert machine.load("one") == planned
    assert machine.names() == ["one"]


def test_command_line() -> None:
    up = ["machine", "up", "m", "--suite", "bookworm", "--publish", "1:2", "--publish", ":3", "--volume", "a:/b"]
    arguments = parser().parse_args(up)
    assert (arguments.name, arguments.suite, arguments.publish) == ("m", "bookworm", ["1:2", ":3"])
    assert (arguments.volume, arguments.ssh_port) == (["a:/b"], None)
    arguments = parser().parse_args(["machine", "exec", "m", "ls", "-l", "--all"])
    assert arguments.arguments == ["ls", "-l", "--all"]
    with pytest.raises(SystemExit):
        parser().parse_args(["base", "sid"])
