# SPDX-License-Identifier: GPL-3.0-or-later
"""JupyterLab gets the extension, and the server knows its part."""

import checks

with checks.server() as server:
    server.labextensions("jupyterlab-myst")
    assert "jupyterlab_myst | extension was successfully loaded" in server.log.read_text(), "the server lacks its part"
