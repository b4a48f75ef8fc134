# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that travel into a hub's container: one process there for an operation, whatever the operation touches.

A program is a module of ``module_utils`` that imports nothing but Python's own library (Python 3.11 and later) and has

* ``main(parameters) -> result``, both dictionaries of what JSON can hold; ``result["changed"]`` tells whether anything changed;
* ``class Failure(Exception)``, raised with what is wrong and what to do about it; its second argument, if any, is a partial result;
* ``PYTHON``, if it needs another Python in the container than that of conda's base: a path.

Its source goes to a Python in the container on standard input, and so do its parameters: nothing is written there, and no secret is on a
command line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shlex
import sys
import types
import typing as t

from ansible_collections.ananke.jupyterhub.plugins.module_utils.commands import Commands

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PYTHON = "/opt/conda/bin/python"
"""Python of programs that need no other, in the container."""
CONTAINER_OPTIONS: dict[str, dict[str, t.Any]] = {"container": {"type": "str"}}
"""Options of all modules that act inside a hub."""

# What a program prints by mistake goes to standard error; its result alone to standard output.
BOOT = """\
import json, os, sys, types
work = json.load(sys.stdin)
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
program = types.ModuleType(work["name"])
sys.modules[work["name"]] = program
exec(compile(work["source"], work["name"] + ".py", "exec"), program.__dict__)
try:
    result = program.main(work["parameters"])
except program.Failure as error:
    result = {**(error.args[1] if len(error.args) > 1 else {}), "failure": str(error.args[0])}
json.dump(result, answer)
"""


class InsideError(Exception):
    """An operation failed; ``result`` is what it did before."""

    def __init__(self, message: str, result: dict[str, t.Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


def source(program: types.ModuleType) -> str:
    """The text of a program, wherever Ansible has put it."""
    spec = importlib.util.find_spec(program.__name__)
    text = spec.loader.get_source(program.__name__) if spec and spec.loader else None  # type: ignore[attr-defined]
    if not text:
        raise InsideError(
            f"the source of {program.__name__} is not to be had: report this as a bug of ananke.jupyterhub"
        )
    return str(text)


def _name(program: types.ModuleType) -> str:
    return program.__name__.rpartition(".")[2]


def work(program: types.ModuleType, parameters: dict[str, t.Any]) -> str:
    """What BOOT reads: a program and its parameters."""
    return json.dumps({"name": f"ananke_{_name(program)}", "source": source(program), "parameters": parameters})


class Place:
    """Where an operation happens: in a container of the account that the module runs as, or on the host itself."""

    def __init__(self, commands: Commands, container: str | None, unshare: bool = False) -> None:
        """:param unshare: on the host, act with the owners that the account's containers see"""
        self.commands = commands
        self.container = container
        self.unshare = unshare and container is None and os.geteuid() != 0

    def command(self, python: str | None) -> list[str]:
        """The command that starts a Python there which reads the program from standard input."""
        start = ["-I", "-c", BOOT]
        if self.container:
            return ["podman", "exec", "--interactive", self.container, python or PYTHON, *start]
        here = python if python and os.path.exists(python) else sys.executable
        return [*(["podman", "unshare"] if self.unshare else []), here, *start]

    def run(self, program: types.ModuleType, parameters: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run the program there and return its result. Raises InsideError."""
        argv = self.command(getattr(program, "PYTHON", None))
        try:
            status, out, err = self._start(argv, work(program, parameters))
        except OSError as error:
            raise InsideError(
                f"{argv[0]} cannot be run here ({error.strerror}): is the role ananke.jupyterhub.podman applied?"
            ) from error
        try:
            result = json.loads(out)
        except ValueError:
            raise InsideError(self._reason(_name(program), status, err or out)) from None
        if "failure" in result:
            raise InsideError(str(result.pop("failure")), result)
        return t.cast("dict[str, t.Any]", result)

    def _start(self, argv: list[str], stdin: str) -> tuple[int, str, str]:
        """Run a command in the session of the account; the program's text is not noted among the commands."""
        self.commands.run.append(shlex.join("(a program)" if word == BOOT else word for word in argv))
        account = pwd.getpwuid(os.geteuid())
        environment = {"HOME": account.pw_dir}
        if os.path.isdir(f"/run/user/{account.pw_uid}"):
            environment["XDG_RUNTIME_DIR"] = f"/run/user/{account.pw_uid}"
        found = self.commands.module.run_command(
            argv, data=stdin, binary_data=True, environ_update=environment, cwd="/", handle_exceptions=False
        )
        return t.cast("tuple[int, str, str]", found)

    def _reason(self, name: str, status: int, text: str) -> str:
        """Why a program gave no result, and what to do."""
        last = " ".join(text.split())[-600:]
        if self.container and "no such container" in text:
            whose = pwd.getpwuid(os.geteuid()).pw_name
            return (
                f"container {self.container}: {whose} has no such container. If its hub is stopped, start it: systemctl --user start"
                f" {self.container}.service. Else run the task as the hub's container admin (become_user), and name the container ananke-<hub>"
            )
        if self.container and ("container state improper" in text or "is not running" in text or "not running" in text):
            return f"container {self.container} does not run: start it first: systemctl --user start {self.container}.service"
        if self.container and status in (126, 127):
            return f"container {self.container}: it has no Python where images of this collection have it: {last}"
        where = f"in container {self.container}" if self.container else "on this host"
        return f"{name} ended without a result {where} (exit status {status}): {last or 'it said nothing'}"


def act(
    module: AnsibleModule,
    program: types.ModuleType,
    parameters: dict[str, t.Any] | None = None,
    *,
    unshare: bool = False,
) -> dict[str, t.Any]:
    """Run a program where the module's option ``container`` says, and return its result with the commands that were run.

    The module fails with the program's message where that cannot be done. Check mode reaches the program as the parameter ``check``.

    :param parameters: those of the module's options, unless given; ``container`` is never among them
    """
    commands = Commands(module)
    place = Place(commands, module.params.get("container"), unshare)
    options = module.params if parameters is None else parameters
    wish = {name: value for name, value in options.items() if name != "container"}
    try:
        result = place.run(program, {"check": module.check_mode, **wish})
    except InsideError as error:
        done = {**{"changed": False}, **error.result}
        done["commands"] = commands.run + done.get("commands", [])
        module.fail_json(msg=str(error), **done)
        raise AssertionError from error  # for type checkers: fail_json does not return
    result["commands"] = commands.run + result.get("commands", [])
    return result
