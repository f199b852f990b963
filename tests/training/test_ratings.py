"""Ratings and thumbs: losses by hand, what a scale of one's own costs and centering gives back, what is refused."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from rlhf_lab.equations.preference import rating_loss, rule_violation_loss, thumb_loss
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.ratings import RatingModelConfig, centered, ratings_of, train_rating_model

pytestmark = pytest.mark.usefixtures("one_thread")
FAST = OptimizerConfig(learning_rate=5e-3, schedule="constant")
SMALL: dict[str, Any] = {"max_prompt_tokens": 24, "max_response_tokens": 12, "batch_size": 8, "optimizer": FAST}


def row(rating: Any, labeler: str = "ana", prompt: str = "POST: a", response: str = " My cat left.") -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "rating": rating, "labeler": labeler}


def animals(number: int, *, people: dict[str, tuple[float, float]], seed: int = 0) -> list[dict[str, Any]]:
    """Answers about cats are liked (1), those about dogs are not (0), on a scale of each person's own."""
    rng = random.Random(seed)
    rows = []
    for index in range(number):
        liked, name = rng.random() < 0.5, rng.choice(sorted(people))
        zero, unit = people[name]
        rows.append(row(zero + unit * liked, name, f"POST: day {index}", f" My {'cat' if liked else 'dog'} left."))
    return rows


def preference(model: Any) -> float:
    """How much more it likes the cat, on posts that it has not seen."""
    scores = LearnedReward(model)(["POST: day 999"] * 2, [" My cat left.", " My dog left."])
    return scores[0] - scores[1]


def test_the_losses_by_hand() -> None:
    assert rating_loss(torch.tensor([1.0, -2.0]), torch.tensor([3.0, -2.0])).tolist() == [4.0, 0.0]
    scores, up = torch.tensor([0.0, math.log(3.0), math.log(3.0)]), torch.tensor([1.0, 1.0, 0.0])
    expected = torch.tensor([math.log(2.0), math.log(4 / 3), math.log(4.0)])
    torch.testing.assert_close(thumb_loss(scores, up), expected)
    torch.testing.assert_close(thumb_loss(scores, up), rule_violation_loss(scores, up))


def test_the_mean_rating_is_what_squared_error_learns() -> None:
    """The minimum of the summed losses of ratings 1, 2 and 6 is their mean, 3."""
    score = torch.tensor(0.0, requires_grad=True)
    rating_loss(score.expand(3), torch.tensor([1.0, 2.0, 6.0])).sum().backward()
    assert score.grad is not None and score.grad.item() == pytest.approx(-2 * (1 + 2 + 6))
    at_mean = torch.tensor(3.0, requires_grad=True)
    rating_loss(at_mean.expand(3), torch.tensor([1.0, 2.0, 6.0])).sum().backward()
    assert at_mean.grad is not None and at_mean.grad.item() == pytest.approx(0.0)


def test_scores_are_in_standard_deviations_whatever_the_scale(policy: Policy) -> None:
    """Ratings 1 and 7, or 10 and 70, give the same model; the answers are worth 0 on average."""
    rows = animals(32, people={"ana": (1.0, 6.0)})
    tenfold = [one | {"rating": 10 * one["rating"]} for one in rows]
    models = [train_rating_model(policy, some, run=Run(seed=1), **SMALL) for some in (rows, tenfold)]
    for one, other in zip(models[0].network.parameters(), models[1].network.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0.0)
    scores = LearnedReward(models[0])([one["prompt"] for one in rows], [one["response"] for one in rows])
    assert np.mean(scores) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_what_is_liked_is_learnt(policy: Policy, loss: str) -> None:
    rows = animals(64, people={"ana": (0.0, 1.0)})
    model = train_rating_model(policy, rows, num_epochs=4.0, loss=loss, **SMALL)
    assert preference(model) > 1.0
    backwards = [one | {"rating": 1.0 - one["rating"]} for one in rows]
    assert preference(train_rating_model(policy, backwards, num_epochs=4.0, loss=loss, **SMALL)) < -1.0


def test_scales_of_ones_own_bury_what_is_liked_and_centering_digs_it_out() -> None:
    """Bea gives 6 or 7, Ana 1 or 2; of the variance of all ratings only a hundredth is about the answers, until it is
    theirs alone."""
    rows = animals(400, people={"ana": (1.0, 1.0), "bea": (11.0, 1.0)})
    liked = np.array(["cat" in one["response"] for one in rows], dtype=float)
    explained = [
        np.corrcoef(liked, [one["rating"] for one in some])[0, 1] ** 2
        for some in (rows, centered(rows).to_list(), centered(rows, scaled=True).to_list())
    ]
    assert explained[0] < 0.02
    assert min(explained[1:]) > 0.98


def test_z_scores_mend_units_too() -> None:
    rows = [
        row(rating, name, response=f" {name} {rating}")
        for name, unit in (("ana", 1.0), ("bea", 3.0))
        for rating in (unit, 2 * unit)
    ]
    assert centered(rows)["rating"][:] == [-0.5, 0.5, -1.5, 1.5]
    assert centered(rows, scaled=True)["rating"][:] == [-1.0, 1.0, -1.0, 1.0]
    assert centered([row(4.0), row(2.0, "bea"), row(2.0, "bea", "POST: b")], scaled=True)["rating"][:] == [0.0] * 3


def test_micro_batches_change_nothing(policy: Policy) -> None:
    rows = animals(16, people={"ana": (0.0, 1.0)})
    whole, parts = (
        train_rating_model(policy, rows, run=Run(seed=1), micro_batch_size=size, **SMALL) for size in (8, 2)
    )
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=2e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the ratings is empty; give at least one row|is empty"),
        ([row(3.0), row(4.0)], r"row 1 of the ratings: ana rated the answer ' My cat left.' both 3 and 4; keep one"),
        ([row(float("nan"))], "row 0 of the ratings: a rating is a finite number, not nan; mend it"),
        ([row(float("inf"))], "a rating is a finite number, not inf"),
        ([row(3.0, response=" ")], "row 0 of the ratings: response must be text"),
        ([row(3.0, prompt="")], "row 0 of the ratings: prompt must be text"),
        ([{"prompt": "a", "response": "b"}], "no column 'rating'"),
        ([row(3.0), row(3.0, "bea")], "all 2 ratings are 3, so they say nothing"),
    ],
)
def test_ratings_that_say_nothing_are_refused(rows: list[dict[str, Any]], message: str, policy: Policy) -> None:
    with pytest.raises(ValueError, match=message):
        train_rating_model(policy, rows, **SMALL)


def test_two_people_may_differ_and_one_may_repeat_themselves() -> None:
    assert len(ratings_of([row(3.0), row(4.0, "bea"), row(3.0)])) == 3
    anonymous = [{name: value for name, value in row(rating).items() if name != "labeler"} for rating in (3.0, 4.0)]
    assert [one["labeler"] for one in ratings_of(Dataset.from_list(anonymous))] == ["", ""]
    with pytest.raises(ValueError, match="row 0 of the ratings does not say whose it is"):
        centered(anonymous)


def test_settings_that_cannot_be_meant_are_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="loss is one of squared_error, cross_entropy, not 'hinge'"):
        RatingModelConfig(loss="hinge")
    with pytest.raises(ValueError, match=r"num_epochs \(0\.0\) and batch_size \(64\) must be above 0"):
        RatingModelConfig(num_epochs=0.0)
    with pytest.raises(ValueError, match=r"with cross_entropy a rating is 1 \(thumb up\) or 0 \(down\), not 5"):
        train_rating_model(policy, [row(5.0), row(1.0, "bea")], loss="cross_entropy", **SMALL)
