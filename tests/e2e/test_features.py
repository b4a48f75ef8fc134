"""Features of a running hub, added and taken away in front of a student."""

from __future__ import annotations

from acting import act, settled, succeed
from browsing import Person
from conftest import Visit
from facts import Hub

ALL = ["base_packages", "jupyterfs", "lsp", "myst", "rtc", "scheduler"]
LIBRARIES = "import matplotlib, numpy, pandas, plotly, seaborn; print(pandas.DataFrame({'a': numpy.arange(3)}).a.sum())"


def test_all_features_come_and_go(hub: Hub, students: list[Person], visit: Visit) -> None:
    """Each has passed its check in the hub, or the module would have taken it back; here a student's own server has them."""
    visitor = visit(students[1])
    user = visitor.launch(hub).user
    done = settled(hub, "hub_features", features=ALL)
    assert done["applies"] == "server"
    assert done["problems"] == []
    assert [one["name"] for one in done["features"]] == succeed(hub, "hub_info", gather=["features"])["features"] == ALL
    succeed(hub, "hub_servers", state="stopped", users=[user])

    lab = visitor.launch(hub)
    assert "pylsp" in lab.api("GET", "lsp/status")["sessions"]
    assert lab.api("GET", "scheduler/jobs")["total_count"] == 0
    assert lab.kernel().run(LIBRARIES).strip() == "3"
    lab.close_kernels()
    assert lab.page.get_by_text("incompatible").count() == 0

    removed = settled(hub, "hub_features", features=["lsp"])
    assert set(removed["removed"]) == {*ALL} - {"lsp"}
    settled(hub, "hub_features", features=[])
    assert "did you mean 'lsp'" in act(hub, "hub_features", features=["lps"])["msg"]
    succeed(hub, "hub_servers", state="stopped", users=[user])
