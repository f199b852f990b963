import io
import json
import os
import stat
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lab.course.intake import LIMITS, Refused, notebooks_in, read_answers

KINDS = {"gae-answer": "code", "curve-answer": "markdown"}
GAE, CURVE = "def gae():\n    return 1\n", "It falls, since β grows."


def cell(name: str | None, source: Any, kind: Any = "code", **more: Any) -> dict[str, Any]:
    return {"cell_type": kind, "source": source, "metadata": {}} | ({"id": name} if name else {}) | more


def graded(name: str, grade_id: Any, source: str, kind: str = "code") -> dict[str, Any]:
    return cell(name or None, source, kind, metadata={"nbgrader": {"grade_id": grade_id}})


def notebook(*cells: Any, **more: Any) -> bytes:
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)} | more).encode()


HONEST = (cell("gae-answer", GAE), cell("curve-answer", CURVE, "markdown"))


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], tuple[dict[str, str], list[str]]]:
    def read(data: bytes) -> tuple[dict[str, str], list[str]]:
        path = tmp_path / "handed_in.ipynb"
        path.write_bytes(data)
        answers = read_answers(path, KINDS)
        return answers.cells, answers.notes

    return read


@pytest.mark.parametrize(
    "data",
    [
        notebook(*HONEST),
        b"\xef\xbb\xbf" + notebook(*HONEST),
        notebook(*HONEST).replace(b"\\n", b"\\r\\n"),
        notebook(*HONEST).replace(b"\\n", b"\\r"),
        notebook(*HONEST).replace(b"return", b"ret\\u0000urn"),
        notebook(*reversed(HONEST)),
        notebook(*HONEST, *HONEST),
        notebook(cell("gae-answer", GAE.splitlines(keepends=True)), HONEST[1]),
        notebook(*HONEST, metadata={"kernelspec": {"name": "rm -rf", "language": 7}}, nbformat_minor=99),
        notebook(
            cell("gae-answer", GAE, outputs="x", execution_count="y", metadata={"tags": ["nbval-skip"]}), HONEST[1]
        ),
        notebook(None, 7, "cell", [], {}, cell("gae-answer", 1, "raw"), *HONEST, cell("gae-check", "check = print")),
        notebook(cell("gae-answer", "text", "markdown"), *HONEST),
        notebook(graded("", "gae-answer", GAE), graded("", "curve-answer", CURVE, "markdown")),
        notebook(graded("pasted", "gae-answer", GAE), HONEST[1]),
        notebook(*HONEST, graded("copy", "gae-answer", GAE)),
        notebook(*HONEST, graded("x", ["gae-answer"], "no"), cell(None, "no", metadata=[]), cell({}, "no")),
    ],
    ids=lambda data: "",
)
def test_answers_are_taken_whatever_else_a_notebook_holds(data: bytes, read: Callable[..., Any]) -> None:
    assert read(data) == ({"gae-answer": GAE, "curve-answer": CURVE}, [])


@pytest.mark.parametrize(
    ("cells", "note"),
    [
        ([], "gae: the answer's cell is missing"),
        ([cell("gae-answer", "1"), cell("gae-answer", "2")], "gae: 2 cells with this id hold different answers"),
        ([graded("", "gae-answer", "1"), graded("", "gae-answer", "2")], "gae: 2 cells with this id"),
        ([cell("gae-answer", GAE, "markdown")], "gae: the answer's cell is no code cell any more"),
        ([cell("gae-answer", GAE, ["code"])], "gae: the answer's cell is no code cell any more"),
        ([cell("gae-answer", {"a": 1})], "gae: the answer's cell holds no text"),
        ([cell("gae-answer", ["a", 1])], "gae: the answer's cell holds no text"),
        ([cell("gae-answer", "x" * 100_001)], "gae: the answer's cell has more than 100000 letters"),
        ([cell("gae-answer", ["x" * 100] * 1001)], "gae: the answer's cell has more than 100000 letters"),
    ],
)
def test_an_answer_that_cannot_be_used_is_said_and_left_out(
    cells: list[Any], note: str, read: Callable[..., Any]
) -> None:
    found, notes = read(notebook(*cells, HONEST[1]))
    assert found == {"curve-answer": CURVE}
    assert len(notes) == 1 and notes[0].startswith(note)


def test_of_an_answer_and_a_changed_copy_the_answer_is_taken(read: Callable[..., Any]) -> None:
    found, notes = read(notebook(graded("copy", "gae-answer", "other"), *HONEST))
    assert found["gae-answer"] == GAE
    assert notes == ["gae: another cell is a copy of the answer's; only the answer's own was taken."]


def test_a_lone_surrogate_cannot_break_what_writes_the_answer(read: Callable[..., Any]) -> None:
    found, _ = read(notebook(*HONEST).replace(b"return 1", b"return '\\ud800' + '\\ud83d\\ude00'"))
    assert found["gae-answer"] == "def gae():\n    return '\ufffd' + '\U0001f600'\n"
    found["gae-answer"].encode()


# What nbval looks for, in the way that it does.
def markers_that_nbval_sees(source: str) -> list[str]:
    known = {"NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION", "NBVAL_IGNORE_OUTPUT", "NBVAL_CHECK_OUTPUT"}
    known.add("PYTEST_VALIDATE_IGNORE_OUTPUT")
    lines = [line.strip() for line in source.splitlines()]
    return [line for line in lines if line.startswith("#") and line.lstrip("#").strip() in known]


@pytest.mark.parametrize(
    "marker", ["# NBVAL_SKIP", "#NBVAL_RAISES_EXCEPTION", "###  NBVAL_IGNORE_OUTPUT ", "#PYTEST_VALIDATE_IGNORE_OUTPUT"]
)
@pytest.mark.parametrize("before", ["", "    ", "x = 1\n\t", "# remark\u2028", "# remark\x0c", "s = '''\x1c", "a\x85 "])
def test_no_marker_of_nbval_comes_through(marker: str, before: str, read: Callable[..., Any]) -> None:
    source = f"{before}{marker}\ny = 2"
    assert markers_that_nbval_sees(source)
    found, notes = read(notebook(cell("gae-answer", source), HONEST[1]))
    assert markers_that_nbval_sees(found["gae-answer"]) == []
    assert found["gae-answer"] == f"{before}# (a marker was here)\ny = 2"
    assert notes == ["gae: a marker that is meant for nbval was taken out of the answer."]


def test_written_answers_may_speak_of_markers(read: Callable[..., Any]) -> None:
    found, notes = read(notebook(HONEST[0], cell("curve-answer", "# NBVAL_SKIP\nis a marker", "markdown")))
    assert found["curve-answer"] == "# NBVAL_SKIP\nis a marker" and notes == []


@given(st.text(alphabet="#NBVAL_SKIP \n\t\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029x'", max_size=60))
def test_no_text_hides_a_marker(text: str) -> None:
    from rlhf_lab.course.intake import _clean

    assert markers_that_nbval_sees(_clean(f"{text}\n# NBVAL_SKIP", "code")[0]) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"{", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"nbformat": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"nbformat": ' + b"9" * 4000 + b', "cells": []}', "a newer format"),
        (notebook(*HONEST).decode().encode("utf-16"), "not text in UTF-8"),
        (notebook(*HONEST).replace(b"It", b"\xff"), "not text in UTF-8"),
        (notebook(*HONEST).replace(b"It", b"\0"), "not JSON"),
        (notebook(*HONEST, nbformat=5), r"a newer format \(5\); save it as nbformat 4"),
        (notebook(*HONEST, nbformat=3), "no notebook of nbformat 4"),
        (notebook(*HONEST, nbformat=True), "no notebook of nbformat 4"),
        (notebook(*HONEST, nbformat="4"), "no notebook of nbformat 4"),
        (b'{"nbformat": NaN, "cells": []}', "no notebook of nbformat 4"),
        (b'{"nbformat": 4}', "no notebook of nbformat 4"),
        (b'{"nbformat": 4, "cells": {"a": 1}}', "no notebook"),
        (b"[1, 2]", "no notebook"),
        (notebook(*[{}] * 2001), "2001 cells"),
        (notebook(*HONEST) + b" " * LIMITS.file_bytes, "it has 5.0 MB, and 5 MB are accepted: clear its outputs"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_what_is_no_notebook_is_refused(data: bytes, reason: str, read: Callable[..., Any]) -> None:
    with pytest.raises(Refused, match=reason):
        read(data)


def test_200_mb_of_outputs_are_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "big.ipynb"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    with pytest.raises(Refused, match=r"it has 200\.0 MB.*clear its outputs"):
        read_answers(path, KINDS)


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def hard_link(path: Path) -> None:
    (path.parent / "other").write_bytes(notebook(*HONEST))
    os.link(path.parent / "other", path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (link, "it is a link"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a link"),
        (lambda path: path.symlink_to(path), "it is a link"),
        (hard_link, "it is linked to another file"),
        (os.mkfifo, "no file but a folder or a device"),
        (Path.mkdir, "no file but a folder or a device"),
        (lambda path: None, r"cannot be opened \(No such file"),
    ],
)
@pytest.mark.parametrize("name", ["a.ipynb", "a.zip"])
def test_what_is_no_file_of_its_own_is_refused(
    make: Callable[[Path], None], reason: str, name: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(Refused, match=reason):
        read_answers(tmp_path / name, KINDS)


def pack(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED, mode: int = stat.S_IFREG) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = (mode | 0o644) << 16, compression
            archive.writestr(info, content)
    return data.getvalue()


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[[bytes], dict[str, str]]:
    def unpack(data: bytes) -> dict[str, str]:
        path = tmp_path / "ana.zip"
        path.write_bytes(data)
        return read_answers(path, KINDS, name="04_ppo").cells

    return unpack


OURS = notebook(*HONEST)


@pytest.mark.parametrize(
    "members",
    [
        {"04_ppo.ipynb": OURS},
        {
            "my work/04_ppo.ipynb": OURS,
            "__MACOSX/my work/._04_ppo.ipynb": b"x",
            "my work/.ipynb_checkpoints/04_ppo.ipynb": b"x",
        },
        {"work\\04_ppo.ipynb": OURS},
        {"04_ppo (1).ipynb": OURS, "05_tldr.ipynb": b"", "notes.txt": b""},
    ],
)
def test_an_archive_with_the_notebook_is_as_good_as_the_notebook(
    members: dict[str, bytes], unpack: Callable[..., Any]
) -> None:
    assert unpack(pack(members)) == {"gae-answer": GAE, "curve-answer": CURVE}


def lying() -> bytes:
    """An archive whose notebook is far larger than it says."""
    data = bytearray(pack({"04_ppo.ipynb": b" " * (LIMITS.file_bytes + 10)}))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.rindex(signature) + offset
        data[at : at + 4] = (100).to_bytes(4, "little")
    return bytes(data)


def locked() -> bytes:
    data = bytearray(pack({"04_ppo.ipynb": OURS}))
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        data[data.rindex(signature) + offset] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pack({"../04_ppo.ipynb": OURS}), "leads out of it"),
        (pack({"04_ppo.ipynb": OURS, "a/../../x": b""}), "leads out of it"),
        (pack({"a\\..\\..\\04_ppo.ipynb": OURS}), "leads out of it"),
        (pack({"/tmp/04_ppo.ipynb": OURS}), "leads out of it"),
        (pack({"C:\\04_ppo.ipynb": OURS}), "leads out of it"),
        (pack({"04_ppo.ipynb": b"/etc/passwd"}, mode=stat.S_IFLNK), "a link"),
        (pack({f"{number}": b"" for number in range(2001)}), "2001 files"),
        (pack({"a/04_ppo.ipynb": OURS, "b/04_ppo.ipynb": OURS}), "holds 2 files named 04_ppo.ipynb"),
        (pack({"05_tldr.ipynb": OURS}), "holds 0 files named 04_ppo.ipynb"),
        (pack({"04_ppo.ipynb": OURS}, zipfile.ZIP_LZMA), "an unusual way"),
        (pack({"04_ppo.ipynb": OURS})[:-30], "no zip file"),
        (b"PK", "no zip file"),
        (lying(), "damaged"),
        (locked(), "has a password"),
        (pack({"04_ppo.ipynb": b"{"}), "not JSON"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_an_archive_that_is_not_safe_or_not_clear_is_refused(
    data: bytes, reason: str, unpack: Callable[..., Any]
) -> None:
    with pytest.raises(Refused, match=reason):
        unpack(data)


def test_a_bomb_is_not_unpacked(unpack: Callable[..., Any]) -> None:
    data = pack({"04_ppo.ipynb": b" " * 60 * 2**20})
    tracemalloc.start()
    with pytest.raises(Refused, match="more than 5 MB"):
        unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20


def test_a_damaged_member_is_refused(unpack: Callable[..., Any]) -> None:
    data = bytearray(pack({"04_ppo.ipynb": OURS}))
    data[60:80] = b"\xff" * 20
    with pytest.raises(Refused, match="damaged"):
        unpack(bytes(data))


def test_the_notebooks_of_an_archive_are_known_without_unpacking_it(tmp_path: Path) -> None:
    path = tmp_path / "ana.zip"
    path.write_bytes(pack({"a/04_ppo.ipynb": b"", "05_tldr (2).ipynb": b"", "x.txt": b"", "__MACOSX/z.ipynb": b""}))
    assert notebooks_in(path) == ["04_ppo", "05_tldr"]


def test_the_only_notebook_of_an_archive_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "ana.ZIP"
    path.write_bytes(pack({"my.ipynb": OURS}))
    assert read_answers(path, KINDS).cells["gae-answer"] == GAE


def test_the_digest_is_of_the_answers_alone(tmp_path: Path) -> None:
    def digest(*cells: Any) -> str:
        path = tmp_path / "a.ipynb"
        path.write_bytes(notebook(*cells))
        return read_answers(path, KINDS).digest

    before = digest(*HONEST)
    assert digest(cell("x", "1"), *HONEST) == before
    assert digest(HONEST[0], cell("curve-answer", "It rises.", "markdown")) != before
    assert digest(HONEST[0]) != before


def test_limits_are_the_callers(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(OURS)
    with pytest.raises(Refused, match="are accepted"):
        read_answers(path, KINDS, limits=replace(LIMITS, file_bytes=len(OURS) - 1))
    assert read_answers(path, KINDS, limits=replace(LIMITS, file_bytes=len(OURS))).notes == []
