"""What wheels become in the local conda channel, without building it."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from backports import zstd

from channel import build, installer, wheels
from channel.common import PLACEHOLDER, SUITES, ChannelError, replace_once
from channel.package import Package, write_package

TRIXIE = SUITES["trixie"]


def make_wheel(folder: Path, tag: str, members: dict[str, str], requires: tuple[str, ...] = ()) -> Path:
    """Write a small wheel of `Some_Tool` 1.2 and return its path."""
    info = "some_tool-1.2.dist-info"
    metadata = "Metadata-Version: 2.1\nName: Some_Tool\nVersion: 1.2\nLicense: MIT\nmore lines\n"
    metadata = metadata.replace("more lines\n", "".join(f"Requires-Dist: {line}\n" for line in requires))
    everything = {**members, f"{info}/METADATA": metadata}
    record = "".join(f"{name},sha256=x,1\n" for name in everything) + f"{info}/RECORD,,\n"
    path = folder / f"some_tool-1.2-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**everything, f"{info}/RECORD": record}.items():
            archive.writestr(name, content)
    return path


def read_package(path: Path) -> tuple[dict[str, bytes], dict[str, dict]]:
    """Return the files of a .conda package, and its info/*.json."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as whole:
        assert json.loads(whole.read("metadata.json")) == {"conda_pkg_format_version": 2}
        for name in whole.namelist()[1:]:
            with tarfile.open(fileobj=io.BytesIO(zstd.decompress(whole.read(name)))) as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.isreg() else None
                    found[member.name] = stream.read() if stream else b""
    info = {name: json.loads(data) for name, data in found.items() if name.startswith("info/")}
    return {name: data for name, data in found.items() if not name.startswith("info/")}, info


def test_pure_wheel_becomes_noarch(tmp_path: Path) -> None:
    members = {
        "some_tool/__init__.py": "",
        "some_tool-1.2.dist-info/entry_points.txt": "[console_scripts]\nsome-tool = some_tool:main [extra]\n",
        "some_tool-1.2.data/scripts/old": "#!python\nprint()\n",
        "some_tool-1.2.data/data/share/jupyter/kernels/python3/kernel.json": '{"argv": ["python", "-m", "x"]}',
    }
    wheel = make_wheel(tmp_path, "py3-none-any", members, ("jupyter-client>=8,<9", 'colorama; sys_platform == "win32"'))
    package = wheels.stage_wheel(TRIXIE, wheel, tmp_path / "root")
    files, info = read_package(write_package(package, tmp_path / "channel"))

    assert set(files) >= {"site-packages/some_tool/__init__.py", "python-scripts/old"}
    assert files["python-scripts/old"] == f"#!{PLACEHOLDER}/bin/python\nprint()\n".encode()
    assert json.loads(files["share/jupyter/kernels/python3/kernel.json"])["argv"][0] == f"{PLACEHOLDER}/bin/python"
    assert info["info/index.json"]["noarch"] == "python"
    assert info["info/index.json"]["depends"] == ["jupyter_client <9,>=8", "python"]
    assert info["info/link.json"]["noarch"]["entry_points"] == ["some-tool = some_tool:main"]
    described = {entry["_path"]: entry for entry in info["info/paths.json"]["paths"]}
    assert set(described) == set(files)
    assert described["python-scripts/old"]["prefix_placeholder"] == PLACEHOLDER
    assert "prefix_placeholder" not in described["site-packages/some_tool/__init__.py"]


def test_record_names_files_where_they_will_be(tmp_path: Path) -> None:
    members = {"some_tool.py": "", "some_tool-1.2.data/scripts/tool": "#!python\n", "some_tool-1.2.data/data/etc/x": ""}
    wheels.stage_wheel(TRIXIE, make_wheel(tmp_path, "py3-none-any", members), tmp_path / "root")
    record = (tmp_path / "root/site-packages/some_tool-1.2.dist-info/RECORD").read_text()
    paths = [row[0] for row in csv.reader(io.StringIO(record))]
    assert {"some_tool.py", "../../../bin/tool", "../../../etc/x", "some_tool-1.2.dist-info/INSTALLER"} <= set(paths)


def test_compiled_wheel_is_tied_to_its_python(tmp_path: Path) -> None:
    points = {"some_tool-1.2.dist-info/entry_points.txt": "[console_scripts]\ntool = some_tool.cli:App.run\n"}
    wheel = make_wheel(tmp_path, "cp313-cp313-manylinux_2_28_x86_64", {"some_tool/fast.so": "", **points})
    package = wheels.stage_wheel(TRIXIE, wheel, tmp_path / "root")
    files, info = read_package(write_package(package, tmp_path / "channel"))
    index = info["info/index.json"]
    assert "lib/python3.13/site-packages/some_tool/fast.so" in files
    assert index["depends"] == ["python 3.13.*", "python_abi 3.13.* *_cp313"]
    assert (index["subdir"], index["build"][-6:], "noarch" in index) == ("linux-64", "_cp313", False)
    script = files["bin/tool"].decode()
    assert script.startswith(f"#!{PLACEHOLDER}/bin/python\n")
    assert "from some_tool.cli import App\n" in script
    assert "sys.exit(App.run())" in script


def test_unknown_kind_of_data_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "py3-none-any", {"some_tool-1.2.data/secret/x": ""})
    with pytest.raises(ChannelError, match=r"some_tool-1\.2\.data/secret/x"):
        wheels.stage_wheel(TRIXIE, wheel, tmp_path / "root")


def test_requirements_follow_the_suite() -> None:
    metadata = Message()
    for line in (
        'a>1; python_version < "3.12"',
        'b~=2.0; extra == "test"',
        "ruamel-yaml[jinja2] >=0.17",
        "Typing.Extensions",
    ):
        metadata["Requires-Dist"] = line
    assert wheels.depends(metadata, SUITES["trixie"]) == ["ruamel.yaml >=0.17", "typing_extensions"]
    assert wheels.depends(metadata, SUITES["bookworm"]) == ["a >1", "ruamel.yaml >=0.17", "typing_extensions"]


def test_same_content_same_bytes_and_new_content_new_build(tmp_path: Path) -> None:
    written = []
    for number, content in enumerate(["one", "one", "two"]):
        root = tmp_path / f"root{number}"
        root.mkdir()
        (root / "file").write_text(content)
        (root / "link").symlink_to("file")
        written.append(write_package(Package("thing", "1", root, []), tmp_path / f"channel{number}"))
    assert written[0].name == written[1].name
    assert written[0].read_bytes() == written[1].read_bytes()
    assert written[2].name != written[0].name
    files, info = read_package(written[0])
    assert [entry["path_type"] for entry in info["info/paths.json"]["paths"]] == ["hardlink", "softlink"]
    assert files["file"] == b"one"


def write_index(channel: Path, depends: dict[str, list[str]]) -> None:
    """Write an index of a channel with packages of no content."""
    packages = {f"{name}-1-0.conda": {"name": name, "depends": needs} for name, needs in depends.items()}
    for subdir, content in (("linux-64", packages), ("noarch", {})):
        (channel / subdir).mkdir(parents=True)
        (channel / subdir / "repodata.json").write_text(json.dumps({"packages.conda": content}))


def test_base_is_closed_under_requirements(tmp_path: Path) -> None:
    known = {"python": ["__glibc >=2.41"], "conda": ["python", "b >=1"], "pip": [], "b": ["python"], "unneeded": []}
    write_index(tmp_path, known)
    assert [item.record["name"] for item in installer.base_packages(tmp_path)] == ["b", "conda", "pip", "python"]


def test_a_missing_requirement_is_named(tmp_path: Path) -> None:
    write_index(tmp_path, {"python": [], "conda": ["lost >=1"], "pip": []})
    with pytest.raises(ChannelError, match="conda needs lost"):
        installer.base_packages(tmp_path)


def test_patches_notice_that_their_target_changed() -> None:
    assert replace_once("a b", "b", "c", "here") == "a c"
    for text in ("a", "b b"):
        with pytest.raises(ChannelError, match="here: expected 'b' once"):
            replace_once(text, "b", "c", "here")


def test_key_differs_by_suite_and_by_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trixie = build.inputs_key(TRIXIE)
    assert trixie != build.inputs_key(SUITES["bookworm"])
    assert trixie == build.inputs_key(TRIXIE)
    lock = tmp_path / "trixie.lock.txt"
    lock.write_text("pip==1\n")
    monkeypatch.setattr(type(TRIXIE), "lock", lock)
    assert build.inputs_key(TRIXIE) != trixie


def test_changed_or_moved_results_are_not_taken_for_built(tmp_path: Path) -> None:
    output = tmp_path / "channel"
    write_index(output, {})
    content = b"#!/bin/sh\n"
    (output / "installer.sh").write_bytes(content)
    facts = {"channel_dir": str(output), "installer": str(output / "installer.sh"), "key": "k"}
    facts["installer_sha256"] = "6d4a0a7b7a9a4a4b"
    (output / "channel.json").write_text(json.dumps(facts))
    assert build.facts(output) == {}, "the installer has another digest"
    facts["installer_sha256"] = build.sha256(output / "installer.sh")
    (output / "channel.json").write_text(json.dumps(facts))
    assert build.facts(output) == facts
    moved = tmp_path / "moved"
    output.rename(moved)
    assert build.facts(moved) == {}, "it names paths that are gone"


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_everything_is_pinned_with_hashes(suite: str) -> None:
    wanted = {
        wheels.conda_name(line.split(">")[0])
        for line in (build.HERE / "packages.in").read_text().splitlines()
        if line and not line.startswith("#")
    }
    blocks = SUITES[suite].lock.read_text().replace("\\\n", " ").splitlines()
    pinned = {wheels.conda_name(block.split("==")[0]) for block in blocks}
    assert wanted <= pinned
    assert all("==" in block and "--hash=sha256:" in block for block in blocks)
