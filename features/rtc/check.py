# SPDX-License-Identifier: GPL-3.0-or-later
"""People work together in a server that is started for it, and in no other."""

from pathlib import Path

import checks

notebook = Path("shared.txt")
notebook.write_text("together\n")
for arguments, disabled in (([], True), (["--YDocExtension.disable_rtc=False"], False)):
    with checks.server(*arguments) as server:
        server.labextensions("@jupyter/collaboration-extension", "@jupyter/docprovider-extension")
        page = server.page()
        assert page.get("disableRTC") is disabled, f"{arguments}: disableRTC is {page.get('disableRTC')}"
        if not disabled:
            session = server.ask(
                f"api/collaboration/session/{notebook}", {"format": "text", "type": "file"}, method="PUT"
            )
            assert session["fileId"], session
