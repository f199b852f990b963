"""Does it work? Win rates, agreement, calibration and over-optimization curves, as plain rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.special import expit

from rlhf_lab.data.batching import encode_candidates
from rlhf_lab.data.datasets import column
from rlhf_lab.data.judge import Judge, words_of
from rlhf_lab.equations.overoptimization import best_of_n_kl, best_of_n_values
from rlhf_lab.feedback import LearnedReward, Population, Reward, gold_judge, scores_of
from rlhf_lab.generation import Backend, SamplingConfig, generate
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.seams import checked

NORMAL_95 = 1.959964
"""z: half-width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval. Rate(mean=0.62, low=0.58, high=0.66, n=512)."""

    mean: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float]:
        """The fields as plain numbers."""
        return asdict(self)


def rate(values: Sequence[float] | np.ndarray) -> Rate:
    """Mean of values in [0, 1] with Wilson's 95 % interval, which keeps a width where all values are alike.

        (p + z^2 / 2n) / (1 + z^2 / n)  +-  z / (1 + z^2 / n) sqrt(v / n + z^2 / 4n^2)

    with the mean p, the variance v of the values (ddof 0) and z = 1.96. For zeros and ones v = p (1 - p) and this is
    the score interval of a proportion; ties that count half make it narrower.

    Raises:
        ValueError: There are no values, or one is NaN or outside [0, 1].

    Reference:
        Wilson 1927, J. Am. Stat. Assoc. 22:209; the variance of values other than 0 and 1 is our generalization.

    Example:
        >>> one = rate([1.0] * 10)
        >>> one.mean, round(one.low, 3), one.high
        (1.0, 0.722, 1.0)
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError("a rate needs at least one value.")
    outside = array[~((array >= 0) & (array <= 1))]
    if outside.size:
        raise ValueError(f"a rate is a mean of values from 0 to 1; one of them is {outside[0]}.")
    mean, shrinkage = float(array.mean()), NORMAL_95**2 / array.size
    center = (mean + shrinkage / 2) / (1 + shrinkage)
    half = math.sqrt(shrinkage * (float(array.var()) + shrinkage / 4)) / (1 + shrinkage)
    # Rounding must not put the mean outside.
    return Rate(mean, max(0.0, min(mean, center - half)), min(1.0, max(mean, center + half)), int(array.size))


def wins(scores: Sequence[float], reference_scores: Sequence[float]) -> np.ndarray:
    """1 where a response scores above its reference, one half where they tie, else 0.

    Raises:
        ValueError: There are not as many scores as reference scores.
    """
    first, second = np.asarray(scores, dtype=float), np.asarray(reference_scores, dtype=float)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} scores cannot be compared with {len(second)} reference scores.")
    return (first > second) + 0.5 * (first == second)


def win_rate(
    prompts: Sequence[str], responses: Sequence[str], references: Sequence[str], judge: Reward | None = None
) -> Rate:
    """How often `judge` (default: the gold judge) scores the response above the reference; ties count half."""
    judge = judge or gold_judge()
    return rate(wins(scores_of(judge, prompts, responses).tolist(), scores_of(judge, prompts, references).tolist()))


def preference_rate(prompts: Sequence[str], responses: Sequence[str], references: Sequence[str], choose: Any) -> Rate:
    """How often a judge of pairs prefers the response, asked in both orders so that a liking for a side cancels.

    Args:
        prompts: The posts.
        responses: The answers in question.
        references: What they are compared with.
        choose: `(prompts, pairs) -> 1 where the first of the pair is better, 0 where the second is`.
    """
    forward = np.asarray(choose(prompts, list(zip(responses, references, strict=True))), dtype=float)
    backward = np.asarray(choose(prompts, list(zip(references, responses, strict=True))), dtype=float)
    return rate((forward + 1.0 - backward) / 2.0)


def length_controlled(
    outcomes: Sequence[float] | np.ndarray, responses: Sequence[str], references: Sequence[str], *, seed: int = 0
) -> Rate:
    """Win rate at equal length: a logistic model of the outcome in the log ratio of lengths, read at ratio 1.

    The interval is a bootstrap over posts. Cf. Stiennon et al. 2020, appendix F; Dubois et al. 2024, arXiv:2404.04475.

    Raises:
        ValueError: There are no outcomes, or not as many as responses and references.
    """
    outcome = np.asarray(outcomes, dtype=float)
    if not 0 < len(outcome) == len(responses) == len(references):
        raise ValueError(
            f"a win rate needs one outcome for each response and reference, at least one; there are {len(outcome)} "
            f"outcomes, {len(responses)} responses and {len(references)} references."
        )
    lengths = [[max(1, len(words_of(text))) for text in texts] for texts in (responses, references)]
    ratio = np.log(np.asarray(lengths[0]) / np.asarray(lengths[1]))
    rng = np.random.default_rng(seed)
    draws = [rng.integers(len(outcome), size=len(outcome)) for _ in range(200)]
    sampled = [_intercept(ratio[rows], outcome[rows]) for rows in draws]
    low, high = np.quantile(sampled, [0.025, 0.975])
    return Rate(_intercept(ratio, outcome), float(low), float(high), len(outcome))


def _intercept(feature: np.ndarray, outcome: np.ndarray) -> float:
    """sigmoid(b) of the fit outcome ~ sigmoid(a feature + b), by Newton's method with a slight ridge."""
    design = np.stack([feature, np.ones_like(feature)], axis=1)
    weights = np.zeros(2)
    for _ in range(25):
        prob = expit(design @ weights)
        gradient = design.T @ (prob - outcome) + 1e-3 * weights
        hessian = (design * (prob * (1 - prob))[:, None]).T @ design + 1e-3 * np.eye(2)
        weights = weights - np.linalg.solve(hessian, gradient)
    return float(expit(weights[1]))


def write_summaries(
    policy: Policy,
    rows: Dataset,
    sampling: SamplingConfig | None = None,
    *,
    seed: int = 0,
    backend: Backend | None = None,
) -> list[str]:
    """One summary for each row; greedy unless `sampling` says otherwise."""
    sampling = sampling or SamplingConfig(max_response_tokens=48, temperature=0.0)
    rng = torch.Generator().manual_seed(seed)
    return [texts[0] for texts in generate(policy, column(rows, "prompt"), sampling, rng=rng, backend=backend)]


def compare_with_reference(
    policies: Mapping[str, Policy], rows: Dataset, *, judge: Reward | None = None, **settings: Any
) -> dict[str, dict[str, Any]]:
    """Each policy's summaries against the references: win rate, raw and length-controlled, and the gold axes.

    Args:
        policies: Name to policy.
        rows: Rows of `prompt` and `completion`, the reference.
        judge: Scores summaries; by default the gold judge, whose axes are then reported too.
        settings: Passed on to `write_summaries`.

    Returns:
        name to `win_rate`, `length_controlled`, `axes` (gold judge only), `words` (mean) and `summaries`.
    """
    prompts, references = column(rows, "prompt"), column(rows, "completion")
    gold = judge is None
    judge = judge or gold_judge()
    reference_scores = scores_of(judge, prompts, references).tolist()
    result = {}
    for name, policy in policies.items():
        summaries = write_summaries(policy, rows, **settings)
        outcome = wins(scores_of(judge, prompts, summaries).tolist(), reference_scores)
        result[name] = {
            "win_rate": rate(outcome).to_dict(),
            "length_controlled": length_controlled(outcome, summaries, references).to_dict(),
            "axes": gold_axes(prompts, summaries) if gold else {},
            "words": float(np.mean([len(words_of(text)) for text in summaries])),
            "summaries": summaries,
        }
    return result


def gold_axes(prompts: Sequence[str], responses: Sequence[str], judge: Judge | None = None) -> dict[str, float]:
    """Mean of each axis, 1 to 7, and invented or misattributed facts a summary."""
    judge = judge or gold_judge()
    judged = [judge.judge(*pair) for pair in zip(prompts, responses, strict=True)]
    means = {
        axis: float(np.mean([getattr(one, axis) for one in judged]))
        for axis in ("overall", "coverage", "accuracy", "coherence")
    }
    return means | {"wrong_facts": float(np.mean([len(one.invented) + len(one.misattributed) for one in judged]))}


def reward_model_report(
    model: RewardModel, comparisons: Dataset, people: Population | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Does the reward model choose as a person does?

    Args:
        model: The reward model.
        comparisons: Held-out labels.
        people: Who gave them, to ask others of them about the same pairs.
        seed: Draws who is asked.

    Returns:
        `accuracy` on the labels; with `people`, `labeler_agreement` (another labeler on the same pairs) and
        `majority_agreement` (the majority of three others); each a rate. `calibration` rows; `n`.
    """
    prompts = column(comparisons, "prompt")
    pairs = list(zip(column(comparisons, "chosen"), column(comparisons, "rejected"), strict=True))
    # Both answers in turn, so that each prompt is read once.
    scores = LearnedReward(model)(
        [prompt for prompt in prompts for _ in range(2)], [text for pair in pairs for text in pair]
    )
    margins = np.subtract(scores[::2], scores[1::2])
    report: dict[str, Any] = {"accuracy": rate(wins(margins.tolist(), [0.0] * len(pairs))).to_dict()}
    if people is not None:
        votes = people.votes(prompts, pairs, 3, seed=seed + 1)
        report["labeler_agreement"] = rate(votes[0].astype(float)).to_dict()
        report["majority_agreement"] = rate((votes.sum(0) >= 2).astype(float)).to_dict()
    return report | {"calibration": calibration(margins), "n": len(pairs)}


def calibration(margins: np.ndarray, num_bins: int = 8) -> list[dict[str, float]]:
    """How often the label agrees, by how sure the model is: rows of `predicted`, `observed`, `n`.

    Args:
        margins: Score of the chosen minus score of the rejected answer.
        num_bins: Bins of predicted probability between one half and one, with equal numbers of pairs.
    """
    sure = expit(np.abs(margins))
    right = (margins > 0) + 0.5 * (margins == 0)
    return [
        {"predicted": float(sure[rows].mean()), "observed": float(right[rows].mean()), "n": len(rows)}
        for rows in np.array_split(sure.argsort(), num_bins)
        if len(rows)
    ]


@torch.no_grad()
def sequence_kl(
    policy: Policy, reference: Policy, prompts: Sequence[str], responses: Sequence[str], *, max_prompt_tokens: int = 512
) -> float:
    """KL(policy || reference) of a whole response [nats], k1 estimate on samples of `policy` at temperature 1.

    Raises:
        ValueError: There are no prompts, or not as many as responses.
    """
    if not 0 < len(prompts) == len(responses):
        raise ValueError(
            f"the KL is a mean over prompts, each with a response; there are {len(prompts)} prompts and "
            f"{len(responses)} responses."
        )
    total = 0.0
    for start in range(0, len(prompts), 64):
        part = slice(start, start + 64)
        batch = encode_candidates(
            policy.tokenizer,
            list(prompts[part]),
            [[text] for text in responses[part]],
            max_prompt_tokens=max_prompt_tokens,
            max_response_tokens=128,
        ).to(policy.network.device)
        difference = candidate_logprobs(policy.network, batch) - candidate_logprobs(reference.network, batch)
        total += difference.sum().item()
    return total / len(prompts)


def best_of_n_rows(
    policy: Policy,
    proxy: Reward,
    rows: Dataset,
    *,
    num_samples: int,
    ns: Sequence[int],
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    values: Callable[..., np.ndarray] = best_of_n_values,
    backend: Backend | None = None,
) -> list[dict[str, Any]]:
    """Proxy and gold of best-of-n for each n, by the unbiased estimator over `num_samples` samples a prompt.

    Args:
        values: The estimator, called as `best_of_n_values` is; an exercise's own goes here.
        backend: Who writes in the policy's place.

    Returns:
        Rows of `method` (best_of_n), `n`, `kl` [nats], `proxy`, `gold`, and the standard deviations of single samples'
        scores, `proxy_std` and `gold_std`.

    Raises:
        ValueError: `values` does not give one finite number for each prompt.
    """
    values = checked("values", values, best_of_n_values, lambda proxy, gold, n: gold.shape[:1], "prompt")
    prompts = column(rows, "prompt")
    rng = torch.Generator().manual_seed(seed)
    groups = generate(policy, prompts, sampling, num_candidates=num_samples, rng=rng, backend=backend)
    repeated = [prompt for prompt in prompts for _ in range(num_samples)]
    flat = [text for group in groups for text in group]
    proxy_scores = scores_of(proxy, repeated, flat).numpy().reshape(len(prompts), num_samples)
    gold_scores = scores_of(gold_judge(), repeated, flat).numpy().reshape(len(prompts), num_samples)
    return [
        {
            "method": "best_of_n",
            "n": n,
            "kl": float(best_of_n_kl(n)),
            "proxy": float(values(proxy_scores, proxy_scores, int(n)).mean()),
            "gold": float(values(proxy_scores, gold_scores, int(n)).mean()),
            "proxy_std": float(proxy_scores.std()),
            "gold_std": float(gold_scores.std()),
        }
        for n in ns
    ]
