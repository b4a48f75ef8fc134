"""``python -m inside_bench``: ten kernels, and an image with all features, beside the bare commands in the same run.

Kernels: wall seconds and processes of conda for ten environments that are made and offered, renamed and removed, by the collection's modules
and by conda and Jupyter themselves, in the same container. Image: seconds of the build and bytes, beside one installation of the
same packages. TensorFlow is left out of it. Written to ``build/inside-bench.json``.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.ananke.jupyterhub.plugins.module_utils import features
from bench import Bench

import demo
import playbook

RESULT = playbook.ROOT / "build/inside-bench.json"
HUB = "inside"
NAMES = [f"course{number}" for number in range(10)]
PACKAGES = ["python=3.13", "ipykernel"]
ENVS = "/opt/conda/envs"
COUNT = "/var/tmp/conda-processes"  # noqa: S108 - in a container of our own
COUNTING = f"""\
cd /opt/conda/bin; [ -e conda.real ] || mv conda conda.real
printf '#!/bin/sh\\necho "$@" >>{COUNT}\\nexec /opt/conda/bin/python /opt/conda/bin/conda.real "$@"\\n' >conda; chmod 755 conda
"""
UV = "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_NO_CACHE=1 UV_LINK_MODE=copy /opt/conda/envs/jhub/bin/uv"
BUILD = "CONTAINERS_STORAGE_CONF=/var/lib/ananke/builds/storage.conf podman"
PODMAN = "CONTAINERS_STORAGE_CONF=/etc/ananke/storage.conf podman"


class Inside:
    """One hub on a machine of its own."""

    def __init__(self) -> None:
        self.bench = Bench("inside", 8743)
        self.bench.site()
        self.bench.play([HUB])
        self.inventory = self.bench.inventory([HUB])

    def shell(self, script: str) -> str:
        """Run a script as root in the hub's container."""
        user = f"runuser -u {HUB} -- env XDG_RUNTIME_DIR=/run/user/$(id -u {HUB}) podman exec ananke-{HUB}"
        return self.bench.root(f"cd /; {user} bash -euc {shlex.quote(script)}")

    def each(self, module: str, **options: Any) -> bool:
        """Run a module for each environment; whether anything changed."""
        task = {
            f"ananke.jupyterhub.{module}": {"container": f"ananke-{HUB}", **options},
            "become_user": HUB,
            "loop": NAMES,
        }
        result = playbook.task(self.inventory, HUB, task)
        assert not result.get("failed"), result
        return bool(result["changed"])

    def counted(self, act: Callable[[], Any]) -> dict[str, Any]:
        """Wall seconds, and how many processes of conda were started."""
        self.shell(f": >{COUNT}")
        started = time.monotonic()
        act()
        wall = time.monotonic() - started
        return {"s": round(wall, 1), "conda_processes": len(self.shell(f"cat {COUNT}").splitlines())}

    def kernels(self) -> dict[str, Any]:
        """Ten kernels made, renamed, listed and removed: ours, and bare."""
        self.shell(COUNTING)
        jhub, specs = f"{ENVS}/jhub", f"{ENVS}/jhub/share/jupyter/kernels"
        offer = "for name in %s; do %s/$name/bin/python -m ipykernel install --prefix %s --name $name --display-name %s; done"
        names = " ".join(NAMES)
        create = f"for name in {names}; do conda create -y -q -n $name {' '.join(PACKAGES)}; done; "
        path = "PATH=/opt/conda/bin:$PATH; "
        bare: dict[str, Callable[[], Any]] = {
            "made": lambda: self.shell(path + create + offer % (names, ENVS, jhub, "$name")),
            "renamed": lambda: self.shell(offer % (names, ENVS, jhub, "Now-$name")),
            "listed": lambda: self.shell(path + "conda env list"),
            "removed": lambda: self.shell(
                path + f"for name in {names}; do conda env remove -y -q -n $name; rm -r {specs}/$name; done"
            ),
        }
        ours: dict[str, Callable[[], Any]] = {
            "made": lambda: (
                self.each("conda_environment", name="{{ item }}", packages=PACKAGES),
                self.each("conda_kernel", environment="{{ item }}"),
            ),
            "renamed": lambda: self.each("conda_kernel", environment="{{ item }}", display_name="Now {{ item }}"),
            "listed": lambda: playbook.task(
                self.inventory,
                HUB,
                {
                    "ananke.jupyterhub.hub_info": {"container": f"ananke-{HUB}", "gather": ["kernels"]},
                    "become_user": HUB,
                },
            ),
            "removed": lambda: self.each("conda_environment", name="{{ item }}", state="absent"),
        }
        self.counted(bare["made"])  # downloads, which neither is to pay
        self.counted(bare["removed"])
        result = {}
        for act in bare:
            result[act] = {"bare": self.counted(bare[act])}
        for act in ours:
            result[act]["ours"] = self.counted(ours[act])
        self.shell("mv /opt/conda/bin/conda.real /opt/conda/bin/conda")
        return result

    def size(self, image: str, podman: str = PODMAN) -> int:
        """Bytes of an image in the shared store, or that of builds."""
        return int(self.bench.root(f"{podman} image inspect --format '{{{{.Size}}}}' {image}"))

    def image(self) -> dict[str, Any]:
        """An image with all features but TensorFlow, and the same packages by one installation for each environment."""
        chosen = [name for name in features.names() if name != "tensorflow"]
        standard = json.loads(self.bench.root("cat /var/lib/ananke/images/standard.json"))["reference"]
        before = self.size(standard)
        definitions = {"hub_image_definitions": [{"name": "standard"}, {"name": "features", "features": chosen}]}
        started = time.monotonic()
        options = ("--tags", "hub_image", "--extra-vars", json.dumps(definitions))
        playbook.succeed("images", playbook.ROOT / "inventories/demo", *options, ANANKE_DEMO="inside")
        ours = time.monotonic() - started
        reference = json.loads(self.bench.root("cat /var/lib/ananke/images/features.json"))["reference"]
        our_size = self.size(reference) - before

        started = time.monotonic()
        self.build_bare(standard, chosen)
        bare = time.monotonic() - started
        bare_size = self.size("localhost/bare", BUILD) - before
        return {
            "features": chosen,
            **{"ours_s": round(ours, 1), "bare_s": round(bare, 1), "ratio": round(ours / bare, 2)},
            **{
                "ours_mb": our_size // 10**6,
                "bare_mb": bare_size // 10**6,
                "size_ratio": round(our_size / bare_size, 2),
            },
        }

    def build_bare(self, base: str, chosen: list[str]) -> None:
        """Install what these features need, with uv and nothing else."""
        only = {f"{name}.txt": lock(name, "jhub-only") for name in chosen if lock(name, "jhub-only").exists()}
        texts = {"jhub.txt": features.FOLDER / "jhub.txt", "python3.txt": features.FOLDER / "python3.txt", **only}
        install = f"RUN {UV} pip install --break-system-packages --python {ENVS}/{{}}/bin/python {{}}"
        lines = [
            *(f"FROM {base}", "COPY locks /locks"),
            install.format("jhub", "-r /locks/jhub.txt"),
            install.format("jhub", "--no-deps " + " ".join(f"-r /locks/{name}" for name in only)),
            install.format("python3", "-r /locks/python3.txt"),
        ]
        files = {f"locks/{name}": path.read_text() for name, path in texts.items()}
        script = "rm -rf /tmp/bare; mkdir -p /tmp/bare/locks; cd /tmp/bare\n"
        for name, text in {**files, "Containerfile": "\n".join(lines)}.items():
            script += f"cat >{name} <<'END'\n{text}\nEND\n"
        limits = "--ulimit=nofile=1024:20000 --ulimit=nproc=8192:8192"
        self.bench.root(f"{script}{BUILD} build --network=host --pull=never {limits} --tag localhost/bare .")


def lock(feature: str, name: str) -> Path:
    """A lock file of a feature, which it need not have."""
    return Path(features.FOLDER) / feature / f"{name}.txt"


def main() -> None:
    """Command line."""
    inside = Inside()
    try:
        result = {"kernels": inside.kernels()}
        print(json.dumps(result["kernels"]), flush=True)
        result["image"] = inside.image()
        print(json.dumps(result["image"]), flush=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    finally:
        demo.down(inside.bench.demo)


if __name__ == "__main__":
    main()
