"""Each notebook of the course, run by "Run All Cells" in a real JupyterLab in a real browser."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nbformat import NotebookNode

from rlhf_lab.course.notebooks import load
from tests.capabilities import ROOT

if TYPE_CHECKING:
    from tests.jupyter import Lab

SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
PICTURES = os.environ.get("RLHF_LAB_PICTURES")
"""Folder for pictures of what the pages look like, light and dark, for people to look at."""


@pytest.mark.slow
@pytest.mark.needs("browser")
@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda path: path.stem)
def test_run_all_cells(solution: Path, lab: "Lab") -> None:
    shutil.copyfile(solution, lab.server.root / solution.name)
    lab.switch(solution.name)
    assert lab.run_all(timeout_ms=240_000), [cell for cell in lab.cells() if "stream" not in cell["outputs"]][-3:]
    cells = [cell for cell in lab.cells() if cell["type"] == "code"]
    failed = [cell for cell in cells if any(":" in output for output in cell["outputs"])]
    assert not failed
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    figures = lab.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-RenderedImage img")
    assert figures.count() == len(_figures(solution)) > 0, "a figure is missing"
    # The fonts of mathematics aside, which JupyterLab has itself, a page asks nobody for anything.
    assert not lab.page.outside  # type: ignore[attr-defined]
    assert not [problem for problem in lab.page.problems if "pageerror" in problem]  # type: ignore[attr-defined]
    if PICTURES:
        _take_pictures(lab, Path(PICTURES) / solution.stem)


def _figures(solution: Path) -> list[NotebookNode]:
    """Outputs with a picture, as the solution stores them."""
    outputs = [output for cell in load(solution).cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "image/png" in output.get("data", {})]


def _take_pictures(lab: "Lab", folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("Light", "Dark"):
        lab.theme(f"JupyterLab {theme}")
        shown = lab.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")
        for index in range(shown.count()):
            cell = shown.nth(index)
            if cell.locator(".jp-RenderedImage, .jupyter-widgets, .rlhf-label, table").count():
                lab.shoot(cell, folder / f"{index:02d}-{theme.lower()}.png")
