"""The shape of the code base: files stay small, public names load, and nothing lies about."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rlhf_lab
from tests.capabilities import ROOT

MODULES = sorted((ROOT / "rlhf_lab").rglob("*.py"))
MAX_LINES = 320


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert (node.end_lineno or 0) - first.lineno < 45, f"{node.name} is long"


def test_every_public_name_loads_and_is_documented() -> None:
    for name in rlhf_lab.__all__:
        assert getattr(rlhf_lab, name).__doc__, name


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="rlhf_lab has no 'pppo'; it has"):
        _ = rlhf_lab.pppo


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, rlhf_lab; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_every_module_is_somebodys() -> None:
    """A module that nothing imports, and that holds no public name, is dead."""
    homes = set(rlhf_lab._HOMES) | {"rlhf_lab.cli"}
    sources = {path: path.read_text(encoding="utf-8") for path in MODULES}
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name in homes or path.name == "__init__.py":
            continue
        parent, _, stem = name.rpartition(".")
        imported = rf"from {re.escape(name)} import |from {re.escape(parent)} import [^\n]*\b{stem}\b"
        started = rf'"-m", "{re.escape(name)}"|"{stem}"'  # As a process, or by the registry of exercises.
        uses = re.compile(f"{imported}|{started}")
        assert any(uses.search(text) for other, text in sources.items() if other != path), name
        assert importlib.import_module(name)
