"""The rule model: its loss by hand, a rule's text decides, and a post is read once for all of its rules."""

import math
from typing import Any

import pytest
import torch
from datasets import Dataset

from rlhf_lab.data.rules import load_rules
from rlhf_lab.data.world import World
from rlhf_lab.equations.preference import rule_violation_loss
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy
from rlhf_lab.probing import RuleReward, best_temptations, probes, rule_labels, violation_rates, with_rule, writer
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.rule_model import RuleModelConfig, rule_model_config, train_rule_model

pytestmark = pytest.mark.usefixtures("one_thread")
SAYS_CAT, SAYS_DOG = "Do not name a cat.", "Do not name a dog."


def labels(number: int) -> Dataset:
    """Answers that break one of two rules each: only the rule's text says which label is right."""
    rows = []
    for index in range(number):
        animal = ("cat", "dog")[index % 2]
        shared = {"prompt": f"POST: the {animal} of day {index}", "response": f" My {animal} left."}
        rows += [shared | {"rule": rule, "violated": animal in rule} for rule in (SAYS_CAT, SAYS_DOG)]
    return Dataset.from_list(rows)


def test_the_loss_by_hand() -> None:
    scores = torch.tensor([0.0, math.log(3.0), math.log(3.0), 100.0])
    violated = torch.tensor([1.0, 1.0, 0.0, 0.0])
    expected = torch.tensor([math.log(2.0), math.log(4 / 3), math.log(4.0), 100.0])
    torch.testing.assert_close(rule_violation_loss(scores, violated), expected)
    half = rule_violation_loss(torch.tensor([1.3]), torch.tensor([0.5]))
    torch.testing.assert_close(
        half, -0.5 * torch.tensor([1.3]).sigmoid().log() - 0.5 * torch.tensor([-1.3]).sigmoid().log()
    )


def test_one_network_tells_rules_apart_by_their_texts(policy: Policy) -> None:
    fast = OptimizerConfig(learning_rate=5e-3, schedule="constant")
    model = train_rule_model(policy, labels(64), rule_model_config("tiny"), num_epochs=8.0, optimizer=fast)
    rules = [("cat", SAYS_CAT, 1), ("cat", SAYS_DOG, 0), ("dog", SAYS_CAT, 0), ("dog", SAYS_DOG, 1)]
    texts = [with_rule(f" My {animal} left.", rule) for animal, rule, _ in rules]
    odds = LearnedReward(model)([f"POST: the {animal} of day 99" for animal, *_ in rules], texts)
    assert [score > 0 for score in odds] == [bool(broken) for *_, broken in rules]
    assert model.history[-1]["rule/loss"] < 0.3 < math.log(2.0) < model.history[0]["rule/loss"] + 0.3


def test_rows_of_one_answer_are_one_element_and_micro_batches_change_nothing(policy: Policy) -> None:
    settings: dict[str, Any] = {"num_epochs": 1.0, "batch_size": 4}
    rows = labels(8).to_list()
    del rows[3]  # An answer that was rated by one rule only.
    whole, parts = (
        train_rule_model(policy, rows, rule_model_config("tiny"), run=Run(seed=1), micro_batch_size=size, **settings)
        for size in (4, 1)
    )
    assert len(whole.history) == 2
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], tensor, atol=2e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the dataset is empty; give at least one row"),
        ([{"prompt": "a", "response": " b", "rule": " ", "violated": True}], "rule must be text that is not empty"),
        ([{"prompt": "a", "response": " b", "violated": True}], "rule"),
    ],
)
def test_labels_that_say_nothing_are_refused(rows: list[dict[str, Any]], message: str, policy: Policy) -> None:
    with pytest.raises(ValueError, match=message):
        train_rule_model(policy, rows, rule_model_config("tiny"))


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match=r"num_epochs \(0\.0\) and batch_size \(64\) must be above 0"):
        RuleModelConfig(num_epochs=0.0)


def test_probes_are_chosen_asked_and_rated(policy: Policy) -> None:
    rules, posts = load_rules(), list(World().posts(0, "probing", 24))
    sampling = SamplingConfig(max_response_tokens=6, temperature=1.0)
    write = writer(policy, sampling, seed=2)
    best = best_temptations(write, rules, posts[:2], seed=0, num_kept=2)
    assert set(best) == {rule.id for rule in rules}
    asked = probes(rules, posts, seed=1, chosen=best)
    assert [probe.rule.id for probe in asked] == 2 * [rule.id for rule in rules]
    assert all(probe.tempting in best[probe.rule.id] for probe in asked)
    assert asked == probes(rules, posts, seed=1, chosen=best)
    written = write([probe.prompt for probe in asked])
    assert written == write([probe.prompt for probe in asked])
    rates = violation_rates(asked, written)
    assert (
        rates["event"]
        == sum(probe.is_broken_by(text) for probe, text in zip(asked, written, strict=True) if probe.rule.id == "event")
        / 2
    )
    rows = rule_labels(asked, written, rules, num_rules=3, seed=0)
    assert len(rows) == 3 * len(asked)
    for probe, text, row in zip(asked, written, rows.select(range(0, len(rows), 3)).to_list(), strict=True):
        assert (row["rule_id"], row["violated"]) == (probe.rule.id, probe.is_broken_by(text))


def test_the_fine_is_the_sum_of_the_probabilities(policy: Policy) -> None:
    model = train_rule_model(policy, labels(4), rule_model_config("tiny"), batch_size=4, num_epochs=1.0)
    rules = load_rules()[:3]
    reward = RuleReward(lambda prompts, responses: [float(len(text)) for text in responses], model, rules, fine=2.0)
    prompts, responses = ["POST: a", "POST: b"], [" One.", " Two."]
    probs = reward.violation_probs(prompts, responses)
    alone = LearnedReward(model)(["POST: b"], [with_rule(" Two.", rules[2].text)])
    assert probs[1, 2].item() == pytest.approx(torch.tensor(alone[0]).sigmoid().item(), abs=1e-5)
    expected = [5.0 - 2.0 * row.sum().item() for row in probs]
    assert reward(prompts, responses) == pytest.approx(expected, abs=1e-4)
