"""Clips of behavior: two segments of equal length as an item, and what people said of them as probabilities.

A clip is stored as one picture of all its frames (PNG, without loss), so that a page can play two of them in step.

Reference: Christiano et al. 2017, arXiv:1706.03741, section 2.2.
"""

import base64
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.learning import selected
from rlhf_lab.labeling.store import LabelStore

KIND = "compare_clips"
QUESTION = "Which clip shows the better behavior?"
Clip = np.ndarray
"""uint8 (frames, height, width, 3)."""
_PICTURE = "data:image/png;base64,"
_PROBS = {"first": 1.0, "second": 0.0, "tie": 0.5}


def clip_items(
    pairs: Sequence[Sequence[Clip]], *, question: str, frames_per_second: float, known: set[str]
) -> list[Item]:
    """The pairs as items, without those whose ids are `known`.

    Raises:
        ValueError: No pairs, one that cannot be shown side by side, or a rate that cannot be played.
    """
    if not 0 < frames_per_second <= 60:
        raise ValueError(f"frames_per_second must be above 0 and at most 60, not {frames_per_second}.")
    if len(pairs) == 0:
        raise ValueError("there are no pairs of clips to compare; give at least one.")
    found: dict[str, Item] = {}
    for number, pair in enumerate(pairs):
        names = _names(pair, number)
        content = "/".join([question, *names, str(float(frames_per_second))])
        name = hashlib.sha256(content.encode()).hexdigest()[:16]
        if name not in known and name not in found:
            frames = len(pair[0])
            info = {"frames": frames, "columns": _columns(frames), "frames_per_second": float(frames_per_second)}
            films = tuple(map(_film, pair))
            found[name] = Item(id=name, kind=KIND, prompt=question, answers=films, info={**info, "clips": names})
    return list(found.values())


def clips_of(item: Item | Mapping[str, Any]) -> tuple[Clip, Clip]:
    """The two clips of an item, or of a row of `LabelStore.labels()`, frame by frame as they were given."""
    answers, info = (item.answers, item.info) if isinstance(item, Item) else (item["answers"], item["info"])
    first, second = (_frames(film, info["frames"], info["columns"]) for film in answers)
    return first, second


def clip_preferences(
    pairs: Sequence[Sequence[Clip]],
    store: LabelStore | str | Path = "labels.sqlite",
    *,
    question: str = QUESTION,
    labeler: str | Sequence[str] | None = None,
) -> list[float | None]:
    """How likely the first clip of each pair is the better one (mu), as people said; None where they did not.

    1 the first, 0 the second, 1/2 equally good, and the mean over those who answered. "Cannot tell" is no answer.

    Args:
        pairs: As they were shown; a pair is known by its frames, at whatever speed they were played.
        store: Where the labels are: a `LabelStore`, a file, or `postgresql://user@host/name`.
        question: What was asked.
        labeler: One or several whose labels count; by default everybody's.

    Raises:
        ValueError: A pair that cannot have been shown, or a labeler without labels.

    Reference:
        Christiano et al. 2017, arXiv:1706.03741, section 2.2.2.
    """
    store = store if isinstance(store, LabelStore) else LabelStore(store)
    said: dict[tuple[str, ...], list[float]] = {}
    for label in selected(store.labels(KIND), labeler=labeler, gold=True):
        if label["prompt"] == question and label["value"]["choice"] in _PROBS:
            said.setdefault(tuple(label["info"]["clips"]), []).append(_PROBS[label["value"]["choice"]])
    answers = [said.get(tuple(_names(pair, number))) for number, pair in enumerate(pairs)]
    return [None if answer is None else sum(answer) / len(answer) for answer in answers]


def _names(pair: Sequence[Clip], number: int) -> list[str]:
    """What each clip is known by.

    Raises:
        ValueError: They are no two clips of one length, or the same.
    """
    if len(pair) != 2:
        raise ValueError(f"pair {number} has {len(pair)} clips; give two.")
    for clip in pair:
        if not isinstance(clip, np.ndarray) or clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3:] != (3,):
            has = f"{clip.dtype} {clip.shape}" if isinstance(clip, np.ndarray) else type(clip).__name__
            raise ValueError(f"a clip is an array uint8 (frames, height, width, 3); pair {number} has {has}.")
        if clip.size == 0:
            raise ValueError(f"pair {number} has a clip without frames or pixels, {clip.shape}; drop it.")
    if len(pair[0]) != len(pair[1]):
        raise ValueError(
            f"the clips of pair {number} have {len(pair[0])} and {len(pair[1])} frames; cut them to one length."
        )
    names = [hashlib.sha256(str(clip.shape).encode() + clip.tobytes()).hexdigest()[:32] for clip in pair]
    if names[0] == names[1]:
        raise ValueError(f"the clips of pair {number} are the same, so there is nothing to choose; drop it.")
    return names


def _columns(frames: int) -> int:
    """Of a picture that is about as wide as high: browsers refuse a very long one."""
    return math.ceil(math.sqrt(frames))


def _film(clip: Clip) -> str:
    frames, height, width, _ = clip.shape
    columns = _columns(frames)
    rows = math.ceil(frames / columns)
    cells = np.zeros((rows * columns, height, width, 3), np.uint8)
    cells[:frames] = clip
    picture = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    return _PICTURE + base64.b64encode(png(picture)).decode()


def _frames(film: str, frames: int, columns: int) -> Clip:
    with Image.open(io.BytesIO(base64.b64decode(film.removeprefix(_PICTURE)))) as image:
        picture = np.asarray(image)
    rows = math.ceil(frames / columns)
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    cells = picture.reshape(rows, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
    return cells[:frames]


def png(picture: np.ndarray, *, compress_level: int = 6) -> bytes:
    """uint8 (height, width, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()
