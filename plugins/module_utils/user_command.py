# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command as a hub user: a program of :mod:`inside`, run as root where the user's home is.

The command's unit says ``User=``, so systemd gives it the UID that the user has already, and no file changes its owner. In a hub it is closed
and limited as the user's server is.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pwd
import re
import secrets
import shlex
import subprocess
import time
import typing as t

PYTHON = "/opt/conda/envs/jhub/bin/python"
"""Knows the units of a hub's users."""
DYNAMIC = range(61184, 65520)
"""UIDs that systemd gives to dynamic users."""
MOST_OUTPUT = 2**20
"""Bytes of each stream that are kept, the last ones."""
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Failure(Exception):
    """Why the command was not run, and what to do."""


def quoted(environment: dict[str, str]) -> str:
    """Variables as a file for ``EnvironmentFile=``. Source: systemd.exec(5). Raises Failure."""
    lines = []
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name):
            raise Failure(
                f"environment: {name!r} is no name of a variable: use letters, digits and '_', no digit first"
            )
        if "\0" in value:
            raise Failure(f"environment: the value of {name} holds a NUL, which no variable can")
        escaped = re.sub(r'([\\"`$])', r"\\\1", value)
        lines.append(f'{name}="{escaped}"\n')
    return "".join(lines)


def home_of(user: str, root: str) -> str:
    """The user's home. Raises Failure where nothing can be run for such a user."""
    if not _USER.fullmatch(user):
        raise Failure(f"user: {user!r} is no name of a hub user: give it as the hub's admin page shows it")
    with contextlib.suppress(KeyError):
        if pwd.getpwnam(user).pw_uid not in DYNAMIC:
            raise Failure(f"user: {user} is an account of the system, not a hub user")
    home = os.path.join(root, "var/lib/private", user)
    try:
        owner = os.lstat(home).st_uid
    except FileNotFoundError:
        raise Failure(
            f"user: {user} has no home here ({home} is missing): it appears when the user's first server starts"
        ) from None
    if owner == 0:
        raise Failure(
            f"user: the home of {user} is handed over to the container admin: give it back first"
            " (dynamic_user_ownership with state: restored)"
        )
    return home


def properties(user: str, unit: str) -> tuple[dict[str, t.Any], dict[str, str]]:
    """Properties of the command's unit, and its environment."""
    description = f"Command for {user}"
    try:
        from ananke_hub import paths, units  # in hubs only
    except ImportError:
        plain = {
            "DynamicUser": "yes",
            "User": user,
            "StateDirectory": user,
            "StateDirectoryMode": "0700",
            "UMask": "0077",
        }
        return {**plain, "Description": description}, {"HOME": f"/var/lib/{user}", "LANG": "C.UTF-8"}
    servers = json.loads(pathlib.Path("/etc/ananke/hub.json").read_text())["servers"]
    limits = {name: servers.get(name) for name in ("memory", "swap", "tasks", "cpus")}
    found = units.unit_properties(
        user, **limits, private_devices=not units.has_gpus(), unit=unit, description=description
    )
    environment = units.environment(paths.Paths().ca_bundle, servers.get("environment", {}))
    # units.prepare makes what the unit will see as /etc/passwd
    units.prepare(unit)
    return dict(found), {**environment, **units.session(user, unit)}


def forget(unit: str, environment_file: str) -> None:
    """Remove what was made for the unit."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(environment_file)
    with contextlib.suppress(ImportError):
        from ananke_hub import units

        units.forget(unit)


def options(wanted: dict[str, t.Any]) -> list[str]:
    """Properties as arguments of systemd-run."""
    result = []
    for name, value in wanted.items():
        values = value if isinstance(value, list) else [value]
        result += [f"--property={name}={one}" for one in values]
    return result


def outcome(unit: str) -> dict[str, str]:
    """How a failed unit ended; systemd has forgotten one that succeeded."""
    wanted = "--property=Result,ExecMainCode,ExecMainStatus,UID"
    shown = subprocess.run(["systemctl", "show", wanted, unit], capture_output=True, text=True, check=False).stdout
    return dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)


def kept(data: bytes) -> tuple[str, bool]:
    """Output as text, and whether its beginning was dropped."""
    return data[-MOST_OUTPUT:].decode("utf-8", "replace"), len(data) > MOST_OUTPUT


def run(user: str, argv: list[str], parameters: dict[str, t.Any], root: str) -> dict[str, t.Any]:
    """Run the command in a unit of its own and wait for its end. Raises Failure where it could not be started."""
    unit = f"ananke-command-{user}-{secrets.token_hex(4)}"
    folder = os.path.join(root, "run/ananke/commands")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    environment_file = os.path.join(folder, f"{unit}.env")
    try:
        wanted, environment = properties(user, unit)
        text = quoted({**environment, **parameters["environment"]})
        with open(os.open(environment_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
        wanted.update(
            {
                "WorkingDirectory": os.path.join("/var/lib", user, parameters["chdir"] or ""),
                "EnvironmentFile": environment_file,
                # of no use to who waits, but nothing runs on for ever when nobody does
                "RuntimeMaxSec": str(parameters["timeout"] + 30),
                "CollectMode": "inactive",
            }
        )
        command = [
            "systemd-run",
            "--quiet",
            "--wait",
            "--pipe",
            f"--unit={unit}",
            "--service-type=exec",
            *options(wanted),
            "--",
            *argv,
        ]
        return _wait(unit, command, parameters)
    finally:
        forget(unit, environment_file)


def _wait(unit: str, command: list[str], parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    began = time.monotonic()
    timed_out = False
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(parameters["stdin"].encode(), parameters["timeout"])
        except subprocess.TimeoutExpired:
            timed_out = True
            subprocess.run(["systemctl", "stop", unit], capture_output=True, check=False)
            out, err = process.communicate()
    status = process.returncode
    ended = outcome(f"{unit}.service")
    subprocess.run(["systemctl", "reset-failed", unit], capture_output=True, check=False)
    (stdout, cut_out), (stderr, cut_err) = kept(out), kept(err)
    result = {
        **{"rc": status, "stdout": stdout.rstrip("\n"), "stderr": stderr.rstrip("\n"), "truncated": cut_out or cut_err},
        **{"seconds": round(time.monotonic() - began, 3), "timed_out": timed_out, "changed": True},
    }
    if timed_out:
        raise Failure(
            f"the command did not end within {parameters['timeout']} s and was stopped", {**result, "rc": 124}
        )
    if status and ended.get("ExecMainCode", "0") == "0":
        log = ["journalctl", "--no-pager", "--output=cat", "--lines=5", f"--unit={unit}"]
        said = subprocess.run(log, capture_output=True, text=True, check=False).stdout
        raise Failure(f"systemd could not start the command: {' '.join((stderr + ' ' + said).split())[-500:]}")
    return result


def main(parameters: dict[str, t.Any]) -> dict[str, t.Any]:
    """Run ``argv``, or ``cmd`` in a shell, as ``user``. Raises Failure.

    :param parameters: ``user``, ``argv`` or ``cmd``, ``chdir``, ``creates``, ``removes`` (relative to the home), ``environment``, ``stdin``,
        ``timeout`` in seconds, ``check``
    """
    root = parameters.get("root", "/")
    user = parameters["user"]
    home = home_of(user, root)
    argv = (
        ["/bin/bash", "-c", parameters["cmd"]]
        if parameters["cmd"]
        else ["/bin/bash", "-c", 'exec "$@"', "bash", *parameters["argv"]]
    )
    shown = parameters["cmd"] or shlex.join(parameters["argv"])
    nothing = {"changed": False, "rc": 0, "stdout": "", "stderr": "", "commands": []}
    for key, there in (("creates", True), ("removes", False)):
        if parameters[key] and os.path.lexists(os.path.join(home, parameters[key])) == there:
            return {**nothing, "msg": f"not run, since {parameters[key]} {'exists' if there else 'does not exist'}"}
    if parameters["check"]:
        return {**nothing, "changed": True, "msg": "would run in a run that is no check"}
    before = os.lstat(home).st_uid
    result = run(user, argv, parameters, root)
    return {**result, "owner_before": before, "owner": os.lstat(home).st_uid, "commands": [f"{user}: {shown}"]}
