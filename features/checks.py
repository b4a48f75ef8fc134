# SPDX-License-Identifier: GPL-3.0-or-later
"""What the features' checks share. It runs beside them, with the Python of jhub, as root, in a folder of its own that is its home.

Run by itself, it tells which of JupyterLab's extensions do not fit, and which of the server's fail, as JSON: {NAME: REASON}.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

PATIENCE = 120
"""Seconds until a server or a job must be there; slow disks are slow."""


class Server:
    """A user's server, as far as the hub is not needed for it."""

    def __init__(self, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/"
        self.token = secrets.token_hex()
        self.log = Path("server.log")
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
            *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={os.getcwd()}"),
            *arguments,
        ]
        with self.log.open("wb") as log:
            # as in a user's server; names of sockets must be short
            environment = {**os.environ, "JUPYTER_TOKEN": self.token, "JUPYTER_RUNTIME_DIR": f"{os.getcwd()}/run"}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """The server's answer: what JSON says, or else a text. With a body, it is a POST."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data, headers, method=method)  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error}: {error.read().decode()[-500:]}") from error
        try:
            return json.loads(text)
        except ValueError:
            return text

    def page(self) -> dict[str, Any]:
        """What JupyterLab's page is told in the browser."""
        found = re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', self.ask("lab"), re.DOTALL)
        assert found, "JupyterLab shows no page"
        return dict(json.loads(html.unescape(found[1])))

    def labextensions(self, *names: str) -> None:
        """Fail unless the browser gets all these extensions of JupyterLab."""
        offered = {one["name"] for one in self.page()["federated_extensions"]}
        assert offered >= set(names), f"JupyterLab lacks {sorted(set(names) - offered)}, it has {sorted(offered)}"


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[Server]:
    """A running server with these arguments; what it said is shown where something fails."""
    running = Server(*arguments)
    try:
        wait(lambda: reachable(running), "the server does not answer")
        yield running
    except BaseException:
        print(running.log.read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        running.process.terminate()
        try:
            running.process.wait(20)
        except subprocess.TimeoutExpired:
            running.process.kill()


def reachable(running: Server) -> bool:
    """Whether the server answers. Raises RuntimeError if it has ended."""
    if running.process.poll() is not None:
        raise RuntimeError(f"the server ended with status {running.process.returncode}")
    try:
        return bool(running.ask("api/status"))
    except (urllib.error.URLError, ConnectionError):
        return False


def wait(condition: Any, otherwise: str) -> Any:
    """The first true answer of a function, asked again and again. Raises RuntimeError if there is none in time."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.2)
    raise RuntimeError(f"{otherwise} within {PATIENCE} s")


def cell(kernel: str, code: str) -> str:
    """What a cell prints in a kernel that is started as JupyterLab starts it. Raises RuntimeError if the cell fails."""
    printed: list[str] = []

    def keep(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            printed.append(message["content"]["text"])

    manager, client = start_new_kernel(kernel_name=kernel, startup_timeout=PATIENCE)
    try:
        reply = client.execute_interactive(code, timeout=PATIENCE, output_hook=keep)["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["status"] != "ok":
        raise RuntimeError(f"a cell in the kernel {kernel} failed: {reply.get('ename')}: {reply.get('evalue')}")
    return "".join(printed)


def broken() -> dict[str, str]:
    """Extensions that do not fit or fail, and what is said of them."""
    programs = [["jupyter-labextension", "list"], ["jupyter-server", "extension", "list"]]
    folder = Path(sys.executable).parent
    running = [
        subprocess.Popen([folder / argv[0], *argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for argv in programs
    ]
    lab, extensions = (re.sub(r"\x1b\[\d*m", "", one.communicate(timeout=PATIENCE)[0]) for one in running)
    for argv, process, text in zip(programs, running, (lab, extensions), strict=True):
        assert process.returncode == 0, f"{' '.join(argv)} failed: {text[-500:]}"
    unfit = re.findall(r"^ +(\S+) (v\S+) \w+ +X", lab, re.MULTILINE)
    failing = re.findall(r"- Validating (\S+)\.\.\.\n +X (.*)", extensions)
    return {
        **{name: f"does not fit to this JupyterLab ({version})" for name, version in unfit},
        **{name: f"fails in the server: {reason}" for name, reason in failing},
    }


if __name__ == "__main__":
    print(json.dumps(broken()))
