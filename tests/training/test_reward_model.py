"""The reward model's batch elements: pairs and rankings, soft labels and ties, however the work is divided."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from rlhf_lab.data.batching import encode_candidates
from rlhf_lab.data.datasets import TLDR
from rlhf_lab.equations.preference import bradley_terry_loss
from rlhf_lab.evaluation import reward_model_report
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.models import Policy, RewardModel, new_reward_model
from rlhf_lab.records import Comparison
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_scores
from rlhf_lab.training import rankings
from rlhf_lab.training.fit import Fit, OptimizerConfig
from rlhf_lab.training.reward_model import RewardModelConfig, train_reward_model
from tests.capabilities import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")
Row = dict[str, Any]
LIMITS = {"max_prompt_tokens": 128, "max_response_tokens": 24}
STEADY = OptimizerConfig(learning_rate=1e-3, schedule="constant")
PROBS = (1.0, 0.9, 0.75, 0.5, 0.6)
SIZES = (2, 4, 2, 3, 5, 2, 9, 2)
"""Answers of each element; two are a row that stands alone."""


@pytest.fixture(scope="module")
def rows(data: TLDR) -> list[Row]:
    """Rankings and lone pairs, shuffled together, with labels of all kinds."""
    prompts, texts = list(data.demonstrations["prompt"]), list(data.demonstrations["completion"])
    found = []
    for index, size in enumerate(SIZES):
        # Elements 1 and 4 are two labelers' rankings of one prompt's answers.
        start = 1 if index == 4 else index
        answers = list(dict.fromkeys(texts[10 * start :]))[:size]
        for place, (one, two) in enumerate(itertools.combinations(answers, 2)):
            row = {"prompt": prompts[start], "chosen": two, "rejected": one} if place % 3 else {}
            row = row or {"prompt": prompts[start], "chosen": one, "rejected": two}
            row |= {"chosen_prob": PROBS[(index + place) % len(PROBS)], "group": f"ranking {index}" if size > 2 else ""}
            found.append((place, row))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]  # A ranking's rows are not together.


def elements_of(rows: list[Row]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row["group"] or index, []).append(row)
    return list(groups.values())


def fresh(policy: Policy) -> RewardModel:
    return new_reward_model(policy, generator=Run().rng("head"))


def score(model: RewardModel, prompt: str, text: str) -> torch.Tensor:
    """The score of one answer, read alone."""
    return candidate_scores(model.network, encode_candidates(model.tokenizer, [prompt], [[text]], **LIMITS))[0, 0]


def margin(model: RewardModel, row: Row) -> torch.Tensor:
    return score(model, row["prompt"], row["chosen"]) - score(model, row["prompt"], row["rejected"])


def train(policy: Policy, rows: Any, run: Run | None = None, **settings: Any) -> RewardModel:
    return train_reward_model(policy, rows, run=run, **{**LIMITS, "optimizer": STEADY, **settings})


def close(one: RewardModel, other: dict[str, torch.Tensor]) -> None:
    state = one.network.state_dict()
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, other[name], atol=2e-5, rtol=0, msg=lambda text, name=name: f"{name} {text}")


def test_a_step_is_on_the_mean_over_elements_of_the_mean_over_their_pairs(policy: Policy, rows: list[Row]) -> None:
    """By hand: every answer read alone, every pair's loss in plain numbers, and AdamW on their gradient."""
    elements = elements_of(rows)
    assert [len(element) for element in elements] == [math.comb(size, 2) for size in SIZES]
    trained = train(policy, rows, batch_size=len(elements))
    model = fresh(policy)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=1e-3, eps=1e-5, weight_decay=0.0)
    losses, decided = [], []
    for element in elements:
        terms = []
        for row in element:
            prob, chosen_prob = row["chosen_prob"], torch.sigmoid(margin(model, row))
            terms.append(-prob * chosen_prob.log() - (1 - prob) * (1 - chosen_prob).log())
            decided += [margin(model, row).item()] if prob != 0.5 else []
        losses.append(sum(terms) / len(terms))
    expected = sum(losses) / len(losses)
    expected.backward()
    torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
    optimizer.step()
    (step,) = trained.history
    assert step["rm/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert 0 < len(decided) < len(rows)
    assert step["rm/accuracy"] == pytest.approx(sum(value > 0 for value in decided) / len(decided))
    assert step["rm/margin"] == pytest.approx(sum(decided) / len(decided), rel=1e-4, abs=1e-5)
    close(trained, model.network.state_dict())


def test_each_answer_of_a_ranking_is_read_once(
    policy: Policy, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, list[str]]] = []

    def spy(tokenizer: Any, prompts: list[str], answers: list[list[str]], **limits: int) -> Any:
        read.extend(zip(prompts, answers, strict=True))
        return encode_candidates(tokenizer, prompts, answers, **limits)

    monkeypatch.setattr(rankings, "encode_candidates", spy)
    train(policy, rows, batch_size=len(SIZES))
    expected = []
    for element in elements_of(rows):
        answers = {row[name] for row in element for name in ("chosen", "rejected")}
        expected.append((element[0]["prompt"], sorted(answers)))
    assert sorted((prompt, sorted(answers)) for prompt, answers in read) == sorted(expected)
    assert sum(len(answers) for _, answers in read) == sum(SIZES)


def plain_training(policy: Policy, comparisons: Dataset, config: RewardModelConfig, run: Run) -> RewardModel:
    """The loop of comparisons of two as it was before there were rankings and soft labels."""
    prompts = list(comparisons["prompt"])
    answers = list(zip(comparisons["chosen"], comparisons["rejected"], strict=True))
    model = new_reward_model(policy, generator=run.rng("head"))
    num_steps = round(config.num_epochs * len(prompts) / config.batch_size)
    fit = Fit(run, model.network, config.optimizer, num_updates=num_steps)
    for step in run.steps(num_steps, {"fit": fit}, name="plain"):
        kept = run.batch_rows(step, len(prompts), config.batch_size)
        texts = [list(answers[row]) for row in kept]
        batch = encode_candidates(model.tokenizer, [prompts[row] for row in kept], texts, **LIMITS)
        seen: list[torch.Tensor] = []

        def loss(part: Any, count: float, seen: list[torch.Tensor] = seen) -> torch.Tensor:
            scores = fit(candidate_scores, part)
            seen.append(scores.detach())
            return bradley_terry_loss(scores[:, 0], scores[:, 1]).sum() / count

        rate, counted = fit.learning_rate, torch.ones(len(batch), dtype=torch.bool)
        value = fit.step(batch, loss, counted=counted, micro_batch_size=config.micro_batch_size)
        margins = torch.cat(seen)[:, 0] - torch.cat(seen)[:, 1]
        measured = {"rm/accuracy": (margins > 0).float().mean().item(), "rm/margin": margins.mean().item()}
        run.log(step, {"rm/loss": value, **measured, "rm/learning_rate": rate})
    trained = RewardModel(model.network, model.tokenizer, tuple(run.history))
    first = comparisons[:512]
    scores = [
        one for name in ("chosen", "rejected") for one in LearnedReward(trained, **LIMITS)(first["prompt"], first[name])
    ]
    model.network.config.score_offset += sum(scores) / len(scores)
    return trained


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_plain_comparisons_train_to_the_same_bits_as_ever(
    micro_batch_size: int | None, policy: Policy, comparisons: Dataset
) -> None:
    settings = {"batch_size": 8, "micro_batch_size": micro_batch_size, "num_epochs": 0.25, "optimizer": STEADY}
    config = RewardModelConfig(**LIMITS, **settings)
    before = plain_training(policy, comparisons, config, Run())
    now = train_reward_model(policy, comparisons, config)
    labeled = comparisons.add_column("chosen_prob", [1.0] * len(comparisons))
    same = train_reward_model(policy, labeled.add_column("group", [""] * len(comparisons)), config)
    assert len(before.history) == 8
    for other in (now, same):
        assert before.history == other.history
        assert before.network.config.score_offset == other.network.config.score_offset
        for name, tensor in before.network.state_dict().items():
            assert torch.equal(tensor, other.network.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [1, 3, 100])
def test_micro_batches_train_the_same_reward_model(micro_batch_size: int, policy: Policy, rows: list[Row]) -> None:
    settings = {"batch_size": 4, "num_epochs": 2.0}
    whole, parts = (train(policy, rows, micro_batch_size=size, **settings) for size in (None, micro_batch_size))
    assert len(whole.history) == 4
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    close(parts, whole.network.state_dict())


@pytest.mark.slow
def test_two_processes_train_the_reward_model_of_one(policy: Policy, rows: list[Row], tmp_path: Path) -> None:
    """Their elements have different numbers of answers and of ties."""
    policy.save(tmp_path / "policy")
    (tmp_path / "comparisons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    optimizer = {"learning_rate": 1e-3, "schedule": "constant"}
    settings = {"batch_size": 4, "num_epochs": 2.0, **LIMITS}
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "optimizer": optimizer}))
    # Not `accelerate launch --cpu`, which starts one process however many are asked for.
    launch = [
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "tests/training/reward_model_process.py",
    ]
    subprocess.run(
        [sys.executable, "-m", *launch, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "num_processes").read_text() == "2"

    one = train(policy, rows, **settings)
    order = [Run().batch_rows(step, len(SIZES), 4) for step in range(4)]
    assert all(max(SIZES[row] for row in kept[:2]) != max(SIZES[row] for row in kept[2:]) for kept in order[:2])
    two = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(one.history) == len(two) == 4
    for first, second in zip(one.history, two, strict=True):
        assert second == pytest.approx(first, rel=1e-5, abs=1e-5)
    close(one, torch.load(tmp_path / "state.pt"))


def test_a_reward_model_goes_on_from_where_it_is(policy: Policy, rows: list[Row]) -> None:
    start = train(policy, rows, batch_size=len(SIZES))
    before = {name: tensor.clone() for name, tensor in start.network.state_dict().items()}
    offset = start.network.config.score_offset
    more = train(start, rows, batch_size=len(SIZES))
    lone = [row for row in rows if not row["group"]]
    margins = [margin(start, row).item() for row in rows if row["chosen_prob"] != 0.5]
    assert more.history[0]["rm/margin"] == pytest.approx(sum(margins) / len(margins), rel=1e-3, abs=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.network.state_dict().items())
    assert start.network.config.score_offset == offset
    # Its zero is fixed anew: the mean over the answers.
    answers = [(row["prompt"], row[side]) for row in lone[:1] for side in ("chosen", "rejected")]
    alone = train(start, lone[:1], batch_size=1)
    assert sum(score(alone, *answer).item() for answer in answers) / 2 == pytest.approx(0.0, abs=1e-4)


def test_a_tie_teaches_and_counts_in_no_accuracy(policy: Policy, rows: list[Row]) -> None:
    (decided, tie), model = [dict(row) for row in rows if not row["group"]][:2], fresh(policy)
    decided["chosen_prob"], tie["chosen_prob"] = 0.8, 0.5
    if margin(model, decided) < 0:
        decided |= {"chosen": decided["rejected"], "rejected": decided["chosen"]}
    if margin(model, tie) > 0:
        tie |= {"chosen": tie["rejected"], "rejected": tie["chosen"]}
    (step,) = train(policy, [decided, tie], batch_size=2).history
    assert step["rm/accuracy"] == 1.0  # one half, did the tie count
    assert step["rm/margin"] == pytest.approx(margin(model, decided).item(), rel=1e-4)
    halves = -0.5 * torch.sigmoid(margin(model, tie)).log() - 0.5 * torch.sigmoid(-margin(model, tie)).log()
    sure = torch.sigmoid(margin(model, decided))
    expected = (halves - 0.8 * sure.log() - 0.2 * (1 - sure).log()) / 2
    assert step["rm/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_of_ties_has_no_accuracy(policy: Policy, rows: list[Row], tmp_path: Path) -> None:
    """Which is not 0, nor 1, nor one half: NaN, a null in the file."""
    ties = [{**row, "chosen_prob": 0.5} for row in rows]
    (step,) = train(policy, ties, Run(tmp_path / "run"), batch_size=len(SIZES)).history
    assert math.isnan(step["rm/accuracy"])
    assert math.isnan(step["rm/margin"])
    assert step["rm/loss"] > math.log(2.0)  # what equal scores would cost
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert (json.loads(line)["rm/accuracy"], json.loads(line)["rm/margin"]) == (None, None)


@pytest.mark.slow
def test_the_model_becomes_as_sure_as_a_soft_label(policy: Policy, rows: list[Row]) -> None:
    pair = next(dict(row) for row in rows if not row["group"])
    for prob in (0.75, 0.5):
        model = train(policy, [{**pair, "chosen_prob": prob}], batch_size=1, num_epochs=80.0)
        assert torch.sigmoid(margin(model, pair)).item() == pytest.approx(prob, abs=0.02)


def test_records_with_labels_are_trained_on_and_reported(policy: Policy, rows: list[Row]) -> None:
    model = train(policy, [Comparison(**row) for row in rows], batch_size=len(SIZES))
    assert model.history == train(policy, Dataset.from_list(rows), batch_size=len(SIZES)).history
    report = reward_model_report(model, Dataset.from_list(rows))
    assert report["n"] == len(rows)
    # Without references, the mean over the answers of all elements is worth 0.
    answers = [
        (element[0]["prompt"], text)
        for element in elements_of(rows)
        for text in {row[name] for row in element for name in ("chosen", "rejected")}
    ]
    assert sum(score(model, *answer).item() for answer in answers) / len(answers) == pytest.approx(0.0, abs=1e-4)


def pair(chosen: str, rejected: str, group: str = "g", prompt: str = "p") -> Row:
    return {"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected}", "group": group}


BAD_ROWS: dict[str, tuple[list[Row], str]] = {
    "two prompts": (
        [pair("a", "b"), pair("a", "c", prompt="another")],
        r"row 1 of the dataset: group 'g' has rows of two prompts \('p' and 'another'\).* give each prompt a group",
    ),
    "a pair twice": (
        [pair("a", "b"), pair("a", "c"), pair("a", "b")],
        r"row 2 of the dataset: group 'g' compares the same two answers twice \(' a' and ' b'\).*drop one",
    ),
    "a pair and its reverse": (
        [pair("a", "b"), pair("a", "c"), pair("b", "a ")],
        r"row 2 of the dataset: group 'g' compares the same two answers twice \(' b' and ' a'\)",
    ),
    "an unlikely choice": (
        [{**pair("a", "b"), "chosen_prob": 0.3}],
        r"row 0 of the dataset: chosen_prob must be .*0\.3",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rankings_that_cannot_be_meant_are_refused(name: str, policy: Policy) -> None:
    bad, message = BAD_ROWS[name]
    with pytest.raises(ValueError, match=message):
        train(policy, bad)


def test_what_a_group_forbids_is_allowed_between_groups(policy: Policy) -> None:
    """Two labelers may disagree, and lone pairs may come twice and on any prompt."""
    rows = [pair("a", "b", "one"), pair("b", "a", "two"), pair("a", "b", ""), pair("a", "b", ""), pair("b", "a", "")]
    train(policy, [*rows, pair("a", "b", "", prompt="another")], batch_size=6)
