"""The local conda channel in clean Debian systems: installer, environments, a kernel that runs a cell.

Needs root, podman and the network; a few minutes for both releases. Timings go to build/channel-timings.json.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from channel import server
from channel.build import build
from channel.common import SUITES, Suite, sha256
from testbed import base, podman
from testbed.common import extra_cas, prefix

ROOT = Path(__file__).resolve().parents[2]
TIMINGS = ROOT / "build/channel-timings.json"
CELL = """
import sys
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60)
printed = []
try:
    reply = client.execute_interactive(
        "import sys, numpy; print(sys.prefix, int(numpy.arange(10).sum()) - 3)",
        timeout=60,
        output_hook=lambda message: printed.append(message["content"].get("text", "")),
    )
    assert reply["content"]["status"] == "ok", reply
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print("cell:", "".join(printed).strip())
"""


@dataclass
class Host:
    """A clean Debian system in a container, with the channel's base environment in /opt/conda."""

    suite: Suite
    container: str
    channel: dict[str, Any]
    url: str
    """The channel over HTTP."""
    timings: dict[str, float] = field(default_factory=dict)

    def sh(self, script: str, *, rc: int | None = 0, timed: str = "") -> CompletedProcess[str]:
        """Run a script as root in a login shell; it must end with `rc`, if one is given."""
        start = time.monotonic()
        done = podman.run(["exec", self.container, "bash", "-lc", script], check=False, capture_output=True)
        if timed:
            self.timings[timed] = round(time.monotonic() - start, 1)
        assert rc is None or done.returncode == rc, (
            f"{script}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done

    def environments(self) -> set[str]:
        """Return the names of conda's environments."""
        return {Path(path).name for path in json.loads(self.sh("conda info --json").stdout)["envs"]} - {"conda"}


@pytest.fixture(scope="module", params=sorted(SUITES, reverse=True))
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A clean system of each release, in which the installer has run."""
    suite = SUITES[request.param]
    folder = ROOT / "build" / ("channel" if suite.name == "trixie" else f"channel-{suite.name}")
    channel = build(suite, folder)
    container = f"{prefix()}-channel-{suite.name}"
    state = folder.with_name(f"{folder.name}.test-server.json")
    url = server.start(folder, "127.0.0.1", 0, state)
    podman.run(["rm", "--force", "--ignore", container], capture_output=True)
    mounts = [f"--volume={folder}:/srv/channel:ro"]
    mounts += [f"--volume={path}:/usr/local/share/ca-certificates/{path.name}:ro" for path in extra_cas()]
    options = ["--detach", "--init", "--network=host", f"--name={container}", *mounts]
    try:
        podman.run(["run", *options, base.ensure(suite.name), "sleep", "infinity"], capture_output=True)
        result = Host(suite, container, channel, url, {"build": channel["seconds"]})
        result.sh("apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates")
        result.sh("! command -v python3 && ! test -e /opt/conda")
        result.sh("bash /srv/channel/installer.sh -b -p /opt/conda", timed="installer")
        result.sh("ln -s /opt/conda/etc/profile.d/conda.sh /etc/profile.d/conda.sh")
        yield result
        known = json.loads(TIMINGS.read_text()) if TIMINGS.exists() else {}
        TIMINGS.write_text(json.dumps({**known, suite.name: result.timings}, indent=1) + "\n")
    finally:
        podman.run(["rm", "--force", "--ignore", "--time", "0", container], capture_output=True)
        server.stop(state)


@pytest.fixture(scope="module")
def python3(host: Host) -> Host:
    """The host with an environment `python3`, made from the channel as a folder."""
    host.sh(
        "conda create -y -q -n python3 --override-channels -c file:///srv/channel"
        f" python={host.suite.python} ipykernel numpy",
        timed="create python3 (file)",
    )
    assert host.environments() == {"python3"}
    return host


def test_channel_json_describes_what_is_there(host: Host) -> None:
    facts = json.loads(Path(host.channel["channel_dir"], "channel.json").read_text())
    assert facts["suite"] == host.suite.name
    assert facts["python"].startswith(f"{host.suite.python}.")
    assert facts["installer_sha256"] == sha256(Path(facts["installer"]))
    listed = Path(f"{facts['installer']}.sha256").read_text().split()
    assert listed == [facts["installer_sha256"], "installer.sh"]


def test_every_package_is_what_the_index_says(host: Host) -> None:
    folder = Path(host.channel["channel_dir"])
    for subdir in ("linux-64", "noarch"):
        packages = json.loads((folder / subdir / "repodata.json").read_text())["packages.conda"]
        assert {path.name for path in (folder / subdir).glob("*.conda")} == set(packages)
        assert all(sha256(folder / subdir / name) == entry["sha256"] for name, entry in packages.items())


def test_an_unchanged_channel_is_not_built_again(host: Host) -> None:
    folder = Path(host.channel["channel_dir"])
    before = folder.stat().st_ino
    start = time.monotonic()
    assert build(host.suite, folder) == host.channel
    host.timings["build, unchanged"] = round(time.monotonic() - start, 2)
    assert folder.stat().st_ino == before


def test_base_is_a_working_conda(host: Host) -> None:
    info = json.loads(host.sh("conda info --json").stdout)
    assert (info["conda_version"], info["root_prefix"]) == ("24.7.1", "/opt/conda")
    assert info["python_version"].startswith(host.channel["python"])
    listed = {entry["name"] for entry in json.loads(host.sh("conda list --json").stdout)}
    assert {"python", "python_abi", "conda", "pip", "pycosat"} <= listed
    host.sh("/opt/conda/bin/python -m pip check")


def test_base_is_byte_compiled(host: Host) -> None:
    find = "find /opt/conda/lib/python3* -name '*.py' -path '*/{}/*' -not -path '*/lib2to3/tests/*' | wc -l"
    for part in ("site-packages/conda", "site-packages/requests", "asyncio"):
        sources = int(host.sh(find.format(part)).stdout)
        compiled = int(host.sh(find.format(part).replace("'*.py'", "'*.pyc'")).stdout)
        assert compiled == sources > 0
    probe = "import asyncio, conda, os; print(asyncio.__cached__, os.path.exists(asyncio.__cached__))"
    # an import that writes nothing proves that the times in the byte code fit
    before = host.sh("find /opt/conda/lib -name '*.pyc' -printf '%p %T@\\n' | sort | sha256sum").stdout
    assert host.sh(f"/opt/conda/bin/python -c {shlex.quote(probe)}").stdout.split()[1] == "True"
    assert host.sh("find /opt/conda/lib -name '*.pyc' -printf '%p %T@\\n' | sort | sha256sum").stdout == before


def test_no_trace_of_the_build_machine_or_of_placeholders(host: Host) -> None:
    assert host.sh("grep -rlE '/[.]channel[a-z-]*-work-|/staged/' --include='*.pyc' /opt/conda", rc=1).stdout == ""
    assert host.sh("grep -rl conda_channel_prefix_placeholder /opt/conda/bin /opt/conda/etc", rc=1).stdout == ""


def test_installer_refuses_what_it_cannot_do(host: Host) -> None:
    assert "exists already" in host.sh("bash /srv/channel/installer.sh -b -p /opt/conda", rc=1).stderr
    cut = "head -c 2000000 /srv/channel/installer.sh > /tmp/cut.sh && bash /tmp/cut.sh -b -p /tmp/cut"
    assert "damaged or incomplete" in host.sh(cut, rc=1).stderr
    assert "holds a space" in host.sh("bash /srv/channel/installer.sh -b -p '/tmp/a b'", rc=1).stderr
    host.sh("test ! -e /tmp/cut && test ! -e '/tmp/a b'")
    other = "sed \"s/^GLIBC=.*/GLIBC='9.9'/\" /srv/channel/installer.sh > /tmp/o.sh && bash /tmp/o.sh -b -p /tmp/o"
    assert "needs glibc 9.9" in host.sh(other, rc=1).stderr


def test_standard_library_is_complete_and_relocated(python3: Host) -> None:
    modules = "bz2 ctypes curses dbm hashlib lzma readline sqlite3 ssl uuid venv zlib zoneinfo multiprocessing"
    script = (
        f"import {', '.join(modules.split())}, sys, sysconfig, numpy, json, site;"
        "sqlite3.connect(':memory:').execute('select 1'); ctypes.CDLL('libc.so.6');"
        "lzma.decompress(lzma.compress(b'x')); zoneinfo.ZoneInfo('Europe/Berlin');"
        "print(json.dumps([sys.prefix, sys.path[1:], sysconfig.get_path('purelib'), site.getsitepackages(),"
        "ssl.get_default_verify_paths().openssl_capath]))"
    )
    found = json.loads(python3.sh(f"conda run -n python3 python -c {shlex.quote(script)}").stdout)
    home = "/opt/conda/envs/python3"
    library = f"{home}/lib/python{python3.suite.python}"
    where, path, purelib, sites, certificates = found
    assert where == home
    assert all(entry.startswith(f"{home}/lib/") for entry in path), "modules of the system must not be seen"
    assert purelib == sites[0] == f"{library}/site-packages"
    assert certificates == "/usr/lib/ssl/certs"  # Debian's link to /etc/ssl/certs
    maps = "import ssl, sqlite3, ctypes, bz2, lzma, readline, zlib; print(open('/proc/self/maps').read())"
    loaded = python3.sh(f"{home}/bin/python -c {shlex.quote(maps)}").stdout
    for name in ("libssl", "libsqlite3", "libffi", "libbz2", "liblzma", "libz", "libreadline"):
        assert re.search(rf"{home}/lib/{name}\.so", loaded), f"{name} is not the environment's own"


def test_system_certificates_are_trusted(python3: Host) -> None:
    script = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) or ssl.get_default_verify_paths())"
    python3.sh(f"conda run -n python3 python -c {shlex.quote(script)}")
    python3.sh("conda run -n python3 python -m pip install -q --no-cache-dir six")  # over TLS, from PyPI
    assert "site-packages/six" in python3.sh("/opt/conda/envs/python3/bin/python -c 'import six; print(six)'").stdout


def test_a_cell_runs_in_the_kernel(python3: Host) -> None:
    pinned = re.search(r"^(jupyter-client==\S+)", python3.suite.lock.read_text(), re.MULTILINE)
    assert pinned is not None
    python3.sh(f"/opt/conda/bin/python -m venv /tmp/client && /tmp/client/bin/pip install -q {pinned[1]}")
    python3.sh(f"cat > /tmp/cell.py <<'END'\n{CELL}\nEND")
    run = "JUPYTER_PATH=/opt/conda/envs/python3/share/jupyter /tmp/client/bin/python /tmp/cell.py"
    assert "cell: /opt/conda/envs/python3 42" in python3.sh(run, timed="kernel start and cell").stdout


def test_activate_in_a_login_shell(python3: Host) -> None:
    shown = python3.sh(
        "conda activate python3 && command -v python && echo $CONDA_DEFAULT_ENV && conda deactivate"
    ).stdout
    assert shown.split() == ["/opt/conda/envs/python3/bin/python", "python3"]
    sourced = ". /opt/conda/bin/activate python3 && command -v python"
    assert python3.sh(f"bash --norc -c {shlex.quote(sourced)}").stdout.strip().endswith("/envs/python3/bin/python")
    dash = ". /opt/conda/etc/profile.d/conda.sh && conda activate python3 && command -v python"
    assert python3.sh(f"dash -c {shlex.quote(dash)}").stdout.strip().endswith("/envs/python3/bin/python")
    python3.sh("conda activate nothing-of-that-name", rc=1)


def test_conda_run_returns_the_exit_status(python3: Host) -> None:
    python3.sh("conda run -n python3 python -c 'raise SystemExit(7)'", rc=7)


def test_install_into_environments(python3: Host) -> None:
    python3.sh(f"conda install -y -q -n python3 --override-channels -c {python3.url} uv wheel setuptools pyyaml")
    assert "uv " in python3.sh("/opt/conda/envs/python3/bin/uv --version").stdout
    python3.sh(
        "/opt/conda/envs/python3/bin/uv pip install -q --python /opt/conda/envs/python3/bin/python"
        " --system-certs iniconfig"
    )
    python3.sh("/opt/conda/envs/python3/bin/python -c 'import iniconfig, yaml, setuptools'")
    python3.sh(f"conda install -y -q -n base --override-channels -c {python3.url} wheel")
    assert python3.sh("conda --version").stdout == "conda 24.7.1\n"


def test_environment_over_http_and_its_removal(python3: Host) -> None:
    channel = f"--override-channels -c {python3.url}"
    python3.sh("conda clean -afy")
    python3.sh(f"conda create -y -q -n other {channel} python={python3.suite.python} ipykernel", timed="create (http)")
    assert python3.environments() == {"python3", "other"}
    python3.sh("conda run -n other python -c 'import ipykernel'")
    python3.sh("conda env remove -y -n other && test ! -e /opt/conda/envs/other", timed="remove")
    assert python3.environments() == {"python3"}
    python3.sh("conda run -n python3 python -c 'import numpy, ipykernel'")


def test_channels_come_from_a_condarc(python3: Host) -> None:
    python3.sh(f"printf 'channels: [{python3.url}]\\n' > /opt/conda/.condarc")
    python3.sh("conda create -y -q -n bare pip && conda env remove -y -n bare; rm /opt/conda/.condarc")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("no-such-package", "PackagesNotFoundError"), ("numpy=0.1", "PackagesNotFoundError"), ("python=2.7 numpy", "")],
)
def test_what_the_channel_lacks_is_an_error(host: Host, wanted: str, said: str) -> None:
    failed = host.sh(f"conda create -y -q -n wrong --override-channels -c file:///srv/channel {wanted}", rc=1)
    assert said in failed.stderr
    assert "wrong" not in host.environments()
