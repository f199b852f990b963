"""What a student handed in, read as bytes that may be hostile: the text of the answer cells, and nothing else.

Tags, outputs, metadata, other cells, their order and the kernel's name are never taken, so they cannot matter.
"""

import errno
import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_ENDING = re.compile(r"(?<=.)(\.ipynb(\.txt|\.json)?|\.[^.]*)$", re.IGNORECASE)
_COPY = re.compile(r"\s*\(\d+\)$")
"""What a browser adds to the name of a second download."""
_MARKER = re.compile(r"NBVAL_|PYTEST_VALIDATE", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLEAR = "clear its outputs (in JupyterLab: Edit, Clear Outputs of All Cells), save it, and hand it in again."


class Refused(ValueError):
    """A submission cannot be graded; the message completes "refused: ...", for the student to mend."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a submission may have."""

    file_bytes: int = 5 * 2**20
    """Of a notebook."""
    archive_bytes: int = 20 * 2**20
    """Of a zip file."""
    members: int = 2000
    """Files in an archive."""
    cells: int = 2000
    cell_letters: int = 100_000


LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A student's answers. Answers(cells={"gae-answer": "def gae(...): ..."}, notes=[], digest="...")."""

    cells: dict[str, str]
    """Text by the cell's id; those that were not there, or could not be used, are left out."""
    notes: list[str]
    """What was left out or changed, a sentence each."""
    digest: str
    """The same for the same answers and notes."""


def read_answers(path: Path, kinds: Mapping[str, str], *, name: str = "", limits: Limits = LIMITS) -> Answers:
    """The answers in a notebook, or in a zip file with the notebook.

    Args:
        path: What was handed in.
        kinds: The ids of the answer cells, and whether each is code or markdown.
        name: Which notebook of an archive, such as 04_ppo; by default its only one.
        limits: What is refused.

    Raises:
        Refused: The file is not what a student can have meant to hand in.
    """
    if path.suffix.lower() == ".zip":
        data = _unpacked(read_bytes(path, limits.archive_bytes), name, limits)
    else:
        data = read_bytes(path, limits.file_bytes)
    found, copies = _sorted_cells(_cells(data, limits), kinds)
    cells, notes = {}, []
    for answer, kind in kinds.items():
        label = answer.removesuffix("-answer")
        text, trouble = _one_text(found[answer] or copies[answer], kind, limits)
        if text is not None:
            cells[answer] = text
            if found[answer] and any(_clean(_source(copy) or "", kind)[0] != text for copy in copies[answer]):
                trouble.append("another cell is a copy of the answer's; only the answer's own was taken.")
        notes += [f"{label}: {sentence}" for sentence in trouble]
    content = json.dumps([sorted(cells.items()), notes]).encode()
    return Answers(cells=cells, notes=notes, digest=hashlib.sha256(content).hexdigest())


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The bytes of a plain file; links, devices and what is too large are never read.

    Raises:
        Refused: It is another thing, or larger than `max_bytes`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused("it is a link to another file; hand in the file itself.") from error
        raise Refused(f"it cannot be opened ({error.strerror}).") from error
    try:
        about = os.fstat(handle)  # Before anything is read, and of the very file that was opened.
        if not stat.S_ISREG(about.st_mode):
            raise Refused("it is no file but a folder or a device; hand in the notebook's file.")
        if about.st_nlink != 1:
            raise Refused("it is linked to another file; hand in a copy.")
        if about.st_size > max_bytes:
            raise Refused(_too_large(about.st_size, max_bytes))
        with open(handle, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise Refused(f"it cannot be read ({error.strerror}).") from error
    finally:
        os.close(handle)
    if len(data) > max_bytes:
        raise Refused(_too_large(len(data), max_bytes))
    return data


def _too_large(size: int, most: int) -> str:
    return f"it has {size / 2**20:.1f} MB, and {most / 2**20:.0f} MB are accepted: {_CLEAR}"


def stem_of(name: str) -> str:
    """The name of a file without its ending, and without a browser's " (1)" and ".txt"."""
    return _COPY.sub("", _ENDING.sub("", PurePosixPath(name).name))


def notebooks_in(path: Path, limits: Limits = LIMITS) -> list[str]:
    """The names of the notebooks in a zip file, without their endings.

    Raises:
        Refused: It is no zip file that can be used.
    """
    members = _members(_archive(read_bytes(path, limits.archive_bytes)), limits)
    return sorted({stem_of(member.filename) for member in members})


def _archive(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # zipfile has many ways to say that it is none.
        raise Refused("it is no zip file that can be read; pack it again.") from error


def _members(archive: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    """The notebooks in an archive, all of which is refused if any path in it is unsafe."""
    infos = archive.infolist()
    if len(infos) > limits.members:
        raise Refused(f"the archive holds {len(infos)} files; pack the notebook alone.")
    for info in infos:
        name = info.filename.replace("\\", "/")  # As some programs on Windows write it.
        if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
            raise Refused("the archive has a path that leads out of it; pack it again.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise Refused("the archive holds a link; pack the file itself.")
        info.filename = name
    return [info for info in infos if _is_notebook(info.filename)]


def _is_notebook(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return name.lower().endswith(".ipynb") and not hidden


def _unpacked(data: bytes, name: str, limits: Limits) -> bytes:
    """The notebook in an archive, in memory; nothing is written to disk."""
    with _archive(data) as archive:
        found = [info for info in _members(archive, limits) if not name or stem_of(info.filename) == name]
        if len(found) != 1:
            raise Refused(f"the archive holds {len(found)} files named {name or '*'}.ipynb instead of one.")
        if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused("the archive is packed in an unusual way; make a plain zip file.")
        try:
            with archive.open(found[0]) as member:
                content = member.read(limits.file_bytes + 1)  # The size that it claims may be a lie.
        except Exception as error:  # Damaged, encrypted, or made to break zipfile.
            raise Refused("the archive is damaged or has a password; pack it again.") from error
    if len(content) > limits.file_bytes:
        raise Refused(f"the notebook in the archive has more than {limits.file_bytes / 2**20:.0f} MB: {_CLEAR}")
    return content


def _cells(data: bytes, limits: Limits) -> list[dict[str, Any]]:
    if not data.strip():
        raise Refused("it is empty.")
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Refused("it is not text in UTF-8; save it in Jupyter again.") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refused("it is no notebook, or a damaged one (not JSON); save it in Jupyter again.") from error
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells", []), list):
        raise Refused("it is no notebook; save it in Jupyter again.")
    version = notebook.get("nbformat")
    if isinstance(version, int) and version > 4:
        raise Refused(f"it has a newer format ({str(version)[:9]}); save it as nbformat 4.")
    if version != 4 or "cells" not in notebook:
        raise Refused("it is no notebook of nbformat 4; open it in Jupyter and save it again.")
    if len(notebook["cells"]) > limits.cells:
        raise Refused(f"it has {len(notebook['cells'])} cells, and {limits.cells} are accepted.")
    return [cell for cell in notebook["cells"] if isinstance(cell, dict)]


Found = Mapping[str, Sequence[Mapping[str, Any]]]


def _sorted_cells(cells: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> tuple[Found, Found]:
    """The cells with each answer's id, and those without it that nbgrader's metadata gives to the answer.

    Some programs drop the ids, and a cell that was cut and pasted has another; the metadata stays with it.
    """
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    copies: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for cell in cells:
        name, grade_id = cell.get("id"), _grade_id(cell)
        if isinstance(name, str) and name in kinds:
            found[name].append(cell)
        elif grade_id in kinds:
            copies[grade_id].append(cell)
    return found, copies


def _grade_id(cell: Mapping[str, Any]) -> str:
    metadata = cell.get("metadata")
    grading = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name = grading.get("grade_id") if isinstance(grading, dict) else None
    return name if isinstance(name, str) else ""


def _one_text(cells: Sequence[Mapping[str, Any]], kind: str, limits: Limits) -> tuple[str | None, list[str]]:
    """The text of an answer, None where there is not exactly one, and what is to be said about it."""
    if not cells:
        return None, ["the answer's cell is missing, so it counts as not answered."]
    right = [cell for cell in cells if cell.get("cell_type") == kind]
    if not right:
        return None, [f"the answer's cell is no {kind} cell any more, so it was not used; turn it back into one."]
    sources = [_source(cell) for cell in right]
    if any(source is None for source in sources):
        return None, ["the answer's cell holds no text, so it was not used; save the notebook in Jupyter again."]
    if any(len(source or "") > limits.cell_letters for source in sources):
        return None, [f"the answer's cell has more than {limits.cell_letters} letters, so it was not used."]
    cleaned = [_clean(source or "", kind) for source in sources]
    if len({text for text, _ in cleaned}) > 1:
        return None, [f"{len(cleaned)} cells with this id hold different answers, so none was used; keep one."]
    text, num_markers = cleaned[0]
    return text, ["a marker that is meant for nbval was taken out of the answer."] * bool(num_markers)


def _source(cell: Mapping[str, Any]) -> str | None:
    source = cell.get("source")
    if isinstance(source, list) and all(isinstance(part, str) for part in source):
        return "".join(source)
    return source if isinstance(source, str) else None


def _clean(source: str, kind: str) -> tuple[str, int]:
    """The text as Python can read it, and how many markers of nbval were taken out."""
    text = source.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    text = _SURROGATE.sub("\ufffd", text)
    return _without_markers(text) if kind == "code" else (text, 0)


def _without_markers(text: str) -> tuple[str, int]:
    """Comments that would silence nbval are emptied. Lines are what nbval takes for lines: U+2028 ends one too."""
    pieces, count = text.splitlines(keepends=True), 0
    for place, piece in enumerate(pieces):
        if piece.strip().startswith("#") and _MARKER.search(piece):
            line = piece.splitlines()[0]
            pieces[place] = line[: line.index("#")] + "# (a marker was here)" + piece[len(line) :]
            count += 1
    return "".join(pieces), count
