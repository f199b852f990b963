"""Evaluation: numbers by hand, intervals that hold what they promise, and a policy whose every text can be listed."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import expit

from rlhf_lab import evaluation
from rlhf_lab.data.judge import Judge, Judgement
from rlhf_lab.evaluation import (
    best_of_n_rows,
    calibration,
    compare_with_reference,
    gold_axes,
    length_controlled,
    preference_rate,
    rate,
    reward_model_report,
    sequence_kl,
    win_rate,
    wins,
    write_summaries,
)
from rlhf_lab.feedback import Labeler, Population
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy, new_reward_model
from tests.networks import bigram_network, seeded, word_tokenizer

WORDS = ("<eos>", "[PAD]", "p", "a", "b", "c")
Table = dict[str, dict[str, float]]
TABLE: Table = {
    "p": {"a": 0.5, "b": 0.3, "<eos>": 0.2},
    "a": {"b": 0.4, "c": 0.6},
    "b": {"c": 0.5, "<eos>": 0.5},
    "c": {"<eos>": 1.0},
}
"""Which word follows which: nothing is longer than 'a b c'."""
OTHER: Table = {
    "p": {"a": 0.2, "b": 0.2, "<eos>": 0.6},
    "a": {"b": 0.5, "c": 0.5},
    "b": {"c": 0.9, "<eos>": 0.1},
    "c": {"<eos>": 1.0},
}
TWENTY = [""] * 4 + [" a b"] * 2 + [" a b c"] * 2 + [" a c"] * 6 + [" b"] * 3 + [" b c"] * 3
"""Every text of `TABLE`, exactly as often as it is written in twenty."""

pytestmark = pytest.mark.usefixtures("one_thread")


def chain(table: Table) -> Policy:
    """Writes words by `table`."""
    logits = torch.full((len(WORDS), len(WORDS)), -1e4)
    for word, following in table.items():
        for after, prob in following.items():
            logits[WORDS.index(word), WORDS.index(after)] = math.log(prob)
    return Policy(bigram_network(logits, eos_token_id=0, pad_token_id=1), word_tokenizer(WORDS))


def text_prob(table: Table, text: str) -> float:
    words = ["p", *text.split(), "<eos>"]
    return math.prod(table[word].get(after, 0.0) for word, after in itertools.pairwise(words))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return chain(TABLE)


@pytest.fixture(scope="module")
def other() -> Policy:
    return chain(OTHER)


def num_words(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float(len(response.split())) for response in responses]


class LengthJudge(Judge):
    """The longer, the better."""

    def __init__(self) -> None:
        pass

    def judge(self, prompt: str, summary: str) -> Judgement:
        count = len(summary.split())
        grade = 1.0 + count
        wrong = (("who", "wife"),) * (count // 2)
        return Judgement(grade, grade / 2, 7.0, 3.0, (), wrong, wrong, count, ())


def test_a_rate_and_its_interval_by_hand() -> None:
    """Values 1, 1, 0.5, 0: mean 0.625, variance 0.6875 / 4; Wilson's interval."""
    result = rate([1.0, 1.0, 0.5, 0.0])
    z = 1.959964
    center = (0.625 + z**2 / 8) / (1 + z**2 / 4)
    half = z / (1 + z**2 / 4) * math.sqrt(0.6875 / 4 / 4 + z**2 / (4 * 4**2))
    assert (result.mean, result.n) == (0.625, 4)
    assert (result.low, result.high) == pytest.approx((center - half, center + half))
    assert result.to_dict() == {"mean": 0.625, "low": result.low, "high": result.high, "n": 4}


def test_one_value_says_little_and_none_is_refused() -> None:
    z = 1.959964
    assert rate([1.0]).low == pytest.approx(1 / (1 + z**2))
    assert rate([1.0]).high == 1.0
    for outside in (math.nan, 1.5, -0.1):
        with pytest.raises(ValueError, match="values from 0 to 1"):
            rate([0.5, outside])
    with pytest.raises(ValueError, match="a rate needs at least one value"):
        rate([])


def test_the_interval_has_a_width_where_all_values_are_alike_and_holds_the_mean() -> None:
    """Ten of ten: the score interval starts at n / (n + z^2)."""
    assert rate([1.0] * 10).low == pytest.approx(10 / (10 + 1.959964**2))
    assert rate([0.0] * 10).high == pytest.approx(1 - rate([1.0] * 10).low)
    for value in (0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0):
        for n in (1, 3, 7, 10, 1000):
            one = rate([value] * n)
            assert 0.0 <= one.low <= one.mean <= one.high <= 1.0
            assert one.high - one.low > 0.5 / (n + 4)


def test_ties_make_the_interval_narrower() -> None:
    whole, ties = rate([1.0, 0.0] * 50), rate([0.5] * 60 + [1.0, 0.0] * 20)
    assert whole.mean == ties.mean == 0.5
    assert ties.high - ties.low < 0.8 * (whole.high - whole.low)


@pytest.mark.parametrize(("prob", "n"), [(0.5, 100), (0.8, 300)])
def test_the_interval_covers_the_truth_in_95_of_100_cases(prob: float, n: int) -> None:
    rng = np.random.default_rng(0)
    covered = [(one := rate((rng.random(n) < prob).astype(float))).low <= prob <= one.high for _ in range(2000)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("prob", "n"), [(0.93, 15), (0.05, 20)])
def test_the_interval_of_few_values_near_an_end_covers_the_truth_too(prob: float, n: int) -> None:
    """Mean and standard error would cover it in two of three cases; few counts cannot meet 0.95 exactly."""
    values = (np.random.default_rng(0).random((2000, n)) < prob).astype(float)
    assert np.mean([(one := rate(row)).low <= prob <= one.high for row in values]) > 0.9
    half = 1.959964 * values.std(1, ddof=1) / math.sqrt(n)
    assert np.mean(np.abs(values.mean(1) - prob) <= half) < 0.75


def test_wins_count_ties_half() -> None:
    assert wins([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_lists_that_do_not_match_are_refused(number: int, policy: Policy, other: Policy) -> None:
    """A single score would otherwise be compared with all."""
    with pytest.raises(ValueError, match=f"2 scores cannot be compared with {number} reference scores"):
        wins([1.0, 2.0], [1.0] * number)
    for outcomes, responses, references in ((2, 2, number), (2, number, 2), (number, 2, 2)):
        with pytest.raises(ValueError, match=f"{outcomes} outcomes, {responses} responses and {references} references"):
            length_controlled([1.0] * outcomes, ["a"] * responses, ["b"] * references)
    with pytest.raises(ValueError, match=f"2 prompts and {number} responses"):
        sequence_kl(policy, other, ["p"] * 2, [" b"] * number)


def test_means_of_nothing_are_refused(policy: Policy, other: Policy) -> None:
    with pytest.raises(ValueError, match="at least one; there are 0 outcomes, 0 responses and 0 references"):
        length_controlled([], [], [])
    with pytest.raises(ValueError, match="0 prompts and 0 responses"):
        sequence_kl(policy, other, [], [])
    assert wins([], []).tolist() == []


def test_win_rate_by_hand() -> None:
    """Two wins, a tie and a loss."""
    responses, references = ["a b c", "a b", "a", ""], ["a b", "a", "c", "b"]
    assert win_rate(["p"] * 4, responses, references, num_words) == rate([1.0, 1.0, 0.5, 0.0])
    assert win_rate(["p"] * 4, references, responses, num_words).mean == 0.375
    assert win_rate(["p"] * 4, responses, responses, num_words).mean == 0.5


def test_a_liking_for_a_side_cancels() -> None:
    def by_side(prompts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[int]:
        return [1] * len(pairs)

    def by_length(prompts: Sequence[str], pairs: Sequence[tuple[str, str]]) -> list[int]:
        return [int(len(first) >= len(second)) for first, second in pairs]

    prompts, longer, shorter = ["p"] * 3, ["aaa", "aa", "a"], ["a", "a", "a"]
    assert preference_rate(prompts, longer, shorter, by_side).mean == 0.5
    assert preference_rate(prompts, longer, shorter, by_length) == rate([1.0, 1.0, 0.5])
    assert preference_rate(prompts, shorter, longer, by_length) == rate([0.0, 0.0, 0.5])


def lengths_and_texts(seed: int, count: int, longer: float) -> tuple[np.ndarray, list[str], list[str]]:
    """Log ratio of lengths, responses and references; responses are `longer` times as long at the median."""
    rng = np.random.default_rng(seed)
    second = rng.integers(20, 40, size=count)
    first = np.maximum(1, (second * longer * np.exp(rng.normal(0, 0.5, size=count))).astype(int))
    return np.log(first / second), ["w " * size for size in first], ["w " * size for size in second]


def test_nothing_is_left_where_length_explains_everything() -> None:
    ratio, responses, references = lengths_and_texts(0, 3000, longer=1.6)
    outcome = (np.random.default_rng(1).random(3000) < expit(3 * ratio)).astype(float)
    assert rate(outcome).low > 0.65
    controlled = length_controlled(outcome, responses, references)
    assert controlled.low < 0.5 < controlled.high
    assert controlled.mean == pytest.approx(0.5, abs=0.05)


def test_what_length_does_not_explain_is_kept() -> None:
    """sigmoid(b) of the model that made the outcomes, though shorter answers hide it."""
    ratio, responses, references = lengths_and_texts(2, 3000, longer=0.7)
    outcome = (np.random.default_rng(3).random(3000) < expit(2 * ratio + 0.8)).astype(float)
    controlled = length_controlled(outcome, responses, references)
    assert controlled.mean == pytest.approx(expit(0.8), abs=0.05)
    assert controlled.low < expit(0.8) < controlled.high
    assert rate(outcome).high < expit(0.8) - 0.1
    assert controlled.high - controlled.low < 0.12
    assert controlled.n == 3000


def test_at_equal_lengths_control_changes_nothing() -> None:
    outcome = [1.0, 1.0, 1.0, 0.0] * 50
    controlled = length_controlled(outcome, ["a b"] * 200, ["c d"] * 200)
    assert controlled.mean == pytest.approx(0.75, abs=1e-4)
    assert controlled.low == pytest.approx(rate(outcome).low, abs=0.03)
    assert controlled.high == pytest.approx(rate(outcome).high, abs=0.03)
    assert controlled == length_controlled(outcome, ["a b"] * 200, ["c d"] * 200)


def test_calibration_by_hand() -> None:
    rows = calibration(np.array([2.0, -0.5, 0.0, 1.0]), num_bins=2)
    assert [row["n"] for row in rows] == [2, 2]
    assert [row["predicted"] for row in rows] == pytest.approx([(0.5 + expit(0.5)) / 2, (expit(1.0) + expit(2.0)) / 2])
    assert [row["observed"] for row in rows] == [0.25, 1.0]


def test_a_model_that_is_as_sure_as_it_is_right_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(4)
    sure = rng.exponential(1.5, size=40_000)
    margins = np.where(rng.random(40_000) < expit(sure), sure, -sure)
    for factor in (1.0, 3.0):
        rows = calibration(factor * margins)
        assert sum(row["n"] for row in rows) == 40_000
        gaps = [row["predicted"] - row["observed"] for row in rows]
        assert all(gap > 0.1 for gap in gaps[2:5]) if factor > 1 else max(map(abs, gaps)) < 0.03


def test_greedy_summaries_are_the_likeliest_words(policy: Policy, other: Policy) -> None:
    rows = Dataset.from_list([{"prompt": "p", "completion": " a"}] * 3)
    assert write_summaries(policy, rows) == ["a c"] * 3
    assert write_summaries(other, rows) == [""] * 3


def test_sampled_summaries_have_the_policy_s_probabilities(policy: Policy) -> None:
    rows = Dataset.from_list([{"prompt": "p"}] * 1000)
    texts = write_summaries(policy, rows, SamplingConfig(max_response_tokens=8, temperature=1.0), seed=1)
    for text in set(TWENTY):
        prob = text_prob(TABLE, text)
        assert prob == pytest.approx(TWENTY.count(text) / 20)
        found = texts.count(text.strip()) / 1000
        assert found == pytest.approx(prob, abs=4 * math.sqrt(prob * (1 - prob) / 1000))


def test_policies_against_references_by_hand(policy: Policy, other: Policy) -> None:
    """'a c' against two words, one, none and three: a tie, two wins, a loss; the empty text: a tie, three losses."""
    rows = Dataset.from_list([{"prompt": "p", "completion": text} for text in (" a b", " b", "", " a b c")])
    compared = compare_with_reference({"chain": policy, "other": other}, rows, judge=num_words)
    assert list(compared) == ["chain", "other"]
    assert compared["chain"]["win_rate"] == rate([0.5, 1.0, 1.0, 0.0]).to_dict()
    assert compared["other"]["win_rate"] == rate([0.0, 0.0, 0.5, 0.0]).to_dict()
    assert (compared["chain"]["words"], compared["other"]["words"]) == (2.0, 0.0)
    assert compared["chain"]["summaries"] == ["a c"] * 4
    assert compared["chain"]["axes"] == {}
    expected = length_controlled([0.5, 1.0, 1.0, 0.0], ["a c"] * 4, rows["completion"][:])
    assert compared["chain"]["length_controlled"] == expected.to_dict()


def test_the_gold_judge_s_axes_are_reported(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gold_axes(["p", "p"], ["a b", "a b c d"], LengthJudge()) == {
        "overall": 4.0,
        "coverage": 2.0,
        "accuracy": 7.0,
        "coherence": 3.0,
        "wrong_facts": 3.0,
    }
    monkeypatch.setattr(evaluation, "gold_judge", LengthJudge)
    rows = Dataset.from_list([{"prompt": "p", "completion": " b"}] * 2)
    compared = compare_with_reference({"chain": policy}, rows)["chain"]
    assert compared["win_rate"]["mean"] == 1.0
    assert compared["axes"] == gold_axes(["p"], ["a c"], LengthJudge())


def test_sequence_kl_is_that_of_the_listed_distribution(policy: Policy, other: Policy) -> None:
    """On every text as often as `policy` writes it, k1 is KL(policy || reference) itself; and not the reverse."""
    exact = sum(
        text_prob(TABLE, text) * math.log(text_prob(TABLE, text) / text_prob(OTHER, text)) for text in set(TWENTY)
    )
    reverse = sum(
        text_prob(OTHER, text) * math.log(text_prob(OTHER, text) / text_prob(TABLE, text)) for text in set(TWENTY)
    )
    assert exact > reverse + 0.05
    assert sequence_kl(policy, other, ["p"] * 20, TWENTY) == pytest.approx(exact, abs=1e-4)
    assert sequence_kl(policy, policy, ["p"] * 20, TWENTY) == 0.0


def test_sequence_kl_does_not_depend_on_the_batch(policy: Policy, other: Policy) -> None:
    """140 texts are three batches."""
    prompts = [" ".join(["p"] * (1 + index % 3)) for index in range(140)]
    once = sequence_kl(policy, other, prompts[:20], TWENTY)
    assert sequence_kl(policy, other, prompts, TWENTY * 7) == pytest.approx(once, abs=1e-4)


def test_best_of_n_is_the_mean_over_all_subsets(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against listing them. The proxy (length) ties where gold does not; ties are broken at random."""
    golds = {"": 0.0, "b": 4.0, "a b": 1.0, "a c": 3.0, "b c": 2.0, "a b c": -5.0}

    def gold(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [golds[response] for response in responses]

    asked: list[tuple[list[str], list[str]]] = []

    def proxy(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        asked.append((list(prompts), list(responses)))
        return num_words(prompts, responses)

    monkeypatch.setattr(evaluation, "gold_judge", lambda: gold)
    rows = Dataset.from_list([{"prompt": "p"}, {"prompt": "p p"}])
    curve = best_of_n_rows(policy, proxy, rows, num_samples=6, ns=(1, 2, 4), seed=5)
    ((prompts, texts),) = asked
    assert prompts == ["p"] * 6 + ["p p"] * 6
    assert len(set(texts)) > 3

    def best(group: Sequence[str], score: Any) -> float:
        longest = max(len(text.split()) for text in group)
        return float(np.mean([score(text) for text in group if len(text.split()) == longest]))

    for row, n, kl in zip(curve, (1, 2, 4), (0.0, math.log(2) - 1 / 2, math.log(4) - 3 / 4), strict=True):
        subsets = [group for part in (texts[:6], texts[6:]) for group in itertools.combinations(part, n)]
        assert (row["method"], row["n"]) == ("best_of_n", n)
        assert row["kl"] == pytest.approx(kl)
        assert row["proxy"] == pytest.approx(
            np.mean([best(group, lambda text: len(text.split())) for group in subsets])
        )
        assert row["gold"] == pytest.approx(np.mean([best(group, golds.get) for group in subsets]))
        assert row["proxy_std"] == pytest.approx(np.std([len(text.split()) for text in texts]))
        assert row["gold_std"] == pytest.approx(np.std([golds[text] for text in texts]))
    assert curve[0]["proxy"] < curve[1]["proxy"] < curve[2]["proxy"]


def test_a_reward_model_s_report_by_hand(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that counts words; people who are right with probability p, p^2 + (1 - p)^2 = 0.73."""
    monkeypatch.setattr(evaluation, "LearnedReward", lambda model: num_words)
    model = new_reward_model(policy, generator=seeded())
    pairs = [("a b c", "a b"), ("a", "b"), ("a", "a b"), ("b c", "c")] * 5
    labels = Dataset.from_list([{"prompt": "p", "chosen": one, "rejected": two} for one, two in pairs])
    report = reward_model_report(model, labels)
    assert report["accuracy"] == rate([1.0, 0.5, 0.0, 1.0] * 5).to_dict()
    assert report["n"] == 20
    assert report["calibration"] == calibration(np.array([1.0, 0.0, -1.0, 1.0] * 5))
    assert "labeler_agreement" not in report

    crowd = tuple(Labeler(id=f"{index}", axes={"overall": 1.0}, tastes={}) for index in range(5))
    people = Population(crowd, 0.73, LengthJudge())
    labels = Dataset.from_list([{"prompt": "p", "chosen": "a b", "rejected": "a"}] * 2000)
    report = reward_model_report(model, labels, people)
    right = (1 + math.sqrt(2 * 0.73 - 1)) / 2
    assert report["accuracy"]["mean"] == 1.0
    assert report["labeler_agreement"]["mean"] == pytest.approx(right, abs=0.035)
    assert report["majority_agreement"]["mean"] == pytest.approx(right**3 + 3 * right**2 * (1 - right), abs=0.025)
