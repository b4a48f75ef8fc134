# SPDX-License-Identifier: GPL-3.0-or-later
"""Each hub user's server is a systemd unit of its own, run by a dynamic user that can reach nothing but its home.

What this adds to systemdspawner: a unit that is closed on all sides, limits for swap and tasks, a home directory in
the passwd entry (that of a dynamic user is ``/``), starts that queue instead of being refused when a course begins,
and errors that say where to look.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

from jupyterhub.utils import random_port
from systemdspawner import SystemdSpawner, systemd
from tornado.web import HTTPError
from traitlets import Bool, Dict, Float, Int, List, Unicode

from . import assignments, closing, forgetting, rooms, space, units
from .paths import Paths
from .usernames import PROBE_ACCOUNT, is_room_account


class Queue:
    """Lets a number of starts through at a time, in the order of their arrival."""

    def __init__(self, places: int) -> None:
        self._semaphore = asyncio.Semaphore(places)
        self.waiting: list[object] = []

    def before(self, ticket: object) -> int | None:
        """How many wait before ``ticket``; None if it does not wait."""
        return self.waiting.index(ticket) if ticket in self.waiting else None

    async def enter(self, ticket: object) -> None:
        self.waiting.append(ticket)
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting.remove(ticket)

    def leave(self) -> None:
        self._semaphore.release()


class StartFailed(HTTPError):
    """A server did not start. JupyterHub shows why: as the page's error where that is seen at once, else as ``jupyterhub_message``."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(status, "%s", message)
        self.jupyterhub_message = message


class AnankeSpawner(SystemdSpawner):
    """A hub user's server in an isolated systemd unit."""

    swap_limit = Int(None, allow_none=True, config=True, help="Bytes of swap for each server; None: no limit.")
    tasks_limit = Int(None, allow_none=True, config=True, help="Processes and threads of each server; None: no limit.")
    concurrent_starts = Int(8, min=1, config=True, help="Servers that may be starting at a time; further ones queue.")
    forget_homes = Bool(False, config=True, help="Whether users' homes are emptied when their servers stop.")
    server_start_timeout = Int(120, min=1, config=True, help="Seconds for a server's start, not counting the queue.")
    poll_interval_start = Float(0.2, min=0.05, config=True, help="Seconds between looks at a starting server.")
    server_paths = List(
        Unicode(),
        default_value=list(units.PATHS),
        config=True,
        help="PATH of servers.",
    )

    course = Unicode("", config=True, help="What nbgrader calls the course: the hub's name.")
    room_visitors = Dict(config=True, help="Accounts of rooms, each with the list of its visitors; None: everybody.")

    _queue: ClassVar[Queue | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unit_name = units.unit_name(self.user.name)
        self.is_room = is_room_account(self.user.name)
        #: Of a room's running server: who could enter when it started.
        self.visitors: list[str] | None = []

    @classmethod
    def queue(cls, places: int) -> Queue:
        if AnankeSpawner._queue is None:
            AnankeSpawner._queue = Queue(places)
        return AnankeSpawner._queue

    def server_environment(self) -> dict[str, str]:
        """The environment of the user's server: the hub's, then what makes a dynamic user's session whole."""
        paths = [self._expand_user_vars(path) for path in self.extra_paths] + self.server_paths
        own = units.session(self.user.name, paths=paths, shell=self.default_shell or "/bin/bash")
        if space.notice(self.user.name, Paths.current()):
            # JupyterLab and kernels write settings when they start, and would end where they cannot: nobody could delete anything
            runtime = own["XDG_RUNTIME_DIR"]
            own.update({"JUPYTER_CONFIG_DIR": f"{runtime}/jupyter", "IPYTHONDIR": f"{runtime}/ipython"})
        if self.has_assignments():
            own.update(assignments.environment(self.course, bool(self.user.admin)))
        declared: dict[str, str] = self.get_env()
        return {**declared, **{key: value for key, value in own.items() if key not in self.environment}}

    def has_assignments(self) -> bool:
        """Whether this server takes part in the exchange of assignments."""
        return bool(self.course) and self.user.name != PROBE_ACCOUNT and assignments.installed()

    def _share_assignments(self) -> dict[str, list[str]]:
        """What the unit sees of the exchange of assignments. Where that cannot be made, the server starts without."""
        if not self.has_assignments():
            return {}
        try:
            assignments.prepare(self.course, self.user.name)
        except OSError as error:
            self.log.error(
                "%s gets no assignments: %s. Move what is in the way out of %s.",
                self.user.name,
                error,
                assignments.EXCHANGE,
            )
            return {}
        return assignments.view(self.course, self.user.name, bool(self.user.admin))

    def refuse_foreign_home(self) -> None:
        """Raise StartFailed if the user's name belongs to something else: systemd would hand it over to the user."""
        name = self.user.name
        static = {line.split(":", 1)[0] for line in Path("/etc/passwd").read_text().splitlines()}
        state = Path("/var/lib") / name
        if name in static or (state.exists() and not state.is_symlink()):
            raise StartFailed(
                f"The user name {name} is that of a system account or folder of this hub. Tell whoever runs this "
                "hub: another "
                "hub_lti_username_prefix avoids such names."
            )

    def get_args(self) -> list[str]:
        """As JupyterHub's; in a room, people work together."""
        return [*super().get_args(), *(rooms.ARGUMENTS if self.is_room else ())]

    def refuse_closed_room(self) -> None:
        """Raise StartFailed for an account of a room that is none."""
        if self.is_room and self.user.name not in self.room_visitors:
            raise StartFailed(
                "This room is closed; its files are kept. To open it, whoever runs this hub declares it in hub_rooms."
            )
        if self.is_room and not rooms.can_collaborate():
            raise StartFailed(
                "This room cannot be opened, since this hub lacks the feature rtc. Tell your teacher, who should tell "
                "whoever runs this hub: the module hub_features adds it, or the definition of the hub's image."
            )

    def refuse_departing(self) -> None:
        """Raise StartFailed for somebody whose home is just becoming an archive, which a server would change."""
        if (Paths.current().departures / self.user.name).exists():
            raise StartFailed(
                "Your files are just being archived, since your course is over. Try again in a few minutes: you get an "
                "empty home then. If this does not end, tell your teacher, who should tell whoever runs this hub: the "
                "playbook offboard was interrupted, and has to be run again."
            )

    def get_state(self) -> dict[str, Any]:
        """As systemdspawner's; of a room, for whom it was started."""
        return {**super().get_state(), **({"visitors": self.visitors} if self.is_room else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.visitors = state.get("visitors", [])

    def somebody_lost_access(self) -> bool:
        """Whether this is a room's server that somebody could enter who no longer may; their connections would stay open."""
        if not self.is_room:
            return False
        if self.user.name not in self.room_visitors:
            return True
        now = self.room_visitors[self.user.name]
        return now is not None and (self.visitors is None or not set(self.visitors) <= set(now))

    async def poll(self) -> int | None:
        """As systemdspawner's; stops the server of a room that somebody lost access to."""
        if self.somebody_lost_access() and await systemd.service_running(self.unit_name):
            self.log.warning("%s is stopped, since somebody may no longer enter this room.", self.unit_name)
            await systemd.stop_service(self.unit_name)
        status: int | None = await super().poll()
        return status

    def refuse_while_closing(self) -> None:
        """Raise StartFailed while the hub is about to be updated."""
        why = closing.refusal(Paths.current())
        if why:
            raise StartFailed(why, 503)

    async def start(self) -> tuple[str, int]:
        self.refuse_while_closing()
        queue = self.queue(self.concurrent_starts)
        await queue.enter(self)
        try:
            return await self._start_unit()
        finally:
            queue.leave()

    async def _start_unit(self) -> tuple[str, int]:
        self.refuse_while_closing()
        self.refuse_foreign_home()
        self.refuse_closed_room()
        self.refuse_departing()
        self.visitors = self.room_visitors.get(self.user.name)
        shortage = space.notice(self.user.name, Paths.current())
        if shortage:  # who cannot save must be able to delete, so the server starts all the same
            self.log.warning("%s: %s", self.user.name, shortage)
        self.port = random_port()
        if await systemd.service_running(self.unit_name):
            self.log.warning("%s runs unknown to the hub; it is stopped first.", self.unit_name)
            await systemd.stop_service(self.unit_name)
        properties = units.unit_properties(
            self.user.name,
            memory=self.mem_limit,
            swap=self.swap_limit,
            tasks=self.tasks_limit,
            cpus=self.cpu_limit,
            private_tmp=self.isolate_tmp,
            private_devices=self.isolate_devices and not units.has_gpus(),
            readonly_paths=[self._expand_user_vars(path) for path in self.readonly_paths or ()],
            readwrite_paths=[self._expand_user_vars(path) for path in self.readwrite_paths or ()],
        )
        if self.forget_homes:
            await self._forget()
            properties.update(dict.fromkeys(("OnSuccess", "OnFailure"), units.forgetting(self.user.name)))
        for key, values in self._share_assignments().items():
            known = properties.get(key, [])
            properties[key] = [*([known] if isinstance(known, str) else known), *values]
        properties.update(self.unit_extra_properties)
        units.prepare(self.unit_name)
        code = await systemd.start_transient_service(
            self.unit_name,
            cmd=list(self.cmd),
            args=self.get_args(),
            working_dir=f"/var/lib/{self.user.name}",
            environment_variables=self.server_environment(),
            properties=properties,
            slice=self.slice,
        )
        if code != 0:
            raise StartFailed(self._failure("could not be started"))
        await self._wait_until_listening()
        return self.ip or "127.0.0.1", self.port

    async def _forget(self) -> None:
        """Have the home emptied. Where that still goes on since the last server's end, wait: until then systemd keeps that server's unit."""
        unit = units.forgetting(self.user.name)
        process = await asyncio.create_subprocess_exec("systemctl", "start", unit)
        if await process.wait() != 0:
            self.log.error("Not all of the home of %s is forgotten: see journalctl -u %s", self.user.name, unit)

    def _failure(self, what: str) -> str:
        shortage = space.notice(self.user.name, Paths.current())
        return (f"{shortage} " if shortage else "") + (
            f"Your server {what}. Try again; if it fails again, tell whoever runs this hub: the reason is in the "
            "output of "
            f"'journalctl -u {self.unit_name}' in the hub's container."
        )

    async def _wait_until_listening(self) -> None:
        """Return when the server accepts connections; the hub then asks it by HTTP."""
        end = time.monotonic() + self.server_start_timeout
        while time.monotonic() < end:
            try:
                _, writer = await asyncio.open_connection(self.ip or "127.0.0.1", self.port)
            except OSError:
                if not await systemd.service_running(self.unit_name):
                    raise StartFailed(self._failure("stopped while it was starting")) from None
                await asyncio.sleep(self.poll_interval_start)
            else:
                writer.close()
                return
        await systemd.stop_service(self.unit_name)
        raise StartFailed(self._failure(f"did not answer within {self.server_start_timeout} seconds"))

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What the spawn page shows while one waits."""
        shortage = space.notice(self.user.name, Paths.current())
        for message in filter(None, (forgetting.NOTICE if self.forget_homes else "", shortage)):
            yield {"progress": 5, "message": message}
        queue = self.queue(self.concurrent_starts)
        shown: int | None = -1
        while True:
            before = queue.before(self)
            if before != shown:
                shown = before
                if before is None:
                    yield {"progress": 50, "message": "Your server is starting."}
                    return
                yield {
                    "progress": 10,
                    "message": f"Many servers start at the moment, {before} before yours. Yours starts by itself.",
                }
            await asyncio.sleep(1)
