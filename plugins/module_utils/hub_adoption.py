# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking over a hub of the former system: its container is stopped, and what it holds is copied into the folder of a new hub.

The former hub stays as it is, in its own account; only its container is stopped. Every file is read by a process of that account and written by
one of the new hub's account, each in its containers' user namespace, so owners come out as containers see them. A note tells how far a
run came::

    copying   the former container is stopped; what was copied so far lies in ~/.adopt-NAME and is copied again
    placing   all is copied, and moves to ~/hubs/NAME in one step
    placed    it is there; the new hub may start
    taken     the new hub was healthy; from now on the former one is never started again
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pwd
import re
import shlex
import sqlite3
import stat
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils import (
    accounts,
    adoption,
    files,
    hub_removal,
    image_store,
    nginx,
    removal,
    sockets,
    user_names,
)
from ansible_collections.ananke.jupyterhub.plugins.module_utils.accounts import AccountError
from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Run

NOTES = "/var/lib/ananke/adoptions"
ARCHIVES = "/var/lib/ananke/archives/hubs"
LARGEST = 256 * 1024
"""Bytes of a configuration file that is read."""
FIRST_PORT = 8101
SCHEMA = "4621fec11365"
"""Version of JupyterHub's database in releases 0.5 and 0.6, and here."""
SECRET = re.compile(rb"[0-9a-f]{64}\n?\Z")
SOURCES = (("dyn_home", "private"), ("home", "home"), ("nbgrader_exchange", "exchange"))
"""Folders of the former hub, and what they are called here."""

SEE = """
unit=$1.service
[ -S "$XDG_RUNTIME_DIR/systemd/private" ] && systemctl --user is-enabled --quiet "$unit" 2>/dev/null && echo enabled
[ "$(podman container inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ] && echo running
exit 0
"""
STOP = """
unit=$1.service
if [ -S "$XDG_RUNTIME_DIR/systemd/private" ] && systemctl --user cat "$unit" >/dev/null 2>&1; then
    systemctl --user disable --quiet "$unit"
    systemctl --user stop "$unit"
fi
if podman container exists "$1"; then podman stop --time=120 "$1" >/dev/null; fi
"""
START = """
if [ "$2" = enabled ]; then
    systemctl --user enable --quiet "$1.service"
    systemctl --user reset-failed "$1.service" 2>/dev/null || true
fi
if [ "$2" = enabled ] && [ "$3" = running ]; then exec systemctl --user start "$1.service"; fi
if [ "$3" = running ]; then exec podman start "$1"; fi
"""
FETCH = """
stage=$HOME/.$1.adopted
rm -rf -- "$stage"
mkdir -m 0700 -- "$stage" "$stage/data"
podman container exists "$1" || exit 0
podman cp "$1:/opt/conda/envs/jhub/etc/jupyterhub" "$stage/hub"
podman cp "$1:/opt/user_data.json" "$stage/user_data.json"
cd "$stage"
for name in jupyterhub.sqlite jupyterhub.sqlite-journal jupyterhub.sqlite-wal; do
    [ ! -f "hub/$name" ] || mv "hub/$name" "data/$name"
done
[ ! -f hub/jupyterhub_cookie_secret ] || mv hub/jupyterhub_cookie_secret data/cookie_secret
mv user_data.json data/former_users.json
"""
"""What of the former hub is in its container alone."""
FORGET = 'rm -rf -- "$HOME/.$1.adopted"'
CLEAR = 'exec podman unshare rm --recursive --force --one-file-system -- "$HOME/.adopt-$1"'
PREPARE = """
for _turn in $(seq 300); do [ ! -d "$XDG_RUNTIME_DIR" ] || break; sleep 0.1; done
stage=$HOME/.adopt-$1
podman unshare rm --recursive --force --one-file-system -- "$stage"
mkdir -m 0700 -- "$stage" "$stage/private" "$stage/data"
mkdir -m 0755 -- "$stage/home" "$stage/exchange"
"""
"""The session of an account that has just been made may take a moment to come."""
PACK = (
    'exec podman unshare tar --create --file=- --directory="$1" --numeric-owner --acls --xattrs "--xattrs-include=*"'
    " --sparse --one-file-system ."
)
UNPACK = (
    'exec podman unshare tar --extract --file=- --directory="$1" --numeric-owner --same-owner --same-permissions --acls'
    ' --xattrs "--xattrs-include=*"'
)
MOVE = """
cd "$HOME/.adopt-$1"
shift
exec podman unshare sh -euc 'while [ $# -gt 1 ]; do mv -T -- "$1" "$2"; shift 2; done' sh "$@"
"""
PLACE = 'mkdir -p -m 0700 -- "$HOME/hubs" && mv -T -- "$HOME/.adopt-$1" "$HOME/hubs/$1"'


@dataclasses.dataclass(frozen=True)
class Former:
    """A hub of the former system."""

    folder: str
    entry: pwd.struct_passwd
    """Of the account that has it."""

    @property
    def container(self) -> str:
        """Name of its container, and of its unit."""
        return f"ananke-{os.path.basename(self.folder)}"


@dataclasses.dataclass(frozen=True)
class Wish:
    """The hub that is to take over, as it is described."""

    name: str
    account: str
    image: str = "standard"
    username_key: str = "sub"
    username_prefix: str = "u"
    forget: bool = False
    """Whether it keeps no homes."""
    rooms: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Note:
    """How far an adoption came."""

    folder: str
    account: str
    state: str = "copying"
    enabled: bool = False
    running: bool = False
    """Whether the former container was, before."""
    location: str = ""
    """What nginx had for the path of a hub of this name, before."""


def former(folder: str) -> Former:
    """The former hub in this folder. Raises AccountError if there is none."""
    folder = os.path.normpath(folder)
    try:
        found = os.lstat(folder)
    except OSError as error:
        raise AccountError(f"{folder}: {error.strerror}: name the folder that has the former hub's config.py") from None
    if not stat.S_ISDIR(found.st_mode):
        raise AccountError(f"{folder} is no folder: name the folder that has the former hub's config.py")
    try:
        entry = pwd.getpwuid(found.st_uid)
    except KeyError:
        raise AccountError(f"{folder} belongs to UID {found.st_uid}, which has no account: give it its owner") from None
    if entry.pw_uid < accounts.FIRST_UID:
        raise AccountError(f"{folder} belongs to {entry.pw_name}: containers of the former system are a user's own")
    return Former(folder, entry)


def sources(hub: Former) -> dict[str, str]:
    """Texts of its configuration, in the order in which they are read. Raises AccountError."""
    return dict(accounts.as_user(hub.entry, functools.partial(_read, hub.folder)))


def look(hub: Former, run: Run) -> adoption.Reading:
    """What its files and its container say. Raises AccountError."""
    created = _lines(hub, run, 'exec podman container inspect --format "{{json .Config.CreateCommand}}" "$1"')
    listed = _lines(
        hub, run, "exec podman exec \"$1\" sh -c 'cd /opt/conda/envs && ls -d */lib/python3*/site-packages/*/'"
    )
    arguments: list[str] = next((json.loads(one) for one in created if one.startswith("[")), [])
    parts = [one.split("/") for one in listed]
    packages = sorted({f"{one[0]}/{one[4]}" for one in parts if len(one) == 6})
    return adoption.read(sources(hub), hub.folder, arguments, packages)


def place(name: str, hub: Former, known: t.Collection[int], port: int | None) -> dict[str, t.Any]:
    """Port and account of the hub that is to take over.

    :param known: ports of other hubs
    :param port: its port, if it has one already
    """
    listening = sockets.listeners()
    free = (one for one in range(FIRST_PORT, 65536) if one not in known and one not in listening)
    found: dict[str, t.Any] = {"hub_port": port or next(free)}
    entry = accounts.lookup(name)
    if entry is not None and (entry.pw_uid == hub.entry.pw_uid or entry.pw_gecos.split(",")[0] != removal.COMMENT):
        found["hub_container_admin"] = f"{name}-hub"[-31:]
    return found


def foretell(wish: Wish, hub: Former) -> list[str]:
    """What :func:`take` would do, in words. Raises AccountError if it must not."""
    note, there = noted(wish.name), _there(wish.account, wish.name)
    if note is not None and note.folder != hub.folder:
        raise AccountError(f"it has taken over {note.folder} already: name that folder, or give this hub another name")
    if note is not None and note.state == "taken" and not there:
        raise AccountError(
            f"it took over {hub.folder} and has been removed since: to take over once more, delete {_note(wish.name)}"
        )
    if note is not None and (note.state in ("placed", "taken") or _arrived(note, wish.account, wish.name)):
        return []
    if there:
        raise AccountError(
            f"it is there already, in {wish.account}'s hubs/{wish.name}: a hub takes over as a new one. Remove it (playbooks/remove.yml),"
            " or write the description for another name"
        )
    if wish.account == hub.entry.pw_name:
        raise AccountError(
            f"{wish.account} has the former hub, too: set hub_container_admin to another account, such as {wish.name}-hub,"
            " so that the former one stays as it is"
        )
    record = os.path.join(image_store.RECORDS, f"{wish.image}.json")
    if not os.path.exists(record):
        raise AccountError(
            f"its image {wish.image} is not on this machine ({record} is missing): make it first (playbooks/images.yml), since the former"
            " hub is away until the new one runs"
        )
    return [f"{hub.container} of {hub.entry.pw_name} stopped", f"what {hub.folder} holds copied for {wish.account}"]


def take(wish: Wish, hub: Former, run: Run) -> list[str]:
    """Stop the former hub and copy what it holds; returns what was done, in words. Raises AccountError."""
    done, note = foretell(wish, hub), noted(wish.name)
    if not done:
        if note is not None and note.state == "placing":
            _write(wish.name, dataclasses.replace(note, state="placed"))
        return []
    entry = accounts.lookup(wish.account)
    if entry is None:
        raise AccountError(f"account {wish.account} does not exist: run playbooks/adopt.yml, which makes it")
    rooms = adoption.read(sources(hub), hub.folder).rooms
    if note is None:
        seen = _must(hub.entry, SEE, run, hub.container).split()
        location = files.read(_location(wish.name)) or ""
        note = Note(hub.folder, hub.entry.pw_name, "copying", "enabled" in seen, "running" in seen, location)
        _write(wish.name, note)
    _must(hub.entry, STOP, run, hub.container)
    _must(entry, PREPARE, run, wish.name)
    stage = os.path.join(entry.pw_dir, f".adopt-{wish.name}")
    for folder, target in SOURCES:
        if os.path.isdir(os.path.join(hub.folder, folder)) and not (wish.forget and target == "private"):
            _copy(hub, entry, os.path.join(hub.folder, folder), os.path.join(stage, target), run)
    _must(hub.entry, FETCH, run, hub.container)
    kept = os.path.join(hub.entry.pw_dir, f".{hub.container}.adopted", "data")
    _copy(hub, entry, kept, os.path.join(stage, "data"), run)
    _must(hub.entry, FORGET, run, hub.container)
    moved = accounts.as_user(entry, functools.partial(settle_data, stage, wish, rooms))
    if moved:
        _must(entry, MOVE, run, wish.name, *(part for pair in moved for part in pair))
    _write(wish.name, dataclasses.replace(note, state="placing"))
    _must(entry, PLACE, run, wish.name)
    _write(wish.name, dataclasses.replace(note, state="placed"))
    return done + [f"{before} is {after} from now on" for before, after in moved]


def settle(name: str, check: bool) -> list[str]:
    """The new hub is healthy: note that, so that the former one is never started again."""
    note = noted(name)
    if note is None or note.state not in ("placing", "placed"):
        return []
    if not check:
        _write(name, dataclasses.replace(note, state="taken"))
    return [f"{name} has taken over {note.folder}"]


def give_back(name: str, account: str, run: Run, check: bool) -> list[str]:
    """What did not work is undone: the new hub goes, and the former one runs again as it ran. Raises AccountError, NginxError."""
    note = noted(name)
    if note is None or note.state == "taken":
        return []
    hub = former(note.folder)
    done = [f"{hub.container} of {note.account} as it was before"]
    if check:
        return done
    entry = accounts.lookup(account)
    if note.state == "placed" or _arrived(note, account, name) or not _there(account, name):
        done = hub_removal.remove(name, account, "home", ARCHIVES, run)[0] + done
    if note.location:
        nginx.apply(_location(name), note.location, run)
    if entry is not None:
        _must(entry, CLEAR, run, name)
    words = ["enabled" if note.enabled else "", "running" if note.running else ""]
    _must(hub.entry, START, run, hub.container, *words)
    _must(hub.entry, FORGET, run, hub.container)
    os.unlink(_note(name))
    return done


def noted(name: str) -> Note | None:
    """How far the adoption by this hub came; None where none was begun."""
    text = files.read(_note(name))
    return None if text is None else Note(**json.loads(text))


def _there(account: str, *parts: str) -> bool:
    """Whether the account has a hub of this name."""
    entry = accounts.lookup(account)
    return entry is not None and os.path.lexists(os.path.join(entry.pw_dir, "hubs", *parts))


def _arrived(note: Note, account: str, name: str) -> bool:
    """Whether a run was killed when all was in its place already."""
    return note.state == "placing" and _there(account, name) and not _there(account, "..", f".adopt-{name}")


def settle_data(stage: str, wish: Wish, rooms: t.Mapping[str, str]) -> list[tuple[str, str]]:
    """Give names of the former system their new form, in what was copied; runs as the new hub's account.

    :param stage: folder with what was copied
    :param rooms: homes of rooms in the former container, and the rooms
    :returns: which folders below the stage must still move, and where to
    """
    data = os.path.join(stage, "data")
    people = _former_users(os.path.join(data, "former_users.json"))

    def fresh(name: str) -> str:
        return user_names.renamed(name, people.get(name), wish.username_key, wish.username_prefix)

    database = os.path.join(data, "jupyterhub.sqlite")
    if os.path.exists(database):
        settle_database(database, fresh)
    secret = os.path.join(data, "cookie_secret")
    if os.path.exists(secret):
        with open(secret, "rb") as stream:
            usable = SECRET.match(stream.read(128))
        if not usable:
            os.unlink(secret)
    if people:
        users = {fresh(name): _user(entry) for name, entry in people.items()}
        files.write(os.path.join(data, "user_data.json"), json.dumps(users, indent=1, sort_keys=True) + "\n", 0o600)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(data, "former_users.json"))
    homes = {name: fresh(name) for name in os.listdir(os.path.join(stage, "private")) if not name.startswith(".")}
    _refuse_doubles(homes)
    moved = [(f"private/{name}", f"private/{new}") for name, new in sorted(homes.items()) if name != new]
    for name in sorted(os.listdir(os.path.join(stage, "home"))):
        if rooms.get(name) in wish.rooms:
            moved.append((f"home/{name}", f"private/{adoption.ROOM_PREFIX}{rooms[name]}"))
    return moved


def settle_database(path: str, fresh: t.Callable[[str], str]) -> None:
    """Give hub users their names in JupyterHub's database, in which no server runs any more. Raises AccountError."""
    database = sqlite3.connect(path)
    with contextlib.closing(database), database:
        version = [row[0] for row in database.execute("select version_num from alembic_version")]
        if version != [SCHEMA]:
            raise AccountError(
                f"the former hub's database has version {', '.join(map(str, version)) or 'none'}, that of releases 0.5 and 0.6 is {SCHEMA}:"
                " bring the former hub to one of these releases first"
            )
        names = {str(row[0]): fresh(str(row[0])) for row in database.execute("select name from users")}
        _refuse_doubles(names)
        for before, after in names.items():
            if before != after:
                database.execute("update users set name = ? where name = ?", (after, before))
        database.execute("update users set state = null, encrypted_auth_state = null")
        database.execute("delete from spawners where name != ''")
        database.execute("update spawners set server_id = null, state = null")


def _refuse_doubles(names: t.Mapping[str, str]) -> None:
    """Two people never share a name."""
    seen: dict[str, str] = {}
    for before, after in sorted(names.items()):
        if after in seen:
            raise AccountError(
                f"{seen[after]} and {before} would both be {after}: rename one of them in the former hub"
            )
        seen[after] = before


def _former_users(path: str) -> dict[str, dict[str, t.Any]]:
    """The former user data; empty where there are none, or such that cannot be read."""
    try:
        found = json.loads(files.read(path) or "{}")
    except ValueError:
        return {}
    return {name: one for name, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def _user(entry: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What the former user data have of a person, as hubs keep it."""
    known = {"given_name": "first", "family_name": "last", "email": "email", "lms_user_id": "lms_uid"}
    texts = {name: str(entry.get(former) or "") for name, former in known.items()}
    return {**texts, "name": " ".join(filter(None, (texts["given_name"], texts["family_name"]))), "roles": []}


def _read(folder: str) -> list[tuple[str, str]]:
    """The configuration files of a former hub; runs as its account."""
    parts = os.path.join(folder, adoption.FOLDER)
    listed = sorted(name for name in os.listdir(parts) if name.endswith(".py")) if os.path.isdir(parts) else []
    found = []
    for name in [adoption.CONFIG, *(f"{adoption.FOLDER}/{one}" for one in listed)]:
        try:
            handle = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise AccountError(f"{folder} has no {name}: name the folder of a hub of the former system") from None
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise AccountError(f"{folder}/{name} is no file: move it away")
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise AccountError(
                f"{folder}/{name} is longer than {LARGEST} bytes: move it away, and carry over by hand what it says"
            )
        found.append((name, content.decode("utf-8-sig", "replace")))
    return found


def _lines(hub: Former, run: Run, script: str) -> list[str]:
    """What a command says of the former container; nothing where there is none, or where it does not run."""
    status, said = run(accounts.in_session(hub.entry, script, hub.container))
    return [] if status else said.splitlines()


def _copy(hub: Former, entry: pwd.struct_passwd, source: str, target: str, run: Run) -> None:
    """Copy what a folder holds from one account to another, each of which touches only its own."""
    ends = (accounts.in_session(hub.entry, PACK, source), accounts.in_session(entry, UNPACK, target))
    hint = "nothing of the former hub has changed; run again when that is mended"
    accounts.must(run, ["bash", "-o", "pipefail", "-c", " | ".join(map(shlex.join, ends))], hint)


def _must(entry: pwd.struct_passwd, script: str, run: Run, *arguments: str) -> str:
    return accounts.must(run, accounts.in_session(entry, script, *arguments), "run again when that is mended")


def _write(name: str, note: Note) -> None:
    files.folder(NOTES, 0o700)
    files.write(_note(name), json.dumps(dataclasses.asdict(note), indent=1) + "\n", 0o600)


def _location(name: str) -> str:
    return os.path.join(nginx.LOCATIONS_DIR, f"{name}.conf")


def _note(name: str) -> str:
    return os.path.join(NOTES, f"{name}.json")
