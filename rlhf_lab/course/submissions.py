r"""Who handed in what: a folder of submissions, in any of the ways in which they reach an instructor.

- flat files: ana_04_ppo.ipynb, 04_ppo_ana.ipynb, or ana.zip with her notebooks;
- a folder for each student: ana/04_ppo.ipynb, or as Moodle names it;
- nbgrader: submitted/ana/week4/04_ppo.ipynb, with timestamp.txt beside it;
- the download of Canvas: exampleana_LATE_12345_67890_04_ppo-1.ipynb.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rlhf_lab.course.intake import LIMITS, Refused, notebooks_in, read_bytes, stem_of

_CANVAS = re.compile(r"(?P<who>.+?)(?P<late>_LATE)?_(?P<user>\d+)_(?P<file>\d+)_(?P<rest>.+)")
_CANVAS_ANONYMOUS = re.compile(r"(?P<late>LATE_)?(?P<who>anon_[^_]+)_(?P<file>\d+)_(?P<rest>.+)")
_MOODLE = re.compile(r"(?P<who>.+?)_assignsubmission_file_?(?P<rest>.*)")
_RESUBMITTED = re.compile(r"-(\d+)$")
_OFFERED = re.compile(r"\.(ipynb(\.txt|\.json)?|zip|7z|rar|tar|tgz|gz|bz2|xz)$", re.IGNORECASE)
"""Files that somebody meant to hand in, though only notebooks and zip files can be read."""
_SEPARATORS = "_-. "
_MAX_DEPTH = 6
_MAX_NAME_BYTES = 150


class SubmissionsError(ValueError):
    """A folder of submissions cannot be understood; the message says what to mend."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A notebook of a student, such as Submission(student="ana", notebook="04_ppo", path=Path("ana_04_ppo.ipynb"))."""

    student: str
    notebook: str
    path: Path
    """The notebook, or a zip file with it; nobody has looked inside yet."""
    submitted: datetime | None = None
    late_marked: bool = False
    """Canvas says so, without saying when it was handed in."""
    canvas_id: str = ""
    """The student's number in Canvas."""
    notes: tuple[str, ...] = ()
    """What the instructor should know about how it was found."""
    refused: str = ""
    """Why it cannot be used, whatever is in it."""

    def content_digest(self) -> str:
        """The same for the same bytes; where they cannot be used, for the same reason."""
        limit = LIMITS.archive_bytes if self.path.suffix.lower() == ".zip" else LIMITS.file_bytes
        try:
            content = read_bytes(self.path, limit)
        except Refused as error:
            content = f"refused: {error}".encode()
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Name:
    """What the place and name of a file say."""

    path: Path
    student: str
    stem: str
    """What is left of the name, which says which notebook it is."""
    late_marked: bool = False
    canvas_id: str = ""
    timestamp: Path | None = None
    turn: tuple[int, int] | None = None
    """Of several files of one student in Canvas, the greatest counts."""


def find_submissions(folder: Path, notebooks: Sequence[str]) -> list[Submission]:
    """The submissions in a folder, by student and notebook.

    Args:
        folder: Where they are; links in it are not followed.
        notebooks: The names of the notebooks that can be handed in, such as 04_ppo.

    Raises:
        SubmissionsError: No folder or nothing in it, or a file that is nobody's. A student's own odd files, or several
            for one notebook, are a submission that is refused.
    """
    found: dict[tuple[str, str], list[tuple[_Name, Submission]]] = {}
    odd: dict[str, list[_Name]] = {}
    unknown = []
    for path in _paths(folder):
        name = _read_name(path, path.relative_to(folder).parts, notebooks)
        asked = _notebooks_of(name, notebooks)
        for notebook in asked:
            if not name.student:
                raise SubmissionsError(
                    f"{_shown(path)} does not say whose it is; name it STUDENT_{notebook}{path.suffix}, or put it into "
                    f"a folder with the student's name."
                )
            found.setdefault((name.student, notebook), []).append((name, _submission(name, notebook)))
        if not asked and name.student:
            odd.setdefault(name.student, []).append(name)
        elif not asked:
            unknown.append(path)
    if unknown or not found:
        raise SubmissionsError(_not_clear(unknown or [one.path for names in odd.values() for one in names], notebooks))
    chosen = {key: _only(several) for key, several in found.items()}
    for student, names in odd.items():
        chosen |= _with_odd(student, names, chosen)
    return [chosen[key] for key in sorted(chosen)]


def _not_clear(paths: Sequence[Path], notebooks: Sequence[str]) -> str:
    names = ", ".join(map(_shown, paths[:5])) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return (
        f"it is not clear which notebook this is: {names}; known are {', '.join(notebooks)}. Rename it or take it out "
        f"of the folder (the download of a whole class has to be unpacked)."
    )


_Key = tuple[str, str]


def _with_odd(student: str, names: Sequence[_Name], chosen: Mapping[_Key, Submission]) -> dict[_Key, Submission]:
    """A student's submissions, where some files are none of the notebooks: it must not stop the others."""
    files = ", ".join(name.path.name for name in names)
    own = {key: submission for key, submission in chosen.items() if key[0] == student}
    if own:
        note = f"left aside, not a notebook that is asked for: {_printable(_decoded(files))}."
        return {key: replace(submission, notes=(*submission.notes, note)) for key, submission in own.items()}
    handed_in = sorted({notebook for _, notebook in chosen})
    why = f"not a notebook that is asked for, by its name: {_printable(_decoded(files))}; name it {handed_in[0]}.ipynb."
    return {(student, one): replace(_submission(names[0], one), refused=why) for one in handed_in}


def safe_name(student: str) -> str:
    """A file name for a student: no two have the same, and none leads elsewhere.

    Example:
        >>> safe_name("ana"), safe_name("../x")
        ('ana', '%2E.%2Fx')
    """
    name = "".join(letter if letter.isalnum() or letter in "-_.@+(), " else _percent(letter) for letter in student)
    name = re.sub(r"^[. ]|[. ]$", lambda edge: _percent(edge[0]), name) or "%"
    if len(name.encode("utf-8", "replace")) <= _MAX_NAME_BYTES:
        return name
    # "~" is in no other name, and the start tells a person whose it is.
    digest = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[:30]}~{digest[:24]}"


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


def _paths(folder: Path) -> list[Path]:
    if not folder.exists():
        raise SubmissionsError(f"the folder of submissions {folder} does not exist; check the path.")
    if not folder.is_dir():
        raise SubmissionsError(f"{folder} is a file; unpack it and give the folder.")
    submitted = folder / "submitted"
    top = submitted if submitted.is_dir() and not submitted.is_symlink() else folder
    try:
        paths = sorted(_walk(top, _MAX_DEPTH))
    except OSError as error:
        raise SubmissionsError(f"{error.filename} cannot be read ({error.strerror}); check its permissions.") from error
    if not paths:
        raise SubmissionsError(
            f"{folder} holds no submissions: no .ipynb or .zip files, by themselves or in a folder for each student "
            f"(links to folders are not followed)."
        )
    return paths


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if _OFFERED.search(entry.name):  # Of whatever kind: reading it refuses all but files.
                yield Path(entry.path)
            elif depth and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), depth - 1)


def _read_name(path: Path, parts: Sequence[str], notebooks: Sequence[str]) -> _Name:
    """Folders name the student: what lies in one is named by the student, who could name another."""
    folders = list(parts[:-1])
    if folders[:1] == ["submitted"] and len(folders) > 1:
        folders = folders[1:]
    stem = stem_of(path.name)
    if folders:
        moodle = _MOODLE.fullmatch(folders[0])
        who = _student(moodle["who"] if moodle else folders[0])
        return _Name(path=path, student=who, stem=stem, timestamp=path.parent / "timestamp.txt")
    matches = [found for pattern in (_CANVAS_ANONYMOUS, _CANVAS, _MOODLE) if (found := pattern.fullmatch(stem))]
    named = [one for one in matches if not _is_notebook(path) or _split(_unnumbered(one["rest"]), notebooks)]
    if not named and (flat := _split(stem, notebooks)):
        return _Name(path=path, student=_student(flat[0]), stem=flat[1])
    if not matches:
        return _Name(path=path, student="" if _is_notebook(path) else _student(stem), stem=stem)
    # The platform wrote the start of the name, and the student the rest, which may look like another start.
    match = min(named or matches, key=lambda match: len(match["who"]))
    if match.re is not _MOODLE:
        return _canvas_name(path, match)
    return _Name(path=path, student=_student(match["who"]), stem=match["rest"])


def _is_notebook(path: Path) -> bool:
    """A browser may have added .txt or .json to the name."""
    return ".ipynb" in (path.suffix.lower(), Path(path.stem).suffix.lower())


def _canvas_name(path: Path, match: re.Match[str]) -> _Name:
    user = match.groupdict().get("user", "")
    number = _RESUBMITTED.search(match["rest"])
    return _Name(
        path=path,
        # Two students may have one name, but not one number.
        student=_student(f"{match['who']}_{user}" if user else match["who"]),
        stem=_unnumbered(match["rest"]),
        late_marked=bool(match["late"]),
        canvas_id=user,
        turn=(int(number[1]) if number else 0, int(match["file"])),
    )


def _unnumbered(stem: str) -> str:
    return _RESUBMITTED.sub("", stem)


def _split(stem: str, notebooks: Sequence[str]) -> tuple[str, str] | None:
    """The student and the notebook in a name such as ana_04_ppo or 04_ppo.ana; None if it names no notebook."""
    found: dict[str, str] = {}
    for notebook in notebooks:
        before, after = stem.removesuffix(notebook), stem.removeprefix(notebook)
        if stem == notebook:
            found[notebook] = ""
        elif before != stem and before[-1] in _SEPARATORS:
            found[notebook] = before[:-1]
        elif after != stem and after[0] in _SEPARATORS:
            found[notebook] = after[1:]
    # Of a name within another name, such as ppo in 04_ppo, the longer one is meant.
    best = [name for name in found if not any(name != other and name in other for other in found)]
    return (found[best[0]], best[0]) if len(best) == 1 else None


def _notebooks_of(name: _Name, notebooks: Sequence[str]) -> list[str]:
    """The known notebooks in a file; none if that is not clear."""
    named = _split(name.stem, notebooks)
    if _is_notebook(name.path):
        return [named[1]] if named else []
    if name.path.suffix.lower() != ".zip":
        return []
    try:
        inside = notebooks_in(name.path)
    except Refused:  # Whoever reads it will be told the reason.
        return [named[1]] if named else []
    return [notebook for notebook in notebooks if notebook in inside]


def _submission(name: _Name, notebook: str) -> Submission:
    time, notes = _time(name.timestamp)
    return Submission(
        student=name.student,
        notebook=notebook,
        path=name.path,
        submitted=time,
        late_marked=name.late_marked,
        canvas_id=name.canvas_id,
        notes=notes,
    )


def _only(found: Sequence[tuple[_Name, Submission]]) -> Submission:
    """Of what a student handed in for a notebook, the one that counts."""
    if len(found) == 1:
        return found[0][1]
    turns = [name.turn for name, _ in found if name.turn]
    if len(turns) < len(found):
        files = ", ".join(_shown(submission.path) for _, submission in found)
        if len({submission.content_digest() for _, submission in found}) == 1:
            return replace(found[0][1], notes=(*found[0][1].notes, f"handed in more than once, all the same: {files}."))
        return replace(found[0][1], refused=f"there are {len(found)} that differ: {files}; keep one.")
    last = found[turns.index(max(turns))][1]
    others = [_shown(submission.path) for _, submission in found if submission is not last]
    return replace(last, notes=(*last.notes, f"handed in again; left aside: {', '.join(others)}."))


def _time(path: Path | None) -> tuple[datetime | None, tuple[str, ...]]:
    """When nbgrader says that it was handed in, if it does."""
    if path is None or not os.path.lexists(path):
        return None, ()
    try:
        text = read_bytes(path, 1000).decode().strip()
        # nbgrader writes 2026-11-30 21:30:00.000000 UTC.
        time = datetime.fromisoformat(re.sub(r"\s*(UTC|Z)$", "+00:00", re.sub(r"\s+(?=[+-]\d)", "", text)))
    except ValueError:
        return None, ("timestamp.txt holds no time that can be read, so it is not known when this was handed in.",)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)), ()


def _student(name: str) -> str:
    """A name that can be written down: the same letters the same, and none that cannot be seen."""
    return _printable(unicodedata.normalize("NFC", _decoded(name))).strip(_SEPARATORS)


def _shown(path: Path) -> str:
    return _printable(_decoded(str(path)))


def _decoded(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)
