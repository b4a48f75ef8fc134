#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_servers
short_description: List, start, stop and restart hub users' servers, or empty a hub
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Asks JupyterHub itself, so a server that is started here is like one that its user has started, with the same limits and the same queue.
  - JupyterHub is asked with a token of its own, which may see who is known, was there when and whose server runs, start and stop servers, and delete
    users for M(ananke.jupyterhub.hub_offboard), and nothing else. A hub makes it when its container starts, if its image is not older than this module.
  - Stopping a server ends its kernels. What is not saved is lost.
  - Must run as the hub's container admin.
extends_documentation_fragment:
  - ananke.jupyterhub.hub.container
attributes:
  check_mode:
    support: full
    description: Says which servers would be started and stopped, and does nothing.
  diff_mode:
    support: full
    description: Shows a line for each server that changes.
  idempotent:
    support: partial
    description: V(restarted) restarts each time; the other states change nothing that is as it should be.
options:
  state:
    description:
      - V(listed) only tells what runs.
      - V(started) starts the servers of O(users).
      - V(stopped) stops servers.
      - V(restarted) stops servers, waits until they have gone, and starts them. That puts changed limits in force. Of users that are named in
        O(users), it also starts the servers that did not run, unless O(idle_for) is given.
      - V(closed) closes the hub, as before an update. No server starts any more, and the hub's pages and JupyterLab tell people that theirs is
        stopped when O(grace) is over. Nothing is waited for, and nothing is stopped. A new start of the container opens the hub again; so do
        V(reopened), and a quarter of an hour after the grace in which nothing comes.
      - V(drained) closes the hub, too, and when O(grace) is over or all have gone, no server runs.
      - V(reopened) opens a hub that was closed.
    type: str
    choices: [listed, started, stopped, restarted, closed, drained, reopened]
    default: listed
  users:
    description:
      - Names of the hub users whose servers are meant. If not given, all whose servers run. An empty list means nobody.
      - Required with O(state=started).
      - JupyterHub knows who has logged in once, and who is named in the hub's settings. It is an error to name somebody else.
    type: list
    elements: str
  idle_for:
    description:
      - Stop or restart only servers that nobody has used for that many seconds; not those that are just starting or stopping.
      - A server tells the hub every five minutes when it was used last, so less than some 600 takes busy servers for idle ones.
      - Only with O(state=stopped) and O(state=restarted).
    type: int
  grace:
    description: Seconds that people have to save their work, with O(state=closed) and O(state=drained). Where nobody's server runs, nothing is waited for.
    type: int
    default: 0
  wait:
    description: Whether to wait until the servers can be used, or have gone. A restart always waits until the server has gone.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that each server may take. The hub starts some servers at a time (C(hub_concurrent_spawns)); the time in its queue counts.
      - A hub that puts a request off, because too many servers start or run, is asked again within that time.
    type: int
    default: 120
  parallel:
    description: How many servers are started or stopped at a time.
    type: int
    default: 4
notes:
  - The hub's description may allow a user's server more time than O(timeout). A server that is not ready in time is reported as a failure, but goes
    on starting.
seealso:
  - module: ananke.jupyterhub.hub_info
"""

EXAMPLES = r"""
- name: Who works
  ananke.jupyterhub.hub_servers:
    container: ananke-math101
  become: true
  become_user: math101
  register: working

- name: Everything is ready when the lesson begins
  ananke.jupyterhub.hub_servers:
    container: ananke-math101
    state: started
    users: [u17, u42]
    parallel: 8
  become: true
  become_user: math101

- name: In five minutes, nobody works on this hub any more
  ananke.jupyterhub.hub_servers:
    container: ananke-math101
    state: drained
    grace: 300
  become: true
  become_user: math101

- name: New limits hold for all who have not done anything for an hour
  ananke.jupyterhub.hub_servers:
    container: ananke-math101
    state: restarted
    idle_for: 3600
  become: true
  become_user: math101
"""

RETURN = r"""
servers:
  description: The servers that run after all that was done, of O(users) if given. In check mode, those that run now. By name of the user.
  type: list
  elements: dict
  returned: unless O(state=reopened); also when some servers failed
  contains:
    user:
      description: Name of the hub user.
      type: str
      sample: u42
    ready:
      description: Whether it can be used.
      type: bool
    pending:
      description: V(spawn), V(stop) or V(check) while the hub is at it, otherwise null.
      type: str
    started:
      description: When it was started (ISO 8601, UTC).
      type: str
      sample: "2026-10-12T08:15:02.090407Z"
    last_activity:
      description: When it was used last, as far as the hub knows (ISO 8601, UTC), or null.
      type: str
    url:
      description: Its address.
      type: str
      sample: https://hubs.example.org/math101/user/u42/
    admin:
      description: Whether its user is a hub admin.
      type: bool
users_started:
  description: Whose servers were started (in check mode, would be), restarts included. With O(wait=false), those that were asked to start.
  type: list
  elements: str
  returned: unless O(state=reopened); also when some servers failed
users_stopped:
  description: Whose servers were stopped (in check mode, would be), restarts included. With O(wait=false), those that were asked to stop.
  type: list
  elements: str
  returned: unless O(state=reopened); also when some servers failed
users_known:
  description: How many users the hub knows.
  type: int
  returned: unless O(state=reopened); also when some servers failed
failures:
  description: The servers that are not in the wanted state. If there are any, the module fails after having done the others.
  type: list
  elements: dict
  returned: unless O(state=reopened); also when some servers failed
  contains:
    user:
      description: Name of the hub user.
      type: str
    reason:
      description: Why, in the hub's words where it gives a reason.
      type: str
commands:
  description: The commands that were run, then the requests to the hub that changed something.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_api, inside


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "state": {
                "type": "str",
                "choices": ["listed", "started", "stopped", "restarted", "closed", "drained", "reopened"],
                "default": "listed",
            },
            "users": {"type": "list", "elements": "str"},
            "idle_for": {"type": "int"},
            "grace": {"type": "int", "default": 0},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 120},
            "parallel": {"type": "int", "default": 4},
        },
        required_if=[("state", "started", ["users"])],
        supports_check_mode=True,
    )
    module.exit_json(**inside.act(module, hub_api))


if __name__ == "__main__":
    main()
