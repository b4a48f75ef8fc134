#!/usr/bin/python3
# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Warns before a certificate expires that nginx serves: in the journal, and by mail where there is sendmail.

What nginx serves counts, not what lies on the disk: a renewal that was never loaded is found as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from email.message import EmailMessage

TOKEN = re.compile(r"""\s*(?:#[^\n]*|([{};])|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s{};]+))""")
DAY = 86400


@dataclasses.dataclass(frozen=True, order=True)
class Site:
    """A name under which nginx answers with TLS, and where."""

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        return self.name if self.port == 443 else f"{self.name}:{self.port}"


def directives(configuration: str) -> Iterator[list[str]]:
    """Each directive of nginx's configuration as its words; blocks begin with [..., "{"] and end with ["}"]."""
    words: list[str] = []
    for special, double, single, plain in TOKEN.findall(configuration):
        if special == ";":
            yield words
            words = []
        elif special:
            yield [*words, special]
            words = []
        elif plain or double or single:
            words.append(plain or double or single)


def sites(configuration: str) -> list[Site]:
    """The sites of ``nginx -T``'s output that speak TLS; names with a pattern get one that fits, or are left out."""
    found: set[Site] = set()
    depth, server, names, listens, rejects = 0, 0, list[str](), list[tuple[str, int]](), False
    for words in directives(configuration):
        if words[-1] == "{":
            depth += 1
            if words[0] == "server" and len(words) == 2:
                server, names, listens, rejects = depth, [], [], False
        elif words[-1] == "}":
            if depth == server and not rejects:
                found |= {Site(name, *listen) for name in names for listen in listens}
            server = 0 if depth == server else server
            depth -= 1
        elif depth == server:
            if words[0] == "server_name":
                names += [name.replace("*.", "any.", 1).removeprefix(".") for name in words[1:] if usable(name)]
            elif words[0] == "listen" and "ssl" in words[2:] and not words[1].startswith("unix:"):
                listens.append(place(words[1]))
            elif words[:2] == ["ssl_reject_handshake", "on"]:
                rejects = True
    return sorted(found)


def usable(name: str) -> bool:
    """Whether a client could ask for this name."""
    return name not in ("_", "") and not name.startswith(("~", "$")) and not name.endswith("*")


def place(listen: str) -> tuple[str, int]:
    """Where to connect to, by the first word of ``listen``."""
    if listen.isdigit():
        return "127.0.0.1", int(listen)
    address, _colon, port = listen.rpartition(":") if re.search(r":\d+$", listen) else (listen, "", "443")
    if address.strip("*0.") == "":
        address = "127.0.0.1"
    return "::1" if address == "[::]" else address.strip("[]"), int(port)


def served(site: Site) -> tuple[float, float]:
    """Beginning and end of the certificate that a site shows, as seconds since 1970.

    Raises OSError when it shows none.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # looked at, not trusted
    with (
        socket.create_connection((site.address, site.port), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname=site.name) as session,
    ):
        shown = session.getpeercert(binary_form=True) or b""
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-dates"]
    dates = subprocess.run(command, input=shown, capture_output=True, check=False).stdout.decode()
    moments = dict(line.split("=", 1) for line in dates.splitlines())
    return ssl.cert_time_to_seconds(moments["notBefore"]), ssl.cert_time_to_seconds(moments["notAfter"])


def problem(site: Site, begins: float, ends: float, now: float, days: float) -> str | None:
    """What is wrong with a site's certificate.

    Fewer than ``days`` left is wrong, but never more than a fifth of its life: some live for days only.
    """
    date = time.strftime("%Y-%m-%d", time.gmtime(ends))
    if ends <= now:
        return f"{site}: the certificate has expired on {date}"
    if ends - now < min(days * DAY, (ends - begins) / 5):
        return f"{site}: the certificate expires on {date}, in {int((ends - now) / DAY)} days"
    return None


def look(site: Site, days: float) -> str | None:
    """What is wrong with a site."""
    try:
        begins, ends = served(site)
    except (OSError, KeyError, ValueError) as error:
        return f"{site}: no certificate is served on port {site.port} ({error}); see systemctl status nginx"
    return problem(site, begins, ends, time.time(), days)


def mail(problems: Sequence[str], remedy: str, recipients: Sequence[str]) -> None:
    """Tell people. Where there is no sendmail, the journal has to do."""
    program = shutil.which("sendmail", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not program or not recipients:
        return
    host = socket.getfqdn()
    message = EmailMessage()
    message["Subject"] = f"{host}: certificates need somebody"
    message["To"] = ", ".join(recipients)
    message.set_content("\n".join([*problems, "", remedy, ""]))
    sent = subprocess.run([program, "-i", "-t"], input=message.as_bytes(), capture_output=True, check=False)
    if sent.returncode:
        print(f"<3>sendmail takes no mail for {message['To']}: {sent.stderr.decode().strip()}", file=sys.stderr)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=30, help="warn when fewer days are left")
    parser.add_argument("--remedy", default="", help="what to do, in words")
    parser.add_argument("--mail", nargs="*", default=[], help="who gets mail")
    options = parser.parse_args()
    configuration = subprocess.run(["nginx", "-T", "-q"], capture_output=True, text=True, check=False)
    if configuration.returncode:
        problems = [f"nginx would not start: {configuration.stderr.strip()}"]
    else:
        found = [look(site, options.days) for site in sites(configuration.stdout)]
        problems = list(dict.fromkeys(text for text in found if text))  # over IPv4 and over IPv6 it is the same
    for text in problems:
        print(f"<4>{text}. {options.remedy}", file=sys.stderr)  # <4>: the journal's warning
    if problems:
        mail(problems, options.remedy, options.mail)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
