"""The limits of preference learning, in the reward models alone: for one seed, smaller than on the page, with slack."""

from collections.abc import Mapping

import numpy as np
import pytest
from datasets import Dataset

from rlhf_lab.aggregation import aggregate, jury
from rlhf_lab.data.datasets import column
from rlhf_lab.experiments.systems import minority, noise, sureness
from rlhf_lab.feedback import Population, Reward, gold_judge, population, scores_of
from rlhf_lab.models import RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model

NUM_PAIRS = 600


def learnt(rows: Dataset) -> RewardModel:
    start = load_trained("supervised", "small")
    return train_reward_model(start, rows, reward_model_config("laptop"), run=Run(), batch_size=16)


def differences(reward: Reward, pairs: Dataset) -> np.ndarray:
    """Score of the chosen less that of the rejected answers."""
    prompts, chosen, rejected = (column(pairs, name) for name in ("prompt", "chosen", "rejected"))
    return np.subtract(*(scores_of(reward, prompts, texts).numpy() for texts in (chosen, rejected)))


def facts(prompts: list[str], texts: list[str]) -> list[float]:
    """Said, true or not."""
    return [float(gold_judge().judge(*pair).num_facts) for pair in zip(prompts, texts, strict=True)]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_labels_of_those_who_do_not_check_teach_that_more_is_better() -> None:
    held_out = load_shipped_comparisons("held_out")
    more = differences(facts, held_out)
    shares = {}
    for crowd in ("impressed", "brief"):
        labels = sureness.compared(population(crowd, seed=0), NUM_PAIRS, 0)
        scores = differences(sureness.standardized(learnt(labels), labels), held_out)
        shares[crowd] = float(((scores > 0) == (more > 0))[more != 0].mean())
    assert shares["impressed"] > 0.75
    assert shares["brief"] < 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_group_blind_reward_orders_answers_against_the_minority_and_a_jury_less_so() -> None:
    people = population(minority.SHARES, seed=0, agreement=minority.AGREEMENT)
    pairs = load_shipped_comparisons("train").select(range(NUM_PAIRS))
    texts = list(zip(column(pairs, "chosen"), column(pairs, "rejected"), strict=True))
    labels, held_out = people.compare(column(pairs, "prompt"), texts), load_shipped_comparisons("held_out")
    few = Population(tuple(one for one in people.labelers if one.values == minority.MINORITY))
    liked = differences(lambda prompts, answers: few.utilities(prompts, answers).mean(0), held_out)

    def served(rewards: Mapping[str, Reward]) -> float:
        return float(((differences(rewards[minority.MINORITY], held_out) > 0) == (liked > 0)).mean())

    own = aggregate("per_group", labels, people, learnt)
    blind, both = aggregate("blind", labels, people, learnt), jury(own, seats=dict.fromkeys(own, 6))
    assert served(blind) < 0.4
    assert served(own) > 0.6
    assert served(blind) + 0.1 < served(dict.fromkeys(own, both)) < served(own)


def test_a_factor_is_of_sums_with_half_a_fact_added() -> None:
    factor, error = sureness.factor_of(np.array([3, 0, 4, 0]), np.array([1, 0, 1, 0]))
    assert factor == 7.5 / 2.5
    assert 0.0 < error < 1.0
    same, none = sureness.factor_of(np.array([1, 2, 0]), np.array([1, 2, 0]))
    assert (same, none) == (1.0, 0.0)


def test_a_budget_is_spent_on_pairs_or_on_labels_of_a_pair() -> None:
    people = population(seed=0)
    for num_labels, pairs in ((1, 30), (3, 10), (5, 6)):
        assert len(noise.bought(people, 30, num_labels, soft=False, seed=0)) == pairs
    shares = set(noise.bought(people, 60, 3, soft=True, seed=0)["chosen_prob"])
    assert shares == {2 / 3, 1.0}


def test_the_loss_of_a_group_is_shared_out_by_what_its_own_reward_gives() -> None:
    rows = [
        {"by": "ppo", "group": "brief", "seed": 0, "method": method, "gain": gain}
        for method, gain in (("blind", -1.0), ("jury", 0.5), ("per_group", 1.0))
    ]
    loss, given_back = minority.losses(rows, "ppo", "brief", 0)
    assert (loss, given_back) == (2.0, {"blind": 0.0, "jury": 0.75, "per_group": 1.0})


def test_a_reward_in_gold_order_is_right_of_every_pair() -> None:
    pairs = load_shipped_comparisons("held_out").select(range(40))
    assert noise.in_gold_order(pairs, gold_judge()) == 1.0
    assert noise.in_gold_order(pairs, lambda *texts: [-score for score in gold_judge()(*texts)]) == 0.0
    assert 0.5 < noise.in_gold_order(pairs) < 1.0
