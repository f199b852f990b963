"""The gold judge: how good a summary of a world's post truly is, on the four axes of Stiennon et al. 2020.

Every form that a fact can take is a path in one trie, so the judge reads the facts out of the post and out of the
summary by longest match. A fact in other words is covered, a fact that the post does not state is named as invented or
misattributed, and words that belong to no known clause cost coherence.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlhf_lab.data.lexicon import SLOTS, Lexicon, Value, fill, load_lexicon

SLOT_WEIGHTS = {"what": 0.30, "who": 0.15, "complication": 0.20, "question": 0.15, "when": 0.10, "feeling": 0.10}
"""Share of coverage that each fact of a post carries, before those the post lacks are taken out."""
COPIED_CREDIT = 0.5
"""Coverage earned by a fact in the post's own sentence: to repeat is not to summarize."""
FREE_WORDS = 36
"""A summary may be this long; at twice this length it is worth nothing."""
FREE_MARKERS = 2
"""Hedges, thanks and complaints up to this number do no harm."""
_END = ""
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")

Fact = tuple[str, str]
"""(slot, value id)"""


class Clause(NamedTuple):
    """What a path of the trie means.

    Clause(facts=(("who", "wife"), ("what", "phone/read")), pronoun="she", copied=False, marker="")
    """

    facts: tuple[Fact, ...]
    pronoun: str
    copied: bool
    marker: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A summary's grades (1 to 7, as labelers give them) and what they rest on."""

    overall: float
    coverage: float
    accuracy: float
    coherence: float
    covered: tuple[Fact, ...]
    misattributed: tuple[Fact, ...]
    """Facts of a slot that the post fills otherwise."""
    invented: tuple[Fact, ...]
    """Facts of a slot that the post does not fill at all."""
    num_words: int
    markers: tuple[str, ...]
    """Kinds of the style markers, in order: hedge, sure, polite, complaint."""

    @property
    def num_facts(self) -> int:
        """Facts said, true or not."""
        return len(self.covered) + len(self.misattributed) + len(self.invented)


def words_of(text: str) -> list[str]:
    """The words that the judge sees: lower case, no punctuation.

    Example:
        >>> words_of("My mother-in-law says: I'm fine!")
        ['my', 'mother-in-law', 'says', "i'm", 'fine']
    """
    return _WORD.findall(text.lower())


class Judge:
    """Reads facts and grades summaries. Pure Python, deterministic; a `Reward` on texts through `__call__`."""

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        """Build the trie of every form in `lexicon` (default: the world that ships)."""
        self.lexicon = lexicon or load_lexicon()
        self._trie: dict[str, Any] = {}
        self._pronouns: dict[str, str] = {}
        for text, clause in _forms(self.lexicon):
            node = self._trie
            for word in words_of(text):
                node = node.setdefault(word, {})
            known = node.setdefault(_END, clause)
            if known.facts != clause.facts and not (known.pronoun and known.pronoun != clause.pronoun):
                raise ValueError(f"the form {text!r} means both {known.facts} and {clause.facts}; change one of them.")
        for frame in self.lexicon.frames:
            self._pronouns.update({person.id: person.pronoun for person in frame.people})
        self._facts = functools.lru_cache(maxsize=1 << 16)(self._read)

    def facts(self, prompt: str) -> dict[str, str]:
        """The facts that a post states: slot to value id. Text outside `POST:` ... `TL;DR:` does not count."""
        return dict(self._facts(prompt))

    def _read(self, prompt: str) -> dict[str, str]:
        post = prompt.partition("\n\nPOST: ")[2] or prompt
        words = words_of(post.removesuffix("TL;DR:"))
        return {
            slot: value for unit, _, _ in self._units(words) if isinstance(unit, Clause) for slot, value in unit.facts
        }

    def _units(self, words: list[str]) -> Iterator[tuple[Clause | None, int, int]]:
        """Longest known clause at each place, or None for a word that starts none; with start and end."""
        start, length = 0, len(words)
        while start < length:
            node, end, clause = self._trie, start + 1, None
            for position in range(start, length):
                node = node.get(words[position])
                if node is None:
                    break
                if _END in node:
                    clause, end = node[_END], position + 1
            yield clause, start, end
            start = end

    def clauses(self, text: str) -> Iterator[tuple[Clause, int, int]]:
        """The known clauses of a text, each with where it starts and ends in it."""
        found = list(_WORD.finditer(text.lower()))
        for clause, start, end in self._units([one.group() for one in found]):
            if clause is not None:
                yield clause, found[start].start(), found[end - 1].end()

    def judge(self, prompt: str, summary: str) -> Judgement:
        """Grades of `summary` as a summary of `prompt`."""
        facts = self._facts(prompt)
        words = words_of(summary)
        reading = _Reading(facts, self._pronouns.get(facts.get("who", ""), ""), self.lexicon.glue)
        for clause, start, end in self._units(words[: 6 * FREE_WORDS]):
            reading.take(clause, words[start], end - start)
        return reading.grade(len(words))

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """The overall grade of each response, 1 to 7."""
        return [self.judge(*pair).overall for pair in zip(prompts, responses, strict=True)]


class _Reading:
    """What the judge has understood of one summary so far."""

    __slots__ = ("credit", "facts", "glue", "good_words", "markers", "pending_glue", "pronoun", "said", "wrong")

    def __init__(self, facts: dict[str, str], pronoun: str, glue: frozenset[str]) -> None:
        self.facts, self.pronoun, self.glue = facts, pronoun, glue
        self.credit: dict[str, float] = {}
        self.wrong: dict[Fact, str] = {}
        self.said: set[tuple[Fact, ...]] = set()
        self.markers: list[str] = []
        self.good_words = self.pending_glue = 0

    def take(self, clause: Clause | None, first_word: str, num_words: int) -> None:
        """Add the next clause, marker, glue word or unknown word."""
        if clause is None:
            # A glue word counts once it has joined two clauses; two in a row join nothing.
            self.pending_glue = 1 if first_word in self.glue and self.said and not self.pending_glue else -1
            return
        if clause.marker:
            self.markers.append(clause.marker)
            accepted = len(self.markers) <= FREE_MARKERS
        else:
            accepted = clause.facts not in self.said
            self.said.add(clause.facts)
            self._believe(clause)
        if accepted:
            self.good_words += num_words + (self.pending_glue == 1)
        self.pending_glue = 0

    def _believe(self, clause: Clause) -> None:
        wrong_person = clause.pronoun and self.pronoun and clause.pronoun != self.pronoun
        for slot, value in clause.facts:
            if slot not in self.facts:
                self.wrong[slot, value] = "invented"
            elif self.facts[slot] != value or (wrong_person and len(clause.facts) == 1):
                self.wrong[slot, value] = "misattributed"
            else:
                self.credit[slot] = max(self.credit.get(slot, 0.0), COPIED_CREDIT if clause.copied else 1.0)

    def grade(self, num_words: int) -> Judgement:
        """The four axes. overall = 1 + 6 coverage accuracy coherence brevity, each factor in [0, 1]."""
        total = sum([SLOT_WEIGHTS[slot] for slot in self.facts]) or 1.0
        coverage = sum([SLOT_WEIGHTS[slot] * credit for slot, credit in self.credit.items()]) / total
        right, wrong = len(self.credit), len(self.wrong)
        accuracy = right / (right + wrong) if right + wrong else 1.0
        coherence = max(0.0, 1.0 - 2.0 * (1.0 - self.good_words / num_words)) if num_words else 0.0
        brevity = min(1.0, max(0.0, 2.0 - num_words / FREE_WORDS))
        return Judgement(
            overall=1.0 + 6.0 * coverage * accuracy * coherence * brevity,
            coverage=1.0 + 6.0 * coverage,
            accuracy=1.0 + 6.0 * accuracy,
            coherence=1.0 + 6.0 * coherence,
            covered=tuple([(slot, self.facts[slot]) for slot in SLOTS if slot in self.credit]),
            misattributed=tuple([fact for fact, kind in self.wrong.items() if kind == "misattributed"]),
            invented=tuple([fact for fact, kind in self.wrong.items() if kind == "invented"]),
            num_words=num_words,
            markers=tuple(self.markers),
        )


def _forms(lexicon: Lexicon) -> Iterator[tuple[str, Clause]]:
    """Every form of every value, written out for every person."""
    for kind, texts in lexicon.markers.items():
        yield from ((text, Clause((), "", copied=False, marker=kind)) for text in texts)
    feelings = {value.id: value for frame in lexicon.frames for value in frame.feeling}
    for value in (*lexicon.when, *feelings.values()):
        yield from _plain_forms(value)
    for frame in lexicon.frames:
        for value in (*frame.complication, *frame.question):
            yield from _plain_forms(value)
        for value in frame.what:
            yield from _event_forms(value, frame.people)


def _plain_forms(value: Value) -> Iterator[tuple[str, Clause]]:
    """Forms that name nobody; those with a pronoun for him and for her."""
    fact = (value.slot, value.id)
    for form, copied in _both(value):
        for pronoun in ("he", "she") if "{" in form else ("",):
            yield fill(form, pronoun), Clause((fact,), pronoun, copied, "")


def _event_forms(value: Value, people: Sequence[Value]) -> Iterator[tuple[str, Clause]]:
    """Forms of an event, with each name of each person who may be in it."""
    for form, copied in _both(value):
        for person in people:
            facts = (("who", person.id), (value.slot, value.id))
            for who in dict.fromkeys((*person.summary, *person.post)):
                yield fill(form, person.pronoun, who), Clause(facts, person.pronoun, copied, "")


def _both(value: Value) -> list[tuple[str, bool]]:
    """A value's forms, and whether using one is to copy the post; its times are too short for that."""
    posted = [(form, value.slot != "when") for form in value.post if form not in value.summary]
    return [(form, False) for form in value.summary] + posted
