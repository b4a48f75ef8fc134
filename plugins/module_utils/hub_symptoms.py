# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what a hub needs inside its container is there: a program that travels into it, see :mod:`.inside`. It changes nothing.

Each finding is ``[check, passed, what was seen]``; passed None means that it could not be looked at.
"""

from __future__ import annotations

import email.utils
import json
import os
import socket
import sqlite3
import ssl
import subprocess
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

Finding = tuple[str, t.Optional[bool], str]

DESCRIPTION = "/etc/ananke/hub.json"
DATABASE = "/var/lib/jupyterhub/jupyterhub.sqlite"
PYTHON = "/opt/conda/envs/jhub/bin/python"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""What the hub trusts."""
SERVICES = ("jupyterhub-proxy.service", "jupyterhub.service")
PATIENCE = 10
"""Seconds that anybody may take to answer."""
SKEW = 60
"""Seconds by which clocks may differ: launches are signed for a few minutes."""


class Failure(Exception):
    """Never raised: what is wrong is a finding."""


def services() -> Finding:
    """The hub and its proxy run."""
    done = subprocess.run(["systemctl", "is-active", *SERVICES], capture_output=True, text=True, check=False)
    states = dict(zip(SERVICES, done.stdout.split(), strict=False))
    # the status says only whether any of them is
    fine = [states.get(name) for name in SERVICES] == ["active"] * len(SERVICES)
    return "services", fine, ", ".join(f"{name} is {state}" for name, state in states.items())


def configuration() -> Finding:
    """The hub's whole configuration can be loaded."""
    done = subprocess.run([PYTHON, "-m", "ananke_hub.check"], capture_output=True, text=True, check=False, cwd="/")
    return "configuration", done.returncode == 0, " ".join((done.stdout + done.stderr).split())[-600:]


def database(path: str = DATABASE) -> Finding:
    """The hub's database can be read, and is whole."""
    if not os.path.exists(path):
        return "database", None, f"{path} is not there yet: JupyterHub makes it when it starts"
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE)
        try:
            said = str(connection.execute("pragma quick_check").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        said = str(error)
    return "database", said == "ok", f"{path}: {said}"


class Answer(t.NamedTuple):
    """What an address answers."""

    status: int
    body: bytes
    date: float | None
    """The server's clock, seconds since the epoch."""
    error: str = ""


def ask(url: str, context: ssl.SSLContext | None = None) -> Answer:
    """Ask an address; errors are in the answer, and its status is 0 then."""
    request = urllib.request.Request(url, headers={"Accept": "application/json, */*"})  # noqa: S310 - https, as validated
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return Answer(answer.status, answer.read(1 << 20), _clock(answer.headers.get("Date")))
    except urllib.error.HTTPError as error:
        return Answer(error.code, b"", _clock(error.headers.get("Date")))
    except (OSError, ValueError) as error:
        return Answer(0, b"", None, str(getattr(error, "reason", error)))


def _clock(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except ValueError:
        return None


def lms(known: t.Mapping[str, t.Any] | None, context: ssl.SSLContext | None = None) -> list[Finding]:
    """The LMS is known, can be reached, and its keys can be used."""
    if not known:
        return [("lti", False, "the hub knows no LMS, so nobody can log in")]
    found: list[Finding] = [("lti", True, f"issuer {known['issuer']}, client ids {', '.join(known['client_ids'])}")]
    host = urllib.parse.urlsplit(known["jwks_endpoint"]).hostname or ""
    try:
        addresses = sorted({str(one[4][0]) for one in socket.getaddrinfo(host, None)})
        found.append(("lti_dns", True, f"{host} is {', '.join(addresses)}"))
    except OSError as error:
        found.append(("lti_dns", False, f"{host}: {error.strerror or error}"))
        return [
            *found,
            *((name, None, f"{host} is not known here") for name in ("lti_jwks", "lti_clock", "lti_authorize")),
        ]
    answer = ask(known["jwks_endpoint"], context)
    found.append(_keys(known["jwks_endpoint"], answer))
    if answer.date is None:
        found.append(("lti_clock", None, "the LMS did not say what time it is"))
    else:
        skew = round(time.time() - answer.date)
        found.append(("lti_clock", abs(skew) <= SKEW, f"this machine's clock and the LMS's differ by {abs(skew)} s"))
    if answer.error and urllib.parse.urlsplit(known["authorize_url"]).hostname == host:
        return [*found, ("lti_authorize", None, f"{host} does not answer")]
    authorize = ask(known["authorize_url"], context)
    # without the parameters of a login it refuses, which shows that it is there
    fine = 0 < authorize.status < 500 and authorize.status not in (404, 410)
    found.append(
        ("lti_authorize", fine, f"{known['authorize_url']}: {authorize.error or f'status {authorize.status}'}")
    )
    return found


def _keys(url: str, answer: Answer) -> Finding:
    """The keys by which launches are signed."""
    if answer.status != 200:
        return "lti_jwks", False, f"{url}: {answer.error or f'status {answer.status}'}"
    try:
        keys = json.loads(answer.body)["keys"]
        usable = [key["kid"] for key in keys if key["kty"] == "RSA" and key.get("use", "sig") == "sig"]
    except (ValueError, KeyError, TypeError):
        return "lti_jwks", False, f"{url} answers with something else than keys (JWKS)"
    return "lti_jwks", bool(usable), f"{url}: {len(usable)} RSA keys for signatures"


def main(parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """Look.

    :param parameters: none
    """
    try:
        with open(DESCRIPTION, encoding="utf-8") as file:
            description: dict[str, t.Any] = json.load(file)
    except (OSError, ValueError) as error:
        return {"changed": False, "findings": [("description", False, f"{DESCRIPTION}: {error}")]}
    trusted = ssl.create_default_context(cafile=CERTIFICATES if os.path.exists(CERTIFICATES) else None)
    return {
        "changed": False,
        "findings": [services(), configuration(), database(), *lms(description.get("lti"), trusted)],
    }
