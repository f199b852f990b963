"""Which items to ask about first: any, or those on which reward models disagree most.

A label teaches most where models that know the same labels still differ: what they agree on is learnt already, or
cannot be learnt. Christiano et al. 2017, arXiv:1706.03741, section 2.2.4, ask where an ensemble's predictions vary
most, and find that this helps on some tasks and hurts on others; so compare it with `random`.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from rlhf_lab.feedback import LearnedReward, Reward, scores_of
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.models import RewardModel

if TYPE_CHECKING:
    from rlhf_lab.labeling.store import LabelStore

STRATEGIES = ("random", "disagreement")


def choose_next(
    store: "LabelStore",
    reward_models: Sequence[RewardModel | Reward] | None = None,
    *,
    strategy: str | None = None,
    kind: str = "compare",
    num: int | None = None,
    seed: int = 0,
) -> list[str]:
    """Put the items that nobody has answered in the order in which they are to be asked; their ids in that order.

    Gold questions keep their own places, and what a labeler has open already comes first for them.

    Args:
        store: Whose items.
        reward_models: At least two, for disagreement: trained with other seeds or on other samples of the labels.
        strategy: random or disagreement; by default disagreement where there are reward models.
        kind: Of items.
        num: Bring only so many to the front; the others stay as they are, behind them.
        seed: Draws the order, or that of items on which the models disagree equally.

    Raises:
        StoreError: An unknown strategy, too few reward models, or no items that nobody has answered.
        ValueError: A reward model cannot score an answer.
    """
    strategy = strategy or ("disagreement" if reward_models else "random")
    if strategy not in STRATEGIES:
        raise StoreError(f"a strategy is one of {', '.join(STRATEGIES)}, not {strategy!r}.")
    if num is not None and num < 1:
        raise StoreError(f"num is a number of items from 1 on, or None, not {num!r}.")
    if strategy == "disagreement" and len(reward_models or ()) < 2:
        raise StoreError(f"to disagree takes two reward models or more, not {len(reward_models or ())}; train another.")
    answered = {label["item"] for label in store.labels(kind)}
    items = [item for item in store.items(kind) if item.gold is None and item.id not in answered]
    if not items:
        raise StoreError(f"the store {store.name} has no items to {kind} that nobody has answered; add some.")
    items.sort(key=lambda item: item.id)  # So that the order drawn does not depend on the one before.
    random.Random(f"{seed}/asking").shuffle(items)
    if strategy == "disagreement":
        felt = dict(zip([item.id for item in items], disagreement(items, reward_models or ()), strict=True))
        items.sort(key=lambda item: -felt[item.id])  # Stable: of equals the drawn order stays.
    chosen = [item.id for item in items[:num]]
    store.prioritize({name: float(-place) for place, name in enumerate(chosen)})
    return chosen


def disagreement(items: Sequence[Item], reward_models: Sequence[RewardModel | Reward]) -> list[float]:
    """How much the models disagree on each item: the standard deviation over them of P(one answer is better).

    Of several answers the pair counts on which they disagree most; of a single one, the deviation of its score, in
    standard deviations of each model's scores.

        d = max_{pairs (i, j)} std_m sigma(r_m(i) - r_m(j))

    Raises:
        StoreError: An item without answers.
        ValueError: A reward model cannot score an answer.
    """
    if bare := next((item for item in items if not item.answers), None):
        raise StoreError(f"item {bare.id} has no answers on which reward models could disagree.")
    rewards = [LearnedReward(model) if isinstance(model, RewardModel) else model for model in reward_models]
    prompts = [item.prompt for item in items for _ in item.answers]
    answers = [text for item in items for text in item.answers]
    scores = np.array([scores_of(reward, prompts, answers).numpy() for reward in rewards], dtype=float)
    spread = scores.std(axis=1, keepdims=True)
    relative = (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    found, start = [], 0
    for item in items:
        stop = start + len(item.answers)
        mine = scores[:, start:stop]
        if len(item.answers) == 1:
            found.append(float(relative[:, start].std()))
        else:
            found.append(float(expit(mine[:, :, None] - mine[:, None, :]).std(axis=0).max()))
        start = stop
    return found
