"""The NVIDIA container toolkit without a GPU: what is said, and, with packages that only look like NVIDIA's, how repository, version and refresh work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Apply

from testbed.machine import Machine

REPOSITORY = "/srv/stand-in"
NAME = "gamer"
TAG = "nvidia_container_toolkit"
FITTING = {"trixie": "1.19.1-1", "bookworm": "1.17.8-1"}
FILES = {
    "control": """\
Package: nvidia-container-toolkit-base
Version: @VERSION@
Architecture: all
Maintainer: nobody
Description: stand-in
""",
    "program": """\
#!/bin/sh
file=${3#--output=}
mkdir -p "${file%/*}"
cat >"$file" <<'END'
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
  - name: all
    containerEdits:
      env: [STAND_IN=@VERSION@]
      deviceNodes:
        - {path: /dev/stand-in}
END
""",
    "nvidia-cdi-refresh.service": """\
[Service]
Type=oneshot
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml
[Install]
WantedBy=multi-user.target
""",
    "nvidia-cdi-refresh.path": """\
[Path]
PathChanged=/usr/bin/nvidia-ctk
[Install]
WantedBy=multi-user.target
""",
}
# The shape of NVIDIA's packages: a program that writes a specification, and from 1.18 on units that let it do so.
BUILD = """
set -eu
export GNUPGHOME=$(mktemp -d)
cd {repository}
gpg --batch --quiet --passphrase '' --quick-generate-key 'Stand-in' ed25519 sign 1d
gpg --armor --export >key.asc
for version in 1.17.8-1 1.19.1-1 1.20.0-1; do
    root=$(mktemp -d)
    mkdir -p $root/DEBIAN $root/usr/bin $root/etc/nvidia-container-runtime $root/usr/lib/systemd/system
    sed "s/@VERSION@/$version/" control >$root/DEBIAN/control
    sed "s/@VERSION@/$version/" program >$root/usr/bin/nvidia-ctk
    chmod 755 $root $root/usr/bin/nvidia-ctk
    printf '[nvidia-container-cli]\\n#no-cgroups = false\\n' >$root/etc/nvidia-container-runtime/config.toml
    [ $version = 1.17.8-1 ] || cp nvidia-cdi-refresh.* $root/usr/lib/systemd/system/
    dpkg-deb --build --root-owner-group $root . >/dev/null
    rm -r $root
done
apt-ftparchive packages . >Packages
apt-ftparchive release . >Release
gpg --batch --clearsign --output InRelease Release
gpg --with-colons --show-keys key.asc | sed -n 's/^fpr:*\\([0-9A-F]*\\):.*/\\1/p'
"""
CLEAN = f"""
systemctl disable --now ananke-nvidia-devices.service ananke-cdi-refresh.path ananke-cdi-refresh.service nvidia-cdi-refresh.path nvidia-cdi-refresh.service
apt-get purge -y nvidia-container-toolkit-base
rm -rf {REPOSITORY} /etc/apt/*.d/nvidia-container-toolkit.* /etc/apt/keyrings/nvidia* /var/lib/ananke/nvidia /run/cdi /etc/systemd/system/ananke-cdi-refresh*
rm -rf /etc/systemd/system/ananke-nvidia* /usr/local/lib/ananke/nvidia-devices /var/lib/apt/lists/*stand-in*
systemctl daemon-reload
loginctl disable-linger {NAME}; systemctl stop user@$(id -u {NAME}).service; userdel --remove {NAME}; rm -f /dev/stand-in
"""


def test_a_machine_without_a_gpu_is_told_and_left_alone(machine: Machine, apply: Apply) -> None:
    done = apply(TAG)
    assert (done.status, done.changed) == (0, 0), done.output
    assert "no GPU of NVIDIA" in done.output
    assert not machine.exec("sh", "-c", "ls /etc/apt/*.d/nvidia* /var/run/cdi 2>/dev/null", check=False).stdout


def test_one_that_should_have_one_fails(apply: Apply) -> None:
    failed = apply(TAG, nvidia_container_toolkit_gpu="required")
    assert failed.status != 0
    assert "no GPU of NVIDIA" in failed.output


@pytest.fixture(scope="module")
def stand_in(machine: Machine) -> Iterator[dict[str, str]]:
    """Settings for a repository of packages that are shaped like NVIDIA's."""
    machine.exec("sh", "-c", "apt-get install -y -q --no-install-recommends gpg gpg-agent >/dev/null")
    machine.exec("mkdir", "-p", REPOSITORY)
    for name, text in FILES.items():
        machine.exec("tee", f"{REPOSITORY}/{name}", input=text)
    fingerprint = machine.exec("sh", "-c", BUILD.format(repository=REPOSITORY)).stdout.split()[-1]
    yield {
        f"{TAG}_gpu": "assume",
        f"{TAG}_repository": f"file:{REPOSITORY}",
        f"{TAG}_key_url": f"file://{REPOSITORY}/key.asc",
        f"{TAG}_key_fingerprint": fingerprint,
    }
    machine.exec("sh", "-c", CLEAN, check=False)


def test_another_key_is_not_trusted(machine: Machine, apply: Apply, stand_in: dict[str, str]) -> None:
    refused = apply(TAG, **{**stand_in, f"{TAG}_key_fingerprint": "A" * 40})
    assert refused.status != 0
    assert "nothing of that repository is used" in " ".join(refused.output.split())
    assert not machine.exec(
        "sh", "-c", "ls /etc/apt/keyrings/nvidia* /etc/apt/*.d/nvidia* 2>/dev/null", check=False
    ).stdout


@pytest.fixture(scope="module")
def installed(machine: Machine, apply: Apply, stand_in: dict[str, str]) -> dict[str, str]:
    machine.exec("sh", "-c", "mkdir -p /etc/cdi && echo stale >/etc/cdi/nvidia.yaml")
    foretold = apply(TAG, "--check", **stand_in)
    assert foretold.status == 0, foretold.output
    # without a driver there is nothing to describe, and ours waits for one
    unit = "/etc/systemd/system/ananke-cdi-refresh.service.d"
    machine.exec("sh", "-c", f"mkdir -p {unit} && printf '[Unit]\\nConditionPathExists=\\n' >{unit}/stand-in.conf")
    done = apply(TAG, **stand_in)
    assert done.status == 0, done.output
    again = apply(TAG, **stand_in)
    assert (again.status, again.changed) == (0, 0), again.output
    return stand_in


def test_the_version_fits_podman_and_upgrades_do_not_leave_it(machine: Machine, installed: dict[str, str]) -> None:
    del installed
    fitting = FITTING[machine.suite]
    shown = "dpkg-query -Wf '${Version}' nvidia-container-toolkit-base"
    assert machine.exec("sh", "-c", shown).stdout == fitting
    upgraded = machine.exec(
        "sh", "-c", "apt-get install -s -y nvidia-container-toolkit-base; apt-get -s dist-upgrade"
    ).stdout
    assert "Inst nvidia-container-toolkit-base" not in upgraded


def test_another_version_is_one_setting(machine: Machine, apply: Apply, installed: dict[str, str]) -> None:
    shown = "dpkg-query -Wf '${Version}' nvidia-container-toolkit-base; cat /run/cdi/nvidia.yaml"
    other = apply(TAG, **{**installed, f"{TAG}_version": "1.20.0-1"})
    assert other.status == 0, other.output
    assert machine.exec("sh", "-c", shown).stdout.startswith("1.20.0-1")
    back = apply(TAG, **installed)
    assert back.status == 0, back.output
    now = machine.exec("sh", "-c", shown).stdout
    assert now.startswith(FITTING[machine.suite])
    assert f"STAND_IN={FITTING[machine.suite]}" in now, "the specification is of the version before"


def test_what_is_stale_goes_and_cgroups_are_podmans(machine: Machine, installed: dict[str, str]) -> None:
    del installed
    assert machine.exec("test", "-e", "/etc/cdi/nvidia.yaml", check=False).returncode == 1
    assert "\nno-cgroups = true" in machine.exec("cat", "/etc/nvidia-container-runtime/config.toml").stdout


def test_the_specification_follows_the_program(machine: Machine, installed: dict[str, str]) -> None:
    """As after an update of the driver, which changes other files that are watched as well."""
    del installed
    wait = "for i in $(seq 60); do sleep 1; test -e /run/cdi/nvidia.yaml && break; done"
    script = f"rm /run/cdi/nvidia.yaml; touch /usr/bin/nvidia-ctk; {wait}; ls /run/cdi"
    assert machine.exec("sh", "-c", script).stdout == "nvidia.yaml\n"


def test_rootless_podman_resolves_the_name(machine: Machine, installed: dict[str, str]) -> None:
    del installed
    script = f"""
        set -e; useradd --create-home {NAME} && usermod --add-subuids 700000-765535 --add-subgids 700000-765535 {NAME}
        loginctl enable-linger {NAME}; cd /home/{NAME}; mkdir -p root/dev root/proc root/sys
        mknod -m 666 /dev/stand-in c 1 3
        for p in /bin/sh /bin/ls; do for f in $p $(ldd $p | grep -o '/[^ ]*'); do install -D $f root$f; done; done; chown -R {NAME}: root
        until test -S /run/user/$(id -u {NAME})/systemd/private; do sleep 0.2; done
        exec runuser -u {NAME} -- env XDG_RUNTIME_DIR=/run/user/$(id -u {NAME}) podman run --rm --device=nvidia.com/gpu=all \
            --rootfs /home/{NAME}/root sh -c 'echo $STAND_IN; ls /dev/stand-in'
    """
    assert machine.exec("sh", "-c", script).stdout.split() == [FITTING[machine.suite], "/dev/stand-in"]
