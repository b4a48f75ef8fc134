"""Lives of a home on a real systemd: runs in a hub's container as root, beside the program `user_ownership`.

Its only argument is the number of lives. It prints, as JSON, how many acts of each kind there were and what was wrong afterwards.
"""

from __future__ import annotations

import collections
import json
import os
import random
import subprocess
import sys

import user_ownership

USER = "ulives"
UNIT = f"jupyter-{USER}.service"
HOME = f"/var/lib/private/{USER}"
WRITE = f"cd /var/lib/{USER} && mkdir -p a/b && echo x > a/b/$$ && ln -sfn /etc/passwd a/link-$$"
DYNAMIC = ["--property=DynamicUser=yes", f"--property=StateDirectory={USER}", "--quiet", "--service-type=exec"]


def systemd_run(*more: str) -> None:
    subprocess.run(["systemd-run", *DYNAMIC, *more], check=True, capture_output=True)


def systemctl(*more: str) -> str:
    return subprocess.run(["systemctl", *more], capture_output=True, text=True, check=False).stdout.strip()


def running(unit: str) -> bool:
    return systemctl("is-active", unit) == "active"


def start() -> None:
    """The user's server."""
    if not running(UNIT):
        systemctl("reset-failed", UNIT)
        systemd_run(f"--property=User={USER}", f"--unit={UNIT}", "sh", "-c", f"{WRITE}; sleep 3600")


def stop() -> None:
    systemctl("stop", UNIT)


def command() -> None:
    """What dynamic_user_command does, as far as owners are concerned."""
    if not (os.path.isdir(HOME) and os.stat(HOME).st_uid == 0):
        systemd_run(f"--property=User={USER}", "--wait", "--pipe", "sh", "-c", WRITE)


def theft() -> None:
    """A unit that is not the user's takes the home."""
    systemd_run("--wait", "--pipe", "sh", "-c", WRITE)


def settle(state: str) -> None:
    if os.path.isdir(HOME):
        parameters = {"folder": "/var/lib/private", "users": [USER], "state": state, "unit": "jupyter-{user}.service"}
        try:
            user_ownership.main({**parameters, "processes": 0, "check": False})
        except user_ownership.Failure:
            if state == "consistent":
                raise


def wrong() -> list[str]:
    """Files that belong to somebody else than the running server, or else than the top folder's owner."""
    unit = systemctl("show", "--property=UID", "--value", UNIT)
    uid = int(unit) if running(UNIT) else os.stat(HOME).st_uid
    found = []
    for folder, folders, files in os.walk(HOME):
        paths = [folder, *(os.path.join(folder, name) for name in folders + files)]
        found += [path for path in paths if os.lstat(path).st_uid != uid]
    return found


ACTS = {
    "start": start,
    "stop": stop,
    "command": command,
    "theft": theft,
    "consistent": lambda: settle("consistent"),
    "admin": lambda: settle("admin"),
    "restored": lambda: settle("restored"),
}


def main() -> None:
    luck = random.Random(11)  # noqa: S311 - a game
    counts: collections.Counter[str] = collections.Counter()
    problems, broken = [], 0
    for number in range(int(sys.argv[1])):
        acts = luck.choices(list(ACTS), k=luck.randint(1, 5))
        for act in acts:
            ACTS[act]()
            counts[act] += 1
        if os.path.isdir(HOME):
            broken += bool(wrong())
            settle("consistent")
            problems += [f"life {number}, {acts}: {path}" for path in wrong()]
    stop()
    if os.path.isdir(HOME):
        settle("restored")
        subprocess.run(["rm", "-rf", HOME, f"/var/lib/{USER}"], check=True)
    left = [name for name in os.listdir("/var/lib/private") if name.startswith(user_ownership.MARK)]
    print(json.dumps({"acts": counts, "broken": broken, "problems": problems, "left": left}))


if __name__ == "__main__":
    main()
