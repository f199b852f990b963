import sys
from pathlib import Path

import pytest

from rlhf_lab.course import enclosure
from rlhf_lab.course.enclosure import Where, enclose, where
from rlhf_lab.course.watching import Limits


def command(shown: dict[str, Path] | None = None) -> list[str]:
    return enclose(
        ["/bin/true"],
        bubblewrap="bwrap",
        python=Path(sys.executable),
        shown=shown or {},
        environment={"HOME": "/home/student"},
        limits=Limits(),
        descriptors={"seccomp": 3},
    )


def place(options: list[str], *wanted: str) -> int:
    """Where a row of options stands among them."""
    places = [start for start in range(len(options)) if tuple(options[start : start + len(wanted)]) == wanted]
    assert places, wanted
    return places[0]


def test_a_folder_is_mounted_before_what_lies_in_it() -> None:
    options = command({"/opt/course/data/more": Path("/b"), "/opt/course/data": Path("/a")})
    outer = place(options, "--ro-bind", "/a", "/opt/course/data")
    assert place(options, "--perms", "0755", "--dir", "/opt/course") < outer
    assert outer < place(options, "--ro-bind", "/b", "/opt/course/data/more") < place(options, "--remount-ro", "/")


def test_a_copy_of_the_package_in_the_environment_is_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages = tmp_path / "env" / "lib"
    copy = packages / "rlhf_lab"
    copy.mkdir(parents=True)
    monkeypatch.setattr(enclosure, "where", lambda python: Where((str(tmp_path / "env"),), (str(packages),)))
    options = command()
    shown = place(options, "--ro-bind", str(tmp_path / "env"), str(tmp_path / "env"))
    assert shown < place(options, "--tmpfs", str(copy)) < place(options, "--remount-ro", str(copy))


@pytest.mark.parametrize("has_solutions", [False, True])
def test_a_checkout_in_a_folder_that_is_shown_is_hidden(
    has_solutions: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkout = tmp_path / "src" / "app"
    (checkout / "rlhf_lab").mkdir(parents=True)
    if has_solutions:
        (checkout / "solutions").mkdir()
    monkeypatch.setattr(enclosure, "PACKAGE", checkout / "rlhf_lab")
    monkeypatch.setattr(enclosure, "where", lambda python: Where((str(tmp_path), str(checkout / ".venv")), ()))
    options = command()
    hidden = place(options, "--tmpfs", str(checkout / "rlhf_lab"))
    if has_solutions:
        hidden = place(options, "--tmpfs", str(checkout))
        assert hidden < place(options, "--ro-bind", str(checkout / ".venv"), str(checkout / ".venv"))
    assert place(options, "--ro-bind", str(tmp_path), str(tmp_path)) < hidden


def test_where_this_python_keeps_its_files() -> None:
    found = where(Path(sys.executable))
    assert sys.prefix in found.prefixes or sys.prefix.startswith("/usr")
    assert not [prefix for prefix in found.prefixes if prefix.startswith("/usr/")]
    assert any(Path(folder, "pytest").is_dir() for folder in found.packages)
    # A virtual environment can be told to look into the folders of the Python that it is made from.
    assert any(Path(folder).is_relative_to(sys.base_prefix) for folder in found.packages)
