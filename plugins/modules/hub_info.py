#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_info
short_description: What a hub is and how it does, seen from inside its container
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Tells versions, health, limits, kernels and more of a hub, in one process in its container that only reads.
  - Nothing of a hub makes it fail. What is not there is null, and RV(problems) says what to do.
  - The result holds no secrets. It holds the names of users whose servers run, and of those who have homes if asked for.
  - Must run as the hub's container admin.
extends_documentation_fragment:
  - ananke.jupyterhub.reading
  - ananke.jupyterhub.hub.container
options:
  gather:
    description:
      - What to find out.
      - V(homes) has to look at each file of each hub user, which takes its time with large homes.
    type: list
    elements: str
    choices: [versions, health, users, limits, kernels, features, lti, disk, drift, homes]
    default: [versions, health, users, limits, kernels, features, lti, disk, drift]
seealso:
  - module: ananke.jupyterhub.hub_servers
"""

EXAMPLES = r"""
- name: Look at the hub
  ananke.jupyterhub.hub_info:
    container: ananke-math101
  become: true
  become_user: math101
  register: math101

- name: Nothing is wrong with it
  ansible.builtin.assert:
    that: math101.problems | length == 0
    fail_msg: "{{ math101.problems | join('\n') }}"

- name: Whose homes are large
  ananke.jupyterhub.hub_info:
    container: ananke-math101
    gather: [homes]
  become: true
  become_user: math101
"""

RETURN = r"""
problems:
  description: What is wrong or missing, and what to do about it; a line each.
  type: list
  elements: str
  returned: success
versions:
  description: Versions of what the hub is made of, null where there is no record of one.
  type: dict
  returned: if gathered
  contains:
    python:
      description: Python that Jupyter runs with (environment C(jhub)).
      type: str
      sample: 3.13.5
    jupyterhub:
      description: JupyterHub.
      type: str
    jupyterlab:
      description: JupyterLab.
      type: str
    systemdspawner:
      description: jupyterhub-systemdspawner.
      type: str
    ltiauthenticator:
      description: jupyterhub-ltiauthenticator.
      type: str
    configurable_http_proxy:
      description: The proxy in front of hub and servers.
      type: str
    conda:
      description: conda.
      type: str
    debian:
      description: Release of Debian.
      type: str
      sample: "13.1"
    systemd:
      description: Debian's package of systemd.
      type: str
    image_built:
      description: When the hub's image was built (ISO 8601, UTC); null if it does not say what it consists of.
      type: str
health:
  description: Whether it works.
  type: dict
  returned: if gathered
  contains:
    healthy:
      description: Whether all that follows is as it should be.
      type: bool
    hub:
      description: Whether JupyterHub answers; null if its path is not known.
      type: bool
    proxy:
      description: Whether JupyterHub answers through its proxy; null if its path is not known.
      type: bool
    services:
      description: The hub's services.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the unit.
          type: str
          sample: jupyterhub.service
        state:
          description: Its state in systemd's words; null if systemd tells nothing.
          type: str
          sample: active
        since:
          description: Since when it is active (ISO 8601, UTC); null if it is not.
          type: str
        restarts:
          description: How many times systemd has restarted it because it ended.
          type: int
users:
  description: How many people there are.
  type: dict
  returned: if gathered
  contains:
    known:
      description: How many have come from the LMS so far; null if the user data file is damaged.
      type: int
    week:
      description: How many have done something in the hub within the last seven days; null if its data base cannot be read.
      type: int
    admins:
      description: How many hub admins are declared; null if the hub's description cannot be used.
      type: int
    admitted:
      description: How many users are named as the only ones who may enter; null if there is no such list.
      type: int
    active:
      description: How many servers run; null if systemd tells nothing.
      type: int
    running:
      description: Whose servers run.
      type: list
      elements: str
limits:
  description: What may be used, and what is. Sizes in bytes; null for no limit.
  type: dict
  returned: if gathered
  contains:
    container:
      description: Of the container. What cannot be read is null, too, and among RV(problems).
      type: dict
      contains:
        memory:
          description: Limit of memory.
          type: int
        memory_used:
          description: Memory that is used, the cache of files included.
          type: int
        cpus:
          description: Limit of CPUs.
          type: float
        pids:
          description: Limit of processes and threads.
          type: int
        pids_used:
          description: Processes and threads.
          type: int
    servers:
      description: What each hub user's server gets when it starts; null if the hub's description cannot be used.
      type: dict
      contains:
        memory:
          description: Memory.
          type: int
        swap:
          description: Swap.
          type: int
        tasks:
          description: Processes and threads.
          type: int
        cpus:
          description: CPUs.
          type: float
        start_timeout:
          description: Seconds until it must answer.
          type: int
        concurrent_spawns:
          description: How many may be starting at a time.
          type: int
    running:
      description: What holds for the servers that run.
      type: list
      elements: dict
      contains:
        user:
          description: Name of the hub user.
          type: str
        memory:
          description: Limit of memory.
          type: int
        memory_used:
          description: Memory that is used; null if systemd does not count it.
          type: int
        swap:
          description: Limit of swap.
          type: int
        tasks:
          description: Limit of processes and threads.
          type: int
        cpus:
          description: Limit of CPUs.
          type: float
kernels:
  description: Kernels that all hub users have.
  type: list
  elements: dict
  returned: if gathered
  contains:
    name:
      description: Name of the kernelspec.
      type: str
    display_name:
      description: What JupyterLab shows.
      type: str
    language:
      description: Its language.
      type: str
    environment:
      description: The conda environment that it runs in; null if it names none.
      type: str
    path:
      description: Folder of the kernelspec.
      type: str
    usable:
      description: Whether the programs that it starts are there.
      type: bool
environments:
  description: conda's environments, other than its base.
  type: list
  elements: dict
  returned: if V(kernels) are gathered
  contains:
    name:
      description: Name.
      type: str
    path:
      description: Folder.
      type: str
    python:
      description: Version of its Python; null if it has none.
      type: str
features:
  description: The optional features that the hub has, whether they came with its image or were added by M(ananke.jupyterhub.hub_features).
  type: list
  elements: dict
  returned: if gathered
  contains:
    name:
      description: Name.
      type: str
    title:
      description: What people call it.
      type: str
    variant:
      description: Which of its variants it is, V(cpu) or V(gpu); V("") where it has none.
      type: str
    report:
      description:
        - What the feature's check reported when it was installed, TensorFlow's C(version), C(cuda) (V("") without) and C(devices) for instance. Empty
          where a check reports nothing.
      type: dict
lti:
  description: Login from the LMS. Null where the hub knows no LMS.
  type: dict
  returned: if gathered
  contains:
    issuer:
      description: How the LMS calls itself.
      type: str
    client_ids:
      description: Client ids that the LMS gave.
      type: list
      elements: str
    authorize_url:
      description: Where the LMS answers authentication requests.
      type: str
    jwks_endpoint:
      description: Where the LMS publishes its keys.
      type: str
    tool:
      description: What to enter in the LMS.
      type: dict
      contains:
        url:
          description: Tool URL (launch URL).
          type: str
        login_url:
          description: Initiate login URL.
          type: str
        callback_url:
          description: Redirection URI.
          type: str
disk:
  description: The file systems of homes and of the hub's own data, which may be one. In bytes; null if the folder is missing.
  type: list
  elements: dict
  returned: if gathered
  contains:
    path:
      description: Folder in the container.
      type: str
    size:
      description: Size of the file system.
      type: int
    used:
      description: What is used.
      type: int
    free:
      description: What users can still write.
      type: int
drift:
  description:
    - What has been changed in the container since its image was built; the next image will not have it unless it is declared. Packages of features
      are told as their feature. Null if the image does not say what it consists of.
  type: list
  elements: dict
  returned: if gathered
  contains:
    kind:
      description: V(feature), V(environment) (a whole one), V(package) (of an environment) or V(debian).
      type: str
    name:
      description: Its name.
      type: str
    environment:
      description: The package's environment; V(base) is conda's own. Null for the other kinds.
      type: str
    image:
      description: The version in the image; V("") for features and environments, null for what it has not.
      type: str
    now:
      description: The version now, likewise.
      type: str
    text:
      description: All that in words.
      type: str
      sample: package numpy of environment python3 is 2.3.5, not 2.3.4
homes:
  description: The sizes of hub users' homes on disk.
  type: list
  elements: dict
  returned: if gathered
  contains:
    user:
      description: Name of the hub user.
      type: str
    used:
      description: Bytes, as C(du -x) counts them; null if the home cannot be read.
      type: int
commands:
  description: The commands that were run.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_facts, inside

SUBSETS = ["versions", "health", "users", "limits", "kernels", "features", "lti", "disk", "drift", "homes"]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "gather": {"type": "list", "elements": "str", "choices": SUBSETS, "default": SUBSETS[:-1]},
        },
        supports_check_mode=True,
    )
    module.exit_json(**inside.act(module, hub_facts))


if __name__ == "__main__":
    main()
