"""An image from a registry: a real one on the machine, with TLS by the demo's authority."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from facts import ROOT, Demo, Machine
from replace_image import PODMAN, RECORDS, check_move, definitions, derive, record_of, share_store

import playbook
from demo import certify
from testbed.waiting import until

INVENTORY = ROOT / "inventories/demo"
FOLDER = "/root/registry"
CERTIFICATES = "/etc/containers/certs.d"
CONFIG = f"""\
version: 0.1
storage: {{filesystem: {{rootdirectory: {FOLDER}/data}}}}
http: {{addr: "127.0.0.1:5000", tls: {{certificate: {FOLDER}/registry.pem, key: {FOLDER}/registry.key}}}}
"""


@dataclass(frozen=True)
class Registry:
    """The registry, and what it holds."""

    machine: Machine
    name: str
    digest: str
    image_id: str

    def trust(self, ca: Path) -> None:
        """Let the machine's podman trust the registry."""
        self.machine.as_root(f"mkdir -p {CERTIFICATES}/{self.name}")
        put(self.machine, ca, f"{CERTIFICATES}/{self.name}/ca.crt")

    def distrust(self) -> None:
        self.machine.as_root(f"rm -rf {CERTIFICATES}/{self.name}")


def put(machine: Machine, source: Path, target: str) -> None:
    machine.as_root(f"cat >{target} <<'END'\n{source.read_text()}END")


@pytest.fixture(scope="module")
def registry(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Debian's registry with one image: that of the hubs, with a label."""
    machine, folder = demo.machine, tmp_path_factory.mktemp("registry")
    certify(demo.ca.parent, "registry", ["localhost"])
    # not installed: Debian's package would start a registry of its own
    machine.as_root(f"mkdir -p {FOLDER} && cd {FOLDER} && apt-get -qq download docker-registry && dpkg -x *.deb .")
    (folder / "config.yml").write_text(CONFIG)
    for path in (folder / "config.yml", demo.ca.with_name("registry.pem"), demo.ca.with_name("registry.key")):
        put(machine, path, f"{FOLDER}/{path.name}")
    machine.as_root(f"systemd-run --quiet --unit=registry {FOLDER}/usr/bin/docker-registry serve {FOLDER}/config.yml")
    try:
        until(lambda: machine.as_root("ss -Hltn 'sport = :5000'").stdout, 30, "the registry listens")
        name, reference = "localhost:5000", "localhost/ananke-e2e:pushed"
        _path, record = record_of(machine, demo.hubs["sandbox"].image_id())
        image_id = derive(machine, record["id"], reference)
        empty = Registry(machine, name, "", image_id)
        empty.trust(demo.ca)
        push = f"{PODMAN} push --quiet --compression-level=1 --digestfile={FOLDER}/digest {reference}"
        machine.as_root(f"{push} docker://{name}/hubs/pushed:1 && {PODMAN} image rm {reference}", timeout=500)
        share_store(machine)
        empty.distrust()
        yield Registry(machine, name, machine.as_root(f"cat {FOLDER}/digest").stdout.strip(), image_id)
    finally:
        machine.as_root(f"systemctl stop registry.service; rm -rf {FOLDER} {CERTIFICATES}/localhost:5000")


def pulled(reference: str) -> dict[str, str]:
    """The image definition that pulls it."""
    return {"name": "pulled", "source": "pull", "reference": reference}


@pytest.mark.parametrize("fault", ["unknown authority", "wrong digest", "registry down"])
def test_a_pull_that_fails_says_what_to_do(fault: str, registry: Registry, demo: Demo) -> None:
    digest, port = registry.digest, "5000"
    expected = f"write the certificate of its authority to {CERTIFICATES}/localhost:5000/ca.crt on the machine"
    registry.distrust()
    if fault == "wrong digest":
        registry.trust(demo.ca)
        digest, expected = f"sha256:{'0' * 64}", "localhost:5000 has no image with this digest; correct the reference"
    if fault == "registry down":
        port, expected = "5001", "nothing answers at localhost:5001; start the registry"
    failed = playbook.run("images", INVENTORY, *definitions(pulled(f"localhost:{port}/hubs/pushed@{digest}")))
    assert failed.status != 0
    assert expected in " ".join(failed.output.split())
    assert registry.machine.as_root(f"ls {RECORDS}").stdout.split() == ["standard.json"]


def test_a_hub_runs_from_an_image_of_a_registry(registry: Registry, demo: Demo, tmp_path: Path) -> None:
    registry.trust(demo.ca)
    image = pulled(f"{registry.name}/hubs/pushed@{registry.digest}")
    check_move(demo.hubs["sandbox"], image, registry.image_id, tmp_path)
