# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx fragments that many runs write side by side: validated, serialised, and no reload is ever lost.

After every reload the digests of all fragments are noted in /run; whoever finds others there
reloads. So a run that was killed between writing and reloading is made good by the next one, and
twenty hubs that arrive together need only as many reloads as it takes.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

CONF_DIR = "/etc/nginx/ananke"
FRAME = "/etc/nginx/conf.d/ananke.conf"
"""Includes the fragments; nginx itself looks for it there."""
LOCATIONS_DIR = f"{CONF_DIR}/locations.d"
SITES_DIR = f"{CONF_DIR}/sites.d"
APPLIED = f"{files.RUN_DIR}/nginx.applied"
PID_FILE = "/run/nginx.pid"
RELOADED = "nginx reloaded"

REDIRECT = """\
location = {bare} {{
    return 301 $scheme://$http_host{path}$is_args$args;
}}
"""
LOCATION = """\
location {path} {{
    proxy_pass http://127.0.0.1:{port};
    include {conf_dir}/proxy.conf;
    client_max_body_size {upload_limit};
}}
"""


class NginxError(Exception):
    """nginx refuses a configuration; nothing was changed."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder as it is to be."""

    path: str
    mode: int = 0o755

    def difference(self) -> list[str]:
        """What has to be done to it, in words."""
        if not os.path.isdir(self.path):
            return [f"{self.path} made"]
        return [f"mode of {self.path} changed"] if files.mode_of(self.path) != self.mode else []


@dataclasses.dataclass(frozen=True)
class Fragment:
    """A file as it is to be."""

    path: str
    content: str | None = dataclasses.field(repr=False)
    """None: it is not there."""
    mode: int = 0o644

    def difference(self) -> list[str]:
        """What has to be done to it, in words."""
        if self.content is None:
            return [f"{self.path} removed"] if os.path.lexists(self.path) else []
        return [f"{self.path} written"] if files.differs(self.path, self.content, self.mode) else []


def location(name: str, path: str, port: int, upload_limit: str) -> str:
    """One hub's location.

    :param path: starts and ends with a slash
    :param port: the hub's port on the machine's loopback
    :param upload_limit: nginx size, e.g. ``1g``; ``0`` means no limit
    """
    redirect = "" if path == "/" else REDIRECT.format(bare=path.rstrip("/"), path=path)
    body = LOCATION.format(path=path, port=port, conf_dir=CONF_DIR, upload_limit=upload_limit)
    return f"# Managed by ananke.jupyterhub: hub {name}\n{redirect}{body}"


def fragments(directory: str = CONF_DIR) -> list[str]:
    """Paths of the frame and of all files below ``directory``, sorted; those that are being written are left out."""
    below = [
        os.path.join(folder, name)
        for folder, _folders, names in os.walk(directory)
        for name in names
        if not name.startswith(".")
    ]
    return sorted([*below, FRAME] if os.path.exists(FRAME) else below)


def pending() -> bool:
    """Whether nginx runs with something else than what is on disk."""
    paths = fragments()
    if files.read(APPLIED) == files.digests(paths):
        return False
    try:
        started = os.stat(PID_FILE).st_mtime
    except FileNotFoundError:
        return True
    return not paths or started <= max(os.stat(path).st_ctime for path in paths)


def foretell(path: str, content: str | None, mode: int = 0o644) -> list[str]:
    """What :func:`apply` would do, in words, also where nginx is not installed yet."""
    return foretell_all([Fragment(path, content, mode)])


def foretell_all(wanted: t.Sequence[Fragment], folders: t.Sequence[Folder] = ()) -> list[str]:
    """What :func:`apply_all` would do, in words, also where nginx is not installed yet."""
    made = [word for folder in folders for word in folder.difference()]
    done = [word for fragment in wanted for word in fragment.difference()]
    reload = done or (os.path.isdir(CONF_DIR) and pending())
    return [*made, *done, RELOADED] if reload else made


def apply(path: str, content: str | None, run: Run, mode: int = 0o644) -> list[str]:
    """Write (None: remove) one fragment, validate the whole, reload where needed; returns what was done, in words.

    :raises NginxError: nginx does not accept it; the old fragment is back and nginx was not touched
    """
    return apply_all([Fragment(path, content, mode)], run)


def apply_all(wanted: t.Sequence[Fragment], run: Run, folders: t.Sequence[Folder] = ()) -> list[str]:
    """The same with several fragments that only make sense together, and folders that must be there.

    :raises NginxError: nginx does not accept them; the old fragments are back and nginx was not touched
    """
    with files.lock("nginx"):
        made = [word for folder in folders for word in _make(folder)]
        changes = [fragment for fragment in wanted if fragment.difference()]
        if not changes and not pending():
            return made
        done = [word for fragment in changes for word in fragment.difference()]
        before = [dataclasses.replace(one, content=files.read(one.path), mode=_mode(one)) for one in changes]
        _put(changes)
        status, output = run(["nginx", "-t", "-q"])
        if status:
            _put(before)
            paths = ", ".join(fragment.path for fragment in changes or wanted)
            raise NginxError(f"nginx refuses {paths}, the old state is back: {output.strip()}")
        if _nginx_pid():
            status, output = run(["systemctl", "reload", "nginx.service"])
        else:
            status, output = run(["systemctl", "start", "nginx.service"])
        if status:
            raise NginxError(f"nginx does not reload: {output.strip()}; see journalctl --unit nginx")
        files.write(APPLIED, files.digests(fragments()), 0o644)
    return [*made, *done, RELOADED]


def _make(folder: Folder) -> list[str]:
    done = folder.difference()
    if done:
        os.makedirs(folder.path, exist_ok=True)
        os.chmod(folder.path, folder.mode)
    return done


def _put(wanted: t.Sequence[Fragment]) -> None:
    for fragment in wanted:
        files.restore(fragment.path, fragment.content, fragment.mode)


def _mode(fragment: Fragment) -> int:
    """The mode to restore: that of the plain file that is there now."""
    plain = os.path.isfile(fragment.path) and not os.path.islink(fragment.path)
    return (files.mode_of(fragment.path) or fragment.mode) if plain else fragment.mode


def _nginx_pid() -> str:
    pid = (files.read(PID_FILE) or "").strip()
    return pid if pid and os.path.isdir(f"/proc/{pid}") else ""
