"""What an edit changed, as spans of the original text."""

import difflib
import itertools
import re
from typing import Any

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST = 4_000_000
"""Words times words above which what lies between the shared ends is one change: the comparison takes their product."""


def spans(original: str, edited: str) -> list[dict[str, Any]]:
    """The changes that turn `original` into `edited`, word by word.

    Each is `{"start": int, "end": int, "text": str}`: the characters start to end of the original become `text`. Empty
    `text` strikes out, start = end inserts. In order and apart, so that `apply_spans` gives `edited` again.

    Example:
        >>> spans("My cat left me.", "My black cat left.")
        [{'start': 3, 'end': 3, 'text': 'black '}, {'start': 11, 'end': 14, 'text': ''}]
    """
    before, after = _WORDS.findall(original), _WORDS.findall(edited)
    starts = [0, *itertools.accumulate(map(len, before))]
    same = _num_same(before, after)
    same_end = _num_same(before[same:][::-1], after[same:][::-1])
    before, after = before[same : len(before) - same_end], after[same : len(after) - same_end]
    if len(before) * len(after) > _MOST:
        changes = [("replace", 0, len(before), 0, len(after))]
    else:
        changes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [
        {"start": starts[same + first], "end": starts[same + last], "text": "".join(after[new:end])}
        for tag, first, last, new, end in changes
        if tag != "equal"
    ]


def _num_same(one: list[str], other: list[str]) -> int:
    """Length of the beginning that both share."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def apply_spans(original: str, changes: list[dict[str, Any]]) -> str:
    """The text that the changes make of `original`.

    Example:
        >>> apply_spans("My cat left me.", [{"start": 11, "end": 14, "text": ""}])
        'My cat left.'
    """
    text, at = [], 0
    for change in changes:
        text += [original[at : change["start"]], change["text"]]
        at = change["end"]
    return "".join([*text, original[at:]])
