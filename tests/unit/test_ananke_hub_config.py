# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration as JupyterHub gets it, the check command, and what happens at a container's start."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ananke_hub_support import NUMBERED, ROOTFS, description, make_root, run_module
from hypothesis import given
from hypothesis import strategies as st
from traitlets.config import Config

from ananke_hub import config, init, loader
from ananke_hub.authenticator import LmsAuthenticator, WaitingAuthenticator, safe_next
from ananke_hub.check import check_traits
from ananke_hub.paths import Paths
from ananke_hub.spawner import AnankeSpawner


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANANKE_ROOT", str(tmp_path))
    monkeypatch.setattr(config, "_loaded", {})
    return tmp_path


def configured(root: Path, **changes: Any) -> Any:
    paths = make_root(root, description(**changes))
    c = Config()
    loader.load(c, paths.config_d)
    check_traits(c)
    return c


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(root.rglob("*")) if p.is_file()}


def test_base(root: Path) -> None:
    c = configured(root)
    assert c.JupyterHub.bind_url == "http://0.0.0.0:8000/math101/"
    assert c.JupyterHub.hub_bind_url == "http://127.0.0.1:8081"
    assert c.JupyterHub.cleanup_servers is False
    assert c.JupyterHub.cleanup_proxy is False
    assert c.ConfigurableHTTPProxy.should_start is False
    assert c.JupyterHub.tornado_settings["cookie_options"] == {"samesite": "Lax", "secure": True}


def test_servers(root: Path) -> None:
    c = configured(root)
    assert c.JupyterHub.spawner_class is AnankeSpawner
    assert c.JupyterHub.allow_named_servers is False
    assert c.Spawner.mem_limit == 1073741824
    assert (c.AnankeSpawner.swap_limit, c.AnankeSpawner.tasks_limit, c.Spawner.cpu_limit) == (0, 512, 2.0)
    assert c.Spawner.environment["COURSE"] == "math"
    assert c.Spawner.start_timeout > c.AnankeSpawner.server_start_timeout == 120


def test_no_limits_are_no_limits(root: Path) -> None:
    servers = {**description()["servers"], "memory": None, "swap": None, "tasks": None, "cpus": None}
    c = configured(root, servers=servers)
    assert c.Spawner.mem_limit is None
    assert c.AnankeSpawner.swap_limit is None


@pytest.mark.parametrize(
    ("culling", "arguments"),
    [
        ({"timeout": 3600, "every": 300, "max_age": 0}, ["--timeout=3600", "--cull-every=300", "--max-age=0"]),
        ({"timeout": 0, "every": 60, "max_age": 7200}, ["--cull-every=60", "--max-age=7200"]),
        ({"timeout": 0, "every": 60, "max_age": 0}, None),
    ],
)
def test_culling(root: Path, culling: dict[str, int], arguments: list[str] | None) -> None:
    c = configured(root, culling=culling)
    if arguments is None:
        assert c.JupyterHub.services == []
        return
    (service,) = c.JupyterHub.services
    assert set(arguments) <= set(service["command"])
    (role,) = c.JupyterHub.load_roles
    assert role["services"] == ["idle-culler"]
    assert not any(scope.startswith("admin") for scope in role["scopes"])


def test_the_collections_modules_get_a_service_that_may_little(root: Path) -> None:
    paths = make_root(root, description())
    init.fix_modes(paths)
    init.ensure_secrets(paths)
    c = Config()
    loader.load(c, paths.config_d)
    check_traits(c)
    assert c.JupyterHub.services[0] == {"name": "ananke", "api_token": paths.api_token.read_text().strip()}
    (role,) = [role for role in c.JupyterHub.load_roles if role["name"] == "ananke"]
    scopes = ["list:users", "read:users:activity", "servers", "delete:users"]
    scopes += ["admin:users!user=ananke-probe", "access:servers!user=ananke-probe"]
    assert (role["services"], role["scopes"]) == (["ananke"], scopes)
    assert [service["name"] for service in c.JupyterHub.services] == ["ananke", "idle-culler"]


def test_pages_tell_of_an_update(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c = configured(root)
    monkeypatch.setenv("ANANKE_ROOT", str(root))
    assert c.JupyterHub.template_vars["announcement"](None) == ""
    closing = root / "run/ananke/closing.json"
    closing.parent.mkdir(parents=True, exist_ok=True)
    closing.write_text(json.dumps({"at": time.time() + 60, "until": time.time() + 600}))
    assert "This hub is updated at" in c.JupyterHub.template_vars["announcement"](None)


def test_a_newer_jupyterhub_brings_its_database_up_to_date(root: Path) -> None:
    assert configured(root).JupyterHub.upgrade_db is True


def test_without_a_token_there_is_no_such_service(root: Path) -> None:
    c = configured(root)
    assert [service["name"] for service in c.JupyterHub.services] == ["idle-culler"]
    assert [role["name"] for role in c.JupyterHub.load_roles] == ["idle-culler"]


def test_users(root: Path) -> None:
    c = configured(root)
    assert c.Authenticator.admin_users == {"uteacher1"}
    assert c.Authenticator.allow_all is True


def test_users_by_name(root: Path) -> None:
    c = configured(root, users=["u1"])
    assert c.Authenticator.allow_all is False
    assert c.Authenticator.allowed_users == {"u1", "uteacher1"}
    assert c.Authenticator.allow_existing_users is False


def test_lms(root: Path) -> None:
    c = configured(root)
    assert c.JupyterHub.authenticator_class is LmsAuthenticator
    assert c.LTI13Authenticator.client_id == {"client-1"}
    assert isinstance(c.LTI13LaunchValidator.max_age, int)


def test_without_an_lms(root: Path) -> None:
    assert configured(root, lti=None).JupyterHub.authenticator_class is WaitingAuthenticator


def test_an_admins_file_has_the_last_word(root: Path) -> None:
    paths = make_root(root, description())
    (paths.config_d / "40_mine.py").write_text(
        "c.Spawner.mem_limit = '3G'\nc.JupyterHub.services.append({'name': 'x'})\n"
    )
    c = Config()
    assert [file.name for file in loader.load(c, paths.config_d)][-1] == "40_mine.py"
    assert c.Spawner.mem_limit == "3G"
    assert [service["name"] for service in c.JupyterHub.services] == ["idle-culler", "x"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("c.JupyterHub.bind_ulr = ''", r"c\.JupyterHub\.bind_ulr: there is no such setting; did you mean bind_url\?"),
        ("c.Spawner.mem_limit = 'much'", r"c\.Spawner\.mem_limit: 'much' is not allowed"),
        ("c.JupyterHub.spawner_class = 'nope'", r"c\.JupyterHub\.spawner_class: .*nope"),
        ("\n\nx = 1 / 0", r"jupyterhub_config\.d/40_mine\.py, line 3: ZeroDivisionError: division by zero"),
        ("c.X = (", r"jupyterhub_config\.d/40_mine\.py, line 1: '\(' was never closed"),
        ("import no_such_module", r"jupyterhub_config\.d/40_mine\.py, line 1: ModuleNotFoundError: .*no_such_module"),
        ("import sys\nsys.exit()", r"jupyterhub_config\.d/40_mine\.py, line 2: SystemExit"),
        ("x = '\0'", r"jupyterhub_config\.d/40_mine\.py"),
    ],
)
def test_check_says_in_one_line_what_is_wrong(tmp_path: Path, text: str, error: str) -> None:
    paths = make_root(tmp_path, description())
    (paths.config_d / "40_mine.py").write_text(text)
    done = run_module("ananke_hub.check", tmp_path)
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert re.match(error, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_check_changes_nothing_and_takes_another_description(tmp_path: Path) -> None:
    paths = make_root(tmp_path, description())
    (paths.config_d / "40_mine.py").write_text("print('noise')\nc.Spawner.mem_limit = '1G'\n")
    before = snapshot(tmp_path)
    done = run_module("ananke_hub.check", tmp_path)
    expected = "math101: the configuration is good (00_base.py, 10_servers.py, 20_users.py, 30_lms.py, 40_mine.py)\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    other = json.dumps(description(name="physics"))
    done = run_module("ananke_hub.check", tmp_path, "--description", "-", stdin=other)
    assert (done.returncode, done.stdout[:9]) == (0, "physics: ")
    done = run_module("ananke_hub.check", tmp_path, "--description", "-", stdin="{}")
    assert (done.returncode, done.stderr.startswith("standard input: version: missing")) == (1, True)
    file = tmp_path / "other.json"
    file.write_text(other)
    assert run_module("ananke_hub.check", tmp_path, "--description", str(file)).returncode == 0
    file.unlink()
    after = snapshot(tmp_path)
    assert {path: value for path, value in after.items() if "__pycache__" not in path} == before


def test_a_hub_with_an_unusable_configuration_ends_with_one_line(tmp_path: Path) -> None:
    paths = make_root(tmp_path, description())
    paths.description.write_text("{")
    done = run_module("jupyterhub", tmp_path, "--config", str(paths.config))
    assert done.returncode != 0
    assert "The hub does not start." in done.stderr
    assert "hub.json: not valid JSON" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_numbered_files_are_three_lines_each() -> None:
    names = {"00_base.py": "base", "10_servers.py": "servers", "20_users.py": "users", "30_lms.py": "lms"}
    assert {file.name for file in NUMBERED.glob("*.py")} == set(names)
    for name, function in names.items():
        code = [line for line in (NUMBERED / name).read_text().splitlines() if line and not line.startswith("#")]
        assert code[0] == f"from ananke_hub.config import {function}"
        assert code[1].startswith(f"{function}(c)")
        assert len(code) == 2


# what happens at a container's start


def test_secrets_are_made_once(root: Path) -> None:
    paths = make_root(root, description())
    init.fix_modes(paths)
    assert init.ensure_secrets(paths) == ["cookie_secret", "crypt_key", "proxy.env", "api_token"]
    contents = {file.name: file.read_text() for file in paths.data.iterdir()}
    assert re.fullmatch(r"[0-9a-f]{64}\n", contents["cookie_secret"])
    assert re.fullmatch(r"CONFIGPROXY_AUTH_TOKEN=[0-9a-f]{64}\n", contents["proxy.env"])
    assert re.fullmatch(r"[0-9a-f]{64}\n", contents["api_token"])
    assert len({content.rpartition("=")[2] for content in contents.values()}) == 4
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in paths.data.iterdir())
    assert init.ensure_secrets(paths) == []
    assert contents == {file.name: file.read_text() for file in paths.data.iterdir()}


@pytest.mark.parametrize("content", ["", "\n", "\0" * 65])
def test_a_secret_that_a_power_cut_left_empty_is_made(root: Path, content: str) -> None:
    paths = make_root(root, description())
    init.fix_modes(paths)
    paths.cookie_secret.write_text(content)
    assert "cookie_secret" in init.ensure_secrets(paths)
    assert len(paths.cookie_secret.read_text()) == 65


@pytest.mark.parametrize("content", ["abc\n", "0" * 63 + "\n", "Z" * 64, "0" * 64 + "\nx"])
def test_a_damaged_secret_stops_the_start_and_is_not_touched(tmp_path: Path, content: str) -> None:
    paths = make_root(tmp_path, description())
    init.fix_modes(paths)
    paths.cookie_secret.write_text(content)
    done = run_module("ananke_hub.init", tmp_path)
    assert done.returncode == 1
    assert re.match(r"The hub does not start\. .*cookie_secret: damaged: .*backup", done.stderr)
    assert done.stderr.count("\n") == 1
    assert paths.cookie_secret.read_text() == content


def test_init_as_a_program(tmp_path: Path) -> None:
    paths = make_root(tmp_path, description())
    paths.data.mkdir(parents=True, mode=0o755)
    (paths.data / ".cookie_secret.x1").write_text("half")
    (paths.data / "jupyterhub.sqlite").write_text("")
    (paths.data / "jupyterhub.sqlite").chmod(0o644)
    first = run_module("ananke_hub.init", tmp_path)
    assert (first.returncode, first.stdout) == (
        0,
        "math101: made cookie_secret, crypt_key, proxy.env, api_token; CAs unchanged.\n",
    )
    assert run_module("ananke_hub.init", tmp_path).stdout == "math101: made no new secrets; CAs unchanged.\n"
    for folder in (paths.data, paths.private, paths.config_d):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in paths.data.iterdir()} == {0o600}
    assert not list(paths.data.glob(".*"))
    assert "/math101/hub/home" in (paths.proxy_pages / "503.html").read_text()


def test_the_time_zone_is_set_and_changed(root: Path) -> None:
    paths = make_root(root, description())
    paths.local_time.parent.mkdir(exist_ok=True)
    paths.local_time.symlink_to(paths.zones / "UTC")
    for zone in ("Europe/Berlin", "UTC", "UTC"):
        init.set_time_zone(paths, zone)
        assert paths.local_time.readlink() == paths.zones / zone
        assert (root / "etc/timezone").read_text() == f"{zone}\n"


def test_a_time_zone_that_the_image_lacks_is_refused_before_the_start(tmp_path: Path) -> None:
    make_root(tmp_path, description(time_zone="US/Eastern"))
    for module in ("ananke_hub.check", "ananke_hub.init"):
        done = run_module(module, tmp_path)
        assert done.returncode == 1
        assert "time_zone: this hub's image knows no US/Eastern: set hub_time_zone to" in done.stderr


PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_cas_are_trusted_when_they_change(root: Path) -> None:
    paths = make_root(root, description())
    calls = root / "calls"
    update = ("sh", "-c", f"ls {paths.trusted_cas} >>{calls}; echo run >>{calls}")

    def runs() -> int:
        return calls.read_text().count("run") if calls.exists() else 0

    assert not init.install_cas(paths, update)
    assert not paths.trusted_cas.exists()
    paths.own_cas.mkdir()
    (paths.own_cas / "site.crt").write_bytes(PEM)
    assert init.install_cas(paths, update)
    assert not init.install_cas(paths, update)
    assert runs() == 1
    (paths.own_cas / "site.crt").write_bytes(PEM + PEM)
    (paths.own_cas / "other.crt").write_bytes(PEM)
    assert init.install_cas(paths, update)
    shutil.rmtree(paths.own_cas)
    assert init.install_cas(paths, update)
    assert runs() == 3
    assert [file.name for file in paths.trusted_cas.iterdir()] == ["applied"]


def test_a_failed_update_of_cas_is_repeated(root: Path) -> None:
    paths = make_root(root, description())
    paths.own_cas.mkdir()
    (paths.own_cas / "site.crt").write_bytes(PEM)
    with pytest.raises(init.InitError, match="sh failed: no room"):
        init.install_cas(paths, ("sh", "-c", "echo no room >&2; exit 1"))
    assert init.install_cas(paths, ("true",))


def test_what_is_no_certificate_is_named(root: Path) -> None:
    paths = make_root(root, description())
    paths.own_cas.mkdir()
    (paths.own_cas / "site.crt").write_bytes(b"0\x82")
    with pytest.raises(init.InitError, match=r"site\.crt: not a PEM certificate"):
        init.install_cas(paths, ("true",))


# where a launch may lead

PUBLIC = "https://hubs.example.org/math101/"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("", ""),
        (PUBLIC, ""),
        (PUBLIC + "hub/", ""),
        (PUBLIC + "hub/home", "/math101/hub/home"),
        ("/math101/hub/home#x", "/math101/hub/home#x"),
        (PUBLIC + "?next=%2Fmath101%2Fuser-redirect%2Flab%2Ftree%2Fa.ipynb", "/math101/user-redirect/lab/tree/a.ipynb"),
        (PUBLIC + "?next=https://evil.example.org/", ""),
        (PUBLIC + "?next=//evil.example.org/", ""),
        (PUBLIC + "?next=/math101/hub/login", ""),
        ("https://evil.example.org/math101/x", ""),
        ("https://hubs.example.org/math1010/x", ""),
        ("https://hubs.example.org/math101/../physics/", ""),
        ("javascript:alert(1)", ""),
        ("//evil.example.org/math101/", ""),
        ("https:/math101/x", ""),
        ("/\\evil.example.org/math101/", ""),
        ("https://[/math101/", ""),
    ],
)
def test_targets(target: str, path: str) -> None:
    assert safe_next(target, PUBLIC) == path


@given(st.text() | st.text(alphabet="/\\.:?#=&%mathub10evilnext").map(lambda t: PUBLIC + t))
def test_no_target_leads_out_of_the_hub(target: str) -> None:
    path = safe_next(target, PUBLIC)
    assert path == "" or (path.startswith("/math101/") and "\\" not in path and "/../" not in path)


# the files around it


def test_units_are_good() -> None:
    units = sorted((ROOTFS / "etc/systemd/system").glob("*.service"))
    names = ["ananke-forget@.service", "ananke-init.service", "jupyterhub-proxy.service", "jupyterhub.service"]
    assert [unit.name for unit in units] == names
    for unit in units[1:]:
        assert (unit.parent / "multi-user.target.wants" / unit.name).readlink() == Path("..") / unit.name


@pytest.mark.parametrize(
    "script", ["usr/local/lib/ananke/passwd-entry", "etc/profile.d/ananke.sh", "usr/local/lib/ananke/activated"]
)
def test_shell_scripts_parse(script: str) -> None:
    subprocess.run(["sh", "-n", str(ROOTFS / script)], check=True)


def test_paths_are_the_ones_of_the_contract() -> None:
    paths = Paths.at()
    assert str(paths.description) == "/etc/ananke/hub.json"
    assert str(paths.config_d) == "/opt/conda/envs/jhub/etc/jupyterhub/jupyterhub_config.d"
    assert {str(path) for path in (paths.database, paths.user_data, paths.proxy_env)} == {
        "/var/lib/jupyterhub/jupyterhub.sqlite",
        "/var/lib/jupyterhub/user_data.json",
        "/var/lib/jupyterhub/proxy.env",
    }
    assert os.environ.get("ANANKE_ROOT") is None
