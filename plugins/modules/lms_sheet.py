#!/usr/bin/python
# Copyright (c) The ananke.jupyterhub authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lms_sheet
short_description: Print the values that an LMS admin must enter for a hub
version_added: 0.1.0
author: The ananke.jupyterhub authors (@ananke-jupyterhub)
description:
  - Prints the sheet with the values that the admin of the course's LMS needs to add the hub, and writes it to a folder of the controller.
  - Takes what M(ananke.jupyterhub.hub_description) registered as C(hub_described), or describes the hub itself.
  - Runs on the controller only. No host is connected to, and no module is executed there.
options:
  directory:
    description:
      - Folder on the controller that gets the sheet as C(NAME.txt). A relative one is in the inventory's folder. It is made where it is missing.
      - If not given, the sheet is only printed.
    type: path
attributes:
  check_mode:
    description: Says whether the file would change, and prints the same sheet.
    support: full
  diff_mode:
    description: Shows the change of the file.
    support: full
  action:
    description: Is an action plugin; everything happens on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Print the values for the LMS admin, and keep them
  ananke.jupyterhub.lms_sheet:
    directory: sheets
"""

RETURN = r"""
msg:
  description: The sheet, or what is wrong with the hub.
  returned: always
  type: str
path:
  description: The file on the controller.
  returned: success, and O(directory) is given
  type: str
"""
