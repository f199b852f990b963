"""An exercise's own equation in the real trainer: it is what trains, and its mistakes are told in one sentence."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional

from rlhf_lab.data.datasets import TLDR
from rlhf_lab.equations.overoptimization import best_of_n_values
from rlhf_lab.equations.policy_gradient import clipped_surrogate, clipped_value_error, gae, kl_shaped_rewards
from rlhf_lab.equations.preference import bradley_terry_loss
from rlhf_lab.equations.sequence import next_token_loss
from rlhf_lab.evaluation import best_of_n_rows
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy
from rlhf_lab.seams import checked
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import train_reward_model
from rlhf_lab.training.supervised import sft

pytestmark = pytest.mark.usefixtures("one_thread")

OWN: dict[str, Callable[..., Any]] = {
    "token_loss": next_token_loss,
    "pair_loss": bradley_terry_loss,
    "surrogate": clipped_surrogate,
    "advantages": gae,
    "shaped_rewards": kl_shaped_rewards,
    "value_error": clipped_value_error,
    "values": best_of_n_values,
}
PPO = ("surrogate", "advantages", "shaped_rewards", "value_error")
LOSSES = ("token_loss", "pair_loss", "surrogate", "value_error")
LIMITS = {"max_prompt_tokens": 64, "max_response_tokens": 16}


def wordy(prompts: list[str], responses: list[str]) -> list[float]:
    return [min(len(response), 200) / 100 for response in responses]


@pytest.fixture(scope="module")
def train(policy: Policy, data: TLDR, comparisons: Dataset) -> Callable[..., Any]:
    """Two steps of the stage that has a seam, with the equation given there; what it made."""
    sampling = SamplingConfig(max_response_tokens=8)
    rows = comparisons.select(range(8))
    labels = rows.add_column("chosen_prob", [1.0, 0.75] * 4)  # type: ignore[call-arg]

    def run(seam: str, equation: Callable[..., Any] | None) -> Any:
        given = {} if equation is None else {seam: equation}
        if seam == "token_loss":
            return sft(policy, data.demonstrations.select(range(8)), batch_size=4, **LIMITS, **given)
        if seam == "pair_loss":
            return train_reward_model(policy, labels, batch_size=4, **LIMITS, **given)
        if seam == "values":
            posts = data.validation.select(range(3))
            return best_of_n_rows(policy, wordy, posts, num_samples=4, ns=(1, 2), sampling=sampling, **given)
        settings = {"num_steps": 2, "prompts_per_step": 2, "num_candidates": 2, "minibatch_size": 2}
        settings |= {"max_prompt_tokens": 64, "sampling": sampling}
        return ppo(policy, wordy, data.prompts, ppo_config("tiny"), **settings, **given)

    return run


@pytest.fixture(scope="module")
def made(train: Callable[..., Any]) -> dict[str, Any]:
    """What each stage makes with the package's own equations."""
    by_ppo = train("surrogate", None)
    return {seam: by_ppo if seam in PPO else train(seam, None) for seam in OWN}


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, list):
        assert one == other
        return
    assert one.history == other.history
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name


@pytest.mark.parametrize("seam", OWN)
def test_the_default_is_the_packages_own(seam: str, train: Callable[..., Any], made: dict[str, Any]) -> None:
    assert_same(made[seam], train(seam, OWN[seam]))


@pytest.mark.parametrize("seam", OWN)
def test_the_same_equation_in_other_words_trains_the_same(
    seam: str, train: Callable[..., Any], made: dict[str, Any]
) -> None:
    calls = []

    def mine(*args: Any, **settings: Any) -> Any:
        calls.append(args)
        return OWN[seam](*args, **settings)

    result = train(seam, mine)
    assert calls
    if seam != "pair_loss":
        assert_same(made[seam], result)
        return
    # The two choices of a soft label are weighed apart, which rounds otherwise.
    for one, other in zip(made[seam].history, result.history, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("seam", OWN)
def test_another_equation_trains_something_else(seam: str, train: Callable[..., Any], made: dict[str, Any]) -> None:
    def squared(*args: Any, **settings: Any) -> Any:
        return OWN[seam](*args, **settings) ** 2

    result = train(seam, squared)
    if seam == "values":
        assert result != made[seam]
    else:
        assert result.history[-1] != made[seam].history[-1]


def test_plain_pairs_train_to_the_same_bits_with_an_equation_in_other_words(
    policy: Policy, comparisons: Dataset
) -> None:
    settings = {"batch_size": 4, **LIMITS}
    rows = comparisons.select(range(8))
    default = train_reward_model(policy, rows, **settings)

    def mine(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
        return -functional.logsigmoid(chosen_scores - rejected_scores)

    assert_same(default, train_reward_model(policy, rows, pair_loss=mine, **settings))


def test_a_ranking_is_the_mean_over_its_pairs_for_a_loss_of_ones_own(policy: Policy, data: TLDR) -> None:
    prompt, answers = data.demonstrations["prompt"][0], list(data.demonstrations["completion"])[:3]
    pairs = [(0, 1, 1.0), (0, 2, 0.8), (1, 2, 0.5)]
    rows = [
        {"prompt": prompt, "chosen": answers[one], "rejected": answers[two], "chosen_prob": prob, "group": "ranking"}
        for one, two, prob in pairs
    ]
    rows.append({**rows[0], "chosen_prob": 1.0, "group": ""})
    seen: list[Tensor] = []

    def mine(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
        seen.append(torch.stack([chosen_scores, rejected_scores]).detach())
        return functional.softplus(rejected_scores - chosen_scores)

    settings = {"batch_size": 2, **LIMITS}
    default, own = (train_reward_model(policy, rows, **settings, **given) for given in ({}, {"pair_loss": mine}))
    assert own.history[0] == pytest.approx(default.history[0], rel=1e-5)
    plain, reverse = seen
    assert plain.shape == (2, 4)  # each pair once, and no other
    assert reverse.shape == (2, 2)  # the soft labels, the other way round
    assert all(column in plain.flip(0).T.tolist() for column in reverse.T.tolist())


def test_a_loss_that_overflows_for_the_choice_that_nobody_made_is_not_asked_about_it() -> None:
    """A plain label's other choice would be infinitely bad, and 0 times infinity is no number."""
    from rlhf_lab.training.rankings import LabeledCandidates, element_losses

    scores = torch.tensor([[500.0, -500.0]], requires_grad=True)
    is_pair = torch.tensor([[[False, True], [False, False]]])
    part = LabeledCandidates(
        prompt=torch.zeros(1, 1, dtype=torch.long),
        prompt_mask=torch.ones(1, 1, dtype=torch.bool),
        responses=torch.zeros(1, 2, 1, dtype=torch.long),
        response_mask=torch.ones(1, 2, 1, dtype=torch.bool),
        chosen_prob=torch.ones(1, 2, 2),
        is_pair=is_pair,
    )
    loss = element_losses(lambda chosen, rejected: -torch.log(torch.sigmoid(chosen - rejected)), scores, part)
    assert loss.item() == 0.0
    loss.sum().backward()
    assert torch.isfinite(scores.grad).all()  # type: ignore[arg-type]


def flat(*args: Any, **_: Any) -> Any:
    return args[1].reshape(-1)[:1] * 1.0


def infinite(seam: str) -> Callable[..., Any]:
    return lambda *args, **settings: OWN[seam](*args, **settings) / 0.0


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")


@pytest.mark.parametrize("seam", OWN)
def test_a_wrong_shape_is_one_sentence(seam: str, train: Callable[..., Any]) -> None:
    each = {"token_loss": "counted token", "pair_loss": "pair", "values": "prompt"}.get(seam, "token")
    with pytest.raises(ValueError, match=rf"^{seam} \(flat\) returned the shape .*one number for each {each}\.$"):
        train(seam, flat)


@pytest.mark.parametrize("seam", OWN)
def test_a_number_where_many_are_needed_is_one_sentence(seam: str, train: Callable[..., Any]) -> None:
    what = "array" if seam == "values" else "tensor"
    with pytest.raises(ValueError, match=rf"^{seam} \(<lambda>\) returned float, no {what} of the shape \("):
        train(seam, lambda *args, **settings: 1.0)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("seam", OWN)
def test_a_result_that_is_not_finite_is_one_sentence(seam: str, train: Callable[..., Any]) -> None:
    with pytest.raises(
        ValueError, match=rf"^{seam} \(.*\) returned -?(inf|nan) at \[\d.*\]; every number must be finite"
    ):
        train(seam, infinite(seam))


@pytest.mark.parametrize("seam", OWN)
def test_a_function_that_raises_is_one_sentence(seam: str, train: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{seam} \(broken\) raised RuntimeError: The size of tensor a") as caught:
        train(seam, broken)
    assert isinstance(caught.value.__cause__, RuntimeError)  # whose lines show where


@pytest.mark.parametrize("seam", LOSSES)
def test_a_loss_without_a_gradient_is_one_sentence(seam: str, train: Callable[..., Any]) -> None:
    def detached(*args: Any, **settings: Any) -> Tensor:
        return OWN[seam](*args, **settings).detach()

    with pytest.raises(ValueError, match=rf"^{seam} \(detached\) returned numbers without a gradient"):
        train(seam, detached)


@pytest.mark.parametrize("seam", LOSSES)
def test_a_gradient_that_is_not_finite_is_one_sentence(seam: str, train: Callable[..., Any]) -> None:
    """The loss is finite: without the sentence the weights would be NaN, and the next step be blamed."""

    def rooted(*args: Any, **settings: Any) -> Tensor:
        loss = OWN[seam](*args, **settings)
        return loss + (loss - loss).sqrt()  # a root of 0

    with pytest.raises(ValueError, match=rf"^{seam} \(rooted\) has a gradient of nan at \[.*\] of its argument [12]"):
        train(seam, rooted)


@pytest.mark.parametrize("seam", ["advantages", "shaped_rewards", "values"])
def test_a_function_that_writes_into_its_arguments_spoils_nothing(
    seam: str, train: Callable[..., Any], made: dict[str, Any]
) -> None:
    def careless(*args: Any, **settings: Any) -> Any:
        result = OWN[seam](*args, **settings)
        for arg in args[:2]:
            arg[...] = 0
        return result

    assert_same(made[seam], train(seam, careless))


@pytest.mark.parametrize("seam", OWN)
def test_whole_numbers_are_one_sentence(seam: str, train: Callable[..., Any]) -> None:
    def rounded(*args: Any, **settings: Any) -> Any:
        result = OWN[seam](*args, **settings)
        return result.long() if isinstance(result, Tensor) else result.astype(int)

    with pytest.raises(ValueError, match=rf"^{seam} \(rounded\) returned int64, not floating-point numbers\.$"):
        train(seam, rounded)


def test_what_is_no_function_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match=r"^surrogate must be a function such as clipped_surrogate, not 0\.2"):
        checked("surrogate", 0.2, clipped_surrogate, lambda first: first.shape, "token")


def test_a_zero_that_is_masked_too_late_is_found() -> None:
    """The usual trap: where() takes the other branch, and its gradient is 0 times infinity."""

    def trapped(x: Tensor) -> Tensor:
        return torch.where(x > 0, x.log(), torch.zeros_like(x))

    values = torch.tensor([1.0, 0.0], requires_grad=True)
    losses = checked("surrogate", trapped, clipped_surrogate, lambda first: first.shape, "token")(values)
    assert losses.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"gradient of nan at \[1\] of its argument 1"):
        losses.sum().backward()
    assert values.grad is None or not math.isnan(values.grad[0].item())
