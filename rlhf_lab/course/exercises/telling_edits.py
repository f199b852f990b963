"""Notebook 09: which tokens an edit is about, and which refinement of a draft to learn from."""

from collections.abc import Sequence

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise

Span = Sequence[int]
"""Start and end, in characters; the end does not belong to it."""


def _struck(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """Whether a character of the token was struck out, or put in another's place."""
    return np.array([any(start < end and a < end and start < b for start, end in spans) for a, b in tokens])


def _struck_cases(rng: np.random.Generator) -> list[Case]:
    def tokens(lengths: Sequence[int]) -> list[list[int]]:
        ends = np.cumsum(lengths).tolist()
        return [[end - length, end] for length, end in zip(lengths, ends, strict=True)]

    def drawn(number: int, changes: int) -> tuple[list[list[int]], list[list[int]]]:
        cut = tokens(rng.integers(1, 6, size=number).tolist())
        places = np.sort(rng.choice(np.arange(cut[-1][1]), size=2 * changes, replace=False)).reshape(changes, 2)
        return cut, places.tolist()

    words = tokens([2, 4, 3, 5])
    return [
        Case(title="one whole token", args=(words, [[2, 6]])),
        Case(title="from within one to within another", args=(words, [[4, 7]])),
        Case(title="a part of a token", args=(words, [[7, 8]])),
        Case(title="within a token, and beyond both of its ends", args=(words, [[3, 11]])),
        Case(title="something was put in between", args=(words, [[6, 6]])),
        Case(title="something was put in within a token", args=(words, [[4, 4]])),
        Case(title="nothing was changed", args=(words, [])),
        Case(title="several changes", args=drawn(12, 3)),
        Case(title="many tokens", args=drawn(30, 5)),
    ]


def _contained(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """Only tokens that are struck out whole are found: a token of which a part went is not what the editor wanted."""
    return np.array([any(start <= a and b <= end for start, end in spans) for a, b in tokens])


def _starts_within(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """Only tokens that begin within a change are found, not one that began before it."""
    return np.array([any(start <= a < end for start, end in spans) for a, b in tokens])


def _neighbours_too(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """A token that ends where a change begins has no character in it: an end does not belong to its span."""
    return np.array([any(start < end and a <= end and start <= b for start, end in spans) for a, b in tokens])


def _insertions_too(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """Where something was only put in (start = end) nothing was struck out: whose fault is what is not there?"""
    return np.array([any(a < max(end, start + 1) and start < b for start, end in spans) for a, b in tokens])


def _one_end_within(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """A change may lie within a token, with neither of the token's ends in it."""
    return np.array([any(start <= a < end or start < b <= end for start, end in spans) for a, b in tokens])


def _first_change(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    """Only the first change counts here: an edit may have several."""
    return _struck(tokens, list(spans)[:1])


def _by_characters(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    gone = {place for start, end in spans for place in range(start, end)}
    return np.array([not gone.isdisjoint(range(*token)) for token in tokens])


def _by_array(tokens: Sequence[Span], spans: Sequence[Span]) -> np.ndarray:
    gone = np.zeros(tokens[-1][1] + 1, dtype=int)
    for start, end in spans:
        gone[start:end] = 1
    before = np.concatenate([[0], np.cumsum(gone)])
    return np.array([before[b] > before[a] for a, b in tokens])


STRUCK_TOKENS = Exercise(
    id="struck-tokens",
    title="Where was it wrong?",
    kind="implement",
    points=2,
    minutes=10,
    difficulty=2,
    reference=_struck,
    cases=_struck_cases,
    mistakes=(_one_end_within, _contained, _starts_within, _neighbours_too, _insertions_too, _first_change),
    variants=(_by_characters, _by_array),
)


def _kept(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    """The best refinement of each draft, or -1 where none is liked better than the draft."""
    best = refinements.argmax(axis=1)
    return np.where(refinements.max(axis=1) > drafts, best, -1)


def _kept_cases(rng: np.random.Generator) -> list[Case]:
    def case(title: str, number: int, tries: int, ahead: float) -> Case:
        return Case(title=title, args=(rng.normal(size=number) - ahead, rng.normal(size=(number, tries))))

    return [
        Case(title="three drafts", args=(np.array([0.0, 2.0, 1.0]), np.array([[0.5, 0.1], [1.0, 1.9], [1.0, 0.0]]))),
        case("as many tries as drafts", 4, 4, 0.0),
        case("good drafts", 12, 3, -1.0),
        case("bad drafts", 12, 4, 1.5),
        case("one try each", 8, 1, 0.0),
    ]


def _whatever_comes(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    """A draft that is better than all its refinements: to learn from these would be a step back."""
    return refinements.argmax(axis=1)


def _first_better(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    """The first that is better than its draft, not the best: you have paid for all of them."""
    better = refinements > drafts[:, None]
    return np.where(better.any(axis=1), better.argmax(axis=1), -1)


def _one_bar(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    """Each draft has its own score to beat: scores of different posts have no common zero."""
    return np.where(refinements.max(axis=1) > drafts.mean(), refinements.argmax(axis=1), -1)


def _above_zero(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    """A score above 0 means nothing: it is to be above that of its draft."""
    return np.where(refinements.max(axis=1) > 0, refinements.argmax(axis=1), -1)


def _over_drafts(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    """The best over the wrong axis: a row has the refinements of one draft."""
    best = refinements.argmax(axis=0)
    return np.resize(best, len(drafts))


def _ties_too(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    """A refinement that is liked exactly as much as the draft says nothing about what to change."""
    return np.where(refinements.max(axis=1) >= drafts, refinements.argmax(axis=1), -1)


def _by_loop(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    found = []
    for draft, row in zip(drafts, refinements, strict=True):
        place = max(range(len(row)), key=lambda index, row=row: row[index])
        found.append(place if row[place] > draft else -1)
    return np.array(found)


def _with_the_draft(drafts: np.ndarray, refinements: np.ndarray) -> np.ndarray:
    return np.concatenate([drafts[:, None], refinements], axis=1).argmax(axis=1) - 1


KEEP_THE_BEST = Exercise(
    id="keep-the-best",
    title="What to learn from",
    kind="find the bug",
    points=2,
    minutes=6,
    difficulty=1,
    reference=_kept,
    cases=_kept_cases,
    mistakes=(_whatever_comes, _first_better, _one_bar, _above_zero, _over_drafts, _ties_too),
    variants=(_by_loop, _with_the_draft),
)
