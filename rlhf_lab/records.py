"""Text-level values that flow between stages and into files.

Sets of them travel as `datasets.Dataset` with TRL's column names; a record is the typed view of one row.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

QUERY_TEMPLATE = "SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:"
"""Query of the TL;DR task. Huang et al. 2024, arXiv:2403.17031, detail 2.1; no trailing space (2.3)."""

SCALES = ("tiny", "laptop", "gpu")
"""The one dial: seconds for CI, minutes on two cores, or real models and data on GPUs."""


def check_scale(scale: str) -> str:
    """`scale` if it is one of `SCALES`.

    Raises:
        ValueError: It is not.
    """
    if scale not in SCALES:
        raise ValueError(f"scale {scale!r} is unknown; choose one of {', '.join(SCALES)}.")
    return scale


@contextlib.contextmanager
def naming(path: Path) -> Generator[None]:
    """Errors of the operating system carry the name of `path`, which those of a full disk do not by themselves.

    Raises:
        OSError: As inside, with `filename`.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part.

    Raises:
        OSError: The disk is full or the folder cannot be written; it names `path`. The old file is as it was.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # A temporary file is its owner's alone.
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def replace_folder(source: Path, target: Path) -> None:
    """Put the finished folder `source` where `target` is, so that a reader sees the old one or the new one."""
    if target.exists():
        old = target.with_name(f".{target.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
        os.replace(source, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(source, target)


Record = TypeVar("Record", bound="_Record")


class _Record:
    """Round trip to JSON and to a dataset's row."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def to_json(self) -> str:
        """One line of JSON, keys in field order."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_dict(cls: type[Record], row: dict[str, Any]) -> Record:
        """The record of a row; columns that the record does not have are ignored.

        Raises:
            ValueError: A required column is missing.
        """
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        required = [field.name for field in fields if field.default is dataclasses.MISSING]
        missing = [name for name in required if name not in row]
        if missing:
            raise ValueError(
                f"{cls.__name__} needs the columns {', '.join(required)}; {', '.join(missing)} missing "
                f"among {', '.join(map(str, row))}."
            )
        return cls(**{field.name: row[field.name] for field in fields if field.name in row})

    @classmethod
    def from_json(cls: type[Record], line: str) -> Record:
        """The record written by `to_json`."""
        return cls.from_dict(json.loads(line))


def require_text(value: object, name: str) -> str:
    """`value` if it is text with something in it.

    Raises:
        ValueError: It is not a string, or empty, or white space only.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text that is not empty, not {value!r}; remove the row or fill it in.")
    return value


def require_chosen_prob(value: object) -> float:
    """`value` as a float if it is a number from 0.5 to 1.

    Raises:
        ValueError: It is outside, NaN, or no number; True is none, though Python takes it for 1.
    """
    if not isinstance(value, float | int) or isinstance(value, bool) or not 0.5 <= value <= 1.0:
        raise ValueError(
            f"chosen_prob must be a number from 0.5 (a tie) to 1 (sure), not {value!r}; leave it out for a plain label "
            f"or, if the rejected answer is likelier to be the better, swap the two."
        )
    return float(value)


def require_group(value: object) -> str:
    """`value` if it is text; it may be empty.

    Raises:
        ValueError: It is not a string.
    """
    if not isinstance(value, str):
        raise ValueError(
            f'group must be text ("" for a pair that stands alone), not {value!r}; write the group\'s name as text.'
        )
    return value


@dataclass(frozen=True, kw_only=True)
class Prompt(_Record):
    r"""A post that asks for a summary.

    Example:
        >>> Prompt(subreddit="pets", title="My cat", post="It left.").query
        'SUBREDDIT: r/pets\n\nTITLE: My cat\n\nPOST: It left.\n\nTL;DR:'
    """

    subreddit: str
    title: str
    post: str

    def __post_init__(self) -> None:
        """Refuse an empty post."""
        require_text(self.post, "post")

    @property
    def query(self) -> str:
        """What the models read, ending in `TL;DR:`."""
        return QUERY_TEMPLATE.format(subreddit=self.subreddit, title=self.title, post=self.post)


@dataclass(frozen=True, kw_only=True)
class Demonstration(_Record):
    """A query and the summary that a person wrote, with its leading space."""

    prompt: str
    completion: str

    def __post_init__(self) -> None:
        """Refuse empty texts."""
        require_text(self.prompt, "prompt")
        require_text(self.completion, "completion")


@dataclass(frozen=True, kw_only=True)
class Comparison(_Record):
    """A query and two summaries, the better one first; or one pair of a ranking of K summaries."""

    prompt: str
    chosen: str
    rejected: str
    labeler: str = ""
    confidence: int = 0
    """Stiennon et al.'s 9-point scale folded onto the chosen side: 1 (barely) to 4 (surely); 0 when not asked."""
    chosen_prob: float = 1.0
    """How sure it is that the chosen summary is the better one, 0.5 to 1; 0.5 is a tie."""
    group: str = ""
    """Rows of one group are one labeler's ranking of one prompt's summaries, pair by pair; "" stands alone."""

    def __post_init__(self) -> None:
        """Refuse pairs that say nothing, and values outside their range."""
        require_text(self.prompt, "prompt")
        if self.chosen == self.rejected:
            raise ValueError(
                f"chosen and rejected are the same text ({self.chosen!r:.60}): such a pair says nothing; drop it."
            )
        if self.confidence not in range(5):
            raise ValueError(f"confidence must be 0 (not asked) or 1 to 4, not {self.confidence!r}.")
        require_chosen_prob(self.chosen_prob)
        require_group(self.group)


@dataclass(frozen=True, kw_only=True)
class Label(_Record):
    """One labeler's answer about one item, as it is written down."""

    item: str
    labeler: str
    kind: str
    """compare, rate or rank."""
    value: Any
    """compare: 1 to 9 (5 = undecided); rate: axis to 1 to 7; rank: list of ranks, 1 the best."""
    seconds: float = 0.0
