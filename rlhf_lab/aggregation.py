"""Whose preferences? Labels of people who want different things, made into rewards.

What is aggregated differs: the labels as they come (`blind`), a vote on each pair (`majority`), the labels with each
group weighing the same (`weighted`), or the opinions of a reward model of each group, one by one (`per_group`), as a
jury with seats (`jury`), or by the least content (`worst`).

Reference: a jury with seats for each group, Gordon et al. 2022, arXiv:2202.02950, there with a model of each person;
the least content group, Chakraborty et al. 2024, arXiv:2402.08925.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from rlhf_lab.data.datasets import column
from rlhf_lab.feedback import LearnedReward, Population, Reward, scores_of
from rlhf_lab.models import RewardModel

_TEXTS = ("prompt", "chosen", "rejected")
VERDICTS: dict[str, Callable[..., np.ndarray]] = {"mean": np.mean, "median": np.median}


def majority_vote(comparisons: Dataset, *, soft: bool = False) -> Dataset:
    """One comparison for each pair that was compared, by one or several people: what most of them chose.

    A pair on which as many chose the one answer as the other has no majority, and is left out.

    Args:
        comparisons: Rows of `prompt`, `chosen` and `rejected`; rows about the same two answers are votes.
        soft: `chosen_prob` is the share of the votes instead of 1, and a pair without a majority stays, at one half.

    Example:
        >>> votes = [{"prompt": "P", "chosen": a, "rejected": b} for a, b in ((" A", " B"), (" B", " A"), (" A", " B"))]
        >>> majority_vote(Dataset.from_list(votes), soft=True)["chosen"][:], len(votes)
        ([' A'], 3)
    """
    votes: dict[tuple[str, frozenset[str]], Counter[str]] = {}
    for prompt, chosen, rejected in zip(*(column(comparisons, name) for name in _TEXTS), strict=True):
        votes.setdefault((prompt, frozenset((chosen, rejected))), Counter({chosen: 0, rejected: 0}))[chosen] += 1
    rows = []
    for (prompt, _), count in votes.items():
        (chosen, most), (rejected, least) = count.most_common()
        if soft or most > least:
            prob = most / (most + least) if soft else 1.0
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "chosen_prob": prob})
    return Dataset.from_list(rows)


def by_values(comparisons: Dataset, people: Population) -> dict[str, Dataset]:
    """The comparisons of each group, by the values of their labelers.

    Raises:
        ValueError: A labeler is none of the people.
    """
    known = {labeler.id: labeler.values for labeler in people.labelers}
    labelers = column(comparisons, "labeler")
    if strangers := sorted(set(labelers) - set(known)):
        raise ValueError(
            f"labeler {strangers[0]!r} is none of these {len(known)} people; give the ones who compared, as in "
            "population(...).compare(...)."
        )
    values = [known[labeler] for labeler in labelers]
    groups = dict.fromkeys(labeler.values for labeler in people.labelers)
    rows = {group: [index for index, one in enumerate(values) if one == group] for group in groups}
    if silent := [group for group, found in rows.items() if not found]:
        raise ValueError(f"nobody of {', '.join(silent)} compared anything; ask more people.")
    return {group: comparisons.select(found) for group, found in rows.items()}


def equal_weights(groups: Mapping[str, Dataset]) -> Dataset:
    """All groups' comparisons, those of smaller groups repeated, so that each group has as many rows.

    The mean of a loss over these rows is the mean over groups of each group's own loss.

    Example:
        >>> rows = [{"prompt": "P", "chosen": text, "rejected": " B"} for text in (" A", " C", " D")]
        >>> both = equal_weights({"many": Dataset.from_list(rows[:2]), "few": Dataset.from_list(rows[2:])})
        >>> both["chosen"][:]
        [' A', ' C', ' D', ' D']
    """
    most = max(len(rows) for rows in groups.values())
    repeated = {group: itertools.islice(itertools.cycle(rows.to_list()), most) for group, rows in groups.items()}
    return Dataset.from_list([row for rows in repeated.values() for row in rows])


@dataclass(frozen=True)
class Standardized:
    """A reward in units of its own: on comparisons' answers the mean is 0, and the two of a comparison differ by 1."""

    reward: Reward
    middle: float
    unit: float

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """(score - middle) / unit."""
        return ((scores_of(self.reward, prompts, responses) - self.middle) / self.unit).tolist()


def standardized(reward: Reward | RewardModel, comparisons: Dataset) -> Standardized:
    """The reward on a scale of its own, so that rewards that were learnt apart can be averaged.

        r'(x, y) = (r(x, y) - m) / s

    with m the mean score of the comparisons' answers, and s the root of the mean square difference between the two
    answers of a comparison. Only differences between answers to one prompt move a policy, so they are what is measured.

    Raises:
        ValueError: There are no comparisons, or the reward scores the two answers alike in all of them.
    """
    if isinstance(reward, Standardized):
        return standardized(reward.reward, comparisons)
    reward = LearnedReward(reward) if isinstance(reward, RewardModel) else reward
    prompts, chosen, rejected = (column(comparisons, name) for name in _TEXTS)
    if not prompts:
        raise ValueError("a scale needs comparisons whose answers the reward can score; give at least one.")
    first, second = (scores_of(reward, prompts, texts).numpy() for texts in (chosen, rejected))
    unit = float(np.sqrt(np.mean((first - second) ** 2)))
    if unit == 0.0:
        raise ValueError(f"the reward scores both answers alike in all of {len(prompts)} comparisons: it has no scale.")
    return Standardized(reward, float(np.mean((first + second) / 2)), unit)


@dataclass(frozen=True)
class Panel:
    """Rewards that are asked together; `verdict` makes one number of their scores for an answer."""

    members: tuple[Reward, ...]
    verdict: Callable[..., np.ndarray]

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """The verdict on each response. A member with several seats is asked once."""
        asked = {id(member): member for member in self.members}
        scores = {key: scores_of(member, prompts, responses).numpy() for key, member in asked.items()}
        return self.verdict(np.stack([scores[id(member)] for member in self.members]), axis=0).tolist()


def jury(jurors: Mapping[str, Reward | RewardModel], *, seats: Mapping[str, int], verdict: str = "mean") -> Panel:
    """A jury with seats for each group; its verdict is the mean or the median of what its jurors would say.

    Each juror says what the reward of their group says, so it has to be on one scale with the others (`standardized`).
    By the median, two groups with as many seats weigh the same, and otherwise the larger one decides alone.

    Args:
        jurors: A reward for each group.
        seats: How many jurors each group has.
        verdict: mean or median.

    Raises:
        ValueError: An unknown verdict, seats of a group without a reward, a negative number of seats, or none at all.

    Reference:
        Gordon et al. 2022, arXiv:2202.02950. There a jury's members are persons drawn by their traits, each with
        predictions of their own; here jurors of one group think alike.

    Example:
        >>> few, many = (lambda prompts, texts, score=score: [score] * len(texts) for score in (1.0, 4.0))
        >>> jury({"few": few, "many": many}, seats={"few": 2, "many": 4})(["P"], [" A"])
        [3.0]
    """
    if verdict not in VERDICTS:
        raise ValueError(f"no verdict {verdict!r} is known; choose {' or '.join(VERDICTS)}.")
    if strangers := [group for group in seats if group not in jurors]:
        raise ValueError(f"there is no reward for {', '.join(strangers)}; seats can be of {', '.join(jurors)}.")
    if min(seats.values(), default=0) < 0 or not any(seats.values()):
        raise ValueError(f"a jury needs seats, 0 or more for each group and at least one in all, not {dict(seats)}.")
    rewards = _as_rewards(jurors)
    return Panel(tuple(rewards[group] for group, count in seats.items() for _ in range(count)), VERDICTS[verdict])


def worst(groups: Mapping[str, Reward | RewardModel]) -> Panel:
    """What the least content group says of each answer; the groups' rewards have to be on one scale (`standardized`).

    Chakraborty et al. maximize the least of the groups' *mean* rewards; this is the least for each answer, which asks
    for more.

    Reference:
        Chakraborty et al. 2024, arXiv:2402.08925 (MaxMin-RLHF).

    Example:
        >>> few, many = (lambda prompts, texts, score=score: [score] * len(texts) for score in (1.0, 4.0))
        >>> worst({"few": few, "many": many})(["P"], [" A"])
        [1.0]
    """
    if not groups:
        raise ValueError("there are no groups of whom one is the least content; give at least one reward.")
    return Panel(tuple(_as_rewards(groups).values()), np.min)


def _as_rewards(groups: Mapping[str, Reward | RewardModel]) -> dict[str, Reward]:
    return {
        name: LearnedReward(reward) if isinstance(reward, RewardModel) else reward for name, reward in groups.items()
    }


Train = Callable[[Dataset], RewardModel]
"""How a reward model comes from comparisons."""
Learn = Callable[[Dataset], Reward]
"""The same, as a reward in units of its own."""


def aggregate(method: str, comparisons: Dataset, people: Population, train: Train) -> Mapping[str, Reward]:
    """The reward by which each group is to be served; it is the same one for all, unless the method is `per_group`.

    Rewards are `standardized` on the comparisons, so that one is as strong as another against a price of KL.

    Args:
        method: blind (one reward model for all labels), majority (one for what most of those chose who compared a
            pair), weighted (one for all labels, each group weighing the same), per_group (one for each group), jury
            (the mean of the groups' own models, each with as many seats), or worst (the least of them).
        comparisons: Labels with their `labeler`. Of use for a majority only if several people compared a pair.
        people: Who gave them.
        train: Makes a reward model of comparisons, as in `lambda rows: train_reward_model(policy, rows)`.

    Raises:
        ValueError: An unknown method, a labeler who is none of the people, or a group without labels.
    """
    if method not in METHODS:
        raise ValueError(f"no aggregation {method!r} is known; choose among {', '.join(METHODS)}.")
    groups = by_values(comparisons, people)

    def learnt(rows: Dataset) -> Reward:
        return standardized(train(rows), comparisons)

    found = METHODS[method](comparisons, groups, learnt)
    return found if isinstance(found, Mapping) else dict.fromkeys(groups, standardized(found, comparisons))


def _per_group(comparisons: Dataset, groups: Mapping[str, Dataset], learnt: Learn) -> dict[str, Reward]:
    return {group: learnt(rows) for group, rows in groups.items()}


def _jury(comparisons: Dataset, groups: Mapping[str, Dataset], learnt: Learn) -> Reward:
    return jury(_per_group(comparisons, groups, learnt), seats=dict.fromkeys(groups, 1))


METHODS: dict[str, Callable[[Dataset, Mapping[str, Dataset], Learn], Any]] = {
    "blind": lambda comparisons, groups, learnt: learnt(comparisons),
    "majority": lambda comparisons, groups, learnt: learnt(majority_vote(comparisons)),
    "weighted": lambda comparisons, groups, learnt: learnt(equal_weights(groups)),
    "per_group": _per_group,
    "jury": _jury,
    "worst": lambda comparisons, groups, learnt: worst(_per_group(comparisons, groups, learnt)),
}
"""How all labels, or each group's, become one reward, or one for each group, by what makes a reward of labels."""
