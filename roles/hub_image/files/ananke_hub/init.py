# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``ananke-init.service`` does at each start of a container, before the proxy and the hub: ``python -m
ananke_hub.init``.

Secrets are made once and never renewed, since renewing them logs everybody out. Modes are put right. The time zone is
set. Private CAs become trusted. The proxy gets its pages for the time when the hub is away.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import description
from .description import DescriptionError
from .files import read_secret, write_atomically
from .paths import Paths

PROXY_VARIABLE = "CONFIGPROXY_AUTH_TOKEN"
_HEX32 = re.compile(rb"[0-9a-f]{64}\n?\Z")
_PROXY_ENV = re.compile(rb"CONFIGPROXY_AUTH_TOKEN=[0-9a-f]{64}\n?\Z")


class InitError(Exception):
    """The container's data is in a state that only a person can decide about."""


def ensure_secret(path: Path, good: re.Pattern[bytes], make: Callable[[], str]) -> bool:
    """Make the secret at ``path`` unless it is there. Returns whether it was made.

    An empty file holds nothing to lose and is filled. Anything else that is not such a secret is left alone: InitError.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if content.strip(b"\0\r\n\t "):
        if not good.match(content):
            raise InitError(
                f"{path}: damaged: it does not hold a secret of the right form. Restore it from a backup, or "
                "delete it to have a new one made (a new cookie_secret logs everybody out)"
            )
        path.chmod(0o600)
        return False
    write_atomically(path, make().encode(), 0o600)
    return True


def ensure_secrets(paths: Paths) -> list[str]:
    """All secrets of the hub. Returns the names of those that were made."""

    def token() -> str:
        return secrets.token_hex(32) + "\n"

    wanted: list[tuple[Path, re.Pattern[bytes], Callable[[], str]]] = [
        (paths.cookie_secret, _HEX32, token),
        (paths.crypt_key, _HEX32, token),
        (paths.proxy_env, _PROXY_ENV, lambda: f"{PROXY_VARIABLE}={token()}"),
        (paths.api_token, _HEX32, token),
    ]
    return [path.name for path, good, make in wanted if ensure_secret(path, good, make)]


def fix_modes(paths: Paths) -> None:
    """Only root looks into the hub's data, the homes' parent and the configuration; root owns them."""
    for folder in (paths.data, paths.private, paths.config_d):
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, 0, 0)
        folder.chmod(0o700)
    for file in paths.data.iterdir():
        # leftovers of a write that a crash cut short
        if file.name.startswith(".") and file.is_file():
            file.unlink()
        elif file.is_file() and not file.is_symlink():
            file.chmod(0o600)


def zone_file(paths: Paths, zone: str) -> Path:
    """The file of the time zone ``zone``. Raises DescriptionError where this image has none of the name."""
    file = paths.zones / zone
    if not file.is_file():
        raise DescriptionError(
            f"time_zone: this hub's image knows no {zone}: set hub_time_zone to a current name, such as Europe/Berlin"
        )
    return file


def set_time_zone(paths: Paths, zone: str) -> None:
    """Make ``zone`` the local time of whatever starts from now on, users' kernels among it."""
    file = zone_file(paths, zone)
    if os.path.realpath(paths.local_time) != os.path.realpath(file):
        fresh = paths.local_time.with_name(".localtime.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(file)
        fresh.replace(paths.local_time)
    name = paths.local_time.with_name("timezone")  # what some programs, R among them, read instead
    if not name.exists() or name.read_text().strip() != zone:
        write_atomically(name, f"{zone}\n".encode(), 0o644)


def _certificates(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.crt")) if path.is_file()}


def install_cas(paths: Paths, update: Sequence[str] = ("update-ca-certificates",)) -> bool:
    """Trust exactly the CAs that the hub declares. Returns whether anything changed.

    A marker file, written last, says which CAs the system's trust was made with; so an update that a crash cut
    short is repeated.
    """
    wanted = _certificates(paths.own_cas)
    for name, content in wanted.items():
        if b"-----BEGIN CERTIFICATE-----" not in content:
            raise InitError(
                f"{paths.own_cas / name}: not a PEM certificate; correct it in the hub's folder description/ca"
            )
    digest = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest() if wanted else ""
    marker = paths.trusted_cas / "applied"
    if digest == read_secret(marker):
        return False
    paths.trusted_cas.mkdir(parents=True, exist_ok=True)
    old = list(paths.trusted_cas.iterdir())
    for file in old:
        file.unlink()
    for name, content in wanted.items():
        (paths.trusted_cas / name).write_bytes(content)
    # only a fresh start forgets what was removed, but it takes several times as long
    command = [*update, "--fresh"] if old else list(update)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InitError(f"{update[0]} failed: {' '.join(done.stderr.split())[-300:]}")
    write_atomically(marker, digest.encode(), 0o644)
    return True


def proxy_page(title: str, text: str, refresh: int | None) -> str:
    """A page that stands alone: it is served while nothing else can be. ``refresh`` in seconds."""
    reload = f'<meta http-equiv="refresh" content="{refresh}">' if refresh else ""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">{reload}<title>{html.escape(title)}</title>'
        "<style>body{font:1.1rem/1.5 sans-serif;max-width:38rem;margin:4rem auto;padding:0 1rem}</style></head>"
        f"<body><h1>{html.escape(title)}</h1><p>{text}</p></body></html>\n"
    )


def write_proxy_pages(paths: Paths, base_url: str) -> None:
    """What the proxy answers while the hub or a user's server is away; readable for the proxy's own user."""
    home = html.escape(base_url + "hub/home", quote=True)
    away = proxy_page(
        "Nothing answers here at the moment",
        "The hub or your server is being restarted. Your running notebooks go on. This page tries again every few "
        f'seconds. If that takes longer than two minutes, <a href="{home}">start your server again</a>.',
        5,
    )
    paths.proxy_pages.mkdir(parents=True, exist_ok=True)
    for folder in (paths.proxy_pages.parent, paths.proxy_pages):
        folder.chmod(0o755)
    for name in ("503.html", "error.html"):
        write_atomically(paths.proxy_pages / name, away.encode(), 0o644)


def main() -> int:
    """Command line entry point: exit code 0, or 1 and one line that says what is wrong."""
    paths = Paths.current()
    try:
        hub = description.load(paths.description)
        set_time_zone(paths, hub.time_zone)
        fix_modes(paths)
        made = ensure_secrets(paths)
        changed = install_cas(paths)
        write_proxy_pages(paths, hub.base_url)
    except (DescriptionError, InitError) as error:
        print(f"The hub does not start. {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The hub does not start. {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    secrets_made = ", ".join(made) if made else "no new secrets"
    print(f"{hub.name}: made {secrets_made}; CAs {'updated' if changed else 'unchanged'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
