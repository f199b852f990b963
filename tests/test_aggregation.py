"""Labels of people who want different things: every aggregation against numbers worked out by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from datasets import Dataset

from rlhf_lab.aggregation import (
    METHODS,
    aggregate,
    by_values,
    equal_weights,
    jury,
    majority_vote,
    standardized,
    worst,
)
from rlhf_lab.feedback import Labeler, Population, Reward
from rlhf_lab.models import RewardModel, new_policy, new_reward_model
from tests.networks import seeded, word_tokenizer


def constant(score: float) -> Reward:
    return lambda prompts, responses: [score] * len(responses)


def length(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float(len(text)) for text in responses]


def vote(chosen: str, rejected: str, labeler: str = "ann", prompt: str = "P") -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "labeler": labeler}


def person(name: str, values: str) -> Labeler:
    return Labeler(id=name, axes={}, tastes={}, values=values)


PEOPLE = Population((person("ann", "many"), person("bob", "many"), person("cyd", "many"), person("dee", "few")))
LABELS = Dataset.from_list(
    [vote(" a", " b b", "ann"), vote(" c", " a b", "bob"), vote(" b", " a a", "cyd"), vote(" a b c", " d", "dee")]
)


def test_the_majority_of_each_pair_decides() -> None:
    votes = [vote(" a", " b"), vote(" b", " a"), vote(" b", " a"), vote(" a", " c"), vote(" a", " b", prompt="Q")]
    rows = majority_vote(Dataset.from_list(votes))
    found = list(zip(rows["prompt"], rows["chosen"], rows["rejected"], rows["chosen_prob"], strict=True))
    assert found == [("P", " b", " a", 1.0), ("P", " a", " c", 1.0), ("Q", " a", " b", 1.0)]


def test_the_share_of_the_votes_is_a_soft_label() -> None:
    votes = [vote(" a", " b"), vote(" b", " a"), vote(" b", " a"), vote(" b", " a")]
    rows = majority_vote(Dataset.from_list(votes), soft=True)
    assert (rows["chosen"][:], rows["chosen_prob"][:]) == ([" b"], [0.75])


def test_a_draw_has_no_majority_and_an_even_share() -> None:
    votes = Dataset.from_list([vote(" a", " b"), vote(" b", " a"), vote(" a", " c")])
    assert majority_vote(votes)["rejected"][:] == [" c"]
    assert majority_vote(votes, soft=True)["chosen_prob"][:] == [0.5, 1.0]


def test_rows_are_split_by_the_values_of_their_labelers() -> None:
    groups = by_values(LABELS, PEOPLE)
    assert {name: rows["labeler"][:] for name, rows in groups.items()} == {
        "many": ["ann", "bob", "cyd"],
        "few": ["dee"],
    }
    with pytest.raises(ValueError, match="labeler 'eve' is none of these 4 people; give the ones who compared"):
        by_values(Dataset.from_list([vote(" a", " b", "eve")]), PEOPLE)
    with pytest.raises(ValueError, match="nobody of few compared anything; ask more people"):
        by_values(LABELS.select(range(3)), PEOPLE)


def test_groups_weigh_the_same_by_repeating_the_smaller() -> None:
    rows = equal_weights(by_values(LABELS, PEOPLE))
    assert rows["labeler"][:] == ["ann", "bob", "cyd", "dee", "dee", "dee"]


def test_a_standardized_reward_is_centered_with_differences_of_1() -> None:
    """Lengths 2, 4 | 2, 4 | 2, 4 | 6, 2: their mean is 26 / 8, the differences' squares are 4, 4, 4 and 16."""
    reward = standardized(length, LABELS)
    assert reward(["P"], [" a"]) == pytest.approx([(2 - 26 / 8) / 7**0.5])
    again = standardized(reward, LABELS)
    assert again(["P", "P"], [" a", " d d"]) == pytest.approx(reward(["P", "P"], [" a", " d d"]))
    scaled = standardized(lambda prompts, texts: [3 * value - 7 for value in length(prompts, texts)], LABELS)
    assert scaled(["P"], [" a b"]) == pytest.approx(reward(["P"], [" a b"]))


def test_a_reward_without_a_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scores both answers alike in all of 4 comparisons: it has no scale"):
        standardized(constant(1.0), LABELS)


def test_a_jury_is_the_mean_or_the_median_of_its_seats() -> None:
    groups = {"few": constant(-1.0), "many": constant(1.0), "some": constant(4.0)}
    for seats, mean, median in (
        ({"few": 6, "many": 6}, 0.0, 0.0),
        ({"few": 1, "many": 4}, 0.6, 1.0),
        ({"few": 1, "many": 1, "some": 1}, 4 / 3, 1.0),
        ({"few": 0, "some": 2}, 4.0, 4.0),
    ):
        assert jury(groups, seats=seats)(["P", "P"], [" a", " b"]) == pytest.approx([mean] * 2)
        assert jury(groups, seats=seats, verdict="median")(["P"], [" a"]) == pytest.approx([median])


def test_juries_that_cannot_be_meant_are_refused() -> None:
    groups = {"few": constant(-1.0), "many": constant(1.0)}
    with pytest.raises(ValueError, match="no verdict 'mode' is known; choose mean or median"):
        jury(groups, seats={"few": 1}, verdict="mode")
    with pytest.raises(ValueError, match="there is no reward for fwe; seats can be of few, many"):
        jury(groups, seats={"fwe": 1})
    for seats in ({"few": -1, "many": 2}, {"few": 0, "many": 0}, {}):
        with pytest.raises(ValueError, match="a jury needs seats, 0 or more for each group and at least one in all"):
            jury(groups, seats=seats)


def test_the_worst_is_what_the_least_content_group_says_of_each_answer() -> None:
    groups = {"short": lambda prompts, texts: [-value for value in length(prompts, texts)], "long": length}
    reward = worst({name: standardized(group, LABELS) for name, group in groups.items()})
    short, middle, long = reward(["P"] * 3, ["a", "abc", "abcdefgh"])
    assert middle > short and middle > long
    with pytest.raises(ValueError, match="there are no groups of whom one is the least content"):
        worst({})


@pytest.mark.usefixtures("one_thread")
def test_every_aggregation_gives_each_group_a_reward_by_its_name() -> None:
    policy = new_policy("small", word_tokenizer(["<eos>", "[PAD]", "a", "b", "c", "d"]))
    learnt: list[list[str]] = []

    def train(rows: Dataset) -> RewardModel:
        learnt.append([row["chosen"] for row in rows.to_list()])
        return new_reward_model(policy, generator=seeded())

    found = {method: aggregate(method, LABELS, PEOPLE, train) for method in METHODS}
    all_labels = LABELS["chosen"][:]
    assert learnt[:3] == [all_labels, all_labels, [*all_labels, " a b c", " a b c"]]
    assert learnt[3:] == [all_labels[:3], all_labels[3:]] * 3
    for method, rewards in found.items():
        assert list(rewards) == ["many", "few"]
        assert (rewards["many"] is rewards["few"]) == (method != "per_group")
        differences = np.subtract(
            *(rewards["many"](LABELS["prompt"][:], LABELS[side][:]) for side in ("chosen", "rejected"))
        )
        assert np.sqrt(np.mean(differences**2)) == pytest.approx(1.0, abs=1e-4)


def test_an_unknown_aggregation_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="no aggregation 'avarage' is known; choose among blind, majority, weighted"):
        aggregate("avarage", LABELS, PEOPLE, lambda rows: pytest.fail("nothing is to be learnt"))
