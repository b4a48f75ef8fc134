# SPDX-License-Identifier: GPL-3.0-or-later
"""nbgrader in this hub; a user's own ~/.jupyter/nbgrader_config.py comes after it."""

import ananke_nbgrader

ananke_nbgrader.configure(get_config())  # noqa: F821 - nbgrader provides it
