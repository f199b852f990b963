"""Simulated people at the same store: they are asked what people are asked, and their answers are kept the same way.

people = population("general", num_labelers=50)
simulated_people(store, "compare", people)

They read a summary of the world's posts as the gold judge does, one of the authored posts by its known kind, and weigh
what they read by their own tastes. What they answer to an item depends on the seed, the labeler and the item alone, so
a run that was cut short continues as if nothing had happened.
"""

import hashlib
import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from rlhf_lab.data import authored
from rlhf_lab.data.judge import Judge, Judgement, words_of
from rlhf_lab.feedback import CONFIDENCE_STEPS, Labeler, Population, population
from rlhf_lab.labeling.edits import spans
from rlhf_lab.labeling.items import AXES, FLAGS, Assignment, Item, check_kind
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.labeling.writing import revised, shortened, written_feedback

if TYPE_CHECKING:
    from rlhf_lab.labeling.store import LabelStore

INTERFACE = "simulated"
RATING_NOISE = 0.8
"""Standard deviation of a rating's noise, in points."""
WORDS_PER_SECOND = 4.0
"""Typical reading speed: 240 words a minute."""
DECISION_SECONDS = 4.0
"""Typical time to choose, beside the reading."""

# What a reader finds in an authored summary of a known kind: accuracy, coverage and coherence, 1 to 7.
_AXES_OF_KIND = {
    "faithful": (7.0, 7.0, 7.0),
    "verbose": (7.0, 7.0, 6.0),
    "invented": (2.0, 6.0, 6.5),
    "off_topic": (7.0, 2.0, 6.5),
    "copied": (7.0, 4.0, 5.0),
    "confident": (1.0, 4.0, 6.5),
}


def simulated_people(
    store: "LabelStore",
    kind: str = "compare",
    people: Population | None = None,
    *,
    limit: int | None = None,
    scale: int = 8,
    position_bias: float = 0.0,
    temperature: float | None = None,
    careful: bool = False,
    seed: int = 0,
) -> int:
    """Let simulated people answer what the store has for them; how many answers they gave.

    Whoever has answered least is asked next, so that overlap and gold questions fall as they would with real people.

    Args:
        store: Where the items are and the labels go.
        kind: compare, rank, rate, thumbs or edit. To chat takes a conversation, which they do not hold.
        people: Who; by default the general population.
        limit: Items for each of them; by default as many as there are.
        scale: Steps of a comparison: 8, or 9 with a middle (which they hit when they hardly feel a difference).
        position_bias: What being shown first is worth [noise]: 0.5 makes equal answers win 62 % of the time there.
        temperature: Noise [points]; by default what makes two of them agree at the population's rate on these items.
            Ratings have a noise of their own, `RATING_NOISE`, unless it is given.
        careful: They check each fact with the post: their edits and ideals put wrong facts right and add missing ones,
            where others only strike out, and beside ratings and thumbs they write what should change.
        seed: Draws their noise and their reading time.

    Raises:
        StoreError: They cannot answer the kind, there are no such items, or the store knows one of them as a person.
        ValueError: At no temperature do they agree at the population's rate on these items.
    """
    people = people or population()
    if check_kind(kind) == "chat":
        raise StoreError("simulated people hold no conversations; let them compare the turns' replies instead.")
    if kind in ("compare_clips", "tamer_pad", "probe"):
        raise StoreError(f"simulated people read; they do not watch, or try things out, as {kind} asks.")
    if scale not in (8, 9):
        raise StoreError(f"scale is 8 (no middle) or 9 (with one), not {scale!r}.")
    items = store.items(kind)
    if not items:
        raise StoreError(f"the store {store.name} has no items to {kind}; add some first.")
    _let_in(store, people)
    how: dict[str, Any] = {"scale": scale, "position_bias": position_bias, "careful": careful, "seed": seed}
    crowd = Crowd(people, items, kind, temperature, **how)
    queue = [(store.progress(one.id, kind).answered, place) for place, one in enumerate(people.labelers)]
    heapq.heapify(queue)
    num_given = 0
    with tqdm(desc=f"simulated people {kind}", unit=" labels", delay=2, leave=False) as bar:
        while queue:
            answered, place = heapq.heappop(queue)
            asked = store.ask(people.labelers[place].id, kind, num=1, limit=limit)
            if not asked:
                continue
            value, comment, seconds = crowd.answer(place, asked[0])
            store.record(asked[0], value, comment=comment, seconds=seconds, interface=INTERFACE)
            heapq.heappush(queue, (answered + 1, place))
            num_given += 1
            bar.update()
    return num_given


def _let_in(store: "LabelStore", people: Population) -> None:
    known = store.labelers()
    for one in people.labelers:
        if known.get(one.id, "simulated") != "simulated":
            raise StoreError(f"the store knows {one.id!r} as a person; give the simulated labeler another id.")
    store.add_labelers([one.id for one in people.labelers], kind="simulated")


def judgement_of(people: Population, item: Item, place: int) -> Judgement:
    """What a reader finds in one of the item's answers: by its known kind if its source is one, else as the judge does.

    The overall grade of a kind is 4 plus three quarters of how many more kinds it beats than beat it, by the key of
    `authored.better_kind`; so the key decides unless a taste is strong.
    """
    source, text = item.sources[place], item.answers[place]
    if source not in authored.KINDS:
        return people.judge.judge(item.prompt, text)
    better = [authored.better_kind(source, other) for other in authored.KINDS]
    accuracy, coverage, coherence = _AXES_OF_KIND[source]
    return Judgement(
        overall=4.0 + 0.75 * (better.count(0) - better.count(1)),
        coverage=coverage,
        accuracy=accuracy,
        coherence=coherence,
        covered=(),
        misattributed=(),
        invented=(("what", source),) if source in ("invented", "confident") else (),
        num_words=len(words_of(text)),
        markers=("sure",) if source == "confident" else (),
    )


@dataclass(frozen=True)
class _Felt:
    """An item as one labeler finds it at one asking."""

    labeler: Labeler
    asked: Assignment
    judgements: Sequence[Judgement]
    likings: np.ndarray
    """How much they like each answer, above the mean of all answers of the store [points]."""
    noise: float
    """Scale of their noise [points]."""
    rng: random.Random
    judge: Judge
    is_careful: bool
    rates_as_it_compares: bool
    """A rating has the noise that an answer has in a comparison, in the units of the labeler's scale."""

    def gumbel(self) -> np.ndarray:
        """Noise of each answer; the difference of two is logistic, as the noise of a comparison is."""
        return np.array([-math.log(self.rng.expovariate(1.0)) for _ in self.likings])

    def logistic(self) -> float:
        """Noise of a choice between two."""
        return math.log(self.rng.expovariate(1.0)) - math.log(self.rng.expovariate(1.0))

    def rating_noise(self) -> float:
        """Noise of a rating [points]."""
        if not self.rates_as_it_compares:
            return self.rng.gauss(0, RATING_NOISE)
        gumbel = -math.log(self.rng.expovariate(1.0)) - np.euler_gamma
        return self.labeler.rating_scale * self.noise * gumbel


class Crowd:
    """What each of the people thinks of each of the items."""

    def __init__(
        self,
        people: Population,
        items: Sequence[Item],
        kind: str,
        temperature: float | None,
        *,
        scale: int,
        position_bias: float,
        careful: bool,
        seed: int,
    ) -> None:
        """Read all that is to be asked, so that likings can be held against their mean; see `simulated_people`."""
        self.people, self.scale, self.position_bias, self.seed = people, scale, position_bias, seed
        self.careful, self.rates_as_it_compares = careful, temperature is not None
        self.judgements = {
            item.id: [judgement_of(people, item, place) for place in range(len(item.answers))] for item in items
        }
        self.utilities = {name: self._utilities(found) for name, found in self.judgements.items()}
        self.means = np.concatenate(list(self.utilities.values()), axis=1).mean(axis=1, keepdims=True)
        is_noisy = kind in ("compare", "rank", "thumbs")
        self.temperature = temperature or (people.temperature(self._differences(kind)) if is_noisy else 1.0)
        self.give: Callable[[_Felt], dict[str, Any]] = {
            "compare": self._compare,
            "rank": self._rank,
            "rate": _rate,
            "thumbs": _thumb,
            "edit": _edit,
        }[kind]

    def _utilities(self, judgements: Sequence[Judgement]) -> np.ndarray:
        return np.array([[one.utility(judgement) for judgement in judgements] for one in self.people.labelers])

    def _differences(self, kind: str) -> np.ndarray:
        """Differences in liking that the people are asked about: (labelers pairs)."""
        utilities = self.utilities.values()
        if kind in ("compare", "rank"):
            pairs = [one - two for found in utilities for one, two in itertools.combinations(found.T, 2)]
            return np.array(pairs).T
        return np.concatenate([found - self.means for found in utilities], axis=1)

    def answer(self, place: int, asked: Assignment) -> tuple[dict[str, Any], str, float]:
        """What the labeler at `place` says, what they write beside it, and how many seconds it takes them."""
        labeler, item = self.people.labelers[place], asked.item
        digest = hashlib.sha256(f"{self.seed}/{labeler.id}/{item.kind}/{item.id}".encode()).digest()
        felt = _Felt(
            labeler,
            asked,
            self.judgements[item.id],
            self.utilities[item.id][place] - self.means[place],
            labeler.noise * self.temperature,
            random.Random(digest),
            self.people.judge,
            self.careful,
            self.rates_as_it_compares,
        )
        value, seconds = self.give(felt), self._seconds(felt)
        # Last, so that what else they say is the same whether they write or not.
        writes = self.careful and item.kind in ("rate", "thumbs")
        comment = written_feedback(item, labeler, self.people.judge, felt.rng) if writes else ""
        return value, comment, seconds

    def _compare(self, felt: _Felt) -> dict[str, Any]:
        """Steps beyond `CONFIDENCE_STEPS`; of nine, the middle is a difference below half of the first."""
        first = 1.0 if felt.asked.sides[0] == 0 else -1.0
        liking = float(felt.likings[1] - felt.likings[0]) / felt.noise
        value = liking + felt.logistic() - first * self.position_bias
        strength = 1 + sum(abs(value) > step for step in CONFIDENCE_STEPS)
        if self.scale == 8:
            return {"scale": 8, "step": 4 + strength if value > 0 else 5 - strength}
        strength = 0 if abs(value) < CONFIDENCE_STEPS[0] / 2 else strength
        return {"scale": 9, "step": 5 + strength if value > 0 else 5 - strength}

    def _rank(self, felt: _Felt) -> dict[str, Any]:
        values = felt.likings / felt.noise + felt.gumbel()
        values[felt.asked.sides[0]] += self.position_bias
        return {"ranks": (len(values) - values.argsort().argsort()).tolist()}

    def _seconds(self, felt: _Felt) -> float:
        """Reading at a speed of their own, then choosing; both vary from item to item."""
        speed = WORDS_PER_SECOND * np.exp(random.Random(f"{self.seed}/{felt.labeler.id}/speed").gauss(0, 0.2))
        item = felt.asked.item
        num_words = sum(len(text.split()) for text in (item.prompt, *item.answers))
        reading = num_words / speed * np.exp(felt.rng.gauss(0, 0.15))
        return round(float(reading + DECISION_SECONDS * np.exp(felt.rng.gauss(0, 0.5))), 1)


def _rate(felt: _Felt) -> dict[str, Any]:
    """Overall around the middle of the scale, as they like it; the other axes as the judge sees them."""
    judgement, labeler = felt.judgements[0], felt.labeler
    grades = {axis: getattr(judgement, axis) - 4.0 for axis in AXES} | {"overall": float(felt.likings[0])}
    rated = {}
    for axis, grade in grades.items():
        value = 4.0 + labeler.rating_offset + labeler.rating_scale * grade + felt.rating_noise()
        rated[axis] = min(7, max(1, round(value)))
    is_wrong = bool(judgement.invented or judgement.misattributed)
    flags = [FLAGS[1]] if is_wrong and felt.rng.random() < 0.8 else []
    return {"axes": rated, "flags": flags}


def _thumb(felt: _Felt) -> dict[str, Any]:
    """Up for what they like better than most; where it is down, the ideal is the answer without what they mind."""
    if float(felt.likings[0]) / felt.noise + felt.logistic() > 0:
        return {"thumb": "up", "ideal": ""}
    better = _edited(felt)
    return {"thumb": "down", "ideal": "" if better == felt.asked.item.answers[0] else better}


def _edit(felt: _Felt) -> dict[str, Any]:
    text = _edited(felt)
    return {"text": text, "spans": spans(felt.asked.item.answers[0], text)}


def _edited(felt: _Felt) -> str:
    if felt.is_careful:
        return revised(felt.asked.item, felt.labeler, felt.judge, felt.rng)
    return shortened(felt.asked.item, felt.labeler, felt.judge)
