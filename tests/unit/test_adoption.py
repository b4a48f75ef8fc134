"""Hubs of the former system: what their files say is carried over or told, and nothing in them is ever run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ananke.jupyterhub.plugins.module_utils import adoption, python_settings, user_names
from ansible_collections.ananke.jupyterhub.plugins.module_utils.description import describe
from ansible_collections.ananke.jupyterhub.plugins.module_utils.python_settings import UNKNOWN, Setting
from description_cases import MACHINE, MACHINES, with_defaults
from former_hubs import CONFIG, FOLDER, LMS, PLAIN, ROOMS
from hypothesis import given
from hypothesis import strategies as st

from ananke_hub import usernames


def read(sources: dict[str, str], *arguments: str, packages: tuple[str, ...] = ()) -> adoption.Reading:
    return adoption.read(sources, FOLDER, arguments, packages)


def of(text: str, file: str = "jupyterhub_config.d/50_more.py") -> adoption.Reading:
    """What one further file adds to a plain hub."""
    return read({**PLAIN, file: text})


def remarks(reading: adoption.Reading) -> str:
    return "\n".join(map(str, reading.remarks))


def test_a_plain_hub_is_carried_over() -> None:
    reading = read(PLAIN)
    assert reading.variables == {
        "hub_memory": "12G",
        "hub_cpus": 4,
        "hub_devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=1"],
        "hub_extra_hosts": {"lms.example.org": "10.0.0.7"},
        "hub_volumes": [{"source": "/srv/books", "target": "/books"}],
        "hub_path": "/algebra/",
        "hub_log_level": "WARNING",
        "hub_concurrent_spawns": 20,
        "hub_cull_every": 600,
        "hub_cull_timeout": 7200,
        "hub_user_cpus": 1.5,
        "hub_user_memory": "3G",
        "hub_admins": ["u17"],
        "hub_lti_platform": "custom",
        "hub_lti_client_ids": ["abc", "def"],
        "hub_lti_issuer": "https://lms.example.org",
        "hub_lti_authorize_url": "https://lms.example.org/mod/lti/auth.php",
        "hub_lti_jwks_endpoint": "https://lms.example.org/mod/lti/certs.php",
    }
    assert [(one.file, one.line, one.what) for one in reading.remarks] == [("config.py", 9, "config.volumes /books")]


@pytest.mark.parametrize("sources", [PLAIN, ROOMS])
def test_the_description_is_one_that_hubs_accept(sources: dict[str, str]) -> None:
    reading = read(sources)
    reading.variables = {"hub_machine": "m1", "hub_port": 8101, **reading.variables}
    variables = yaml.safe_load(adoption.text("algebra", FOLDER, reading))
    assert variables == reading.variables
    described, problems = describe("algebra", with_defaults("algebra", variables), MACHINE, MACHINES)
    assert problems == []
    assert described is not None
    assert described["description"]["base_url"] == "/algebra/"


def test_rooms_become_rooms() -> None:
    reading = read(ROOMS)
    assert reading.variables["hub_features"] == ["rtc"]
    assert reading.variables["hub_rooms"] == [
        {"name": "lobby", "title": "Lobby", "public": True},
        {"name": "team-1", "title": "team 1", "public": False, "users": ["u1", "u2"], "groups": []},
    ]
    assert reading.rooms == {"rtc-Lobby": "lobby", "rtc-team 1": "team-1"}
    assert "write the members of tutors in hub_groups" in remarks(reading)
    assert "block (with)" not in remarks(reading)


def test_what_was_asked_for_comes_from_the_container() -> None:
    asked = {"config.py": "config['memory'] = config['cpus'] = config['gpus'] = 'interactive'"}
    options = ("podman", "create", "--memory=6g", "--cpus=3", "--device=nvidia.com/gpu=all")
    variables = read(asked, *options).variables
    assert (variables["hub_memory"], variables["hub_cpus"], variables["hub_devices"]) == (
        "6G",
        3,
        ["nvidia.com/gpu=all"],
    )
    unknown = read(asked)
    assert "hub_memory" not in unknown.variables
    assert "it was asked for when the container was made; set hub_memory" in remarks(unknown)


def test_a_template_that_nobody_filled_in_lets_nobody_in() -> None:
    template = LMS.replace("'abc', 'def'", "'CLIENT_ID'").replace("https://lms.example.org", "URL_OF_LMS")
    reading = read({**PLAIN, "jupyterhub_config.d/30_lms.py": template})
    assert not [name for name in reading.variables if name.startswith("hub_lti")]
    assert "nobody can log in before you set hub_lti_client_ids, hub_lti_issuer" in remarks(reading)


@pytest.mark.parametrize(
    ("line", "variable", "value"),
    [
        ("c.Spawner.default_url = '/tree'", "hub_default_url", "/tree"),
        ("c.Spawner.start_timeout = 60 * 5", "hub_start_timeout", 300),
        ("c.Spawner.mem_limit = '1.5G'", "hub_user_memory", "1536M"),
        ("c['JupyterHub']['log_level'] = 10", "hub_log_level", "DEBUG"),
        ("c.Authenticator.allowed_users = {'u1'} | {'u2'}", "hub_users", ["u1", "u2"]),
        ("c.Authenticator.admin_users |= {'U' + '5'}", "hub_admins", ["u17", "u5"]),
        ("c.LTI13Authenticator.username_key = 'email'", "hub_lti_username_key", "email"),
        ("c.JupyterHub.load_groups = {'a': ['u1'], 'b': {'users': ['u2']}}", "hub_groups", {"a": ["u1"], "b": ["u2"]}),
        ("c.JupyterHub.concurrent_spawn_limit = 0", "hub_concurrent_spawns", 1000),
        ("c.SystemdSpawner.unit_extra_properties['TasksMax'] = 77", "hub_user_tasks", 77),
        (
            "c.Spawner.unit_extra_properties.update(ExecStopPost='bash -c \"rm -rf /var/lib/private/{USERNAME}/*\"')",
            "hub_forget",
            True,
        ),
    ],
)
def test_settings_of_a_hub_s_own_are_carried_over(line: str, variable: str, value: object) -> None:
    assert of(line).variables[variable] == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("c.JupyterHub.base_url = '/'", "c.JupyterHub.base_url: a hub here has a path of its own"),
        ("c.JupyterHub.allow_named_servers = True", "a hub user has one server here"),
        ("c.JupyterHub.shutdown_on_logout = True", "jupyterhub_config.d/50_NAME.py of your own"),
        ("c.Spawner.mem_limit = read_limit()", "c.Spawner.mem_limit: its value is made when the file runs"),
        ("if True:\n    c.JupyterHub.base_url = '/b/'", "50_more.py:1: condition (if): only a run would tell"),
        ("def hook(spawner):\n    pass", "function hook"),
        ("load_subconfig('/opt/more.py')", "call of load_subconfig"),
        ("c.JupyterHub.services.append({'name': 'grades', 'url': 'http://x'})", "service grades"),
        ("c.JupyterHub.load_roles.append({'name': 'x', 'users': ['u1']})", "c.JupyterHub.load_roles"),
        ("c.SystemdSpawner.unit_extra_properties['IOWeight'] = 5", "unit_extra_properties IOWeight"),
        ("c.JupyterHub.base_url = '/{{ lookup(1) }}/'", "it is no path such as /math101/"),
        ("c.LTI13Authenticator.issuer = 'https://{{ x }}'", "hub_lti_issuer: its value has {{"),
        ("this is no Python", "50_more.py:1: no Python that can be read"),
        ("x = 1\0", "no Python that can be read"),
    ],
)
def test_what_is_not_carried_over_is_told(line: str, words: str) -> None:
    assert words in remarks(of(line))


def test_values_that_may_be_secrets_are_shown_nowhere() -> None:
    reading = of(
        "c.Spawner.environment = {'API_KEY': 'swordfish'}\nc.Some.token = 'swordfish'\nsend('swordfish')\n"
        "if 'swordfish':\n    pass\n"
    )
    assert "write API_KEY in hub_environment" in remarks(reading)
    assert "swordfish" not in adoption.text("algebra", FOLDER, reading)


def test_nbgrader_is_one_remark() -> None:
    kore = "c.SystemdSpawner.readwrite_paths.extend(['/opt/nbgrader_exchange'])\nload_subconfig('/opt/kore/kore_jhub_config.py')\n"
    config = CONFIG.replace("ananke-base", "ananke-nbgrader") + (
        "config['volumes'].append(('kore', '/opt/kore/runtime'))\n"
        "config['volumes'].append(('nbgrader_exchange', '/opt/nbgrader_exchange'))\n"
    )
    reading = read({**PLAIN, "config.py": config, "jupyterhub_config.d/40_nbgrader.py": kore})
    assert reading.variables["hub_features"] == ["nbgrader"]
    assert [one.what for one in reading.remarks] == ["config.image_name", "config.volumes", "config.volumes /books"]
    assert f"Kore's data stay in {FOLDER}/kore" in remarks(reading)


def test_packages_of_the_container_become_features() -> None:
    reading = read(PLAIN, packages=("jhub/jupyterlab_myst", "python3/matplotlib", "python3/other", "r-base/x"))
    assert reading.variables["hub_features"] == ["base_packages", "myst"]
    assert "environment r-base: declare what it has in hub_environments" in remarks(reading)


def test_reading_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    act = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    reading = of(
        f"{act}\nc.JupyterHub.base_url = {act}\nc.Spawner.mem_limit = f\"{{{act}}}\"\nx = [{act} for _ in 'a']\n"
    )
    assert not mark.exists()
    assert "call" in remarks(reading)


@pytest.mark.parametrize(
    "text",
    [
        "a = ['x']\n" + "a = [a, a]\n" * 60 + "c.Authenticator.admin_users = a\n",
        "a = 'x'\n" + "a = a + a\n" * 60 + "c.JupyterHub.base_url = a\n",
        "c.Spawner.mem_limit = 9**9**9**9\n",
        f"config['port'] = 0x{'f' * 20000}\n",
        "c.JupyterHub.base_url = " + "(" * 5000 + "1" + ")" * 5000,
        "c.JupyterHub.base_url = " + "-" * 20000 + "1",
        "c.JupyterHub.services = " + "[" * 90 + "]" * 90,
        "x" + ".a" * 20000 + " = 1\n",
        "c.Spawner.cpu_limit = 1e999\n",
        "c.JupyterHub.base_url = '\\ud800'\n",
    ],
)
def test_files_that_are_made_to_harm_end_in_a_remark(text: str) -> None:
    reading = of(text)
    assert len(adoption.text("algebra", FOLDER, reading)) < 100_000


PLAINEST = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    PLAINEST,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        f"config['{name}']"
        for name in ("image_name", "port", "memory", "cpus", "gpus", "podman_args", "volumes", "requires")
    ]
    + [
        f"c.JupyterHub.{name}"
        for name in ("base_url", "log_level", "services", "load_roles", "load_groups", "allow_named_servers")
    ]
    + [
        f"c.Spawner.{name}"
        for name in ("mem_limit", "cpu_limit", "environment", "unit_extra_properties", "readwrite_paths")
    ]
    + [f"c.Authenticator.{name}" for name in ("admin_users", "allowed_users", "client_id", "issuer", "username_key")]
    + ["public_rtc_rooms", "private_rtc_rooms", "config", "c"]
)


@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from(["{} = {}", "{} += {}", "{}.append({})", "{}.update({})"]), VALUES), max_size=6
    )
)
def test_any_value_is_carried_over_or_told(lines: list[tuple[str, str, Any]]) -> None:
    source = "\n".join(form.format(name, repr(value)) for name, form, value in lines)
    reading = adoption.read({"config.py": source, "jupyterhub_config.d/50_more.py": source}, FOLDER)
    text = adoption.text("algebra", FOLDER, reading)
    assert all(line.isprintable() for line in text.splitlines())
    assert "{{" not in "".join(line for line in text.splitlines() if not line.startswith("#"))


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    adoption.read({"config.py": text}, FOLDER)


@given(PLAINEST | st.lists(PLAINEST, max_size=4))
def test_plain_values_are_what_python_takes_them_for(value: Any) -> None:
    (found,) = python_settings.read("config.py", f"config['x'] = {value!r}")
    assert isinstance(found, Setting)
    if python_settings.known(found.value) and value == value and "inf" not in repr(value) and "nan" not in repr(value):
        assert found.value == value


def test_what_only_a_run_tells_is_unknown() -> None:
    (found,) = python_settings.read("config.py", "config['x'] = [1, f()]")
    assert isinstance(found, Setting)
    assert found.value == [1, UNKNOWN]
    assert repr(UNKNOWN) == "UNKNOWN"


@given(st.sampled_from(["u", "user-", "x"]), st.text(min_size=1, max_size=60))
def test_names_are_the_hubs_own(prefix: str, identifier: str) -> None:
    assert user_names.username(prefix, identifier) == usernames.username(prefix, identifier)
    assert user_names.RESERVED == usernames.RESERVED


@pytest.mark.parametrize(
    ("former", "entry", "key", "prefix", "now"),
    [
        ("u17", {"lms_uid": "17"}, "sub", "u", "u17"),
        ("u17", {"lms_uid": 17}, "sub", "u", "u17"),
        ("u17", None, "sub", "u", "u17"),
        ("u17", {"lms_uid": "18"}, "sub", "u", "u17"),
        ("uada", {"lms_uid": "Ada"}, "sub", "u", usernames.username("u", "Ada")),
        ("uada@x.org", {"email": "ada@x.org"}, "email", "u", usernames.username("u", "ada@x.org")),
        ("u17", {"lms_uid": "17"}, "sub", "user-", "user-17"),
        (
            "u0b0a7d1e-9d6c-4b8e-9a55-0123456789ab",
            None,
            "sub",
            "u",
            usernames.username("u", "0b0a7d1e-9d6c-4b8e-9a55-0123456789ab"),
        ),
        ("systemd-x", None, "sub", "u", "systemd-x"),
        ("u", None, "sub", "u", "u"),
    ],
)
def test_former_users_find_their_names(former: str, entry: Any, key: str, prefix: str, now: str) -> None:
    assert user_names.renamed(former, entry, key, prefix) == now


def test_the_text_says_what_is_missing() -> None:
    text = adoption.text("algebra", "/home/a\nb", of("c.Some.thing = 1"))
    assert "# The hub algebra, as /home/a?b describes it" in text
    assert "# jupyterhub_config.d/50_more.py:1: c.Some.thing: no variable of a hub does that" in text
    assert json.loads(next(line for line in text.splitlines() if line.startswith("hub_cpus")).partition(": ")[2]) == 4
