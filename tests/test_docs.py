"""The documents: their links lead somewhere, their commands exist, and the README's example runs."""

import re
from pathlib import Path

import pytest

from rlhf_lab.models import checkpoint_folder
from tests.capabilities import ROOT

PAGES = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not any(part in ("runs", "node_modules") or part.startswith(".") for part in path.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_make_targets_that_the_readme_names_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([a-z-]+)", readme, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_modules_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", text):
        assert (ROOT / name).exists() or list((ROOT / "rlhf_lab").rglob(name)), name


def test_the_glossary_names_things_that_exist() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rlhf_lab").rglob("*.py"))
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and cells[3].startswith("`"):
            name = cells[3].strip("`").split(".")[-1]
            assert re.search(rf"\b{name}\b", sources) or list((ROOT / "rlhf_lab").rglob(f"{name}.py")), name


@pytest.mark.slow
def test_the_readmes_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the scale `tiny`, with fewer comparisons."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code
    names: dict[str, object] = {}
    # The smallest model writes little that people can agree on.
    fewer = "num_pairs=64, people=lab.population(agreement=0.6)"
    exec(code[1].replace('"laptop"', '"tiny"').replace("num_pairs=4_000", fewer), names)
    rows = names["rows"]
    assert isinstance(rows, dict)
    assert set(rows) == {"supervised", "human feedback"}


def test_base_models_ship_within_their_budget() -> None:
    folder = checkpoint_folder()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 12 * 2**20
