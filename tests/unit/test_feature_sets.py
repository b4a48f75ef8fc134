# SPDX-License-Identifier: GPL-3.0-or-later
"""Features come and go in place: with a uv that pretends, in a folder that looks like a hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_feature_sets

# Installs and removes a package by its folder, its command and its record; the file `uv` says what shall go wrong.
UV = f"""#!{sys.executable} -IS
import os, pathlib, re, signal, sys
root = pathlib.Path(__file__).parents[5]
order = (root / "uv").read_text() if (root / "uv").exists() else ""
with (root / "uv.log").open("a") as log:
    print(os.environ.get("UV_DEFAULT_INDEX", "-"), *sys.argv[1:], file=log)
prefix = pathlib.Path(sys.argv[sys.argv.index("--python") + 1]).parents[1]
site = next(prefix.glob("lib/python3.*/site-packages"))

def uninstall(name):
    for info in site.glob(name + "-*.dist-info"):
        for line in (info / "RECORD").read_text().splitlines():
            (site / line.split(",")[0]).unlink()
        info.rmdir()
        (site / name).rmdir()

def install(name, version):
    info = site / f"{{name}}-{{version}}.dist-info"
    if info.is_dir():
        return
    uninstall(name)
    for folder in (info, site / name, prefix / "share"):
        folder.mkdir(exist_ok=True)
    (site / name / "__init__.py").write_text(f"version = {{version!r}}")
    (prefix / "share" / name).write_text(version)
    files = [f"{{name}}/__init__.py", f"../../../share/{{name}}", f"{{info.name}}/RECORD"]
    (info / "RECORD").write_text("".join(f"{{file}},,\\n" for file in files))

if sys.argv[2] == "uninstall":
    for name in sys.argv[sys.argv.index("--break-system-packages") + 1:]:
        uninstall(name)
else:
    for line in open(sys.argv[sys.argv.index("--requirement") + 1]):
        name, version = re.match("([a-z-]+)==([0-9.]+)", line).groups()
        install(name, version)
        if order:
            (site / "half").mkdir()
            (site / "half" / "done.py").write_text("")
            for folder in prefix.glob("mounted"):
                (folder / "meanwhile").write_text("by somebody else")
            if order == "kill":  # last, as whoever waits goes on at once
                os.kill(os.getppid(), signal.SIGKILL)
            sys.exit(order)
"""
# Makes an environment with a Python like the others', and a package of conda's; the file `conda` says what shall go wrong.
CONDA = """#!/bin/sh
prefix=$5
root=$(dirname "$0")/../../..
echo "$CONDA_PKGS_DIRS" "$@" >>"$root/conda.log"
site=$prefix/lib/python3.13/site-packages
mkdir -p "$prefix/bin" "$prefix/conda-meta" "$site/pip" "$site/pip-1.dist-info"
echo pip-1.dist-info/RECORD,, >"$site/pip-1.dist-info/RECORD"
cp -p "$root/opt/conda/envs/jhub/bin/python" "$prefix/bin/python"
[ ! -s "$root/conda" ] || { cat "$root/conda" >&2; exit 1; }
echo '==> now <==' >"$prefix/conda-meta/history"
"""
# Checks are shell scripts here: they start at once.
PYTHON = '#!/bin/sh\n[ "$1" = -m ] || exec sh "$1"\n'
SETTINGS = "/opt/conda/envs/jhub/etc/{}.json"


class Hub:
    """A folder with two environments, an old package in each, and the features that it shall have."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broken({})
        for name in ("jhub", "python3"):
            for folder in ("bin", "lib/python3.13/site-packages/old", "lib/python3.13/site-packages/old-1.dist-info"):
                (self.prefix(name) / folder).mkdir(parents=True)
            (self.prefix(name) / "bin/python").write_text(PYTHON)
            (self.prefix(name) / "bin/python").chmod(0o755)
            (self.prefix(name) / "lib/python3.13/site-packages/old/__init__.py").write_text("")
        (root / "opt/conda/bin").mkdir()
        for path, text in ((self.prefix("jhub") / "bin/uv", UV), (root / "opt/conda/bin/conda", CONDA)):
            path.write_text(text)
            path.chmod(0o755)

    def prefix(self, environment: str) -> Path:
        return self.root / "opt/conda/envs" / environment

    def broken(self, extensions: dict[str, str]) -> None:
        """Say what the generic check finds."""
        (self.root / "broken").write_text(json.dumps(extensions) + "\n")

    def uv(self, order: str) -> None:
        (self.root / "uv").write_text(order)

    def log(self, program: str = "uv") -> list[str]:
        path = self.root / f"{program}.log"
        return path.read_text().splitlines() if path.exists() else []

    def parameters(self, features: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"features": features, "checks": f"cat {self.root}/broken", "root": str(self.root), **more}

    def run(self, *features: dict[str, Any], **more: Any) -> dict[str, Any]:
        named = {next(iter(one)): next(iter(one.values())) for one in features}
        return hub_feature_sets.main(self.parameters(named, **more))

    def fails(self, *features: dict[str, Any], **more: Any) -> str:
        """Run, and return why it failed; afterwards all is as it was before."""
        before = self.tree()
        with pytest.raises(hub_feature_sets.Failure) as caught:
            self.run(*features, **more)
        assert self.tree() == before
        assert str(caught.value.args[0]).endswith(". All is as it was before.")
        return str(caught.value.args[0])

    def tree(self) -> dict[str, str]:
        """All files below /opt."""
        found = {str(path): path.read_text() for path in (self.root / "opt").rglob("*") if path.is_file()}
        return {path: text for path, text in found.items() if not path.endswith(".ananke.lock")}

    def packages(self, environment: str = "jhub") -> dict[str, str]:
        found = {}
        for path in self.prefix(environment).glob("lib/python3.13/site-packages/*.dist-info"):
            name, version = path.name.removesuffix(".dist-info").split("-")
            found[name] = version
        return found

    def file(self, name: str) -> Path:
        return self.root / SETTINGS.format(name).lstrip("/")


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    return Hub(tmp_path)


def feature(
    name: str, lock: str, environment: str = "jhub", check: str = "true", applies: str = "server", text: str = "{}"
) -> dict[str, Any]:
    """A feature with these packages, and a file."""
    locked = "".join(f"{one} \\\n    --hash=sha256:{'0' * 64}\n    # via {name}\n" for one in lock.split())
    return {
        name: {
            "title": name.upper(),
            "applies": applies,
            "environment": {},
            "variants": {
                "": {
                    "main": [environment.removesuffix("-only"), lock.split("=")[0]],
                    "packages": {environment: f"# locked\n{locked}"},
                }
            },
            "files": {SETTINGS.format(name): {"content": text, "executable": False}},
            "check": check,
        }
    }


LSP = feature("lsp", "lsp==1 shared==1")
MYST = feature("myst", "myst==1 shared==1 old==1", applies="reload")


def test_a_feature_is_added_once(hub: Hub) -> None:
    result = hub.run(LSP)
    assert (result["changed"], result["added"], result["applies"]) == (True, ["lsp"], "server")
    assert result["features"] == [{"name": "lsp", "title": "LSP", "variant": "", "version": "1", "report": {}}]
    assert result["diff"] == {"before": "", "after": "lsp\n"}
    assert hub.packages() == {"old": "1", "lsp": "1", "shared": "1"}
    assert hub.packages("python3") == {"old": "1"}
    assert hub.file("lsp").read_text() == "{}"
    before = hub.tree()
    result = hub.run(LSP)
    assert (result["changed"], result["commands"], result["applies"]) == (False, [], "")
    assert hub.tree() == before


def test_a_shared_package_stays_as_long_as_anybody_needs_it(hub: Hub) -> None:
    hub.run(LSP)
    result = hub.run(LSP, MYST)
    assert (result["added"], result["applies"]) == (["myst"], "reload")
    result = hub.run(MYST)
    assert (result["removed"], result["applies"]) == (["lsp"], "server")
    assert hub.packages() == {"old": "1", "myst": "1", "shared": "1"}
    assert not hub.file("lsp").exists()
    hub.run()
    assert hub.packages() == {"old": "1"}
    assert [path for path in hub.tree() if "old" not in path and "/bin/" not in path] == []


def test_all_new_features_need_one_uv_for_each_kind(hub: Hub) -> None:
    base, widgets = feature("base", "numpy==1", "python3"), feature("widgets", "half==1", "jhub-only")
    hub.run(LSP, MYST, base, widgets)
    assert len(hub.log()) == 3
    assert [("--no-deps" in line, "--require-hashes" in line) for line in hub.log()] == [
        (False, True),
        (True, True),
        (False, True),
    ]
    assert hub.packages("python3") == {"old": "1", "numpy": "1"}
    assert hub.packages()["half"] == "1"


def test_other_features_stay_unless_the_set_is_exact(hub: Hub) -> None:
    hub.run(LSP)
    assert hub.run(MYST, exactly=False)["removed"] == []
    assert sorted(hub.packages()) == ["lsp", "myst", "old", "shared"]


def test_another_lock_is_an_update(hub: Hub) -> None:
    hub.run(LSP)
    result = hub.run(feature("lsp", "lsp==2 fresh==1"))
    assert (result["added"], result["updated"], result["features"][0]["version"]) == ([], ["lsp"], "2")
    assert hub.packages() == {"old": "1", "lsp": "2", "fresh": "1"}


def test_what_somebody_removed_comes_back(hub: Hub) -> None:
    hub.run(LSP)
    hub.file("lsp").unlink()
    assert hub.run(LSP)["updated"] == ["lsp"]
    assert hub.file("lsp").exists()
    python = str(hub.prefix("jhub") / "bin/python")
    subprocess.run(
        [hub.prefix("jhub") / "bin/uv", *("pip", "uninstall", "--python", python, "--break-system-packages", "shared")],
        check=True,
    )
    assert hub.run(LSP)["updated"] == ["lsp"]
    assert hub.packages()["shared"] == "1"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Failed to fetch https://u:secret@pypi/x\ncause: tcp connect error: Connection refused", "cannot be reached"),
        ("Hash mismatch for `lsp==1`\nComputed:\n  sha256:123", "another file than the lock says"),
        ("failed to write: No space left on device (os error 28)", "the disk is full"),
        ("No solution found when resolving dependencies", "lacks a locked package"),
        ("something else", "uv pip install failed: something else"),
    ],
)
def test_a_failing_uv_leaves_all_as_before(hub: Hub, said: str, words: str) -> None:
    hub.run(MYST)
    hub.uv(said)
    why = hub.fails(MYST, LSP)
    assert words in why
    assert "secret" not in why
    hub.uv("")
    assert hub.run(MYST, LSP)["added"] == ["lsp"]


def test_a_failing_check_takes_everything_back(hub: Hub) -> None:
    hub.run(LSP, MYST)
    update = feature("lsp", "lsp==2 fresh==1", check="echo it does not complete >&2; exit 1", text="[]")
    assert "feature lsp does not work here, its check says: it does not complete" in hub.fails(update)
    assert hub.packages() == {"old": "1", "lsp": "1", "shared": "1", "myst": "1"}
    assert hub.run(LSP, MYST)["changed"] is False


def test_an_extension_that_fails_now_takes_everything_back(hub: Hub) -> None:
    hub.broken({"theirs": "does not fit"})
    result = hub.run(LSP)
    assert result["problems"] == ["theirs does not fit, and did so before"]
    bad = feature("bad", "bad==1")
    (hub.root / "worse").write_text('{"theirs": "does not fit", "ours": "fails in the server"}\n')
    generic = f"test -d {hub.prefix('jhub')}/lib/python3.13/site-packages/bad && cat {hub.root}/worse || cat {hub.root}/broken"
    assert hub.fails(LSP, bad, checks=generic).startswith("ours fails in the server")


def test_what_no_feature_brought_is_never_changed(hub: Hub) -> None:
    why = hub.fails(feature("bad", "bad==1 old==2"))
    assert "environment jhub has old 1 instead of 2. Features change no package that they have not brought" in why
    assert hub.log() == []


def test_what_another_feature_needs_is_never_changed(hub: Hub) -> None:
    hub.run(LSP)
    why = hub.fails(feature("bad", "bad==1 shared==2"), exactly=False)
    assert "shared 1 instead of 2, as the installed lsp needs it: give all features in one task" in why
    assert hub.run(feature("lsp", "lsp==1 shared==2"), feature("bad", "bad==1 shared==2"))["updated"] == ["lsp"]


def test_a_file_that_an_admin_changed_stays_and_is_reported(hub: Hub) -> None:
    hub.run(LSP)
    hub.file("lsp").write_text('{"mine": 1}')
    result = hub.run(LSP)
    assert result["changed"] is False
    assert len(result["problems"]) == 1
    assert "etc/lsp.json of the feature lsp was changed in this hub: it stays so" in result["problems"][0]
    assert "it stays so" in hub.run(feature("lsp", "lsp==2", text="[]"))["problems"][0]
    assert hub.file("lsp").read_text() == '{"mine": 1}'
    assert "it is left, though its feature is not" in hub.run()["problems"][0]
    assert hub.file("lsp").read_text() == '{"mine": 1}'
    assert hub.run()["problems"] == []


def test_check_mode_changes_nothing(hub: Hub) -> None:
    hub.run(LSP)
    before = hub.tree()
    result = hub.run(MYST, feature("hubwide", "hubwide==1", applies="hub"), check=True)
    assert (result["changed"], result["added"], result["removed"]) == (True, ["hubwide", "myst"], ["lsp"])
    assert result["applies"] == "hub"
    assert [one["name"] for one in result["features"]] == ["hubwide", "myst"]
    assert result["diff"] == {"before": "lsp\n", "after": "hubwide\nmyst\n"}
    assert (result["commands"], hub.tree()) == ([], before)
    assert hub.run(LSP, check=True)["changed"] is False


def build(hub: Hub, tmp_path: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the program as the build of an image does."""
    parameters = tmp_path / "feature.json"
    parameters.write_text(json.dumps(hub.parameters(more.pop("features"), **more)))
    argv = [sys.executable, "-I", hub_feature_sets.__file__, str(parameters)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_build_of_an_image(hub: Hub, tmp_path: Path) -> None:
    done = build(hub, tmp_path, features=LSP, exactly=False)
    assert (done.returncode, done.stdout) == (0, "LSP (lsp 1)\n"), done.stderr
    bad = feature("bad", "bad==1", check="echo no >&2; exit 1")
    done = build(hub, tmp_path, features=bad, exactly=False)
    assert done.returncode == 1
    assert done.stderr == "feature bad does not work here, its check says: no. All is as it was before.\n"


def test_the_next_run_takes_back_what_a_killed_one_left(hub: Hub, tmp_path: Path) -> None:
    hub.run(LSP)
    before = hub.tree()
    hub.uv("kill")
    assert build(hub, tmp_path, features={**feature("lsp", "lsp==2"), **MYST}).returncode == -9
    hub.uv("")
    assert hub.packages()["lsp"] == "2"
    assert hub.run(LSP, check=True)["changed"] is True
    # somebody installs another package before the next run
    site = hub.prefix("jhub") / "lib/python3.13/site-packages"
    for path, text in (
        ("other/__init__.py", ""),
        ("other-1.dist-info/RECORD", "other/__init__.py,,\nother-1.dist-info/RECORD,,\n"),
    ):
        (site / path).parent.mkdir()
        (site / path).write_text(text)
    result = hub.run(LSP)
    assert (result["changed"], result["added"], result["updated"]) == (True, [], [])
    assert {path for path in hub.tree() if "/other" not in path} == set(before)
    assert hub.packages() == {"old": "1", "lsp": "1", "shared": "1", "other": "1"}
    assert hub.run(LSP)["changed"] is False


def test_an_environment_made_anew_meanwhile_is_left_alone(hub: Hub, tmp_path: Path) -> None:
    hub.uv("kill")
    build(hub, tmp_path, features=LSP)
    hub.uv("")
    history = hub.prefix("jhub") / "conda-meta/history"
    history.parent.mkdir()
    history.write_text("==> later <==\n")
    hub.run()
    assert history.exists()


def test_the_index_is_the_named_one_or_the_images(hub: Hub) -> None:
    hub.run(feature("one", "one==1"))
    (hub.root / "etc").mkdir()
    (hub.root / "etc/pip.conf").write_text("[global]\nindex-url = https://mirror.example.org/simple\n")
    hub.run(feature("two", "two==1"))
    hub.run(feature("three", "three==1"), pip_index="https://other.example.org/simple")
    installs = [line.split()[0] for line in hub.log() if " install " in line]
    assert installs == ["-", "https://mirror.example.org/simple", "https://other.example.org/simple"]


def test_a_module_goes_to_the_environments_own_python(hub: Hub) -> None:
    one = feature("lsp", "lsp==1")
    path = "/opt/conda/envs/jhub/lib/{}/site-packages/ananke_lsp.py"
    one["lsp"]["files"] = {path.format("python3"): {"content": "pass\n", "executable": True}}
    hub.run(one)
    written = hub.root / path.format("python3.13").lstrip("/")
    assert os.access(written, os.X_OK)
    assert hub.run(one)["changed"] is False
    hub.run()
    assert not written.exists()


def test_what_is_no_hub(hub: Hub, tmp_path: Path) -> None:
    (hub.prefix("jhub") / "bin/uv").unlink()
    assert "bin/uv is missing: features need a hub whose image this collection built" in hub.fails(LSP)
    (tmp_path / "empty").mkdir()
    with pytest.raises(hub_feature_sets.Failure, match="there is no /opt/conda/envs"):
        hub.run(LSP, root=str(tmp_path / "empty"))


def test_what_is_mounted_in_an_environment_is_not_undone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own configuration is a mount inside jhub; an admin may add a file to it while a feature fails."""
    mounted = hub.prefix("jhub") / "mounted"
    mounted.mkdir()
    monkeypatch.setattr(hub_feature_sets.os.path, "ismount", lambda path: path == str(mounted))
    hub.uv("error: dns error")
    with pytest.raises(hub_feature_sets.Failure):
        hub.run(LSP)
    assert (mounted / "meanwhile").exists()
    assert not list(hub.prefix("jhub").rglob("half"))
