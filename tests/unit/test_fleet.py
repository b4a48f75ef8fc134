# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet's file and its tables of courses: what they come to, what is refused and where, and what never moves."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ananke.jupyterhub.plugins.inventory.fleet import EXAMPLES, _known
from ansible_collections.ananke.jupyterhub.plugins.module_utils import features
from ansible_collections.ananke.jupyterhub.plugins.plugin_utils.fleet import PORTS, UIDS, Fleet, assigned
from ansible_collections.ananke.jupyterhub.plugins.plugin_utils.fleet_files import Lines, table
from hypothesis import given
from hypothesis import strategies as st

KNOWN = _known()
SMALL = """\
plugin: ananke.jupyterhub.fleet
machines:
  north: {ansible_host: 192.0.2.11, ansible_user: hostadmin}
  south:
hubs:
  math101: {machine: north}
"""


def fleet(text: str, courses: str = "") -> Fleet:
    """A fleet of a file, and of a table."""
    text = textwrap.dedent(text)
    entries, problems = table("courses.csv", textwrap.dedent(courses)) if courses else ([], [])
    made = Fleet(yaml.safe_load(text), Lines("fleet.yml", text), entries, KNOWN)
    made.problems += problems
    return made


def mistakes(text: str, courses: str = "") -> list[str]:
    """What is said of a fleet."""
    return [str(problem) for problem in fleet(text, courses).problems]


def hosts(text: str, courses: str = "") -> dict[str, dict[str, Any]]:
    """The hosts of a fleet without mistakes."""
    made = fleet(text, courses)
    assert not made.problems, "\n".join(map(str, made.problems))
    return made.inventory.hosts


def test_the_example_of_the_documentation() -> None:
    text, courses = EXAMPLES.split("# courses.csv\n")
    made = fleet(text, courses.replace("# ", ""))
    assert not made.problems, made.problems
    groups, found, members = made.inventory
    assert found["physics"]["hub_admins"] == ["u1042", "u1187"]
    assert found["languages"]["hub_machine"] == "south"
    assert members["hubs_on_north"] == ["math101", "physics"]
    assert members["profile_exam"] == ["finals"]
    assert groups["profile_exam"].parent == "profile_forget"
    assert groups["profile_forget"].variables == {"hub_forget": True}
    assert groups["hubs"].variables["hub_lti_platform"] == "moodle"
    assert {group.parent for name, group in groups.items() if name.startswith("hubs_on_")} == {"hubs"}


def test_profiles_of_the_collection_s_own() -> None:
    made = fleet(SMALL + "defaults: {hub_forget: true}\nprofiles: {exercises: {profile: nbgrader}}\n").inventory.groups
    assert made["profile_exercises"].parent == "profile_nbgrader"
    assert made["profile_nbgrader"].variables == {"hub_forget": False, "hub_features": ["nbgrader"]}
    assert features.check(made["profile_nbgrader"].variables["hub_features"]) == []


def test_a_hub_has_its_machine_s_connection() -> None:
    groups = fleet(SMALL).inventory.groups
    assert groups["hubs_on_north"].variables["ansible_user"] == "{{ hostvars[hub_machine].ansible_user }}"
    assert "ansible_user" not in groups["hubs_on_south"].variables


def test_the_only_machine_needs_no_mention() -> None:
    assert hosts("{plugin: x, machines: {north: }, hubs: {math101: }}")["math101"]["hub_machine"] == "north"


def test_variables_of_the_site_s_own() -> None:
    text = SMALL.replace("{machine: north}", "{machine: north, vars: {course_office: '042'}}")
    assert hosts(text)["math101"]["course_office"] == "042"


def test_roles_of_a_machine_are_switched_off() -> None:
    found = hosts("{plugin: x, machines: {north: {firewall_enabled: false}}, hubs: {math101: }}")
    assert found["north"]["firewall_enabled"] is False


def test_what_is_given_is_kept() -> None:
    given_numbers = "{machine: north, hub_port: 8101, container_admin_uid: 2000}"
    found = hosts(SMALL.replace("{machine: north}", given_numbers))["math101"]
    assert (found["hub_port"], found["container_admin_uid"]) == (8101, 2000)


def test_what_is_not_to_be_assigned_is_not() -> None:
    assert set(hosts(SMALL + "ports: false\nuids: false\n")["math101"]) == {"hub_machine"}


def test_hubs_of_one_account_have_its_uid() -> None:
    text = """
    plugin: x
    machines: {north: }
    defaults: {hub_container_admin: science}
    hubs: {math101: , physics: , arts: {hub_container_admin: arts}}
    """
    found = hosts(text)
    assert (
        found["math101"]["container_admin_uid"] == found["physics"]["container_admin_uid"] == assigned("science", *UIDS)
    )
    assert found["arts"]["container_admin_uid"] == assigned("arts", *UIDS)


NAMES = st.sets(st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True), min_size=1, max_size=60)


@given(NAMES, st.randoms(use_true_random=False))
def test_no_hub_moves_another(names: set[str], chance: random.Random) -> None:
    """Whatever is added, removed or sorted anew: a hub keeps its port and UID, and two never have the same."""
    names -= {"north", "south", "all", "ungrouped", "machines", "hubs", "localhost"}

    def of(chosen: list[str]) -> dict[str, tuple[int, int]]:
        machines = {"north": {}, "south": {}}
        hubs = {name: {"machine": "north" if len(name) % 2 else "south"} for name in chosen}
        text = yaml.safe_dump({"plugin": "x", "machines": machines, "hubs": hubs}, sort_keys=False)
        made = fleet(text)
        numbers = {
            name: (found["hub_machine"], found["hub_port"], found["container_admin_uid"])
            for name, found in made.inventory.hosts.items()
            if name in hubs
        }
        same = len({number[:2] for number in numbers.values()}) < len(numbers)
        assert same == any("port" in str(problem) for problem in made.problems)
        return {name: number[1:] for name, number in numbers.items()}

    everything = sorted(names)
    before = of(everything)
    assert all(PORTS[0] <= port <= PORTS[1] and UIDS[0] <= uid <= UIDS[1] for port, uid in before.values())
    some = chance.sample(everything, k=chance.randint(0, len(everything)))
    assert of(some) == {name: before[name] for name in some}


def test_names_that_stand_for_the_same_number() -> None:
    seen: dict[int, str] = {}
    for number in range(10**5):
        name = f"course{number}"
        other = seen.setdefault(assigned(name, *PORTS), name)
        if other != name:
            break
    text = f"plugin: x\nmachines: {{north: }}\nhubs:\n  {other}:\n  {name}:\n"
    port, uid = assigned(name, *PORTS), assigned(name, *UIDS)
    assert mistakes(text) == [
        f"fleet.yml:5: hub {name} would get port {port} of north, as has {other} (fleet.yml:4); write another for the newer of them, "
        f"such as hub_port: {port + 1}",
        f"fleet.yml:5: hub {name} would get UID {uid} of north, as has {other} (fleet.yml:4); write another for the newer of them, "
        f"such as container_admin_uid: {uid + 1}",
    ]
    assert not mistakes(text.replace(f"{name}:", f"{name}: {{hub_port: {port + 1}, container_admin_uid: {uid + 1}}}"))
    assert not mistakes(
        text.replace("{north: }", "{north: , south: }")
        .replace(f"{name}:", f"{name}: {{machine: south}}")
        .replace(f"{other}:", f"{other}: {{machine: north}}")
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hubs:", "hobs:", "fleet.yml:5: hobs is unknown; did you mean hubs?"),
        (
            "{machine: north}",
            "{machine: north, hub_prt: 1}",
            "fleet.yml:6: hub math101: hub_prt is unknown; did you mean hub_port? Variables of your own go into vars: {...}",
        ),
        ("{machine: north}", "{machine: nroth}", "fleet.yml:6: there is no machine 'nroth'; did you mean north?"),
        ("{machine: north}", "", "fleet.yml:6: hub math101 has no machine; write one of north, south"),
        (
            "{machine: north}",
            "{machine: north, profile: forgot}",
            "fleet.yml:6: there is no profile 'forgot'; did you mean forget?",
        ),
        (
            "{machine: north}",
            "{machine: north, hub_machine: south}",
            "fleet.yml:6: hub math101: a hub's machine is written as machine: NAME; write it so",
        ),
        (
            "{machine: north}",
            "{machine: north, firewall_rules: []}",
            "fleet.yml:6: hub math101: firewall_rules is a setting of machines; move it there",
        ),
        (
            "  south:",
            "  south: {podman_enabled: false}",
            "fleet.yml:4: machines.south: podman_enabled is unknown; did you mean mail_enabled? Variables of your own go into vars: {...}",
        ),
        (
            "  south:",
            "  south: {hub_port: 1}",
            "fleet.yml:4: machines.south: hub_port is a setting of hubs; move it there",
        ),
        (
            "math101",
            "MATH 101",
            "fleet.yml:6: 'MATH 101' cannot name a hub; write lower case letters, digits and -, such as math-101",
        ),
        ("math101", "north", "fleet.yml:6: hub north has the name of a machine; name it otherwise"),
        ("math101", "hubs", "fleet.yml:6: hub hubs has the name of something else; name it otherwise"),
        ("  south:", "  south pole:", "fleet.yml:4: 'south pole' cannot name a machine; write a host name"),
        ("  south:", "  north:", "fleet.yml:4: machines.north is there twice, first in line 3; remove one of them"),
        ("  south:", "  south: 7", "fleet.yml:4: machines.south is no mapping; write names with a colon after each"),
        (
            "{machine: north}",
            "{machine: north, vars: [a]}",
            "fleet.yml:6: hub math101: vars is no mapping; write names of variables with a colon after each",
        ),
        (
            "{machine: north}",
            "{machine: north, vars: {a-b: 1}}",
            "fleet.yml:6: hub math101: 'a-b' cannot name a variable; write letters, digits and _",
        ),
        (
            "{machine: north}",
            "{machine: north, vars: {hub_prt: 1}}",
            "fleet.yml:6: hub math101: hub_prt looks like the collection's; write it beside vars, not into it",
        ),
        (
            "hubs:",
            "ports: 80-90\nhubs:",
            "fleet.yml:5: ports is no range; write two numbers from 1024 to 65535, such as 10000-29999, or false",
        ),
        (
            "hubs:",
            "uids: 40000-30000\nhubs:",
            "fleet.yml:5: uids is no range; write two numbers from 1000 to 60000, such as 30000-49999, or false",
        ),
        (
            "hubs:",
            "profiles: {forget: }\nhubs:",
            "fleet.yml:5: profile forget is the collection's own; name yours otherwise, and start it from there: profile: forget",
        ),
        (
            "hubs:",
            "profiles: {an exam: }\nhubs:",
            "fleet.yml:5: 'an exam' cannot name a profile; write lower case letters, digits and -",
        ),
        (
            "hubs:",
            "profiles: {exam: {profile: exma}}\nhubs:",
            "fleet.yml:5: there is no profile 'exma'; did you mean exam?",
        ),
        (
            "hubs:",
            "profiles: {exam: {hub_forgte: true}}\nhubs:",
            "fleet.yml:5: profiles.exam: hub_forgte is unknown; did you mean hub_forget? Variables of your own go into vars: {...}",
        ),
        (
            "hubs:",
            "defaults: {hub_imag: a}\nhubs:",
            "fleet.yml:5: defaults: hub_imag is unknown; did you mean hub_image? Variables of your own go into vars: {...}",
        ),
    ],
)
def test_mistakes_in_the_file(old: str, new: str, said: str) -> None:
    assert said in mistakes(SMALL.replace(old, new, 1))


def test_profiles_in_a_circle() -> None:
    text = SMALL.replace("hubs:", "profiles:\n  a: {profile: b}\n  b: {profile: a}\nhubs:")
    said = mistakes(text)
    assert "fleet.yml:6: profile a starts from itself, by way of a and b; end the circle" in said
    assert "fleet.yml:7: profile b starts from itself, by way of b and a; end the circle" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "hub_port: 8101",
            "fleet.yml:7: hub other has port 8101 of north, as has math101 (fleet.yml:6); write another for the newer of them, such as hub_port: 8102",
        ),
        (
            "hub_path: /science/",
            "fleet.yml:7: hub other has path /science/ of north, as has math101 (fleet.yml:6); write another for the newer of them, such as hub_path: /other/",
        ),
        (
            "container_admin_uid: 2000",
            "fleet.yml:7: hub other has UID 2000 of north, as has math101 (fleet.yml:6); write another for the newer of them, "
            "such as container_admin_uid: 2001",
        ),
    ],
)
def test_what_two_hubs_of_a_machine_may_not_share(more: str, said: str) -> None:
    text = SMALL.replace("{machine: north}", f"{{machine: north, {more}}}") + f"  other: {{machine: north, {more}}}\n"
    assert mistakes(text) == [said]
    assert not mistakes(text.replace("other: {machine: north", "other: {machine: south"))


def test_a_table() -> None:
    courses = '\ufeffname;machine;hub_admins;hub_forget;hub_lti_client_ids\nbio;south;"[u1, u2]";true;0042\n;;;;\narts;north;;;{{ x }}\n'
    found = hosts(SMALL, courses)
    assert found["bio"]["hub_admins"] == ["u1", "u2"]
    assert found["bio"]["hub_forget"] is True
    assert found["bio"]["hub_lti_client_ids"] == "0042"
    assert "hub_admins" not in found["arts"]


@pytest.mark.parametrize(
    ("courses", "said"),
    [
        ("\n", "courses.csv:1: it is empty; its first line names the columns, such as name,machine,profile"),
        ("machine\nnorth\n", "courses.csv:1: there is no column 'name', which has the names of the hubs; add it"),
        ("name,machine,name\n", "courses.csv:1: column name is there twice; remove one of them"),
        ("name,,machine\n", "courses.csv:1: column 2 has no name; name it, or remove it"),
        ("name,machine\nbio,north,7\n", "courses.csv:2: there are 3 cells for 2 columns; put a cell that contains ',' in double quotes"),
        ("name,machine\n,north\n", "courses.csv:2: this row has no name; write the hub's name in the column 'name'"),
        ('name,machine,hub_admins\nbio,north,"[u1"\n', "courses.csv:2: hub_admins: '[u1' begins like a list or mapping of YAML, and is none; close it"),
        ("name,machine\nbio,east\n", "courses.csv:2: there is no machine 'east'; did you mean south?"),
        ('name,machine,hub_path\nbio,north,"/a\nb/"\narts,east,\n', "courses.csv:4: there is no machine 'east'; did you mean south?"),
        ("name,machine,hub_prt\nbio,north,1\n", "courses.csv:2: hub bio: hub_prt is unknown; did you mean hub_port? Variables of your own go into vars: {...}"),
        ("name,machine\nbio,north\nbio,south\n", "courses.csv:3: hub bio is there twice, first in courses.csv:2; remove one"),
        ("name,machine\nmath101,north\n", "courses.csv:2: hub math101 is there twice, first in fleet.yml:6; remove one"),
    ],
)  # fmt: skip
def test_mistakes_in_a_table(courses: str, said: str) -> None:
    assert mistakes(SMALL, courses) == [said]


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
)
KEYS = st.sampled_from(
    ["machines", "hubs", "profiles", "defaults", "machine_defaults", "ports", "uids", "courses", "x"]
)


@given(st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(st.sampled_from(["a", "b"]), VALUES))))
def test_whatever_is_written_has_an_answer(data: dict[str, Any]) -> None:
    text = yaml.safe_dump(data)
    made = Fleet(yaml.safe_load(text), Lines("fleet.yml", text), [], KNOWN)
    assert all(problem.place.line >= 1 and problem.text for problem in made.problems)


@given(st.text(st.sampled_from('name,;\t"\n[]{}a1 \r\0é')))
def test_whatever_stands_in_a_table_has_an_answer(text: str) -> None:
    entries, problems = table("courses.csv", text)
    assert all(entry.name for entry in entries)
    assert all(problem.place.line >= 1 for problem in problems)


def inventory(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `ansible-inventory` says."""
    return subprocess.run(
        [sys.executable, "-m", "ansible.cli.inventory", "-i", str(folder / "site.fleet.yml"), *arguments],
        env={**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_as_ansible_sees_it(tmp_path: Path) -> None:
    """With a vault, variables of groups and hosts beside it, and caching on."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    vault = [sys.executable, "-m", "ansible.cli.vault"]
    hidden = subprocess.run(
        [*vault, "encrypt_string", "--vault-password-file", str(password), "hush"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = (
        SMALL + "courses: [courses.csv]\ndefaults:\n  vars:\n    office: " + textwrap.indent(hidden, "      ").lstrip()
    )
    (tmp_path / "site.fleet.yml").write_text(text + "\n")
    (tmp_path / "courses.csv").write_text("name,machine,hub_path\nbio,south,/{{ 1 + 1 }}/\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/hubs_on_south.yml").write_text("hub_memory: 1G\n")
    subprocess.run(
        [*vault, "encrypt", "--vault-password-file", str(password), str(tmp_path / "courses.csv")],
        check=True,
        capture_output=True,
    )

    cached = {
        "ANSIBLE_INVENTORY_CACHE": "true",
        "ANSIBLE_INVENTORY_CACHE_PLUGIN": "jsonfile",
        "ANSIBLE_INVENTORY_CACHE_CONNECTION": str(tmp_path / "cache"),
    }
    options = ("--vault-password-file", str(password))
    graph = inventory(tmp_path, "--graph", *options, **cached)
    assert "|  |--@hubs_on_south:\n  |  |  |--bio\n" in graph.stdout, graph.stdout + graph.stderr
    bio = json.loads(inventory(tmp_path, "--host", "bio", *options, **cached).stdout)
    assert "__ansible_vault" in bio["office"], "a vault stays closed in listings"
    debug = subprocess.run(
        [
            *(sys.executable, "-m", "ansible.cli.adhoc", "-i", str(tmp_path / "site.fleet.yml"), "bio", *options),
            *("--connection=local", "-m", "debug", "-a", "msg='{{ office, hub_path, ansible_host }}'"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    # a table is data, where templates stay what they are
    assert "- hush\n    - /{{ 1 + 1 }}/\n    - south\n" in debug.stdout, debug.stdout + debug.stderr
    assert bio["hub_memory"] == "1G"
    assert bio["hub_machine"] in ("south", {"__ansible_unsafe": "south"})

    (tmp_path / "courses.csv").write_text("name,machine\narts,sout\n")
    refused = inventory(tmp_path, "--graph", *options, **cached)
    assert refused.returncode != 0
    assert f"{tmp_path}/courses.csv:2: there is no machine 'sout'; did you mean south?" in refused.stderr
    (tmp_path / "courses.csv").write_text("name,machine\narts,south\n")
    assert "arts" in inventory(tmp_path, "--graph", *options, **cached).stdout
    (tmp_path / "courses.csv").unlink()
    assert "cannot be read" in inventory(tmp_path, "--graph", *options).stderr


def test_a_large_fleet_is_quick(tmp_path: Path) -> None:
    """Nothing here grows faster than the number of hubs."""
    rows = [f"course{number},m{number // 50}" for number in range(2000)]
    machines = "".join(f"  m{number}:\n" for number in range(40))
    made = fleet(f"plugin: x\nmachines:\n{machines}", "\n".join(["name,machine", *rows]))
    assert len(made.inventory.hosts) == 2040
