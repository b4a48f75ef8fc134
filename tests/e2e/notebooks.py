"""A hub user's notebooks in JupyterLab: opened, typed into, run, looked at."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import Any

from browsing import STEP_MS, Lab
from playwright.sync_api import Error, Locator, Page, expect

from testbed.waiting import until

# Draws a picture's bytes and counts the colours of its pixels.
COLOURS_JS = """async (bytes) => {
  const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)], { type: "image/png" }));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  return new Set(new Uint32Array(canvas.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer)).size;
}"""


@dataclass(frozen=True)
class Notebook:
    """A notebook that is open in a person's JupyterLab."""

    lab: Lab

    @property
    def page(self) -> Page:
        return self.lab.page

    def cell(self, number: int) -> Locator:
        """The cell with this number; the first is 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def click(self, number: int) -> None:
        """Put the cursor into a cell."""
        self.cell(number).locator(".cm-content").click(timeout=STEP_MS)

    def fill(self, number: int, text: str) -> None:
        """Type a text into a cell, in place of what it has."""
        self.click(number)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def run(self, number: int) -> Locator:
        """Run a cell, wait until it has run, and return its output."""
        prompt = self.cell(number).locator(".jp-InputPrompt")
        before = prompt.inner_text()

        def ran() -> bool:
            # what is pressed before a notebook is quite ready is lost
            if "*" not in prompt.inner_text():
                self.click(number)
                self.page.keyboard.press("Control+Enter")
            with contextlib.suppress(AssertionError):
                expect(prompt).to_have_text(re.compile(r"\d"), timeout=5_000)
            return prompt.inner_text() != before and "*" not in prompt.inner_text()

        until(ran, 2 * STEP_MS / 1000, f"cell {number} has run")
        return self.cell(number).locator(".jp-OutputArea-output")


def cell(source: str, kind: str = "code") -> dict[str, Any]:
    """A cell of a notebook's file."""
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": source, **code}


def written(lab: Lab, name: str, *cells: dict[str, Any]) -> None:
    """Put a notebook for the kernel python3 into the person's home."""
    kernel = {"name": lab.kernel_name(), "display_name": "python3", "language": "python"}
    content = {"cells": list(cells), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    lab.api("PUT", f"api/contents/{name}", {"type": "notebook", "content": content})


def opened(lab: Lab, name: str, *cells: dict[str, Any]) -> Notebook:
    """The same, opened in JupyterLab, with the only kernel that runs, which waits for work."""
    # a page that still shows a notebook would want its kernel back
    lab.page.goto(f"{lab.base}lab?reset")
    lab.page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=STEP_MS)
    for session in lab.sessions():
        lab.api("DELETE", f"api/sessions/{session['id']}")
    written(lab, name, *cells)
    lab.page.goto(f"{lab.base}lab/tree/{name}?reset")
    lab.page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=STEP_MS)
    lab.page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=2 * STEP_MS)
    lab.dismiss_news()
    return Notebook(lab)


def seen(shown: Locator, seconds: float) -> bool:
    """Whether a part of a page comes in this time."""
    with contextlib.suppress(Error):
        shown.first.wait_for(timeout=seconds * 1000)
    return shown.count() > 0


def dragged(place: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Move the mouse from one point of a place to another with its button down; points as shares of width and height."""
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    assert box
    (x, y), (to_x, to_y) = ((box["x"] + box["width"] * a, box["y"] + box["height"] * b) for a, b in (start, end))
    mouse = place.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(to_x, to_y, steps=5)
    mouse.up()


def colours(shown: Locator) -> int:
    """In how many colours a part of a page is drawn: one means that nothing is."""
    page = shown.page.context.new_page()
    try:
        return int(page.evaluate(COLOURS_JS, list(shown.screenshot())))
    finally:
        page.close()
