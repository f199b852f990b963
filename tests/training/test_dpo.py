"""DPO: the loss and the step of its paper's equations, and the optimum that it has in closed form."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset

from rlhf_lab.equations.preference import bradley_terry_loss, implicit_reward
from rlhf_lab.models import Policy, copy_network
from rlhf_lab.runs import Run
from rlhf_lab.training.dpo import DPOConfig, dpo, dpo_config
from rlhf_lab.training.fit import OptimizerConfig
from tests.networks import bigram_network, seeded, word_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
LIMITS = {"max_prompt_tokens": 400, "max_response_tokens": 200}


def test_the_implicit_reward_by_hand() -> None:
    logprobs, ref_logprobs = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]]), torch.tensor([[-2.0, -2.5], [-1.0, 0.0]])
    torch.testing.assert_close(implicit_reward(logprobs, ref_logprobs, kl_coef=0.2), torch.tensor([0.3, -0.4]))


def text_logprob(network: Any, policy: Policy, prompt: str, text: str) -> torch.Tensor:
    """Of the answer and its EOS, read alone by Transformers' own forward."""
    ask = policy.tokenizer(prompt)["input_ids"]
    answer = [*policy.tokenizer(text)["input_ids"], policy.tokenizer.eos_token_id]  # type: ignore[misc]
    ids = torch.tensor([ask + answer])
    logprobs = network(ids).logits[0].log_softmax(-1)
    return sum(logprobs[place - 1, ids[0, place]] for place in range(len(ask), ids.shape[1]))  # type: ignore[return-value]


def sigmoid_loss(margin: torch.Tensor, beta: float) -> torch.Tensor:
    return -torch.sigmoid(beta * margin).log()


def squared_loss(margin: torch.Tensor, beta: float) -> torch.Tensor:
    return (margin - 1 / (2 * beta)) ** 2


@pytest.mark.parametrize(
    ("given", "loss_of", "at_start"),
    [
        ({}, sigmoid_loss, math.log(2)),
        ({"label_smoothing": 0.1}, sigmoid_loss, math.log(2)),
        ({"loss": "ipo"}, squared_loss, 1 / 0.6**2),
        ({"loss": "ipo", "label_smoothing": 0.2}, squared_loss, 1 / 0.6**2),
    ],
    ids=["dpo", "smoothed", "ipo", "smoothed ipo"],
)
def test_a_step_is_that_of_the_papers_loss(
    given: dict[str, Any], loss_of: Callable[..., Any], at_start: float, policy: Policy, comparisons: Dataset
) -> None:
    rows = [comparisons[row] | {"chosen_prob": prob} for row, prob in enumerate((1.0, 0.75, 1.0, 0.5))]
    steady = OptimizerConfig(learning_rate=1e-3, schedule="constant")
    settings = {"batch_size": 4, "kl_coef": 0.3, "num_epochs": 2.0, "optimizer": steady, **LIMITS}
    trained = dpo(policy, Dataset.from_list(rows), **settings, **given)
    epsilon = given.get("label_smoothing", 0.0)

    network = copy_network(policy.network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, eps=1e-5, weight_decay=0.0)
    losses = []
    for _ in range(2):
        terms = []
        for row in rows:
            margins = []
            for name in ("chosen", "rejected"):
                with torch.no_grad():
                    reference = text_logprob(policy.network, policy, row["prompt"], row[name])
                margins.append(text_logprob(network, policy, row["prompt"], row[name]) - reference)
            prob = (1 - epsilon) * row["chosen_prob"] + epsilon * (1 - row["chosen_prob"])
            margin = margins[0] - margins[1]
            terms.append(prob * loss_of(margin, 0.3) + (1 - prob) * loss_of(-margin, 0.3))
        loss = sum(terms) / len(terms)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(at_start)  # The policy is its reference still.
    assert [row["dpo/loss"] for row in trained.history] == pytest.approx(losses, abs=1e-5, rel=1e-5)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trained.network.state_dict()[name], tensor, atol=2e-5, rtol=0)


def test_it_finds_the_optimum_of_reward_minus_kl_penalty() -> None:
    """With labels in the probabilities that a reward gives: beta log(pi / pi_ref) differs by what the reward does."""
    words = ["[PAD]", "<eos>", "<unk>", "ask", "a", "b", "c"]
    tokenizer = word_tokenizer(words)
    reference = torch.randn(len(words), len(words), generator=seeded(3))
    policy = Policy(bigram_network(reference, eos_token_id=1), tokenizer)
    rewards, kl_coef = {"a": 0.0, "b": 0.7, "c": -1.1}, 0.5
    rows = []
    for one, other in itertools.combinations(rewards, 2):
        chosen, rejected = sorted((one, other), key=rewards.__getitem__, reverse=True)
        prob = 1 / (1 + math.exp(rewards[rejected] - rewards[chosen]))
        rows.append({"prompt": "ask", "chosen": chosen, "rejected": rejected, "chosen_prob": prob})
    fast = OptimizerConfig(learning_rate=2e-2, schedule="cosine", max_grad_norm=100.0)
    trained = dpo(policy, Dataset.from_list(rows), kl_coef=kl_coef, batch_size=3, num_epochs=300.0, optimizer=fast)
    with torch.no_grad():
        implicit = {
            text: kl_coef
            * (text_logprob(trained.network, policy, "ask", text) - text_logprob(policy.network, policy, "ask", text))
            for text in rewards
        }
    for one, other in itertools.combinations(rewards, 2):
        expected = rewards[one] - rewards[other]
        assert float(implicit[one] - implicit[other]) == pytest.approx(expected, abs=0.02)


def test_sure_labels_drive_dpo_away_and_its_variants_to_a_finite_margin() -> None:
    """Each loss has its least where its paper says; the plain one has none, and goes on."""
    words = ["[PAD]", "<eos>", "<unk>", "ask", "a", "b"]
    reference = torch.randn(len(words), len(words), generator=seeded(3))
    policy = Policy(bigram_network(reference, eos_token_id=1), word_tokenizer(words))
    rows = Dataset.from_list([{"prompt": "ask", "chosen": "a", "rejected": "b"}])
    kl_coef, epsilon, margin = 0.5, 0.2, {}
    fast = OptimizerConfig(learning_rate=5e-2, schedule="cosine", max_grad_norm=100.0)
    settings = {"kl_coef": kl_coef, "batch_size": 1, "num_epochs": 60.0, "optimizer": fast}
    for name, given in {"dpo": {}, "smoothed": {"label_smoothing": epsilon}, "ipo": {"loss": "ipo"}}.items():
        margin[name] = dpo(policy, rows, **settings, **given).history[-1]["dpo/margin"] / kl_coef
    assert margin["ipo"] == pytest.approx(1 / (2 * kl_coef), abs=0.05)
    assert margin["smoothed"] == pytest.approx(math.log((1 - epsilon) / epsilon) / kl_coef, abs=0.05)
    assert margin["dpo"] > margin["smoothed"] + 1.0


def test_micro_batches_make_the_same_update(policy: Policy, comparisons: Dataset) -> None:
    rows = comparisons.select(range(6))
    whole, parts = (
        dpo(policy, rows, dpo_config("tiny"), batch_size=6, micro_batch_size=size, run=Run(seed=2))
        for size in (None, 2)
    )
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=2e-5, rtol=0)
    assert whole.history[0]["dpo/margin"] == 0.0


def test_the_policy_comes_to_prefer_what_was_chosen(policy: Policy, comparisons: Dataset) -> None:
    fast = OptimizerConfig(learning_rate=2e-3, warmup_fraction=0.1)
    history = dpo(policy, comparisons, dpo_config("tiny"), num_epochs=4.0, optimizer=fast).history
    assert sum(row["dpo/accuracy"] for row in history[-8:]) / 8 > 0.65
    assert history[-1]["dpo/loss"] < math.log(2)


def test_a_pair_loss_of_ones_own_trains(policy: Policy, comparisons: Dataset) -> None:
    def own(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return bradley_terry_loss(chosen, rejected)

    rows, settings = comparisons.select(range(8)), {"batch_size": 4, **LIMITS}
    default, mine = (dpo(policy, rows, **settings, **given) for given in ({}, {"pair_loss": own}))
    assert [row["dpo/loss"] for row in mine.history] == pytest.approx([row["dpo/loss"] for row in default.history])
    with pytest.raises(ValueError, match=r"pair_loss .* returned the shape"):
        dpo(policy, rows, pair_loss=lambda chosen, rejected: (chosen - rejected).mean(), **settings)
    in_its_place = dpo(policy, rows, **settings, loss="ipo", pair_loss=bradley_terry_loss)
    assert in_its_place.history == default.history


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_coef": 0.0}, "kl_coef must be above 0, not 0.0"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_epochs": 0.0}, "num_epochs"),
        ({"loss": "hinge"}, "the loss 'hinge' is unknown; choose sigmoid or ipo"),
        ({"label_smoothing": 0.5}, r"label_smoothing must lie in \[0, 0\.5\), not 0\.5"),
        ({"label_smoothing": -0.1}, r"label_smoothing must lie in \[0, 0\.5\), not -0\.1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DPOConfig(**settings)
