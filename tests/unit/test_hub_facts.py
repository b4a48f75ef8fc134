"""What hub_info finds, in a folder with files as in a hub's container and with a systemctl that says what it is told."""

from __future__ import annotations

import datetime
import json
import os
import sqlite3
import threading
import time
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ananke_hub_support import description, free_port
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_facts
from ansible_collections.ananke.jupyterhub.plugins.modules import hub_info

from ananke_hub import contents

DEFAULT = hub_info.SUBSETS[:-1]
SECRET = "secret-9c1f"  # noqa: S105 - to be looked for
DPKG = """\
Package: systemd-sysv
Status: install ok installed
Version: 1-1

Package: systemd
Status: install ok installed
Depends: libacl1
Version: 257.8-1~deb13u2
Description: system and service manager
 Version: none

Package: tar
Version: 2-2
"""
UNITS = """\
Id=ananke-init.service
ActiveState=active
ActiveEnterTimestampMonotonic={entered}
NRestarts=0
MemoryMax=infinity

Id=jupyterhub-proxy.service
ActiveState=active
ActiveEnterTimestampMonotonic={entered}
NRestarts=0

Id=jupyterhub.service
ActiveState=active
ActiveEnterTimestampMonotonic={entered}
NRestarts=2

Id=jupyter-u7.service
ActiveState=active
MemoryMax=1073741824
MemorySwapMax=0
MemoryCurrent=52428800
TasksMax=512
CPUQuotaPerSecUSec=1s 500ms

Id=jupyter-u-a.service
ActiveState=active
MemoryMax=infinity
MemorySwapMax=infinity
MemoryCurrent=18446744073709551615
TasksMax=infinity
CPUQuotaPerSecUSec=infinity

Id=jupyter-u9.service
ActiveState=failed
MemoryMax=infinity
"""


def put(root: Path, path: str, content: str = "", mode: int = 0o644) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)


def kernel(root: Path, path: str, **spec: Any) -> None:
    put(root, f"{path}/kernel.json", json.dumps(spec))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container's files; a name that globs could take for a pattern, too."""
    root = tmp_path / "root[1]"
    hub = description(users=["u7", "u8"])
    hub["servers"]["environment"] = {"TOKEN": SECRET}
    put(root, "/etc/ananke/hub.json", json.dumps(hub))
    put(root, "/var/lib/jupyterhub/user_data.json", json.dumps({"u7": {"name": "Ada"}, "u8": {}, "u9": {}}))
    for name in ("api_token", "cookie_secret", "crypt_key", "proxy.env"):
        put(root, f"/var/lib/jupyterhub/{name}", SECRET, 0o600)
    with sqlite3.connect(root / "var/lib/jupyterhub/jupyterhub.sqlite") as database:
        database.execute("CREATE TABLE users (name TEXT, last_activity DATETIME)")
        ago = [datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days) for days in (0, 6.9, 7.1)]
        rows = [(f"u{number}", f"{time:%Y-%m-%d %H:%M:%S}.000000") for number, time in enumerate(ago)]
        database.executemany("INSERT INTO users VALUES (?, ?)", [*rows, ("never", None)])
    put(root, "/etc/debian_version", "13.1\n")
    put(root, "/var/lib/dpkg/status", DPKG)
    site = "/opt/conda/envs/jhub/lib/python3.13/site-packages"
    for name in (
        "jupyterhub-5.5.4",
        "jupyterlab-4.5.11",
        "jupyterlab_server-2.28.1",
        "jupyterhub_systemdspawner-1.0.2",
        "jupyterhub_ltiauthenticator-1.6.3",
        "jupyterhub_idle_culler-2.0.0",
    ):
        put(root, f"{site}/{name}.dist-info/METADATA")
    put(root, hub_facts.PROXY, json.dumps({"name": "configurable-http-proxy", "version": "5.3.0"}))
    for path in (
        "/opt/conda/conda-meta/conda-24.7.1-h1883440d_0_cp313.json",
        "/opt/conda/conda-meta/conda-libmamba-solver-24.1.0-pyhd8ed1ab_0.json",
        "/opt/conda/envs/jhub/conda-meta/python-3.13.5-h7fc9917c_0_cp313.json",
        "/opt/conda/envs/python3/conda-meta/python-3.12.3-h7fc9917c_0_cp312.json",
        "/opt/conda/envs/python3/conda-meta/python-dateutil-2.9.0-pyhd8ed1ab_0.json",
        "/opt/conda/envs/r/conda-meta/r-base-4.4.1-h0_0.json",
    ):
        put(root, path, "{}")
    for path in ("/opt/install/kernel", "/opt/conda/envs/python3/bin/python", "/usr/bin/octave"):
        put(root, path, "#!/bin/sh\n", 0o755)
    launcher = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel(
        root,
        f"{hub_facts.KERNELS[0]}/python3",
        argv=["/opt/install/kernel", "/opt/conda/envs/python3", *launcher],
        display_name="Python 3 (ipykernel)",
        language="python",
        env={"TOKEN": SECRET},
    )
    kernel(root, f"{hub_facts.KERNELS[1]}/octave", argv=["octave", "--kernel"], display_name="Octave", language="m")
    group = {"memory.max": "4294967296", "memory.current": "1048576", "cpu.max": "150000 100000", "pids.max": "max"}
    for name, text in {**group, "pids.current": "37"}.items():
        put(root, f"/sys/fs/cgroup/{name}", text + "\n")
    (root / "var/lib/private/u7").mkdir(parents=True)
    put(root, f"{site}/ananke_hub/contents.py", Path(str(contents.__file__)).read_text())
    put(root, f"/{contents.RECORD}", json.dumps(contents.look(root)))
    systemctl(tmp_path, monkeypatch, UNITS.format(entered=int((time.monotonic() - 60) * 1e6)))
    return root


def systemctl(folder: Path, monkeypatch: pytest.MonkeyPatch, output: str, status: int = 0) -> None:
    """Put a systemctl before the computer's own one; it notes how often it is called, and with what."""
    put(folder, "output", output)
    script = f'#!/bin/sh\necho "$@" >>"{folder}/calls"\ncat "{folder}/output"\nexit {status}\n'
    put(folder, "bin/systemctl", script, 0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")


@pytest.fixture
def hub() -> Iterator[str]:
    """A hub that is healthy at its own path only."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/math101/hub/health" else 404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def look(
    root: Path, *gather: str, hub: str = "http://127.0.0.1:9", proxy: str = "http://127.0.0.1:9"
) -> dict[str, Any]:
    result = hub_facts.main({"root": str(root), "gather": list(gather), "hub": hub, "proxy": proxy, "check": False})
    return json.loads(json.dumps(result))


def change(root: Path, **changes: Any) -> None:
    file = root / "etc/ananke/hub.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_good_hub_has_no_problems_and_shows_no_secrets(root: Path, hub: str) -> None:
    result = look(root, *DEFAULT, "homes", hub=hub, proxy=hub)
    assert result["problems"] == []
    assert result["changed"] is False
    assert set(result) == {*hub_info.SUBSETS, "environments", "problems", "changed"}
    assert SECRET not in json.dumps(result)
    assert "Ada" not in json.dumps(result)
    calls = (root.parent / "calls").read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].endswith("ananke-init.service jupyterhub-proxy.service jupyterhub.service jupyter-*.service")


def test_nothing_is_looked_for_that_nobody_wants(root: Path) -> None:
    assert look(root, "features") == {"changed": False, "features": [], "problems": []}
    assert not (root.parent / "calls").exists()


def test_module_and_program_know_the_same_subsets() -> None:
    assert [subset.__name__ for subset in hub_facts.SUBSETS] == hub_info.SUBSETS


def test_versions(root: Path) -> None:
    built = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
    os.utime(root / contents.RECORD, (built.timestamp(),) * 2)
    assert look(root, "versions")["versions"] == {
        "python": "3.13.5",
        "jupyterhub": "5.5.4",
        "jupyterlab": "4.5.11",
        "systemdspawner": "1.0.2",
        "ltiauthenticator": "1.6.3",
        "configurable_http_proxy": "5.3.0",
        "conda": "24.7.1",
        "debian": "13.1",
        "systemd": "257.8-1~deb13u2",
        "image_built": "2026-03-01T12:00:00+00:00",
    }


def test_missing_versions_are_named(root: Path) -> None:
    (root / hub_facts.PROXY.lstrip("/")).write_text("{")
    (root / "etc/debian_version").unlink()
    result = look(root, "versions")
    assert (result["versions"]["configurable_http_proxy"], result["versions"]["debian"]) == (None, None)
    (problem,) = result["problems"]
    assert "configurable_http_proxy, debian: build the image anew" in problem


def test_health(root: Path, hub: str) -> None:
    health = look(root, "health", hub=hub, proxy=hub)["health"]
    assert (health["healthy"], health["hub"], health["proxy"]) == (True, True, True)
    assert [service["name"] for service in health["services"]] == list(hub_facts.SERVICES)
    assert [service["restarts"] for service in health["services"]] == [0, 0, 2]
    since = datetime.datetime.fromisoformat(health["services"][2]["since"])
    assert 55 < time.time() - since.timestamp() < 90


def test_a_hub_that_is_away(root: Path, hub: str) -> None:
    result = look(root, "health", hub=f"http://127.0.0.1:{free_port()}", proxy=hub)
    assert (result["health"]["healthy"], result["health"]["hub"], result["health"]["proxy"]) == (False, False, True)
    assert result["problems"] == ["the hub does not answer: journalctl -u jupyterhub in the container says why"]


def test_an_answer_of_something_else_is_none_of_the_hub(root: Path, hub: str) -> None:
    change(root, base_url="/physics/")
    assert look(root, "health", hub=hub, proxy=hub)["health"]["proxy"] is False


def test_a_failed_service(root: Path, hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = UNITS.format(entered=1).replace(
        "jupyterhub.service\nActiveState=active", "jupyterhub.service\nActiveState=failed"
    )
    systemctl(root.parent, monkeypatch, failed)
    result = look(root, "health", hub=hub, proxy=hub)
    assert (result["health"]["healthy"], result["health"]["services"][2]["since"]) == (False, None)
    assert result["problems"] == [
        "jupyterhub.service is failed: systemctl status jupyterhub.service in the container says why"
    ]


def test_users(root: Path) -> None:
    expected = {"known": 3, "week": 2, "admins": 1, "admitted": 2, "active": 2, "running": ["u-a", "u7"]}
    assert look(root, "users")["users"] == expected
    change(root, users=[])
    (root / "var/lib/jupyterhub/user_data.json").unlink()
    result = look(root, "users")
    assert (result["users"]["known"], result["users"]["admitted"], result["problems"]) == (0, None, [])


def test_a_database_that_cannot_be_read(root: Path) -> None:
    (root / "var/lib/jupyterhub/jupyterhub.sqlite").write_text(
        "no data base, but long enough to look at its header " * 9
    )
    result = look(root, "users")
    assert result["users"]["week"] is None
    assert "jupyterhub.sqlite cannot be read" in result["problems"][0]


def test_a_damaged_user_data_file(root: Path) -> None:
    (root / "var/lib/jupyterhub/user_data.json").write_text('{"u1": ')
    result = look(root, "users")
    assert result["users"]["known"] is None
    assert "user_data.json is damaged: restore it" in result["problems"][0]


def test_limits(root: Path) -> None:
    limits = look(root, "limits")["limits"]
    assert limits["container"] == {
        "memory": 4294967296,
        "memory_used": 1048576,
        "cpus": 1.5,
        "pids": None,
        "pids_used": 37,
    }
    assert limits["servers"] == {
        "memory": 1073741824,
        "swap": 0,
        "tasks": 512,
        "cpus": 2.0,
        "start_timeout": 120,
        "concurrent_spawns": 8,
    }
    no_limits = {"user": "u-a", "memory": None, "memory_used": None, "swap": None, "tasks": None, "cpus": None}
    limited = {"user": "u7", "memory": 2**30, "memory_used": 50 * 2**20, "swap": 0, "tasks": 512, "cpus": 1.5}
    assert limits["running"] == [no_limits, limited]


@pytest.mark.parametrize(
    ("span", "cpus"),
    [
        ("2s", 2),
        ("500ms", 0.5),
        ("infinity", None),
        ("", None),
        ("1min 4s", 64),
        ("100us", 0.0001),
        ("[not set]", None),
    ],
)
def test_time_spans_of_systemd(span: str, cpus: float | None) -> None:
    assert hub_facts.cpus(span) == cpus


def test_a_container_without_controllers(root: Path) -> None:
    (root / "sys/fs/cgroup/cpu.max").unlink()
    result = look(root, "limits")
    assert result["limits"]["container"]["cpus"] is None
    assert "cpu.max cannot be read" in result["problems"][0]
    (root / "sys/fs/cgroup/cpu.max").write_text("max 100000\n")
    result = look(root, "limits")
    assert (result["limits"]["container"]["cpus"], result["problems"]) == (None, [])


def test_kernels_and_environments(root: Path) -> None:
    result = look(root, "kernels")
    python, octave = result["kernels"]
    assert python == {
        "name": "python3",
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "environment": "python3",
        "path": f"{hub_facts.KERNELS[0]}/python3",
        "usable": True,
    }
    assert (octave["name"], octave["environment"], octave["usable"]) == ("octave", None, True)
    assert {one["name"]: one["python"] for one in result["environments"]} == {
        "jhub": "3.13.5",
        "python3": "3.12.3",
        "r": None,
    }


def test_kernels_that_cannot_start(root: Path) -> None:
    folder = hub_facts.KERNELS[1]
    kernel(root, f"{folder}/ml", argv=["/opt/conda/envs/ml/bin/python", "-m", "ipykernel_launcher"])
    kernel(root, f"{folder}/gone", argv=["/opt/install/kernel", "/opt/conda/envs/gone", "-m", "ipykernel_launcher"])
    kernel(root, f"{folder}/julia", argv=["julia"])
    kernel(root, f"{folder}/odd", argv="python")
    put(root, f"{folder}/broken/kernel.json", "{")
    (root / "opt/conda/envs/python3/bin/python").chmod(0o644)
    result = look(root, "kernels")
    usable = {one["name"]: one["usable"] for one in result["kernels"]}
    assert usable == {
        "python3": False,
        "broken": False,
        "gone": False,
        "julia": False,
        "ml": False,
        "octave": True,
        "odd": False,
    }
    assert {one["name"]: one["environment"] for one in result["kernels"]}["ml"] == "ml"
    problems = "\n".join(result["problems"])
    assert len(result["problems"]) == 6
    for path in (
        "/opt/conda/envs/ml/bin/python",
        "/opt/conda/envs/gone/bin/python",
        "/opt/conda/envs/python3/bin/python",
    ):
        assert f"{path} is missing" in problems
    assert f"kernel {folder}/broken: its kernel.json does not say" in problems


def test_features(root: Path) -> None:
    assert look(root, "features")["features"] == []
    records = root / "opt/install/features"
    records.mkdir(parents=True)
    for name in ("rtc.json", "lsp.json", ".journal.json", "rtc.json.new"):
        (records / name).write_text("{}")
    (records / "tensorflow.json").write_text(
        '{"title": "TensorFlow", "variant": "gpu", "report": {"devices": ["CPU:0"]}}'
    )
    assert look(root, "features")["features"] == [
        {"name": "lsp", "title": None, "variant": "", "report": {}},
        {"name": "rtc", "title": None, "variant": "", "report": {}},
        {"name": "tensorflow", "title": "TensorFlow", "variant": "gpu", "report": {"devices": ["CPU:0"]}},
    ]


def test_lti(root: Path) -> None:
    assert look(root, "lti")["lti"] == {
        "issuer": "https://lms.example.org",
        "client_ids": ["client-1"],
        "authorize_url": "https://lms.example.org/auth",
        "jwks_endpoint": "https://lms.example.org/jwks",
        "tool": {
            "url": "https://hubs.example.org/math101/",
            "login_url": "https://hubs.example.org/math101/hub/lti13/oauth_login",
            "callback_url": "https://hubs.example.org/math101/hub/lti13/oauth_callback",
        },
    }
    change(root, lti=None)
    result = look(root, "lti")
    assert (result["lti"]["issuer"], result["lti"]["client_ids"]) == (None, None)
    assert result["lti"]["tool"]["login_url"].endswith("/math101/hub/lti13/oauth_login")
    assert "nobody can log in" in result["problems"][0]


def test_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = types.SimpleNamespace(f_frsize=4096, f_blocks=1000, f_bfree=400, f_bavail=300)
    monkeypatch.setattr(hub_facts.os, "statvfs", {f"{root}{path}": space for path in hub_facts.DISKS}.__getitem__)
    same = {"size": 4096000, "used": 2457600, "free": 1228800}
    assert look(root, "disk")["disk"] == [{"path": path, **same} for path in hub_facts.DISKS]


def test_homes(root: Path) -> None:
    home, other = root / "var/lib/private/u7", root / "var/lib/private/u8"
    empty = look(root, "homes")["homes"][0]["used"]
    (home / "a").write_bytes(b"x" * 2**20)
    os.link(home / "a", home / "b")
    (home / "deep/er").mkdir(parents=True)
    (home / "deep/er/c").write_bytes(b"x" * 2**20)
    (home / "everything").symlink_to(root)
    (root / "large").write_bytes(b"x" * 2**20)
    (home / "large").symlink_to(root / "large")
    (home / "sparse").touch()
    os.truncate(home / "sparse", 2**30)
    other.mkdir()
    (root / "var/lib/private/.ananke-owner-u7").symlink_to("1000")
    (root / "var/lib/private/link").symlink_to("u7")
    (root / "var/lib/private/file").write_text("no home")
    first, second = look(root, "homes")["homes"]
    assert (first["user"], second["user"]) == ("u7", "u8")
    assert 2 * 2**20 <= first["used"] - empty < 2 * 2**20 + 2**16
    assert second["used"] <= 2**16


def test_a_home_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("/u7"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(hub_facts.os, "scandir", refuse)
    result = look(root, "homes")
    assert result["homes"] == [{"user": "u7", "used": None}]
    assert result["problems"] == ["/var/lib/private: Permission denied: name the hub's container, whose root may look"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"base_url": "/x/", "servers": 3}', '"text"'])
def test_no_description(root: Path, text: str | None) -> None:
    file = root / "etc/ananke/hub.json"
    file.unlink()
    if text is not None:
        file.write_text(text)
    result = look(root, *DEFAULT)
    assert (result["health"]["hub"], result["health"]["healthy"]) == (None, False)
    assert (result["limits"]["servers"], result["users"]["admins"], result["features"]) == (None, None, [])
    assert (result["lti"]["issuer"], result["lti"]["tool"]["url"]) == (None, None)
    (problem,) = result["problems"]
    assert problem.startswith("/etc/ananke/hub.json is missing or damaged")


def test_a_host_that_is_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(tmp_path, monkeypatch, "", status=1)
    result = look(tmp_path / "nothing", *DEFAULT, "homes")
    assert (result["users"]["active"], result["users"]["running"], result["kernels"], result["homes"]) == (
        None,
        [],
        [],
        [],
    )
    assert {service["state"] for service in result["health"]["services"]} == {None}
    assert set(result["versions"].values()) == {None}
    assert result["disk"][0] == {"path": "/var/lib/private", "size": None, "used": None, "free": None}
    for words in (
        "systemctl tells nothing",
        "hub.json",
        "/var/lib/private: No such file or directory: name",
        "memory.max",
        "jupyterlab",
    ):
        assert any(words in problem for problem in result["problems"]), words
    assert len(result["problems"]) == len(set(result["problems"]))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("systemctl tells nothing" in one for one in look(tmp_path / "nothing", "users")["problems"])
