"""Features of a running hub, added, used in a student's own JupyterLab, and taken away."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grading
import pytest
from acting import act, settled, succeed
from browsing import STEP_MS, Lab, Person, Visitor
from conftest import ROOT, Visit
from facts import Demo, Hub
from notebooks import cell, colours, dragged, opened, seen
from playwright.sync_api import Browser, Locator, expect
from webdav import COMPUTER, HOST, Share, served

from testbed.waiting import until

ALL = ["base_packages", "jupyterfs", "lsp", "myst", "nbgrader", "rtc", "scheduler"]
LIBRARIES = "import matplotlib, numpy, pandas, plotly, seaborn; print(pandas.DataFrame({'a': numpy.arange(3)}).a.sum())"
MATPLOTLIB = """%matplotlib widget
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5, 3))
axes.plot([0, 1, 2, 3], [0, 1, 4, 9])
plt.show()"""
CURVE = """from matplotlib import pyplot

figure, axes = pyplot.subplots(figsize=(4, 2))
axes.plot(range(10), [x * x for x in range(10)])
figure.savefig("curve.png")"""
PLOTLY = """import plotly.graph_objects as go

go.Figure(go.Scatter(x=[0, 1, 2, 3], y=[0, 1, 4, 9]))"""
MYST = """# A curve

:::{figure} curve.png
:label: curve
The square of x
:::

:::{note} Mind this
[](#curve) shows {math}`x^2`. The answer is {eval}`answer`.
:::"""
WORDS = """\
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_course && git config --global user.name A && git config --global user.email a@example.org && \
git init -q work && cd work && cp ~/.ssh/id_course.pub . && git add . && git commit -q -m First && \
python -m venv own && own/bin/pip install -q iniconfig && own/bin/python -c 'import iniconfig' && pwd > ~/done
"""
Shoot = Callable[[str], None]


@dataclass
class Seat:
    """A student at work on a hub that has all features."""

    hub: Hub
    visitor: Visitor
    lab: Lab


def files(hub: Hub) -> list[str]:
    """What lies in the hub's environments and beside them, but for what Python makes of it by itself."""
    names = "find /opt/conda/envs /opt/install -name __pycache__ -prune -o ! -type d ! -name '.*lock' -print"
    return sorted(hub.exec(names).stdout.splitlines())


@pytest.fixture(scope="module")
def bare(hub: Hub) -> list[str]:
    """What lay there before the first feature came."""
    return files(hub)


@pytest.fixture(scope="module")
def seat(bare: list[str], hub: Hub, students: list[Person], browser: Browser, demo: Demo) -> Iterator[Seat]:
    """All features, installed once: each has passed its check in the hub, or the module would have taken it back."""
    done = settled(hub, "hub_features", features=ALL)
    assert done["applies"] == "server"
    assert done["problems"] == []
    for told in (done, succeed(hub, "hub_info", gather=["features"])):
        assert [one["name"] for one in told["features"]] == ALL
    visitor = Visitor(browser.new_context(viewport={"width": 1280, "height": 800}), demo, students[1])
    user = visitor.enter(hub).user
    at_rest(hub, user)
    yield Seat(hub, visitor, visitor.launch(hub))
    visitor.close()
    at_rest(hub, user)


def running(hub: Hub, user: str) -> bool:
    """Whether a user's server runs."""
    return user in {server["user"] for server in succeed(hub, "hub_servers")["servers"]}


def at_rest(hub: Hub, user: str) -> None:
    """Stop a user's server and empty the home, so that nothing of a former run passes for this one's."""
    succeed(hub, "hub_servers", state="stopped", users=[user])
    hub.exec(f"find /var/lib/private/{user} -mindepth 1 -delete")


@pytest.fixture
def shoot(seat: Seat, screenshots: Path, request: pytest.FixtureRequest) -> Shoot:
    """Keeps a picture of the student's screen, for the documentation, too."""

    def shoot(name: str) -> None:
        path = screenshots / f"{name}.png"
        seat.lab.page.screenshot(path=path)
        if request.config.getoption("--update-docs-images"):
            shutil.copy(path, ROOT / "docs/images")

    return shoot


@pytest.fixture
def share(hub: Hub, seat: Seat, demo: Demo, tmp_path: Path) -> Iterator[Share]:
    """A file on a WebDAV server that the hub finds by name."""
    (tmp_path / "far.txt").write_text("far away\n")
    hub.exec(f"cp /etc/hosts /run/ananke/hosts && echo {COMPUTER} {HOST} >> /etc/hosts")
    with served(tmp_path, demo.ca.parent) as share:
        yield share
    # JupyterLab would ask for the password whenever it is opened
    hub.exec(f"rm -rf /var/lib/private/{seat.lab.user}/.jupyter/lab/user-settings/jupyter-fs")
    hub.exec("cat /run/ananke/hosts > /etc/hosts; rm /run/ananke/hosts")


def test_a_server_with_all_features(seat: Seat) -> None:
    assert "pylsp" in seat.lab.api("GET", "lsp/status")["sessions"]
    assert seat.lab.kernel().run(LIBRARIES).strip() == "3"
    seat.lab.close_kernels()
    assert seat.lab.page.get_by_text("incompatible").count() == 0
    assert (
        seat.hub.exec(
            "cd /opt/conda/envs/jhub/bin && ./python jupyter-labextension list 2>&1 | grep -c ' X$'", check=False
        ).stdout.strip()
        == "0"
    )


def test_completion_knows_what_no_kernel_has_run(seat: Seat, shoot: Shoot) -> None:
    """The cell with the imports is never run, so that only the language server can know them, and the packages of python3."""
    notebook = opened(seat.lab, "complete.ipynb", cell("import json\nimport pandas"), cell(""))
    page = seat.lab.page
    for typed, wanted in (("json.lo", "loads"), ("pandas.read_c", "read_clipboard")):
        offered = page.locator(".jp-Completer-item").filter(has_text=wanted)

        def comes(typed: str = typed, offered: Locator = offered) -> bool:
            notebook.fill(1, typed)
            page.keyboard.press("Tab")
            return seen(offered, 20)

        until(comes, 120, f"{wanted} is offered for {typed}")
    shoot("completion")
    notebook.fill(1, "json.loads(")
    expect(page.locator(".lsp-signature-help").first).to_contain_text("object_hook", timeout=STEP_MS)


def test_a_mistake_is_marked(seat: Seat) -> None:
    opened(seat.lab, "mistake.ipynb", cell("print(unknown)"))
    expect(seat.lab.page.locator(".cm-lintRange").filter(has_text="unknown").first).to_be_visible(timeout=STEP_MS)


def test_myst_in_a_cell(seat: Seat, shoot: Shoot) -> None:
    seat.lab.kernel().run(CURVE)
    seat.lab.close_kernels()
    notebook = opened(seat.lab, "text.ipynb", cell("answer = 6 * 7\nprint(answer)"), cell(MYST, "markdown"))
    text = notebook.cell(1)
    note = text.locator("aside.myst-admonition-note")
    expect(note).to_contain_text("Mind this", timeout=STEP_MS)
    expect(text.locator("figure")).to_contain_text("The square of x")
    until(
        lambda: text.locator("figure img").evaluate("image => image.naturalWidth") > 0,
        STEP_MS / 1000,
        "the figure is there",
    )
    expect(note.get_by_role("link", name="Figure 1")).to_be_visible()
    expect(note.locator(".katex").first).to_be_visible()
    assert ":::" not in text.inner_text()
    notebook.run(0)

    def valued() -> bool:
        text.locator("h1").click()
        seat.lab.page.keyboard.press("Control+Enter")
        return seen(note.filter(has_text="The answer is 42"), 10)

    until(valued, STEP_MS / 1000, "a value of the kernel is in the text")
    shoot("myst")


def test_a_figure_of_matplotlib_is_zoomed(seat: Seat, shoot: Shoot) -> None:
    notebook = opened(seat.lab, "matplotlib.ipynb", cell(MATPLOTLIB), cell("print(*map(float, axes.get_xlim()))"))
    figure = notebook.run(0).locator(".jupyter-matplotlib-canvas-div")
    expect(figure).to_be_visible(timeout=STEP_MS)
    drawn = figure.locator("canvas").first
    until(lambda: colours(drawn) > 20, STEP_MS / 1000, "the figure is drawn")
    assert [round(float(x), 2) for x in notebook.run(1).inner_text().split()] == [-0.15, 3.15]

    before = drawn.screenshot()
    figure.hover()
    seat.lab.page.locator('.jupyter-matplotlib-button[title^="Zoom"]').click()
    dragged(figure, (0.3, 0.5), (0.6, 0.8))
    until(lambda: drawn.screenshot() != before and colours(drawn) > 20, STEP_MS / 1000, "the picture changes")

    def told() -> bool:
        left, right = map(float, notebook.run(1).inner_text().split())
        return 0 < left < right < 2

    until(told, STEP_MS / 1000, "the kernel knows the part that is seen")
    shoot("matplotlib")


def test_a_figure_of_plotly_is_zoomed(seat: Seat) -> None:
    notebook = opened(seat.lab, "plotly.ipynb", cell(PLOTLY))
    notebook.run(0)
    figure = notebook.cell(0).locator(".js-plotly-plot")
    expect(figure.locator(".scatterlayer .trace")).to_be_visible(timeout=STEP_MS)
    assert colours(figure) > 20
    ticks = figure.locator(".xtick")
    before = ticks.all_text_contents()
    dragged(figure.locator(".nsewdrag").first, (0.3, 0.3), (0.5, 0.6))
    until(lambda: ticks.all_text_contents() != before, STEP_MS / 1000, "the axis changes")


def test_a_job_runs_and_its_result_is_opened(seat: Seat, shoot: Shoot) -> None:
    opened(seat.lab, "answer.ipynb", cell("print('The answer is', 6 * 7)"))
    page = seat.lab.page
    page.locator('[data-command="scheduling:create-from-notebook"]').click()
    page.locator("input[name=jobName]").fill("The answer")
    page.get_by_role("checkbox", name="Notebook").check(timeout=STEP_MS)
    page.get_by_role("button", name="Create", exact=True).click()
    jobs = page.locator(".jp-notebook-jobs-panel")
    row = jobs.locator("tbody tr").filter(has_text="The answer").first

    def ended() -> bool:
        jobs.get_by_role("button", name="Reload").click()
        return "Completed" in row.inner_text()

    until(ended, 180, "the job has run")
    shoot("jobs")
    row.get_by_role("button", name="download").click()

    def fetched() -> list[str]:
        """Results that lie in the student's home."""
        job = max(seat.lab.api("GET", "scheduler/jobs")["jobs"], key=lambda job: int(job["create_time"]))
        files = {file["file_format"]: file["file_path"] for file in job["job_files"]}
        return [files["ipynb"]] if files.get("ipynb") and job["status"] == "COMPLETED" else []

    (path,) = until(fetched, STEP_MS / 1000, "the result is fetched")
    page.goto(f"{seat.lab.base}lab/tree/{quote(path)}?reset")
    output = page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output")
    expect(output).to_have_text("The answer is 42", timeout=2 * STEP_MS)


def test_a_file_on_a_webdav_server(seat: Seat, share: Share, shoot: Shoot) -> None:
    """Added in the settings, asked for the password, refused with another one, opened, saved."""
    page = seat.lab.page
    page.goto(f"{seat.lab.base}lab?reset")
    page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=STEP_MS)
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator('.lm-Menu-item[data-command="settingeditor:open"]').click()
    page.locator('.jp-PluginList-entry[data-id="jupyter-fs:plugin"]').click(timeout=STEP_MS)
    page.locator(".jp-SettingsPanel").get_by_role("button", name="Add", exact=True).first.click()
    page.locator("input[id$=_resources_0_name]").fill("Course files")
    page.locator("input[id$=_resources_0_url]").fill(share.url)

    browser = page.locator('.jp-SideBar .lm-TabBar-tab[title="Course files"]')
    for password in ("wrong", share.password):
        page.locator(".jfs-ask-form input[name=user]").fill(share.user, timeout=STEP_MS)
        page.locator(".jfs-ask-form input[name=password]").fill(password)
        if password == "wrong":  # noqa: S105
            shoot("webdav")
        page.get_by_role("button", name="Submit").click()
        browser.click(timeout=STEP_MS)
        if password == "wrong":  # noqa: S105
            expect(page.locator(".jp-Dialog")).to_contain_text("wrong user name or password", timeout=STEP_MS)
            page.goto(f"{seat.lab.base}lab?reset")

    page.locator(".jp-tree-finder-sidebar:visible").get_by_text("far.txt").dblclick(timeout=STEP_MS)
    text = page.locator(".jp-FileEditor:visible .cm-content")
    expect(text).to_contain_text("far away", timeout=STEP_MS)
    text.click()
    page.keyboard.type("not so ")
    page.keyboard.press("Control+s")
    far = share.folder / "far.txt"
    until(lambda: "not so" in far.read_text(), STEP_MS / 1000, "the file is changed on the server")
    log = seat.hub.exec(f"journalctl -o cat -u jupyter-{seat.lab.user}").stdout
    assert "wrong@" not in log
    assert share.password not in log
    assert "not so" in far.read_text()


def test_an_assignment_comes_and_goes(seat: Seat, instructor: Person, students: list[Person], visit: Visit) -> None:
    """Released by a hub admin, solved by a student, graded; another student sees nothing of it, and changes nothing."""
    hub, people = seat.hub, (instructor, students[0])
    users = [f"u{person.id}" for person in people]
    succeed(hub, "hub_servers", state="stopped", users=[name for name in users if running(hub, name)])
    hub.exec(
        f"cd /opt/nbgrader_exchange/{hub.name} && rm -rf outbound/* inbound/*/* feedback/* /var/lib/private/{users[0]}/{hub.name}"
    )
    teacher, student = (visit(person).enter(hub) for person in people)
    assert [teacher.user, student.user] == users
    try:
        teacher.kernel().run(grading.release(), 180)
        student.kernel().run(grading.FETCH, 300)
        seen_by_other = seat.lab.kernel().run(grading.LOOK).strip()
        assert seen_by_other == "[True, [], True, True, True, True]"
        seat.lab.close_kernels()
        assert teacher.kernel().run(grading.GRADE, 300).strip() == f"[('{student.user}', 3.0)]"
        assert student.kernel().run(grading.FEEDBACK, 120).strip() == "1"
    finally:
        hub.exec(f"cd /var/lib/private && rm -rf {users[0]}/{hub.name} {users[1]}/{grading.NAME}")
        succeed(hub, "hub_servers", state="stopped", users=users)


def test_a_terminal(seat: Seat) -> None:
    """HOME, ssh-keygen, git and packages of one's own, typed as a student types them."""
    page = seat.lab.page
    page.goto(f"{seat.lab.base}lab?reset")
    page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=STEP_MS)
    page.locator('.jp-LauncherCard[data-category="Other"]').filter(has_text="Terminal").click(timeout=STEP_MS)
    page.locator(".jp-Terminal .xterm-screen").click(timeout=STEP_MS)
    page.keyboard.insert_text(WORDS)
    page.keyboard.press("Enter")

    def names() -> set[str]:
        return {one["name"] for one in seat.lab.api("GET", "api/contents")["content"]}

    until(lambda: "done" in names(), 180, "the terminal has done all of it")
    assert seat.lab.api("GET", "api/contents/done")["content"].strip() == f"/var/lib/{seat.lab.user}/work"


def test_features_go(hub: Hub, bare: list[str]) -> None:
    """Last: the student's next server has none of them, and nothing of them is left."""
    removed = settled(hub, "hub_features", features=["lsp"])
    assert set(removed["removed"]) == {*ALL} - {"lsp"}
    settled(hub, "hub_features", features=[])
    assert files(hub) == bare
    assert "did you mean 'lsp'" in act(hub, "hub_features", features=["lps"])["msg"]
