# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that this hub works: ``python -m ananke_hub.probe``.

It does what people do, as far as that goes without the LMS's key: a launch is announced, and answered with a token that somebody else has
signed, which must be refused; an account of its own starts a server, and each kernel that is offered there runs a cell. Then the account
and its home are deleted. Exit code 0 and one line of JSON, or 1 and one line that says what does not work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
import uuid
from email.message import Message
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from . import description
from .config import PROXY_PORT
from .description import Description, DescriptionError
from .files import read_secret
from .paths import Paths
from .usernames import PROBE_ACCOUNT

#: Seconds for one answer, and for one cell.
ANSWER, CELL = 30, 120
#: What each kernel of Python is to run; others need only answer to it, be it with an error.
CODE, EXPECTED = "print(6 * 7)", "42"
#: Titles of the pages on which a launch may end that somebody else has signed, and how far it came.
OUTCOMES = {
    "is not signed by your learning platform": "up to the LMS's signature",
    "cannot reach the learning platform": "up to the LMS's keys, which cannot be had at the moment",
}


class ProbeError(Exception):
    """What does not work."""


class Answer(NamedTuple):
    """What the hub said."""

    status: int
    headers: Message
    text: str

    @property
    def message(self) -> str:
        """Its own words, in short."""
        try:
            return str(json.loads(self.text)["message"])
        except (ValueError, KeyError, TypeError):
            return f"status {self.status}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


_open = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects()).open


def ask(method: str, url: str, headers: dict[str, str], body: bytes | None = None, timeout: float = ANSWER) -> Answer:
    """One request, redirects not followed. Raises ProbeError where nobody answers."""
    request = urllib.request.Request(url, data=body, headers=headers, method=method)  # noqa: S310
    try:
        with _open(request, timeout=timeout) as found:
            return Answer(found.status, found.headers, found.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read().decode(errors="replace"))
    except OSError as error:
        raise ProbeError(f"nobody answers at {urlsplit(url).path}: {error}") from error


def launch(origin: str, hub: Description) -> str:
    """Have a forged launch refused; returns in words how far it came. Raises ProbeError."""
    if hub.lti is None:
        return "no LMS is connected"
    base = f"{origin}{hub.base_url}hub/lti13/"
    asked = {"iss": hub.lti.issuer, "login_hint": PROBE_ACCOUNT, "target_link_uri": hub.public_url}
    begun = ask("GET", f"{base}oauth_login?{urlencode({**asked, 'client_id': hub.lti.client_ids[0]})}", {})
    where = begun.headers.get("Location", "")
    if begun.status != 302 or not where.startswith(hub.lti.authorize_url):
        raise ProbeError(f"a launch is not sent on to the LMS: status {begun.status}")
    sent = {name: values[0] for name, values in parse_qs(urlsplit(where).query).items()}
    cookies = "; ".join(line.partition(";")[0] for line in begun.headers.get_all("Set-Cookie") or [])
    now = int(time.time())
    claims = {"iss": hub.lti.issuer, "aud": sent["client_id"], "sub": PROBE_ACCOUNT, "nonce": sent["nonce"]}
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = jwt.encode({**claims, "iat": now, "exp": now + 60}, key, "RS256", {"kid": PROBE_ACCOUNT})
    body = urlencode({"state": sent["state"], "id_token": token}).encode()
    headers = {"Cookie": cookies, "Content-Type": "application/x-www-form-urlencoded"}
    ended = ask("POST", f"{base}oauth_callback", headers, body)
    for words, meaning in OUTCOMES.items():
        if ended.status >= 400 and words in ended.text:
            return meaning
    raise ProbeError(f"a launch that no LMS has signed is not refused for that: status {ended.status}")


class Account:
    """The account with which a server is tried."""

    def __init__(self, origin: str, base_url: str, token: str) -> None:
        self.headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        self.user = f"{origin}{base_url}hub/api/users/{PROBE_ACCOUNT}"
        self.server = f"{origin}{base_url}user/{PROBE_ACCOUNT}/"

    def must(self, method: str, url: str, what: str, good: tuple[int, ...], body: Any = None) -> Answer:
        """A request that must have one of these answers. Raises ProbeError."""
        text = None if body is None else json.dumps(body).encode()
        answer = ask(method, url, self.headers, text)
        if answer.status not in good:
            raise ProbeError(f"{what}: {answer.message}")
        return answer

    def start(self, patience: float) -> float:
        """Start the server; returns the seconds that it took. Raises ProbeError."""
        began = time.monotonic()
        self.must("POST", self.user, "no account can be made", (201, 409))
        self.must("POST", f"{self.user}/server", "no server starts", (201, 202))
        while True:
            server = json.loads(self.must("GET", self.user, "the hub forgot a server", (200,)).text)["servers"].get("")
            if server is None:
                raise ProbeError(f"a server ended while it was starting: {self._why()}")
            if server["ready"]:
                return round(time.monotonic() - began, 2)
            if time.monotonic() - began > patience:
                raise ProbeError(f"a server was not ready after {patience:.0f} s")
            time.sleep(0.2)

    def _why(self) -> str:
        told = ask("GET", f"{self.user}/server/progress", self.headers).text.splitlines()
        words = [line.removeprefix("data:") for line in told if line.startswith("data:")]
        return Answer(0, Message(), words[-1]).message if words else "see journalctl -u jupyter-" + PROBE_ACCOUNT

    def kernels(self) -> dict[str, float]:
        """Have each kernel run a cell; returns the seconds that it took, by name. Raises ProbeError."""
        listed = json.loads(self.must("GET", f"{self.server}api/kernelspecs", "no kernels are listed", (200,)).text)
        specs = sorted(listed["kernelspecs"].items())
        if not specs:
            raise ProbeError("no kernel is offered")
        return {name: self._kernel(name, one["spec"].get("language", "").lower() == "python") for name, one in specs}

    def _kernel(self, name: str, python: bool) -> float:
        began, what = time.monotonic(), f"the kernel {name}"
        made = self.must("POST", f"{self.server}api/kernels", f"{what} does not start", (201,), {"name": name})
        identifier = json.loads(made.text)["id"]
        url = f"{self.server.replace('http', 'ws', 1)}api/kernels/{quote(identifier)}/channels"
        try:
            printed = asyncio.run(asyncio.wait_for(self._cell(url), CELL))
        except TimeoutError:
            raise ProbeError(f"{what} ran no cell within {CELL} s") from None
        except Exception as error:  # whatever the connection ends with
            raise ProbeError(f"{what} ran no cell: {error or type(error).__name__}") from error
        if python and EXPECTED not in printed:
            raise ProbeError(f"{what} ran {CODE} and said: {printed[-300:] or 'nothing'}")
        ask("DELETE", f"{self.server}api/kernels/{quote(identifier)}", self.headers)
        return round(time.monotonic() - began, 2)

    async def _cell(self, url: str) -> str:
        """What a cell prints, or its error."""
        socket = await websocket_connect(HTTPRequest(url, headers={"Authorization": self.headers["Authorization"]}))
        identifier, printed = uuid.uuid4().hex, ""
        header = {"msg_id": identifier, "msg_type": "execute_request", "session": identifier, "username": ""}
        content = {"code": CODE, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        request = {"header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {}, "content": content}
        await socket.write_message(json.dumps({**request, "channel": "shell", "buffers": []}))
        while (text := await socket.read_message()) is not None:
            said = json.loads(text)
            if said["parent_header"].get("msg_id") != identifier:
                continue
            kind, content = said["msg_type"], said["content"]
            printed += content.get("text", "") if kind == "stream" else ""
            if kind == "error":
                printed += f"{content['ename']}: {content['evalue']}"
            if kind == "status" and content["execution_state"] == "idle":
                socket.close()
                return printed
        raise ProbeError("its connection was closed")

    def go(self, paths: Paths) -> None:
        """Leave nothing behind."""
        ask("DELETE", f"{self.user}/server", self.headers)
        end = time.monotonic() + ANSWER
        while ask("DELETE", self.user, self.headers).status not in (204, 404) and time.monotonic() < end:
            time.sleep(0.2)
        shutil.rmtree(paths.private / PROBE_ACCOUNT, ignore_errors=True)
        (paths.private.with_name(PROBE_ACCOUNT)).unlink(missing_ok=True)


def probe(origin: str, hub: Description, paths: Paths) -> dict[str, Any]:
    """Do all of it. Raises ProbeError."""
    account = Account(origin, hub.base_url, read_secret(paths.api_token))
    launched = launch(origin, hub)
    account.go(paths)  # what a proof left that was killed
    try:
        server = account.start(hub.servers.start_timeout + hub.servers.http_timeout)
        return {"launch": launched, "server": server, "kernels": account.kernels()}
    finally:
        with contextlib.suppress(ProbeError):  # what went wrong before says more
            account.go(paths)


def main() -> int:
    """Command line entry point."""
    paths = Paths.current()
    try:
        print(json.dumps(probe(f"http://127.0.0.1:{PROXY_PORT}", description.load(paths.description), paths)))
    except (ProbeError, DescriptionError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
