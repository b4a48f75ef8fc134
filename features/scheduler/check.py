# SPDX-License-Identifier: GPL-3.0-or-later
"""A notebook runs as a job, and no other user can listen to its kernel."""

import json
from pathlib import Path

import checks

SOURCE = "from ipykernel.kernelapp import IPKernelApp\nprint(6 * 7, IPKernelApp.instance().transport)"
cell = {
    "cell_type": "code",
    "id": "a",
    "metadata": {},
    "source": SOURCE,
    "outputs": [],
    "execution_count": None,
}
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
Path("job.ipynb").write_text(json.dumps(notebook))

with checks.server() as server:
    server.labextensions("@jupyterlab/scheduler")
    environments = [one["name"] for one in server.ask("scheduler/runtime_environments")]
    assert environments == ["kernel"], f"JupyterLab asks conda for environments, which takes seconds: {environments}"
    job = {
        "name": "job",
        "input_uri": "job.ipynb",
        "output_formats": ["ipynb"],
        "runtime_environment_name": environments[0],
    }
    number = server.ask("scheduler/jobs", job)["job_id"]

    def ended() -> bool:
        """Whether the job has ended well. Before it begins, it is called STOPPED."""
        found = server.ask(f"scheduler/jobs/{number}")
        assert found["status"] != "FAILED", found.get("status_message")
        return found["status"] == "COMPLETED"

    checks.wait(ended, "the job does not end")
    results = "".join(path.read_text() for path in Path.home().rglob("*.ipynb"))
    assert '"42 ipc\\n"' in results, "the job's notebook has no result, or its kernel listens to all"
