# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's part of hub_image: check, plan, send what a build needs, and follow it."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.ananke.jupyterhub.plugins.module_utils import image_store, images
from ansible_collections.ananke.jupyterhub.plugins.module_utils.description import image
from ansible_collections.ananke.jupyterhub.plugins.plugin_utils import variables as inventory

display = Display()

_HUB_DEFAULTS = inventory.defaults(*inventory.HUB_ROLES)
POLL = 2.0
"""Seconds between two looks at a running job."""
PATIENCE = 4 * 3600
"""Seconds after which a job is no longer followed; it goes on, and the next run attaches to it."""
CHUNK = 1 << 16
"""Bytes of the log that are read at once."""
TAIL = 25
"""Lines of the log that a failure shows."""


class ActionModule(ActionBase):
    """Bring all declared images to one machine."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do the task and return its result."""
        result = super().run(tmp, task_vars)
        del tmp
        self._vars = task_vars or {}
        _validation, arguments = self.validate_argument_spec(
            argument_spec={
                "definitions": {"type": "list", "elements": "dict", "required": True},
                "files": {"type": "path", "required": True},
                "hubs": {"type": "list", "elements": "str", "default": []},
                "settings": {"type": "dict", "default": {}},
                "store": {"type": "path", "default": image_store.STORE},
                "keep": {"type": "int", "default": 1},
                "stream": {"type": "bool", "default": True},
                "validate_only": {"type": "bool", "default": False},
            }
        )
        self._host = self._vars.get("inventory_hostname", "")
        self._stream = arguments["stream"]
        self._store = arguments["store"]
        self._keep = arguments["keep"]
        settings = images.Settings(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in arguments["settings"].items()}
        )
        problems = images.check(arguments["definitions"], settings)
        if self._keep < 0:
            problems.append(f"hub_image_keep is {self._keep}: write a number of former images, 0 or more")
        if problems:
            raise AnsibleActionFail(f"{self._host}: {'; '.join(problems)}")
        wanted = [*arguments["definitions"], *image.derived(arguments["definitions"], self._wishes(arguments))]
        if arguments["validate_only"]:
            return {**result, "changed": False, "names": [definition["name"] for definition in wanted]}
        try:
            plans = [images.plan(definition, settings, arguments["files"]) for definition in wanted]
        except OSError as error:
            raise AnsibleActionFail(f"{self._host}: an image cannot be planned: {error}") from error
        return {**result, **self._converge(plans, arguments["files"], images.proxy_environment(settings))}

    def _wishes(self, arguments: Mapping[str, Any]) -> Iterator[image.Wish]:
        """What this machine's hubs start from. One with a bad value is left out: it is refused itself, and no reason to fail the others."""
        names = {"hub_machine", *image.VARIABLES}
        for hub in arguments["hubs"]:
            variables = inventory.of_host(self._vars, hub)
            rendered = inventory.rendered(self._templar, variables, _HUB_DEFAULTS, names.__contains__)
            if rendered.get("hub_machine") != self._host:
                continue
            folder = str(variables.get("inventory_dir") or self._loader.get_basedir())
            wish = image.of_hub(rendered, folder, arguments["definitions"])
            if wish is None:
                display.warning(
                    f"{self._host}: no image is made for {hub}, which has bad values: apply hubs.yml to it to see them"
                )
            else:
                yield wish

    def _converge(self, plans: list[images.Plan], files: str, environment: dict[str, str]) -> dict[str, Any]:
        """Make what is absent; return the result."""
        state = self._module(plans)
        commands, diff = list(state["commands"]), state.get("diff", {"before": {}, "after": {}})
        changed = state["changed"]
        missing: dict[str, list[images.Plan]] = {}
        for plan, answer in zip(plans, state["images"], strict=True):
            if answer["state"] != "present":
                missing.setdefault(plan.key, []).append(plan)
                diff["before"].setdefault(plan.name, answer["recorded"])
                diff["after"][plan.name] = f"{plan.reference} ({plan.source}: {plan.summary})"
        if missing and self._task.check_mode:
            for group in missing.values():
                self._show(group[0].name, f"would be made: {group[0].source}: {group[0].summary}")
        elif missing:
            running = {answer["reference"] for answer in state["images"] if answer["state"] == "building"}
            for group in missing.values():
                if running.isdisjoint(plan.reference for plan in group):
                    commands += self._start(group, files, environment)["commands"]
                else:
                    self._show(group[0].name, "is being built already: following")
                self._follow(group[0])
            state = self._module(plans, made=True)
            absent = [answer["reference"] for answer in state["images"] if answer["state"] != "present"]
            if absent:
                raise AnsibleActionFail(f"{self._host}: {', '.join(absent)} vanished after the build: run again")
            commands += state["commands"]
            for side in ("before", "after"):
                diff[side].update(dict.fromkeys(state["removed"], "in the store" if side == "before" else "removed"))
        return {
            "changed": changed or bool(missing),
            "images": state["images"],
            "commands": commands,
            **({"diff": diff} if diff["after"] else {}),
        }

    def _module(self, plans: list[images.Plan], **arguments: Any) -> dict[str, Any]:
        wanted = [{"name": plan.name, "reference": plan.reference} for plan in plans]
        result: dict[str, Any] = self._execute_module(
            module_name="ananke.jupyterhub.hub_image_store",
            module_args={"images": wanted, "store": self._store, "keep": self._keep, **arguments},
            task_vars=self._vars,
        )
        if result.get("failed"):
            raise AnsibleActionFail(f"{self._host}: {result.get('msg', 'no message')}", result=result)
        if result.get("left"):
            display.warning(f"{self._host}: {result['left']}")
        return result

    def _show(self, name: str, line: str) -> None:
        if self._stream:
            display.display(f"[{self._host} {name}] {line}")

    def _start(self, group: list[images.Plan], files: str, environment: dict[str, str]) -> dict[str, Any]:
        """Send what the job needs and start it."""
        plan = group[0]
        if plan.source == "load":  # a gigabyte should not travel in vain
            problem = images.compare(str(plan.entries[0].path), plan.job["checksum"])
            if problem:
                raise AnsibleActionFail(f"{self._host}: the image {plan.name}: {problem}")
        job = {
            **plan.job,
            "names": [member.name for member in group],
            "references": [member.reference for member in group],
            "store": self._store,
            "records": image_store.RECORDS,
            "log": _log(plan),
            "environment": environment,
        }
        entries = [
            images.Entry("job.json", json.dumps(job).encode()),
            images.Entry("image_store.py", path=image_store.__file__),
            images.Entry("image_job.py", path=os.path.join(files, "image_job.py")),
            *plan.entries,
        ]
        self._show(plan.name, f"{plan.source}: {plan.summary}")
        descriptor, local = tempfile.mkstemp(dir=constants.DEFAULT_LOCAL_TMP, suffix=".tar")
        try:
            with os.fdopen(descriptor, "wb") as handle:
                images.write_archive(entries, handle)
            if self._connection._shell.tmpdir is None:
                self._make_tmp_path()
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "image.tar")
            self._transfer_file(local, remote)
        finally:
            os.unlink(local)
        return self._module(group, archive=remote, key=plan.key)

    def _follow(self, plan: images.Plan) -> None:
        """Show what the job does until it has ended well.

        Raises:
            AnsibleActionFail: it failed, vanished, or takes too long.
        """
        log = _log(plan)
        result_file = os.path.join(image_store.BUILDS, plan.key, "result.json")
        began, offset, gone = time.monotonic(), 0, 0
        while time.monotonic() - began < PATIENCE:
            offset, text, status = self._look(log, offset, result_file, image_store.unit_name(plan.key))
            minutes, seconds = divmod(int(time.monotonic() - began), 60)
            for line in images.condense(text):
                self._show(plan.name, f"{minutes:02}:{seconds:02} {line}")
            if status.startswith("{"):
                outcome = json.loads(status)
                if outcome["rc"] != 0:
                    raise AnsibleActionFail(self._failure(plan, log, outcome["error"]))
                return
            # the result appears before the unit ends, so one look may fall between the two
            gone = gone + 1 if status not in ("active", "activating", "deactivating") else 0
            if gone > 1:
                raise AnsibleActionFail(self._failure(plan, log, "it was interrupted"))
            time.sleep(POLL)
        raise AnsibleActionFail(
            f"{self._host}: {plan.name} is still being built after {PATIENCE} s: run again to follow it"
        )

    def _look(self, log: str, offset: int, result_file: str, unit: str) -> tuple[int, str, str]:
        """Return the new offset in the log, its new text, and the result or else the unit's state."""
        quoted = shlex.quote(log)
        answer = self._low_level_execute_command(
            f"cat {shlex.quote(result_file)} 2>/dev/null || systemctl is-active {unit} || :; "
            f"echo $(stat -c %s {quoted} 2>/dev/null || echo 0); "
            f"tail -c +{offset + 1} {quoted} 2>/dev/null | head -c {CHUNK}"
        )
        if answer["rc"] != 0:
            raise AnsibleActionFail(
                f"{self._host}: the build cannot be followed: {answer['stderr'].strip()}; run again"
            )
        status, _newline, rest = answer["stdout"].partition("\n")
        size, _newline, text = rest.partition("\n")
        return min(int(size), offset + CHUNK), text, status.strip()

    def _failure(self, plan: images.Plan, log: str, error: str) -> str:
        answer = self._low_level_execute_command(f"tail -n {TAIL} {shlex.quote(log)}")
        return (
            f"{self._host}: the image {plan.name} could not be made: {error}\n{answer['stdout'].rstrip()}\n"
            f"All output is in {log} on {self._host}. Correct the cause and run again: steps that succeeded are kept."
        )


def _log(plan: images.Plan) -> str:
    """Where the job that makes an image says what it does."""
    return os.path.join(image_store.LOGS, f"image-{plan.name}.log")
