"""Notebook 06: the curves of over-optimization, estimated without bias and fitted."""

import itertools
import math

import numpy as np
from scipy.special import comb, gammaln

from rlhf_lab.course.exercise import Case, Exercise
from rlhf_lab.equations.overoptimization import best_of_n_values, fit_gao, gao_best_of_n, gao_rl


def _estimate_cases(rng: np.random.Generator) -> list[Case]:
    def drawn(title: str, prompts: int, samples: int, n: int, part: str = "estimate") -> Case:
        proxy = rng.permuted(np.tile(np.arange(float(samples)), (prompts, 1)), axis=1)
        gold = 0.1 * proxy + rng.normal(size=proxy.shape)
        return Case(title=title, args=(proxy, gold, n), part=part)

    tied = rng.integers(0, 3, size=(3, 8)).astype(float)
    return [
        Case(
            title="three samples, best of 2",
            args=(np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 6.0, 3.0]]), 2),
            part="estimate",
        ),
        drawn("best of 1", 2, 6, 1),
        drawn("all samples", 2, 6, 6),
        drawn("three prompts, best of 3 of 10 samples", 3, 10, 3),
        drawn("best of 700 of 1500 samples", 1, 1500, 700),
        Case(title="samples that tie", args=(tied, rng.normal(size=tied.shape), 3), part="ties"),
    ]


def _weighted(proxy: np.ndarray, gold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted sum of gold in each row, samples sorted by proxy."""
    return (np.take_along_axis(gold, np.argsort(proxy, axis=1, kind="stable"), axis=1) * weights).sum(axis=1)


def _weights(num_samples: int, n: int) -> np.ndarray:
    ranks = range(1, num_samples + 1)
    return np.array([math.comb(i - 1, n - 1) / math.comb(num_samples, n) for i in ranks])


def _ties_by_place(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """Where samples tie in the proxy, their place in the list decides for you. They share: each is as good a best."""
    return _weighted(proxy, gold, _weights(proxy.shape[1], n))


def _first_n(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """You have looked at one set of n samples, the first. That is not wrong on average, but all others are wasted."""
    best = proxy[:, :n].argmax(axis=1)
    return gold[np.arange(len(gold)), best]


def _with_replacement(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """These are the weights of drawing n times and putting each sample back.

    Best-of-n draws n different samples: the estimate is biased, and best of all of them is not the best one.
    """
    places = np.arange(proxy.shape[1] + 1) / proxy.shape[1]
    return _weighted(proxy, gold, np.diff(places**n))


def _best_by_gold(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """Who chooses? You have sorted by gold, which nobody sees; the samples are ranked by the proxy."""
    return best_of_n_values(gold, gold, n)


def _worst_of_n(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """These are the weights of the worst of n: the sample with the highest proxy must get the most."""
    return best_of_n_values(-proxy, gold, n)


def _one_place_off(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """The weights are one place off.

    For the sample in place i to be the best, the other n - 1 lie among the i - 1 below it.
    """
    num_samples = proxy.shape[1]
    weights = [math.comb(i, n - 1) / math.comb(num_samples, n) for i in range(num_samples)]
    return _weighted(proxy, gold, np.roll(np.array(weights), 1))


def _overflowing(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """C(1500, 700) is larger than any float: divide whole numbers (math.comb), or subtract logarithms (gammaln)."""
    num_samples = proxy.shape[1]
    with np.errstate(invalid="ignore"):
        weights = comb(np.arange(num_samples), n - 1) / comb(num_samples, n)
    if not np.isfinite(weights).all():
        return np.full(len(gold), np.nan)
    return best_of_n_values(proxy, gold, n)


def _by_whole_numbers(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    found = []
    for scores, values in zip(proxy, gold, strict=True):
        weights = _weights(len(scores), n)
        ordered = np.sort(scores)
        total = 0.0
        for score in np.unique(scores):
            total += weights[ordered == score].sum() * values[scores == score].mean()
        found.append(total)
    return np.array(found)


def _by_logarithms(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    num_samples = proxy.shape[1]
    i = np.arange(n, num_samples + 1)
    logs = gammaln(i) - gammaln(n) - gammaln(i - n + 1)
    logs -= gammaln(num_samples + 1) - gammaln(n + 1) - gammaln(num_samples - n + 1)
    weights = np.concatenate([np.zeros(n - 1), np.exp(logs)])
    # Samples that tie lend each other their mean.
    shared = np.array(
        [[values[scores == score].mean() for score in scores] for scores, values in zip(proxy, gold, strict=True)]
    )
    return _weighted(proxy, shared, weights)


def _by_subsets(proxy: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    if proxy.shape[1] > 20:
        return _by_whole_numbers(proxy, gold, n)
    found = []
    for scores, values in zip(proxy, gold, strict=True):
        best = []
        for subset in itertools.combinations(range(len(scores)), n):
            picked = list(subset)
            best.append(values[picked][scores[picked] == scores[picked].max()].mean())
        found.append(np.mean(best))
    return np.array(found)


BEST_OF_N_ESTIMATE = Exercise(
    id="best-of-n-estimate",
    title="Best-of-n from every subset at once",
    kind="implement",
    points=4,
    minutes=20,
    difficulty=3,
    reference=best_of_n_values,
    cases=_estimate_cases,
    mistakes=(
        _ties_by_place,
        _first_n,
        _with_replacement,
        _best_by_gold,
        _worst_of_n,
        _one_place_off,
        _overflowing,
    ),
    variants=(_by_whole_numbers, _by_logarithms, _by_subsets),
    parts={"estimate": 3, "ties": 1},
    masked=("rlhf_lab.equations.overoptimization._subset_share",),
)


def _fitted(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    found = fit_gao(kl, gold, form="rl" if form == "rl" else "best_of_n")
    return np.array([found.alpha, found.beta])


def _fit_cases(rng: np.random.Generator) -> list[Case]:
    def measured(title: str, kl: np.ndarray, form: str, alpha: float, beta: float, noise: float) -> Case:
        curve = gao_rl if form == "rl" else gao_best_of_n
        gold = curve(np.sqrt(kl), alpha, beta) + noise * rng.normal(size=len(kl))
        return Case(title=title, args=(kl, gold, form))

    return [
        measured("two points of best-of-n", np.array([1.0, 4.0]), "best_of_n", 2.0, 1.0, 0.0),
        measured("two points of RL", np.array([0.25, 4.0]), "rl", 0.5, 0.4, 0.0),
        measured("best-of-n with noise", rng.uniform(0.2, 6.0, size=12), "best_of_n", 0.8, 0.2, 0.05),
        measured("RL with noise", rng.uniform(0.3, 30.0, size=20), "rl", 0.5, 0.5, 0.05),
    ]


def _solved(columns: list[np.ndarray], gold: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(np.stack(columns, axis=1), gold, rcond=None)[0]


def _on_kl(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    """Both columns are made from the KL itself. Gao's d is a distance: the square root of the KL."""
    return _solved([kl, -(kl**2) if form == "best_of_n" else -kl * np.log(kl)], gold)


def _half_on_kl(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    """In the form for RL the logarithm is of d, and log KL is twice log d: beta comes out half as large."""
    d = np.sqrt(kl)
    return _solved([d, -(d**2) if form == "best_of_n" else -d * np.log(kl)], gold)


def _plus_beta(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    """Beta has the wrong sign: the form takes beta d away, so its column is negative."""
    return _fitted(kl, gold, form) * np.array([1.0, -1.0])


def _with_intercept(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    """The curve starts at 0, as gold is counted from the start: a constant has no place in it."""
    d = np.sqrt(kl)
    bend = -(d**2) if form == "best_of_n" else -d * np.log(d)
    if len(kl) < 3:
        return _fitted(kl, gold, form)
    return _solved([d, bend, np.ones_like(d)], gold)[:2]


def _one_form(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    """The two forms differ: best-of-n has d squared, RL has d log d."""
    return _fitted(kl, gold, "best_of_n")


def _by_normal_equations(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    d = kl**0.5
    bend = d if form == "best_of_n" else np.log(d)
    design = np.column_stack([d, -d * bend])
    return np.linalg.solve(design.T @ design, design.T @ gold)


def _by_weighting(kl: np.ndarray, gold: np.ndarray, form: str) -> np.ndarray:
    # gold / d = alpha - beta bend is a straight line; least squares in gold weighs each point by d squared.
    d = np.sqrt(kl)
    bend = d if form == "best_of_n" else 0.5 * np.log(kl)
    slope, intercept = np.polyfit(bend, gold / d, 1, w=d)
    return np.array([intercept, -slope])


GAO_FIT = Exercise(
    id="gao-fit",
    title="A curve that does not fit",
    kind="find the bug",
    points=2,
    minutes=10,
    difficulty=2,
    reference=_fitted,
    cases=_fit_cases,
    mistakes=(_on_kl, _half_on_kl, _plus_beta, _with_intercept, _one_form),
    variants=(_by_normal_equations, _by_weighting),
    masked=("rlhf_lab.equations.overoptimization.fit_gao",),
)
