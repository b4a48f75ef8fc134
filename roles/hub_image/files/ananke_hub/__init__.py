# SPDX-License-Identifier: GPL-3.0-or-later
"""The JupyterHub configuration that every hub image carries.

A hub's container holds no configuration code of its own: it has one rendered description (``/etc/ananke/hub.json``) and
this package turns it into JupyterHub settings.
"""

__version__ = "1"
