#!/usr/bin/python
# Copyright: (c) 2026, The ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_image_store
short_description: State of a machine's image store, and start of the jobs that fill it
version_added: 0.1.0
author: The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - The machine's side of M(ananke.jupyterhub.hub_image), which calls it; there is no need to use it in a play.
  - Without O(archive) it says which images are there, repairs what container admins need to read the store, gives an image
    that is there under another name this name too, and records what each definition stands for.
  - When all images are there, former images of the same definitions are removed, except the latest O(keep) of each, those that any unit,
    container or image of any account needs, and those that also have a name that was not given here.
  - With O(archive) it starts the job of one image in a systemd unit of its own and returns at once.
options:
  images:
    description: Images of which the state is wanted; with O(archive), the names that the new image gets.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the definition.
        type: str
        required: true
      reference:
        description: Name of the image in the store.
        type: str
        required: true
  archive:
    description: Tar archive on the machine with everything that the job needs.
    type: path
  key:
    description: Key of the image to make, the last part of its reference. Required with O(archive).
    type: str
  keep:
    description: How many former images of each definition stay although nobody uses them.
    type: int
    default: 1
  made:
    description: Whether the run has made an image. Then those go, too, that were made for what hubs added and no hub adds any more.
    type: bool
    default: false
  store:
    description: Folder of the image store.
    type: path
    default: /var/lib/ananke/store
  records:
    description: Folder of the image records.
    type: path
    default: /var/lib/ananke/images
  builds:
    description: Folder of the jobs.
    type: path
    default: /var/lib/ananke/builds
  logs:
    description: Folder of the logs.
    type: path
    default: /var/log/ananke
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the machine.
    support: full
  diff_mode:
    description: Will return details on what has changed when in diff mode.
    support: full
"""

EXAMPLES = r"""
- name: See whether an image is there
  ananke.jupyterhub.hub_image_store:
    images:
      - name: standard
        reference: localhost/ananke/standard:0123456789ab
"""

RETURN = r"""
images:
  description: For each image its state, one of V(present), V(building) and V(absent), and what is known about it.
  returned: without O(archive)
  type: list
  elements: dict
  sample: [{"name": "standard", "reference": "localhost/ananke/standard:0123456789ab", "state": "present", "id": "8e61bf554d15"}]
commands:
  description: Commands that were run to change something.
  returned: always
  type: list
  elements: list
removed:
  description: Former images that were removed.
  returned: without O(archive)
  type: list
  elements: str
left:
  description: Why former images stay that may be in use; V("") if that is known of all.
  returned: without O(archive)
  type: str
shared:
  description: Paths in the store that container admins could not read.
  returned: without O(archive)
  type: list
  elements: str
log:
  description: Log of the job.
  returned: with O(archive)
  type: str
"""

import fcntl
import os
import shutil
import sys
import tarfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import image_store, image_use


class Store:
    """One execution of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wish: dict[str, Any] = module.params
        self.commands: list[list[str]] = []
        self.left = ""

    def command(self, *arguments: str) -> None:
        """Run a command that changes something, or only note it in check mode.

        It fails the module with the command's error output.
        """
        self.commands.append(list(arguments))
        if not self.module.check_mode:
            status, _out, err = self.module.run_command(
                list(arguments), environ_update={"CONTAINERS_STORAGE_CONF": image_store.STORAGE_CONF}
            )
            if status != 0:
                self.fail(f"{' '.join(arguments)} failed: {err.strip()}")

    def fail(self, error: str) -> None:
        """End the module with an error, and with what to do if a disk is full."""
        msg = image_store.told(error, "", self.wish["store"], self.wish["builds"])
        self.module.fail_json(msg=msg, commands=self.commands)

    def state(self) -> dict[str, Any]:
        """Return the state of all images after repairing and recording what can be."""
        images = image_store.read_images(self.wish["store"])
        self._give_names(images)
        if not self.module.check_mode:
            images = image_store.read_images(self.wish["store"])
        shared = image_store.share(self.wish["store"], dry_run=self.module.check_mode)
        answers, before, after = [], {}, {}
        for wanted in self.wish["images"]:
            name, reference = wanted["name"], wanted["reference"]
            image = image_store.find(images, name, reference)
            if image is None:
                was = (image_store.read_record(name, self.wish["records"]) or {}).get("reference", "")
                answers.append(
                    {"name": name, "reference": reference, "state": self._making(reference), "recorded": was}
                )
                continue
            answers.append({"state": "present", **image.record})
            if not image_store.recorded(image, self.wish["records"]):
                record = image_store.read_record(name, self.wish["records"]) or {}
                before[name], after[name] = record.get("reference", ""), reference
                if not self.module.check_mode:
                    image_store.write_record(image, self.wish["records"])
        complete = all(answer["state"] == "present" for answer in answers)
        # what is absent will be there when a run that is no check gets to this
        removed = self._remove_former(images) if complete or self.module.check_mode else []
        before.update(dict.fromkeys(removed, "in the store"))
        after.update(dict.fromkeys(removed, "removed"))
        changed = bool(self.commands or shared or after)
        result = {
            **{"changed": changed, "images": answers, "shared": shared},
            **{"commands": self.commands, "removed": removed, "left": self.left},
        }
        if after:
            result["diff"] = {"before": before, "after": after}
        return result

    def _give_names(self, images: dict[str, image_store.Image]) -> None:
        """Name images whose content is there under another name."""
        for wanted in self.wish["images"]:
            reference = wanted["reference"]
            other = image_store.same_content(images, reference)
            if reference not in images and other:
                self.command("podman", "tag", other, reference)
                images[reference] = images[other]

    def _remove_former(self, images: dict[str, image_store.Image]) -> list[str]:
        """Remove former images that nobody needs; return their names."""
        candidates = self._candidates(images)
        if not candidates:
            return []
        try:
            unused = image_use.unused(candidates, images, self.wish["store"], image_use.look())
        except image_store.StoreError as error:
            self.left = f"former images stay ({', '.join(candidates)}): {error}"
            return []
        if unused and not self.module.check_mode:
            os.makedirs(os.path.dirname(image_store.LOCK), mode=0o755, exist_ok=True)
            with open(image_store.LOCK, "a", encoding="utf-8") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return []  # another run makes an image; a later one removes these
                with image_store.kept_shared(self.wish["store"]):
                    self._remove(unused)
        elif unused:
            self._remove(unused)
        return unused

    def _candidates(self, images: dict[str, image_store.Image]) -> list[str]:
        """Names of former images of the wanted definitions, without the latest of each."""
        former: list[str] = []
        stay: set[str] = set()
        for wanted in self.wish["images"]:
            name, reference = wanted["name"], wanted["reference"]
            latest = image_store.former(name, reference, self.wish["records"])[: self.wish["keep"]]
            stay.update((reference, *latest))
            prefix = reference.rpartition(":")[0] + ":"
            former += sorted(other for other in images if other.startswith(prefix))
        if self.wish["made"]:
            former += sorted(other for other in images if image_store.is_derived(other) and other not in former)
        return [name for name in former if name not in stay]

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self.command("podman", "image", "rm", name)
            if image_store.is_derived(name) and not self.module.check_mode:
                image_store.forget(name, self.wish["records"])

    def _making(self, reference: str) -> str:
        """Return the state of an image that is not in the store: building or absent."""
        unit = image_store.unit_name(reference.rpartition(":")[2])
        if not shutil.which("systemctl"):
            return "absent"
        status = self.module.run_command(["systemctl", "is-active", "--quiet", unit])[0]
        return "building" if status == 0 else "absent"

    def start(self) -> dict[str, Any]:
        """Unpack the job and start its unit."""
        if not shutil.which("podman") or not os.path.exists(image_store.STORAGE_CONF):
            self.module.fail_json(
                msg=f"podman or {image_store.STORAGE_CONF} is missing: apply the role ananke.jupyterhub.podman to the machine first"
            )
        os.makedirs(self.wish["logs"], mode=0o750, exist_ok=True)
        os.makedirs(self.wish["builds"], mode=0o700, exist_ok=True)
        # an interrupted run may have left a process on the controller that starts the same job at the same time
        with open(os.path.join(self.wish["builds"], "start.lock"), "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._start_once()

    def _start_once(self) -> dict[str, Any]:
        folder = os.path.join(self.wish["builds"], self.wish["key"])
        log = os.path.join(self.wish["logs"], f"image-{self.wish['images'][0]['name']}.log")
        if self._making(self.wish["images"][0]["reference"]) == "building":
            return {"changed": True, "log": log, "commands": []}
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)
        with tarfile.open(self.wish["archive"]) as archive:
            # names, modes and links in it are the controller's own
            archive.extractall(folder)  # noqa: S202
        image_store.write_file(log, "", 0o640)
        self.command(
            *["systemd-run", "--quiet", "--collect", f"--unit={image_store.unit_name(self.wish['key'])}"],
            *["--description=Image for hubs", "--setenv=HOME=/root", "--setenv=PYTHONUNBUFFERED=1"],
            *[f"--property=StandardOutput=append:{log}", f"--property=StandardError=append:{log}"],
            *[sys.executable, os.path.join(folder, "image_job.py"), folder],
        )
        return {"changed": True, "log": log, "commands": self.commands}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "images": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"name": {"type": "str", "required": True}, "reference": {"type": "str", "required": True}},
            },
            "archive": {"type": "path"},
            "key": {"type": "str", "no_log": False},
            "keep": {"type": "int", "default": 1},
            "made": {"type": "bool", "default": False},
            "store": {"type": "path", "default": image_store.STORE},
            "records": {"type": "path", "default": image_store.RECORDS},
            "builds": {"type": "path", "default": image_store.BUILDS},
            "logs": {"type": "path", "default": image_store.LOGS},
        },
        required_by={"archive": ("key",)},
        supports_check_mode=True,
    )
    os.umask(0o022)  # what is unpacked goes into images, whose modes must not depend on root's umask
    store = Store(module)
    try:
        if module.params["archive"] and not module.check_mode:
            module.exit_json(**store.start())
        module.exit_json(**store.state())
    except (image_store.StoreError, OSError, tarfile.TarError) as error:
        store.fail(str(error))


if __name__ == "__main__":
    main()
