"""For `pytest --nbval solutions`: compare what a cell says, not the widgets that it shows.

The view of a widget or of a progress bar lives with its kernel: its id is random, and its text is an address in memory
or a percentage at that moment. nbval passes over the id; here the whole output is passed over.
"""

import os

import pytest

LIVE = "application/vnd.jupyter.widget-view+json"

# Figures are drawn in the page, as they are in JupyterLab, whatever the shell is set to.
os.environ.pop("MPLBACKEND", None)
os.environ.setdefault("OMP_NUM_THREADS", "2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each cell of a notebook compare without widgets."""
    for item in items:
        if compare := getattr(item, "compare_outputs", None):
            item.compare_outputs = _without_widgets(compare)  # type: ignore[attr-defined]


def _without_widgets(compare):
    def compared(*sides, **options):
        return compare(*([out for out in side if LIVE not in out.get("data", ())] for side in sides), **options)

    return compared
