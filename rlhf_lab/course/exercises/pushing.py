"""Notebook 06: what if we push too hard? Predictions, the KL of best-of-n, ensembles, and reading the curve."""

from collections.abc import Sequence

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise, Written
from rlhf_lab.course.exercises.pushing_curves import BEST_OF_N_ESTIMATE, GAO_FIT


def _truth_of_the_push() -> list[str]:
    return ["it keeps rising", "about 1.6 nats", "below the start", "below 2 nats"]


def _proxy_falls() -> list[str]:
    """The reward model's own score is what PPO climbs: nothing pulls it down. It is the truth that nobody looks at."""
    return ["it falls with gold", "about 1.6 nats", "below the start", "below 2 nats"]


def _gold_follows() -> list[str]:
    """The reward model has learnt from samples near the supervised policy.

    The further the policy goes, the less it knows: where does the truth end if only the proxy is climbed?
    """
    return ["it keeps rising", "about 16 nats", "above the start", "below 2 nats"]


def _late_peak() -> list[str]:
    """The direction is right, but the truth turns early: the first few nats hold nearly all that is to be had."""
    return ["it keeps rising", "about 16 nats", "below the start", "below 2 nats"]


def _penalty_only_slows() -> list[str]:
    """A penalty does not only slow the policy: where one more nat costs more than it earns, it stays."""
    return ["it keeps rising", "about 1.6 nats", "below the start", "as far, only later"]


PUSH_PREDICTION = Exercise(
    id="push-prediction",
    title="Where does it turn?",
    kind="predict",
    points=2,
    minutes=5,
    difficulty=1,
    reference=_truth_of_the_push,
    cases=lambda rng: [Case(title="your four answers")],
    mistakes=(_proxy_falls, _gold_follows, _late_peak, _penalty_only_slows),
    variants=(
        lambda: ["it keeps rising", "about 1.6 nats", "below the start", "below 2 nats"],
        lambda: [*_truth_of_the_push()],
    ),
)


def _best_of_n_probs(probs: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """Probability that each response is the best of n: all n at most as good, less all n worse."""
    order = np.argsort(scores)
    at_most = np.cumsum(probs[order])
    chosen = np.empty_like(probs)
    chosen[order] = at_most**n - np.concatenate([[0.0], at_most[:-1]]) ** n
    return chosen


def _relative_entropy(chosen: np.ndarray, probs: np.ndarray) -> float:
    here = chosen > 0
    return float((chosen[here] * np.log(chosen[here] / probs[here])).sum())


def _best_of_n_divergence(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    return _relative_entropy(_best_of_n_probs(probs, scores, n), probs)


def _divergence_cases(rng: np.random.Generator) -> list[Case]:
    def drawn(title: str, number: int, n: int) -> Case:
        probs = rng.dirichlet(np.full(number, 2.0))
        return Case(title=title, args=(probs, rng.permutation(number).astype(float), n))

    coin = np.array([0.5, 0.5]), np.array([0.0, 1.0])
    some_never = np.array([0.3, 0.0, 0.5, 0.2]), np.array([2.0, 9.0, 1.0, 3.0])
    return [
        Case(title="two responses, best of 2", args=(*coin, 2)),
        Case(title="best of 1", args=(*coin, 1)),
        drawn("six responses, best of 4", 6, 4),
        Case(title="a response that is never written", args=(*some_never, 4)),
        drawn("a thousand responses, best of 16", 1000, 16),
    ]


def _unsorted(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    """Best by what? The sums must run from the lowest score to the highest, not in the order of the list."""
    return _best_of_n_divergence(probs, np.arange(len(probs)).astype(float), n)


def _worst_of_n(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    """This is the worst of n: sort the other way round."""
    return _best_of_n_divergence(probs, -scores, n)


def _other_direction(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    """A KL has a direction: KL(best-of-n || policy) is a mean over what best-of-n writes."""
    chosen = _best_of_n_probs(probs, scores, n)
    here = probs > 0
    return float((probs[here] * np.log(probs[here] / chosen[here])).sum())


def _sharpened(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    """You have made likely responses likelier, as a lower temperature does: the scores play no part in it."""
    chosen = probs**n / (probs**n).sum()
    return _relative_entropy(chosen, probs)


def _continuous(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    """Log n - (n - 1) / n is the limit for responses without number. With few of them the KL is smaller: add it up."""
    return float(np.log(n) - (n - 1) / n)


def _in_bits(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    """The unit is the nat: take the natural logarithm."""
    return _best_of_n_divergence(probs, scores, n) / float(np.log(2.0))


def _by_looping(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    total = 0.0
    for prob, score in zip(probs, scores, strict=True):
        below = probs[scores < score].sum()
        chosen = (below + prob) ** n - below**n
        if prob > 0:
            total += chosen * np.log(chosen / prob)
    return float(total)


def _by_expansion(probs: np.ndarray, scores: np.ndarray, n: int) -> float:
    # a^n - b^n = (a - b) (a^(n-1) + a^(n-2) b + ... + b^(n-1)): the sum is the ratio itself.
    order = np.argsort(-scores)
    worse = 1.0 - np.cumsum(probs[order])
    powers = np.arange(n)
    terms = (worse + probs[order])[:, None] ** powers * np.clip(worse, 0.0, None)[:, None] ** powers[::-1]
    ratio = terms.sum(axis=1)
    return float((probs[order] * ratio * np.log(np.where(ratio > 0, ratio, 1.0))).sum())


BEST_OF_N_KL = Exercise(
    id="best-of-n-kl",
    title="How far does best-of-n go?",
    kind="implement",
    points=3,
    minutes=12,
    difficulty=2,
    reference=_best_of_n_divergence,
    cases=_divergence_cases,
    mistakes=(_unsorted, _worst_of_n, _other_direction, _sharpened, _continuous, _in_bits),
    variants=(_by_looping, _by_expansion),
    tolerance=1e-4,  # In single precision a sum over a thousand responses is no better.
)


def _cautious(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    if rule == "worst case":
        return scores.min(axis=0)
    return scores.mean(axis=0) - (coef * scores.var(axis=0) if rule == "uncertainty" else 0.0)


def _ensemble_cases(rng: np.random.Generator) -> list[Case]:
    def of(models: int, samples: int) -> np.ndarray:
        return rng.normal(size=(models, samples))

    return [
        Case(title="the mean of three models", args=(of(3, 6), "mean", 0.5)),
        Case(title="the worst case of three models", args=(of(3, 6), "worst case", 0.5)),
        Case(title="the mean less the uncertainty", args=(of(3, 6), "uncertainty", 0.5)),
        Case(title="as many samples as models", args=(of(4, 4), "uncertainty", 1.5)),
        Case(title="as many samples as models, the worst case", args=(of(4, 4), "worst case", 1.5)),
        Case(title="a single model has no uncertainty", args=(of(1, 5), "uncertainty", 2.0)),
    ]


def _over_samples(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    """Over which axis? The models disagree about one sample: reduce over the models, and keep a score a sample."""
    return _cautious(scores.T, rule, coef)


def _spread_of_samples(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    """The uncertainty is how much the models disagree about this sample, not how much the samples differ."""
    spread = scores.mean(axis=0).var() if rule == "uncertainty" else 0.0
    return _cautious(scores, rule, 0.0) - coef * spread


def _likes_doubt(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    """With this sign samples win because the models disagree about them: that is to explore, not to be cautious."""
    return _cautious(scores, rule, -coef)


def _deviation(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    """Here the price is on the variance, as in Coste et al., not on its root."""
    if rule != "uncertainty":
        return _cautious(scores, rule, coef)
    return scores.mean(axis=0) - coef * scores.std(axis=0)


def _sample_variance(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    """The mean squared distance from the mean: divide by the number of models, not by one less.

    One less, PyTorch's default, makes the disagreement of a single model not a number.
    """
    if rule != "uncertainty":
        return _cautious(scores, rule, coef)
    squares = ((scores - scores.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return scores.mean(axis=0) - coef * (squares / np.array(len(scores) - 1.0))


def _best_case(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    """Worst case: the lowest of the models' scores, which a response can only raise by convincing all of them."""
    return scores.max(axis=0) if rule == "worst case" else _cautious(scores, rule, coef)


def _by_rows(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    found = []
    for column in scores.T:
        mean = sum(column) / len(column)
        if rule == "worst case":
            found.append(min(column))
        elif rule == "mean":
            found.append(mean)
        else:
            found.append(mean - coef * sum((value - mean) ** 2 for value in column) / len(column))
    return np.array(found)


def _by_moments(scores: np.ndarray, rule: str, coef: float) -> np.ndarray:
    mean, square = scores.mean(axis=0), (scores**2).mean(axis=0)
    return {"mean": mean, "worst case": np.sort(scores, axis=0)[0], "uncertainty": mean - coef * (square - mean**2)}[
        rule
    ]


ENSEMBLE = Exercise(
    id="ensemble",
    title="Ask several reward models",
    kind="implement",
    points=3,
    minutes=10,
    difficulty=2,
    reference=_cautious,
    cases=_ensemble_cases,
    mistakes=(_over_samples, _spread_of_samples, _likes_doubt, _deviation, _sample_variance, _best_case),
    variants=(_by_rows, _by_moments),
)

READ_THE_CURVE = Written(
    id="read-the-curve",
    title="Read the curve",
    points=3,
    minutes=12,
    difficulty=3,
    rubric={
        "Says what rises and what falls, and between which distances, from the figure.": 1,
        "Says why: the reward model is only right near the samples that people compared.": 1,
        "Says where to stop without seeing gold: two signals or means that a real team has, with their weakness.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (
    PUSH_PREDICTION,
    BEST_OF_N_KL,
    BEST_OF_N_ESTIMATE,
    GAO_FIT,
    ENSEMBLE,
    READ_THE_CURVE,
)
