# SPDX-License-Identifier: GPL-3.0-or-later
"""What each open JupyterLab asks the hub for, four to six times a minute: whether it is about to be updated.

The extension of JupyterLab that asks is ``share/jupyter/labextensions/ananke-hub`` of the environment ``jhub``.
"""

from __future__ import annotations

from jupyterhub.handlers.pages import HealthCheckHandler

from . import closing


class Notice(HealthCheckHandler):
    """``/hub/ananke/notice``: what the hub's pages say of an update, "" while the hub is open; for everybody.

    JupyterHub logs no health checks, and so none of these.
    """

    async def prepare(self) -> None:
        """Nothing: JupyterHub would look up who asks."""

    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish({"notice": closing.announcement(None)})
