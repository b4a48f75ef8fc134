# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx fragments that many runs write side by side: validated, serialised, and no reload is ever lost.

After every reload the digest of all fragments is noted in /run; whoever finds another digest there
reloads. So a run that was killed between writing and reloading is made good by the next one, and
twenty hubs that arrive together need only as many reloads as it takes.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import files

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

Run = t.Callable[[t.Sequence[str]], tuple[int, str]]
"""``run(argv)`` runs a command and returns its exit status and its output."""


class NginxError(Exception):
    """nginx refuses a configuration; nothing was changed."""


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
    if files.read(APPLIED) == files.digest(paths):
        return False
    try:
        started = os.stat(PID_FILE).st_mtime
    except FileNotFoundError:
        return True
    return not paths or started <= max(os.stat(path).st_ctime for path in paths)


def foretell(path: str, content: str | None, mode: int = 0o644) -> list[str]:
    """What :func:`apply` would do, in words, also where nginx is not installed yet."""
    done = _difference(path, content, mode)
    return [*done, RELOADED] if done or (os.path.isdir(CONF_DIR) and pending()) else []


def apply(path: str, content: str | None, run: Run, mode: int = 0o644) -> list[str]:
    """Write (None: remove) one fragment, validate the whole, reload where needed; returns what was done, in words.

    :raises NginxError: nginx does not accept it; the old fragment is back and nginx was not touched
    """
    with files.lock("nginx"):
        before = files.read(path)
        done = _difference(path, content, mode)
        if done:
            files.restore(path, content, mode)
        elif not pending():
            return done
        status, output = run(["nginx", "-t", "-q"])
        if status:
            files.restore(path, before, mode)
            raise NginxError(f"nginx refuses {path}, the old state is back: {output.strip()}")
        if _nginx_pid():
            status, output = run(["systemctl", "reload", "nginx.service"])
        else:
            status, output = run(["systemctl", "start", "nginx.service"])
        if status:
            raise NginxError(f"nginx does not reload: {output.strip()}; see journalctl --unit nginx")
        done.append(RELOADED)
        files.write(APPLIED, files.digest(fragments()), 0o644)
    return done


def _difference(path: str, content: str | None, mode: int) -> list[str]:
    """What has to be done to the file, in words."""
    if content is None:
        return [f"{path} removed"] if os.path.lexists(path) else []
    return [f"{path} written"] if files.differs(path, content, mode) else []


def _nginx_pid() -> str:
    pid = (files.read(PID_FILE) or "").strip()
    return pid if pid and os.path.isdir(f"/proc/{pid}") else ""
