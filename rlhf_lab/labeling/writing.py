"""What simulated people write: edits of an answer, the ideal in its place, and what should change, in words."""

import functools
import itertools
import random
import re
from collections.abc import Sequence

from rlhf_lab.data import authored
from rlhf_lab.data.judge import Judge
from rlhf_lab.data.revising import MOST_REMARKS, Change, improvements, remark
from rlhf_lab.feedback import Labeler
from rlhf_lab.labeling.items import Item

MOST_CHANGES = 4
"""That an editor has the patience for in one answer."""
_SENTENCES = re.compile(r"(?<=[.!?])\s+")


def revised(item: Item, labeler: Labeler, judge: Judge, rng: random.Random) -> str:
    """The answer with what they mind put right: wrong facts corrected, missing ones added, the rest struck out."""
    if item.sources[0] in authored.KINDS:
        return shortened(item, labeler, judge)
    made = _wanted(item, labeler, judge, rng, MOST_CHANGES)
    return made[-1].text if made else item.answers[0]


def written_feedback(item: Item, labeler: Labeler, judge: Judge, rng: random.Random) -> str:
    """What they would have changed first, a remark a line; nothing where they would change nothing."""
    if item.sources[0] in authored.KINDS:
        return ""
    return "\n".join(remark(change, rng) for change in _wanted(item, labeler, judge, rng, MOST_REMARKS))


def _wanted(item: Item, labeler: Labeler, judge: Judge, rng: random.Random, most: int) -> list[Change]:
    def liking(text: str) -> float:
        return labeler.utility(judge.judge(item.prompt, text))

    return list(itertools.islice(improvements(judge, item.prompt, item.answers[0], liking, rng), most))


def shortened(item: Item, labeler: Labeler, judge: Judge) -> str:
    """The answer without its invented words, where they are marked; else without the sentences that they mind."""
    text = item.answers[0]
    if item.sources[0] in authored.KINDS:
        mark = item.info.get("mark") or _marks().get(text.strip(), "")
        without = _tidy(text.replace(mark, "", 1)) if mark and mark in text else text
        return without if without.strip() else text
    space, sentences = text[: len(text) - len(text.lstrip())], _SENTENCES.split(text.strip())

    def liking(chosen: Sequence[str]) -> float:
        return labeler.utility(judge.judge(item.prompt, " ".join(chosen)))

    while len(sentences) > 1:
        shorter = [[*sentences[:place], *sentences[place + 1 :]] for place in range(len(sentences))]
        best = max(shorter, key=liking)
        if liking(best) <= liking(sentences):
            break
        sentences = best
    return text if len(sentences) == len(_SENTENCES.split(text.strip())) else space + " ".join(sentences)


@functools.cache
def _marks() -> dict[str, str]:
    """The invented words of each authored summary that has some; none where the posts are not there."""
    try:
        posts = authored.load_authored()
    except (OSError, ValueError):
        return {}
    kinds = ("invented", "confident")
    return {one.text.strip(): one.mark for post in posts for one in post.candidates if one.kind in kinds}


def _tidy(text: str) -> str:
    """A text from which words were struck out, its spaces, commas and first letter mended.

    Example:
        >>> _tidy(" He left without a word, . ")
        ' He left without a word.'
    """
    text = re.sub(r"\s+([,.;?!])", r"\1", re.sub(r" {2,}", " ", text.rstrip()))
    text = re.sub(r"[,;]+([.?!])", r"\1", text)
    start = re.match(r"[\s,;.]*", text)
    rest = text[start.end() if start else 0 :]
    return text[: len(text) - len(text.lstrip())] + rest[:1].upper() + rest[1:]
