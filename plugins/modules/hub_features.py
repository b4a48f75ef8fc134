#!/usr/bin/python
# Copyright: the ananke.jupyterhub authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_features
short_description: Optional capabilities of a hub, added and taken away while it runs
version_added: 0.1.0
author:
  - The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Brings a running hub to exactly the named features. What is missing or has changed is installed, what else this module or the build of the
    hub's image has installed is taken away.
  - A feature is locked packages for JupyterLab's environment C(jhub), for C(python3), or for an environment of its own, files, and a check. Each one
    that was added has to pass its check in the hub, and no extension of JupyterLab or of users' servers may fail; otherwise everything is put back
    as it was.
  - Packages that no feature has brought are never changed. A file of a feature that an admin has changed stays as it is, and is reported.
  - What is changed here is lost when the hub's container is replaced; features in the definition of its image (C(hub_image_definitions)) are not.
attributes:
  check_mode:
    support: full
    description: Tells which features would be added, updated and removed.
  diff_mode:
    support: full
    description: The names of the features before and after.
  idempotent:
    support: full
    description: Nothing is started if everything is as wanted.
  action:
    support: full
    description: Has a corresponding action plugin, which reads the features on the controller.
options:
  container:
    description: The hub's container. Without it, the host itself is the hub, and the module must run as root.
    type: str
  features:
    description:
      - All features that the hub shall have; an empty list takes all away. The collection's folder C(features) has one folder for each.
      - Some have variants, which V(tensorflow:cpu) or V(tensorflow:gpu) names. C(tensorflow) alone means V(gpu) where the hub has NVIDIA devices.
        When these come or go, the next run changes the variant, or proves it anew.
    type: list
    elements: str
    required: true
  pip_index:
    description: Address of the package index. Without it the one of the hub's image, else PyPI.
    type: str
    default: ""
  timeout:
    description: Seconds for everything together.
    type: int
    default: 1800
  definitions:
    description: What the action plugin has read on the controller. No task can set it.
    type: dict
"""

EXAMPLES = r"""
- name: Base packages and a language server
  ananke.jupyterhub.hub_features:
    container: ananke-math101
    features: [base_packages, lsp]
  register: hub_features

- name: What is to be done so that users have them
  ansible.builtin.debug:
    msg: "{{ hub_features.applies }}"
"""

RETURN = r"""
added:
  description: Features that were not there before.
  returned: success
  type: list
  elements: str
updated:
  description: Features that were changed, or put in order.
  returned: success
  type: list
  elements: str
removed:
  description: Features that are not there any more.
  returned: success
  type: list
  elements: str
applies:
  description:
    - What makes the changes be seen. V(reload) means that users reload their pages, V(server) that their servers are started anew, V(hub) that
      JupyterHub is restarted while servers go on. It is V("") if nothing was changed.
  returned: success
  type: str
problems:
  description: What somebody should look at, files of features that were changed in the hub for instance.
  returned: always
  type: list
  elements: str
features:
  description: All features that the hub has now, or would have.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the feature.
      returned: always
      type: str
    title:
      description: What people call it.
      returned: always
      type: str
    version:
      description: The version of its main package; V("") for one that check mode would add.
      returned: always
      type: str
    variant:
      description: Which of its variants it is, V(cpu) or V(gpu); V("") where it has none.
      returned: always
      type: str
    report:
      description:
        - What its check reported when it was installed, TensorFlow's C(version), C(cuda) (V("") without) and C(devices) for instance. Empty where a
          check reports nothing.
      returned: always
      type: dict
commands:
  description: What was run.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ananke.jupyterhub.plugins.module_utils import hub_feature_sets, inside


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **inside.CONTAINER_OPTIONS,
            "features": {"type": "list", "elements": "str", "required": True},
            "pip_index": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 1800},
            "definitions": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    definitions = module.params["definitions"]
    if definitions is None:
        module.fail_json(
            msg="features are read on the controller: use the module by its full name", problems=[], commands=[]
        )
    wish = {name: module.params[name] for name in ("pip_index", "timeout")}
    module.exit_json(**inside.act(module, hub_feature_sets, {**definitions, **wish}))


if __name__ == "__main__":
    main()
