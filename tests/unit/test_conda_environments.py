# SPDX-License-Identifier: GPL-3.0-or-later
"""Conda environments that change as a whole or not at all, with short scripts for conda and for an environment's Python."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import conda_environments
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from testbed.waiting import until

Package = conda_environments.Package
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; the hubs of the tests do it, too")

# It knows the packages of control.json, and does there what "fail", "hang" or "nothing" say for real.
CONDA = r"""
import json, os, re, sys, time
base = os.path.dirname(os.path.dirname(os.path.realpath(sys.argv[0])))
control = json.load(open(f"{base}/control.json"))
command, words = sys.argv[1], sys.argv[2:]
prefix = words[words.index("--prefix") + 1]
options = {"--prefix", "--channel"}
specs = [word for i, word in enumerate(words) if not word.startswith("--") and (not i or words[i - 1] not in options)]
with open(f"{base}/calls", "a") as calls:
    calls.write(json.dumps([command, "--dry-run" in words, specs]) + "\n")
meta = f"{prefix}/conda-meta"
assert command == "create" or os.path.isdir(meta), "no environment to install into"
assert command != "create" or not os.path.exists(meta), "conda would remove what is there"

def fail(name, message):
    print(json.dumps({"exception_name": name, "message": message, "error": name}))
    sys.exit(1)

def install(name, version):
    for old in records:
        if old.rsplit("-", 2)[0] == name:
            os.unlink(f"{meta}/{old}")
    with open(f"{meta}/{name}-{version}-0.json", "w") as stream:
        json.dump({"channel": "https://conda.test/main/noarch"}, stream)
    if os.path.exists(f"{prefix}/lib/{name}.txt"):
        os.unlink(f"{prefix}/lib/{name}.txt")
    with open(f"{prefix}/lib/{name}.txt", "w") as stream:
        stream.write(f"{prefix} {version}")
    os.utime(f"{prefix}/lib/{name}.txt", (0, 0))  # like packages whose files all have one time
    if name == "python":
        os.makedirs(f"{prefix}/bin", exist_ok=True)
        with open(f"{prefix}/bin/python", "w") as stream:
            stream.write(open(f"{base}/python").read())
        os.chmod(f"{prefix}/bin/python", 0o755)

records = [one for one in os.listdir(meta) if one.endswith(".json")] if os.path.isdir(meta) else []
have = {one.rsplit("-", 2)[0]: one.rsplit("-", 2)[1] for one in records}
named = specs or (list(have) if "--all" in words else [])
todo = {}
for spec in named:
    name, rest = re.fullmatch(r"([\w-]+)(.*)", spec.rpartition("::")[2]).groups()
    offered = control["packages"].get(name)
    if offered is None:
        fail("PackagesNotFoundError", f"The following packages are not available from current channels:\n\n  - {spec}\n\n"
             "Current channels:\n\n  - https://me:secret@conda.test/main/noarch\n\n"
             "To search for alternate channels that may provide the conda package you're\nlooking for, navigate to\n\n    https://anaconda.org")
    rest = re.sub("(?<=[0-9])=0$", "", rest)
    fits = [v for v in offered if not rest or (rest.startswith("==") and v == rest[2:]) or (rest.startswith(">=") and v >= rest[2:])
            or (re.match("=[^=]", rest) and v.startswith(rest[1:])) or rest.startswith("[")]
    if not fits:
        fail("LibMambaUnsatisfiableError", f"Encountered problems while solving:\n  - nothing provides requested {spec}")
    todo[name] = fits[-1]
    for need in control["needs"].get(name, []):
        if need not in have and need not in todo:
            todo[need] = control["packages"][need][-1]
todo = {name: version for name, version in todo.items() if have.get(name) != version}
if "fail" in control and ("--dry-run" in words or control.get("early")):
    fail(*control["fail"])
if "--dry-run" in words:
    answer = {"success": True, "dry_run": True, "actions": {
        "LINK": [{"name": n, "version": v, "build_string": "0"} for n, v in todo.items()],
        "UNLINK": [{"name": n, "version": have[n]} for n in todo if n in have]}}
    print(json.dumps(answer if todo else {"success": True, "message": "All requested packages already installed."}))
    sys.exit(0)
os.makedirs(meta, exist_ok=True)
os.makedirs(f"{prefix}/lib", exist_ok=True)
os.makedirs(os.environ["CONDA_PKGS_DIRS"].split(",")[0], exist_ok=True)
with open(f"{meta}/history", "a") as history:
    history.write(" ".join(sys.argv) + "\n")
for name, version in ({} if control.get("nothing") else todo).items():
    install(name, version)
if "hang" in control:
    with open(f"{base}/waiting", "w") as waiting:
        waiting.write(str(os.getpid()))
    for _ in range(2000):
        if os.path.exists(f"{base}/go"):
            break
        time.sleep(0.01)
if "fail" in control:  # when much is done already
    fail(*control["fail"])
print(json.dumps({"success": True, "actions": {}}))
"""
PYTHON = r"""
import json, os, sys
prefix = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
base = os.path.dirname(os.path.dirname(prefix))
control = json.load(open(f"{base}/control.json"))
words = [word for word in sys.argv[4:] if not word.startswith("-") or word == "--upgrade"]
with open(f"{base}/calls", "a") as calls:
    calls.write(json.dumps(["pip", "--dry-run" in sys.argv, words]) + "\n")
assert sys.argv[1:4] == ["-m", "pip", "install"]
site = f"{prefix}/lib/python3.11/site-packages"
have = dict(one[:-10].split("-") for one in os.listdir(site)) if os.path.isdir(site) else {}
new = []
for word in words:
    if word == "--upgrade":
        continue
    name = word.partition("=")[0].rstrip("<>")
    if control.get("offline"):
        print("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(HTTPSConnectionPool(host='pypi.test', port=443):"
              " Failed to establish a new connection: [Errno 111] Connection refused')': /simple/x/", file=sys.stderr)
    if control.get("offline") or name not in control["pypi"]:
        print(f"ERROR: Could not find a version that satisfies the requirement {word} (from versions: none)\n"
              f"ERROR: No matching distribution found for {word}", file=sys.stderr)
        sys.exit(1)
    version = word.partition("==")[2] or control["pypi"][name]
    if have.get(name) != version and ("--upgrade" in words or name not in have or "==" in word):
        new.append((name, version))
if "--dry-run" in sys.argv:
    print(json.dumps({"install": [{"metadata": {"name": name, "version": version}} for name, version in new]}))
    sys.exit(0)
for name, version in new:
    if name in have:
        os.rename(f"{site}/{name}-{have[name]}.dist-info", f"{site}/{name}-{version}.dist-info")
    os.makedirs(f"{site}/{name}-{version}.dist-info", exist_ok=True)
    with open(f"{site}/{name}-{version}.dist-info/INSTALLER", "w") as stream:
        stream.write("pip\n")
"""
DEFAULT = {
    "packages": {
        "python": ["3.11.2", "3.12.1"],
        "pip": ["24.0"],
        "numpy": ["1.26.4", "2.1.0"],
        "pandas": ["2.2.0", "2.2.3"],
        "tzdata": ["2024a"],
    },
    "needs": {"pandas": ["numpy", "tzdata"], "pip": ["python"], "numpy": ["python"]},
    "pypi": {"nbgitpuller": "1.2.2", "rich": "13.0"},
}


class Conda:
    """A conda with its environments."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.envs = base / "envs"
        self.prefix = self.envs / "data"
        self.envs.mkdir(parents=True)
        (base / "bin").mkdir()
        for path, text in ((base / "bin/conda", CONDA), (base / "python", PYTHON)):
            path.write_text(f"#!{sys.executable} -ISE\n{text}")
            path.chmod(0o755)
        self.control()

    def control(self, **changes: Any) -> None:
        """Make conda and pip behave otherwise than usual."""
        (self.base / "control.json").write_text(json.dumps({**DEFAULT, **changes}))

    def main(self, **parameters: Any) -> dict[str, Any]:
        """Run the program; the result must be JSON."""
        usual = {"name": "data", "prefix_folder": str(self.envs), "conda": str(self.base / "bin/conda"), "timeout": 20}
        return dict(json.loads(json.dumps(conda_environments.main({**usual, **parameters}))))

    def failure(self, **parameters: Any) -> str:
        """Run the program, which must fail, and return what it says."""
        with pytest.raises(conda_environments.Failure) as error:
            self.main(**parameters)
        return str(error.value.args[0])

    def calls(self) -> list[list[Any]]:
        """What was run since the last question: program, whether it was only asked, its arguments."""
        path = self.base / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def packages(self) -> dict[str, str]:
        """What the environment holds."""
        return conda_environments.listing(str(self.prefix))

    def left(self) -> set[str]:
        """What is beside the environments."""
        return {one.name for one in self.envs.iterdir()} - {".ananke.lock", "jhub"}


def state(folder: Path) -> dict[str, Any]:
    """All files of a folder: identity, times, mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        one = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (one.st_ino, one.st_mtime_ns, one.st_ctime_ns, one.st_mode, content)
    return found


@pytest.fixture
def conda(tmp_path: Path) -> Conda:
    """A conda without environments."""
    return Conda(tmp_path / "conda")


@pytest.fixture
def data(conda: Conda) -> Conda:
    """A conda whose environment data holds numpy 1.26.4."""
    conda.main(packages=["numpy=1.26", "python=3.11"])
    conda.calls()
    return conda


# Making and changing


@as_root
def test_an_environment_is_made_once(conda: Conda) -> None:
    made = conda.main(packages=["pandas", "numpy>=2"])
    assert made["changed"]
    assert made["environment"] == str(conda.prefix)
    assert made["added"] == ["numpy 2.1.0", "pandas 2.2.3", "python 3.12.1", "tzdata 2024a"]
    assert made["diff"]["before"] == ""
    assert made["diff"]["after"] == "numpy 2.1.0\npandas 2.2.3\npython 3.12.1\ntzdata 2024a\n"
    assert [call[:2] for call in conda.calls()] == [["create", False]]
    assert any("conda create --yes" in command for command in made["commands"])
    # its paths are final although it was built elsewhere
    assert (conda.prefix / "lib/numpy.txt").read_text() == f"{conda.prefix} 2.1.0"
    before = state(conda.base)
    again = conda.main(packages=["pandas", "numpy>=2"])
    assert not again["changed"]
    assert not again["commands"]
    assert not again["added"] + again["removed"] + again["updated"]
    assert state(conda.base) == before
    assert conda.left() == {"data"}


@as_root
def test_a_package_is_added_and_what_may_be_of_any_version_stays(data: Conda) -> None:
    added = data.main(packages=["numpy", "tzdata"])
    assert added["added"] == ["tzdata 2024a"]
    assert not added["removed"] + added["updated"]
    assert data.calls() == [["install", False, ["tzdata"]]]
    changed = data.main(packages=["numpy>=2", "tzdata"])
    assert changed["updated"] == ["numpy 1.26.4 -> 2.1.0"]
    assert data.packages()["numpy"] == "2.1.0"
    assert data.left() == {"data"}


@as_root
def test_everybody_else_sees_the_old_environment_until_the_new_one_is_complete(data: Conda) -> None:
    data.control(hang=True)
    before = state(data.prefix)
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(data.main(packages=["pandas"])))
    thread.start()
    wait_for(data.base / "waiting")
    # conda has written all it wants to write
    assert (data.envs / ".data.fresh/environment/lib/pandas.txt").read_text() == f"{data.prefix} 2.2.3"
    assert state(data.prefix) == before
    assert str(data.prefix) not in Path("/proc/self/mountinfo").read_text()
    (data.base / "go").touch()
    thread.join(20)
    assert results[0]["changed"]
    assert data.packages()["pandas"] == "2.2.3"


def wait_for(path: Path, seconds: float = 10) -> None:
    until(lambda: path.exists() and path.read_text(), seconds, f"{path} is written")


@as_root
def test_exactly_these_packages(data: Conda) -> None:
    wish = {"state": "exact", "packages": ["python=3.11", "tzdata"]}
    first = data.main(**wish)
    assert first["removed"] == ["numpy 1.26.4"]
    assert data.packages() == {"python": "3.11.2", "tzdata": "2024a"}
    assert not (data.prefix / "lib/numpy.txt").exists()
    data.calls()
    assert not data.main(**wish)["changed"]
    assert not data.calls()
    # somebody installs something else
    (data.prefix / "conda-meta/rogue-1-0.json").write_text("{}")
    assert data.main(**wish)["removed"] == ["rogue 1"]
    assert not data.main(**wish)["changed"]
    assert data.main(state="exact", packages=["python=3.11"])["removed"] == ["tzdata 2024a"]


@as_root
def test_an_environment_that_is_exact_already_is_only_noted(data: Conda) -> None:
    wish = {"state": "exact", "packages": ["python=3.11", "numpy=1.26"]}
    inode = (data.prefix / "lib/numpy.txt").stat().st_ino
    assert not data.main(**wish)["changed"]
    assert len(data.calls()) == 1
    assert (data.prefix / "lib/numpy.txt").stat().st_ino == inode
    assert not data.main(**wish)["changed"]
    assert not data.calls()


@as_root
def test_the_newest_versions(data: Conda) -> None:
    one = data.main(state="updated", packages=["numpy"])
    assert one["updated"] == ["numpy 1.26.4 -> 2.1.0"]
    assert [call[0] for call in data.calls()] == ["update", "update"]
    again = data.main(state="updated", packages=["numpy"])
    assert not again["changed"]
    assert [call[:2] for call in data.calls()] == [["update", True]]
    assert data.main(state="updated")["updated"] == ["python 3.11.2 -> 3.12.1"]
    assert data.main(state="updated", packages=["tzdata", "python>=3.12"])["added"] == ["tzdata 2024a"]
    assert "state: present" in data.failure(name="other", state="updated", packages=["numpy"])


@as_root
def test_an_environment_yml(conda: Conda) -> None:
    definition = {
        "name": "data",
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": ["python=3.12", "numpy=2.1.0=0", {"pip": ["rich"]}],
        "prefix": "/home/someone/envs/data",
    }
    made = conda.main(definition=definition, state="exact")
    assert "--override-channels --channel conda-forge numpy" not in made["commands"][0]
    assert "--override-channels --channel conda-forge --no-default-packages python=3.12" in made["commands"][0]
    assert conda.packages() == {"numpy": "2.1.0", "pip": "24.0", "python": "3.12.1", "rich": "13.0 (pip)"}
    assert not conda.main(definition=definition, state="exact")["changed"]
    assert not conda.main(definition=definition)["changed"]
    made = conda.main(definition={"dependencies": ["tzdata"]}, name="other", channels=["https://mirror.test/c"])
    assert "--channel https://mirror.test/c" in made["commands"][0]


# pip


@as_root
def test_packages_of_pip_come_after_condas(conda: Conda) -> None:
    wish = {"packages": ["python"], "pip": ["nbgitpuller>=1", "rich==12.5"]}
    made = conda.main(**wish)
    assert made["added"] == ["nbgitpuller 1.2.2 (pip)", "pip 24.0", "python 3.12.1", "rich 12.5 (pip)"]
    assert [call[0] for call in conda.calls()] == ["create", "pip"]
    assert not conda.main(**wish)["changed"]
    assert not conda.calls()
    changed = conda.main(packages=["python"], pip=["rich==13.0"])
    assert changed["updated"] == ["rich 12.5 (pip) -> 13.0 (pip)"]
    assert conda.calls() == [["pip", False, ["rich==13.0"]]]


@as_root
def test_an_environment_without_pip_gets_condas(data: Conda) -> None:
    assert data.main(pip=["rich"])["added"] == ["pip 24.0", "rich 13.0 (pip)"]
    assert [call[0] for call in data.calls()] == ["install", "pip"]


@as_root
def test_the_newest_of_pip(data: Conda) -> None:
    data.main(pip=["rich==12.5"])
    data.calls()
    foretold = data.main(state="updated", pip=["rich"], check=True)
    assert foretold["updated"] == ["rich 12.5 (pip) -> 13.0 (pip)"]
    assert data.calls() == [["pip", True, ["--upgrade", "rich"]]] * 2
    assert data.main(state="updated", pip=["rich"])["updated"] == foretold["updated"]
    assert not data.main(state="updated", pip=["rich"])["changed"]


@as_root
def test_a_failing_pip_leaves_nothing_of_condas_part(data: Conda) -> None:
    before = state(data.prefix)
    text = data.failure(packages=["tzdata"], pip=["no-such-thing"])
    assert "no such package" in text
    assert "no-such-thing" in text
    assert "as it was before" in text
    assert state(data.prefix) == before
    data.control(offline=True)
    text = data.failure(packages=["tzdata"], pip=["rich"])
    assert "the package index host='pypi.test' cannot be reached" in text
    assert state(data.prefix) == before
    assert data.left() == {"data"}


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("Rich", True),
        ("rich>=13,<14", True),
        ("rich==12", False),
        ("rich; python_version < '3'", True),
        ("absent; python_version < '3'", True),
        ("absent; python_version >= '3'", False),
        ("zope.interface", True),
        ("pre>=1", True),
        ("rich[all]", False),
        ("rich[some]", True),
        ("git+https://git.test/x@v1#egg=x", True),
        ("git+https://git.test/x@v2", False),
        ("x @ git+https://git.test/x@v1", True),
        ("x @ https://git.test/x.zip", False),
        ("https://git.test/x.zip", False),
        ("absent", False),
    ],
)
def test_whether_a_requirement_is_fulfilled(tmp_path: Path, requirement: str, expected: bool) -> None:
    site = tmp_path / "lib/python3.12/site-packages"
    for name in ("rich-13.0", "zope_interface-7.0", "x-1.0", "pre-2.0rc1"):
        (site / f"{name}.dist-info").mkdir(parents=True)
    (site / "rich-13.0.dist-info/METADATA").write_text(
        "Name: rich\nVersion: 13.0\nRequires-Dist: absent; extra == 'all'\nRequires-Dist: x; extra == 'some'\n"
    )
    direct = {"url": "https://git.test/x", "vcs_info": {"vcs": "git", "requested_revision": "v1", "commit_id": "0"}}
    (site / "x-1.0.dist-info/direct_url.json").write_text(json.dumps(direct))
    have = conda_environments.distributions(str(tmp_path))
    assert conda_environments.pip_holds(requirement, have, "3.12.1") is expected


def test_without_packaging_simple_requirements_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conda_environments, "Requirement", None)
    have = {"rich": Package("13.0", "", "/nowhere")}
    answers = [
        conda_environments.pip_holds(one, have, "3.12") for one in ("Rich", "rich>=13", "rich==12", "rich[a]", "a")
    ]
    assert answers == [True, True, False, False, False]


# Failures


@as_root
@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        (
            "UnsatisfiableError",
            "The following specifications were found to be incompatible",
            ["no versions fit together"],
        ),
        (
            "CondaHTTPError",
            "HTTP 000 CONNECTION FAILED for url <https://a:b@conda.test/main/noarch/repodata.json>\nElapsed: -\n",
            ["the channel https://***@conda.test/main/noarch/repodata.json cannot be reached", "network"],
        ),
        ("CondaSSLError", "Encountered an SSL error. CERTIFICATE_VERIFY_FAILED", ["cannot be reached"]),
        ("UnavailableInvalidChannel", "HTTP 404 NOT FOUND for channel x <https://conda.test/x>", ["Correct channels"]),
        ("NoSpaceLeftError", "No space left on devices.", ["the disk is full", "make room"]),
        ("SomethingNew", "Who {knows}?", ["conda failed: Who {knows}?"]),
    ],
)
def test_a_conda_that_fails_half_way_leaves_the_old_environment_bit_for_bit(
    data: Conda, name: str, message: str, expected: list[str]
) -> None:
    before = state(data.prefix)
    data.control(fail=[name, message])
    text = data.failure(packages=["pandas"])
    for words in [*expected, "environment data: ", "The environment is as it was before."]:
        assert words in text
    assert len(text) < 1200
    assert state(data.prefix) == before
    assert data.left() == {"data"}
    assert "No environment was made." in data.failure(name="new", packages=["pandas"])
    assert data.left() == {"data"}
    data.control()
    assert data.main(packages=["pandas"])["changed"]


@as_root
def test_a_package_that_nobody_has(data: Conda) -> None:
    text = data.failure(packages=["nosuch"])
    assert "no such package" in text
    assert "- nosuch" in text
    assert "secret" not in text
    assert "anaconda.org" not in text
    assert "nothing provides requested numpy=9" in data.failure(packages=["numpy=9"])


@as_root
def test_what_was_run_is_told_with_a_failure(data: Conda) -> None:
    with pytest.raises(conda_environments.Failure) as error:
        data.main(packages=["nosuch"])
    assert any("conda install" in command for command in error.value.args[1]["commands"])


def test_a_disk_that_is_full_is_told_whoever_meets_it() -> None:
    said = conda_environments.reason(["cp", "--archive"], "", "cp: error writing '/x/y': No space left on device\n")
    assert "the disk is full (cp: error writing '/x/y': No space left on device): make room" in said
    # what conda warns of is no reason
    answer = json.dumps({"exception_name": "PackagesNotFoundError", "message": "x"})
    said = conda_environments.reason(["/c/conda", "create", "pip"], answer, "warning: connection timed out once")
    assert said.startswith("there is no such package: x.")


@as_root
def test_a_conda_that_takes_too_long_is_ended(data: Conda) -> None:
    data.control(hang=True)
    before = state(data.prefix)
    text = data.failure(packages=["pandas"], timeout=1)
    assert "not done in 1 s" in text
    assert state(data.prefix) == before
    assert not os.path.exists(f"/proc/{(data.base / 'waiting').read_text()}")
    assert data.left() == {"data"}


@as_root
def test_a_conda_that_says_yes_and_does_nothing_is_found_out(data: Conda) -> None:
    data.control(nothing=True)
    assert "tzdata is not there" in data.failure(packages=["tzdata"])


def test_no_conda(conda: Conda) -> None:
    text = conda.failure(packages=["numpy"], conda="/nowhere/conda")
    assert "/nowhere/conda" in text
    assert conda.left() == set()


def test_names_that_something_else_has(conda: Conda) -> None:
    conda.prefix.write_text("a file")
    assert "is a file or a link" in conda.failure(packages=["numpy"])
    assert conda.prefix.read_text() == "a file"
    conda.prefix.unlink()
    conda.prefix.mkdir()
    (conda.prefix / "mine").touch()
    for wish in ("present", "absent"):
        assert "no conda environment" in conda.failure(packages=["numpy"], state=wish)
    assert (conda.prefix / "mine").exists()
    assert "name the hub's container" in conda.failure(prefix_folder="/nowhere")
    assert not conda.calls()


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"name": ""}, "name ''"),
        ({"name": "../x"}, "letters, digits"),
        ({"name": ".hidden"}, "letters, digits"),
        ({"name": "-x"}, "letters, digits"),
        ({"name": "a b"}, "letters, digits"),
        ({"name": "umlaut-ä"}, "letters, digits"),
        ({"name": "jhub"}, "python3"),
        ({"name": "base"}, "python3"),
        ({"packages": ["--force"]}, "packages: '--force'"),
        ({"packages": [""]}, "packages: ''"),
        ({"packages": ["numpy\nevil"]}, "packages: "),
        ({"packages": ["=1.2"]}, "packages: '=1.2'"),
        ({"packages": [1.5]}, "packages: 1.5"),
        ({"pip": ["-r requirements.txt"]}, "options"),
        ({"pip": [{"a": 1}]}, "pip: {'a': 1}"),
        ({"channels": ["-c"]}, "channels: '-c'"),
        ({"channels": ["https://me:secret@conda.test/x"]}, "https://***@conda.test/x"),
        ({"pip": ["x @ git+https://token@git.test/x"]}, "https://***@git.test/x"),
        ({"definition": {"dependencies": ["numpy"], "variables": {}}}, "variables"),
        ({"definition": {"name": "other"}}, "its name is other"),
        ({"definition": {"dependencies": [{"npm": ["x"]}]}}, "packages: {'npm'"),
        ({"definition": ["numpy"]}, "environment.yml"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_happens(conda: Conda, wish: dict[str, Any], words: str) -> None:
    assert words in conda.failure(**wish)
    assert not conda.calls()
    assert conda.left() == set()


def test_a_bad_requirement_is_refused(conda: Conda) -> None:
    (conda.prefix / "conda-meta").mkdir(parents=True)
    assert "pip: 'a b c' is no requirement" in conda.failure(pip=["a b c"])


@as_root
def test_where_mounting_is_not_permitted_it_says_so(data: Conda, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1"
    monkeypatch.setattr(conda_environments, "ISOLATED", ["sh", "-c", refused])
    before = state(data.prefix)
    assert "mounting is not permitted here" in data.failure(packages=["pandas"])
    assert state(data.prefix) == before
    assert data.left() == {"data"}


# Killed runs, and runs side by side


@as_root
def test_a_killed_run_leaves_the_old_environment_and_the_next_one_tidies_up(data: Conda) -> None:
    data.control(hang=True)
    before = state(data.prefix)
    run = multiprocessing.get_context("fork").Process(target=data.main, kwargs={"packages": ["pandas"]})
    run.start()
    wait_for(data.base / "waiting")
    run.kill()
    run.join(10)
    try:
        assert state(data.prefix) == before
        assert ".data.fresh" in data.left()
        data.control()
        # conda lives on, so the next run waits for it
        assert "another run" in data.failure(packages=["pandas"], timeout=0.3)
    finally:
        os.kill(int((data.base / "waiting").read_text()), signal.SIGKILL)
    data.calls()
    assert data.main(packages=["tzdata"])["added"] == ["tzdata 2024a"]
    assert data.left() == {"data"}


@as_root
def test_what_a_killed_run_left_goes_although_nothing_else_is_to_be_done(data: Conda) -> None:
    (data.envs / ".data.fresh/environment/conda-meta").mkdir(parents=True)
    (data.envs / ".data.foretold").mkdir()
    assert data.main(packages=["numpy"], check=True)["changed"] is False
    assert data.left() == {"data", ".data.fresh", ".data.foretold"}
    assert data.main(packages=["numpy"])["changed"] is False
    assert data.left() == {"data"}
    assert not data.calls()


@as_root
def test_an_empty_folder_of_a_killed_run_is_no_environment(conda: Conda) -> None:
    conda.prefix.mkdir()
    assert conda.main(packages=["numpy"])["changed"]
    assert conda.packages()["numpy"] == "2.1.0"


@as_root
@pytest.mark.parametrize("check", [True, False])
def test_an_environment_that_a_killed_run_was_making_is_made_anew(conda: Conda, check: bool) -> None:
    (conda.envs / ".data.fresh").mkdir()
    (conda.envs / ".data.fresh/new").write_text("true")
    (conda.prefix / "conda-meta").mkdir(parents=True)
    (conda.prefix / "conda-meta/numpy-1.0.0-0.json").write_text("{}")
    (conda.prefix / "half").write_text("")
    assert conda.main(packages=["numpy"], check=check)["changed"]
    assert (conda.prefix / "half").exists() == check
    if not check:
        assert conda.packages()["numpy"] == "2.1.0"
        assert conda.left() == {"data"}


@as_root
def test_an_environment_that_cannot_be_made_is_not_there(conda: Conda) -> None:
    conda.control(fail=["UnsatisfiableError", "nothing fits"])
    assert "No environment was made" in conda.failure(packages=["numpy"])
    assert conda.left() == set()


@as_root
def test_changes_take_turns(data: Conda) -> None:
    with open(data.envs / ".ananke.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run" in data.failure(packages=["pandas"], timeout=0.2)
        # what needs no change waits for nobody
        assert data.main(packages=["numpy"], timeout=0.2)["changed"] is False
    with_lock = [threading.Thread(target=data.main, kwargs={"packages": [name]}) for name in ("pandas", "tzdata")]
    for thread in with_lock:
        thread.start()
    for thread in with_lock:
        thread.join(20)
    assert {"pandas", "tzdata", "numpy"} <= data.packages().keys()


# Environments that came with an image


OVERLAY = """\
import importlib.util, json, os, subprocess, sys
kind, base, program, *tasks = sys.argv[1:]
lower, upper, work, merged = (f"{base}/{one}" for one in ("lower", "upper", "work", "conda"))
layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
mount = ["mount", "-t", "overlay", "overlay", "-o", layers + ",redirect_dir=off"]
subprocess.run([*(mount if kind == "overlay" else ["fuse-overlayfs", "-o", layers]), merged], check=True)
spec = importlib.util.spec_from_file_location("program", program)
module = importlib.util.module_from_spec(spec)
sys.modules["program"] = module
spec.loader.exec_module(module)

def run(parameters):
    moves, broken = parameters.pop("moves", None), parameters.pop("broken", False)
    rename = os.rename
    def move(one, other):
        nonlocal moves
        if moves is not None and "/environment/" in one and other.startswith(f"{parameters['prefix_folder']}/data/"):
            if not moves and broken:
                raise OSError(5, "Input/output error", one)
            if not moves:
                os._exit(9)
            moves -= 1
        rename(one, other)
    os.rename = move
    try:
        result = module.main(parameters)
    except module.Failure as error:
        result = {"failure": error.args[0]}
    left = sorted(os.listdir(parameters["prefix_folder"]))
    if os.path.lexists(f"{parameters['prefix_folder']}/data/lib/old"):
        left.append("old")
    print(json.dumps({**result, "left": left}), flush=True)
    os._exit(0)

try:
    for task in tasks:
        child = os.fork()
        if not child:
            run(json.loads(task))
        if os.waitpid(child, 0)[1]:
            print(json.dumps({"killed": True}), flush=True)
finally:
    subprocess.run(["umount", merged], check=True)
"""
needs_fuse = pytest.mark.skipif(
    not (shutil.which("fuse-overlayfs") and os.path.exists("/dev/fuse")), reason="fuse-overlayfs is not installed here"
)


class Image:
    """A conda whose environments are in the lower layer of an overlay, like those of an image."""

    def __init__(self, base: Path, kind: str) -> None:
        self.base, self.kind = base, kind
        self.conda = Conda(base / "conda")
        self.conda.main(packages=["numpy=1.26", "python=3.11", "tzdata"])
        (self.conda.prefix / "lib/link").symlink_to("numpy.txt")
        (self.conda.prefix / "lib/old").mkdir()
        (self.conda.prefix / "lib/old/file").touch()
        shutil.move(base / "conda", base / "lower")
        for name in ("upper", "work", "conda"):
            (base / name).mkdir()

    def main(self, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
        """Run the program once for each task, while the overlay is mounted for it alone."""
        usual = {"name": "data", "prefix_folder": str(self.conda.envs), "conda": str(self.conda.base / "bin/conda")}
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-IS", "-c", OVERLAY, self.kind]
        texts = [json.dumps({**usual, **task}) for task in tasks]
        argv = [*command, str(self.base), conda_environments.__file__, *texts]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        results = [json.loads(line) for line in done.stdout.splitlines()]
        return results


@pytest.fixture(params=["overlay", pytest.param("fuse", marks=needs_fuse)])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """An environment in an image, on both kinds of overlay that hubs may have."""
    return Image(tmp_path, request.param)


@as_root
def test_an_environment_of_the_image_changes_file_by_file(image: Image) -> None:
    task = {"packages": ["numpy>=2", "pandas"]}
    changed, again = image.main(task, task)
    assert changed["updated"] == ["numpy 1.26.4 -> 2.1.0"]
    assert changed["added"] == ["pandas 2.2.3"]
    assert again["changed"] is False
    upper = image.base / "upper/envs/data"
    assert (upper / "lib/numpy.txt").read_text().endswith("2.1.0")
    assert not (upper / "lib/tzdata.txt").exists(), "what did not change takes no room"
    exact = {"state": "exact", "packages": ["tzdata"]}
    again, changed = image.main(task, exact)
    assert again["changed"] is False
    assert changed["removed"] == ["numpy 2.1.0", "pandas 2.2.3", "python 3.11.2"]
    again, absent = image.main(exact, {"state": "absent"})
    assert again["changed"] is False
    assert again["left"] == [".ananke.lock", "data"]
    assert absent["left"] == [".ananke.lock"]


@as_root
def test_a_run_killed_while_it_moves_files_is_finished_by_the_next(image: Image) -> None:
    exact = {"state": "exact", "packages": ["pandas"]}
    present = {"packages": ["pandas"]}
    killed, foretold = image.main({**exact, "moves": 3}, {**present, "check": True})
    assert killed == {"killed": True}
    assert foretold["changed"]
    assert foretold["left"] == [".ananke.lock", ".data.fresh", "data", "old"]
    resumed, again = image.main(present, exact)
    assert resumed["changed"]
    assert resumed["left"] == [".ananke.lock", "data"]
    assert again["changed"] is False


@as_root
def test_a_disk_that_fails_while_files_are_moved_is_told(image: Image) -> None:
    exact = {"state": "exact", "packages": ["pandas"]}
    failed, resumed, again = image.main({**exact, "moves": 2, "broken": True}, exact, exact)
    assert "Input/output error. The environment is changed in part: the next run" in failed["failure"]
    assert resumed["changed"]
    assert not again["changed"]


@as_root
def test_an_environment_of_the_image_is_removed_and_made_anew(image: Image) -> None:
    absent, made = {"state": "absent"}, {"packages": ["tzdata"]}
    gone, again, *_ = image.main(absent, absent, made, {"packages": ["pandas"]}, {"packages": ["pip"]})
    assert "numpy 1.26.4" in gone["removed"]
    assert again["changed"] is False
    packages = "numpy 2.1.0\npandas 2.2.3\npip 24.0\npython 3.12.1\ntzdata 2024a\n"
    (after_a_restart,) = image.main(made)
    assert after_a_restart["diff"]["before"] == packages
    assert after_a_restart["left"] == [".ananke.lock", "data"], "nothing of the image's environment has come back"


# Removing


@as_root
def test_an_environment_goes_with_its_kernel(data: Conda) -> None:
    kernels = data.envs / "jhub/share/jupyter/kernels"
    specs = {
        "data": {"argv": [conda_environments.LAUNCHER, str(data.prefix), "-m", "x"]},
        "marked": {"argv": ["x"], "metadata": {"ananke_environment": str(data.prefix)}},
        "other": {"argv": [conda_environments.LAUNCHER, str(data.envs / "data2"), "-m", "x"]},
        "foreign": {"argv": [f"{data.prefix}/bin/python"]},
    }
    for name, spec in specs.items():
        (kernels / name).mkdir(parents=True)
        (kernels / name / "kernel.json").write_text(json.dumps(spec))
    foretold = data.main(state="absent", check=True)
    assert data.packages()
    assert len(list(kernels.iterdir())) == 4
    gone = data.main(state="absent")
    assert gone["kernels"] == foretold["kernels"] == ["data", "marked"]
    assert gone["diff"]["after"] == ""
    assert gone["diff"] == foretold["diff"]
    assert {one.name for one in kernels.iterdir()} == {"other", "foreign"}
    assert data.left() == set()
    again = data.main(state="absent")
    assert not again["changed"]
    assert again["removed"] == again["kernels"] == []
    assert not data.calls()


# Check mode


@as_root
def test_check_mode_foretells_and_changes_nothing(data: Conda) -> None:
    (data.envs / ".ananke.lock").unlink()
    before = state(data.envs)
    for wish in (
        {"packages": ["pandas", "numpy>=2"]},
        {"state": "exact", "packages": ["tzdata"]},
        {"state": "updated"},
        {"name": "new", "packages": ["pandas"]},
    ):
        foretold = data.main(**wish, check=True)
        assert foretold["changed"]
        assert [call[1] for call in data.calls()] == [True], wish
        assert state(data.envs) == before
        assert {key: foretold[key] for key in ("added", "removed", "updated", "diff")} == foretold_for_real(data, wish)
        data.calls()
    assert "nosuch" in data.failure(packages=["nosuch"], check=True)
    foretold = data.main(packages=["numpy"], pip=["rich"], check=True)
    assert foretold["added"] == ["pip 24.0", "rich (pip)"]
    assert data.main(packages=["numpy"], check=True)["changed"] is False


def foretold_for_real(conda: Conda, wish: dict[str, Any]) -> dict[str, Any]:
    """What really happens; afterwards everything is as before."""
    kept = conda.base / "kept"
    conda.envs.rename(kept)
    shutil.copytree(kept, conda.envs, symlinks=True)
    done = conda.main(**wish)
    shutil.rmtree(conda.envs)
    kept.rename(conda.envs)
    return {key: done[key] for key in ("added", "removed", "updated", "diff")}


@as_root
def test_only_what_the_matcher_does_not_understand_is_asked(data: Conda) -> None:
    assert data.main(packages=["numpy[version='>=1']"])["changed"] is True  # this conda would take the newest
    assert [call[:2] for call in data.calls()] == [["install", True], ["install", False]]
    assert data.main(packages=["numpy[version='>=1']"])["changed"] is False
    assert [call[:2] for call in data.calls()] == [["install", True]]


# Specs


HAVE = {"numpy": Package("1.26.4", "py312h1_0", "/nowhere"), "tzdata": Package("2024a", "0", "/nowhere")}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("numpy", True),
        ("NumPy", True),
        ("scipy", False),
        ("numpy=1.26", True),
        ("numpy=1.2", False),
        ("numpy=1.26.4", True),
        ("numpy=1.26.4.0", True),
        ("numpy=1.26.*", True),
        ("numpy=1.*", True),
        ("numpy=2", False),
        ("numpy==1.26", False),
        ("numpy==1.26.4", True),
        ("numpy ==1.26.4.0", True),
        ("numpy>=1.9", True),
        ("numpy >=1.9,<2", True),
        ("numpy>=2|=1.26", True),
        ("numpy>1.26.4", False),
        ("numpy<1.100", True),
        ("numpy!=1.26.4", False),
        ("numpy!=1.26.5", True),
        ("numpy=*", True),
        ("numpy 1.26.*", True),
        ("numpy=1.26.4=py312*", True),
        ("numpy 1.26.4 py312h1_0", True),
        ("numpy==1.26.4=py313*", None),
        ("numpy 1.26", None),
        ("numpy~=1.26", None),
        ("numpy[version='>=1']", None),
        ("numpy>=1.26rc1", None),
        ("scipy[build=x]", None),
        ("tzdata=2024a", True),
        ("tzdata>=2024a", True),
        ("tzdata>2024a", False),
        ("tzdata>=2024b", None),
    ],
)
def test_whether_a_spec_is_fulfilled(spec: str, expected: bool | None) -> None:
    assert conda_environments.matches(spec, HAVE) is expected


def test_the_channel_of_a_spec_counts(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"channel": "https://conda.test/conda-forge/linux-64"}))
    have = {"numpy": Package("2.0", "0", str(record))}
    for spec, expected in (
        ("conda-forge::numpy", True),
        ("conda-forge::numpy=2", True),
        ("conda-forge::numpy=1", False),
        ("https://conda.test/conda-forge::numpy", True),
        ("forge::numpy", False),
        ("defaults::numpy", False),
    ):
        assert conda_environments.matches(spec, have) is expected, spec


numbers = st.lists(st.integers(0, 30), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
operators = st.sampled_from(["==", "!=", ">=", "<=", ">", "<"])


@settings(max_examples=60)
@given(version=numbers, conditions=st.lists(st.tuples(operators, numbers), min_size=1, max_size=3))
def test_versions_of_numbers_are_ordered_as_python_orders_them(version: str, conditions: list[tuple[str, str]]) -> None:
    text = ",".join(f"{operator}{wish}" for operator, wish in conditions)
    assert conda_environments.matches(f"x{text}", {"x": Package(version, "0", "")}) is SpecifierSet(text).contains(
        version
    )


@given(version=numbers, wish=numbers)
def test_one_equals_sign_asks_for_the_beginning_of_a_version(version: str, wish: str) -> None:
    expected = SpecifierSet(f"=={wish}.*").contains(version)
    for spec in (f"x={wish}", f"x={wish}.*", f"x {wish}.*"):
        assert conda_environments.matches(spec, {"x": Package(version, "0", "")}) is expected


@given(st.text(alphabet="x=<>!|,*. 1a[]':~", max_size=12), numbers)
def test_a_spec_that_is_no_spec_never_ends_in_an_error(rest: str, version: str) -> None:
    assert conda_environments.matches(f"x{rest}", {"x": Package(version, "0", "")}) in (True, False, None)


@given(numbers)
def test_a_version_fulfils_itself(version: str) -> None:
    have = {"x": Package(version, "0", "")}
    assert all(conda_environments.matches(f"x{op}{version}", have) for op in ("=", "==", ">=", "<=", " "))
    assert not any(conda_environments.matches(f"x{op}{version}", have) for op in ("!=", ">", "<"))


def test_the_program_needs_only_pythons_own_library(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""\
        import sys
        sys.path = [one for one in sys.path if "site-packages" not in one]
        exec(compile(open({conda_environments.__file__!r}).read(), "program", "exec"), {{"__name__": "program"}})
        """)
    subprocess.run([sys.executable, "-IS", "-c", script], check=True)
