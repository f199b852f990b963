"""Best-of-n and Gao's curves against brute force and known curves."""

import itertools
import math

import numpy as np
import pytest

from rlhf_lab.equations.overoptimization import (
    GaoFit,
    best_of_n_curve,
    best_of_n_kl,
    best_of_n_values,
    fit_gao,
    gao_best_of_n,
    gao_rl,
)

RNG = np.random.default_rng(0)
PROXY, GOLD = RNG.normal(size=(3, 7)), RNG.normal(size=(3, 7))


@pytest.mark.parametrize(
    ("n", "kl"), [(1, 0.0), (2, 0.193), (4, 0.636), (64, 3.175), (1024, 5.932), (12_500, 8.434), (60_000, 10.002)]
)
def test_best_of_n_kl_matches_the_known_values(n: int, kl: float) -> None:
    assert best_of_n_kl(n) == pytest.approx(kl, abs=5e-4)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_best_of_n_kl_is_the_exact_kl_in_its_direction(n: int) -> None:
    """M equally likely responses: the best of n is the r-th with (r^n - (r-1)^n) / M^n; M large makes ties rare."""
    total = 400_000
    ends = (np.arange(total + 1) / total) ** n
    chosen = np.diff(ends)
    positive = chosen > 0
    exact = float((chosen[positive] * np.log(chosen[positive] * total)).sum())
    assert best_of_n_kl(n) == pytest.approx(exact, abs=1e-3)
    assert best_of_n_kl(n) >= exact - 1e-9  # an upper bound where samples can tie


def test_best_of_n_kl_refuses_no_sample() -> None:
    with pytest.raises(ValueError, match="1 or more, not 0"):
        best_of_n_kl(0)


def brute_force(proxy: np.ndarray, gold: np.ndarray, n: int) -> float:
    """Mean over all n-subsets of the gold of the best by proxy, ties broken at random."""
    means = []
    for subset in itertools.combinations(range(len(proxy)), n):
        best = max(proxy[k] for k in subset)
        means.append(np.mean([gold[k] for k in subset if proxy[k] == best]))
    return float(np.mean(means))


@pytest.mark.parametrize("n", range(1, 8))
def test_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    expected = [brute_force(*row, n) for row in zip(PROXY, GOLD, strict=True)]
    np.testing.assert_allclose(best_of_n_values(PROXY, GOLD, n), expected, atol=1e-12)
    np.testing.assert_allclose(best_of_n_curve(PROXY, GOLD, [n]), [np.mean(expected)], atol=1e-12)


@pytest.mark.parametrize("n", range(1, 8))
def test_tied_samples_share_their_weight(n: int) -> None:
    """Whichever way the tied ones are ordered: the mean over all orders, and no dependence on the samples' order."""
    proxy, gold = np.array([1.0, 1.0, 2.0, 0.0, 2.0, 2.0, 0.0]), GOLD[0]
    broken = np.mean([brute_force(proxy + 1e-6 * noise, gold, n) for noise in _tie_breaks(proxy)])
    value = best_of_n_values(proxy[None], gold[None], n)[0]
    assert value == pytest.approx(broken, abs=1e-12)
    assert best_of_n_values(proxy[None, ::-1], gold[None, ::-1], n)[0] == pytest.approx(value, abs=1e-12)
    assert best_of_n_values(np.zeros((1, 7)), gold[None], n)[0] == pytest.approx(gold.mean(), abs=1e-12)


def _tie_breaks(proxy: np.ndarray) -> list[np.ndarray]:
    groups = [np.flatnonzero(proxy == key) for key in np.unique(proxy)]
    orders = []
    for picks in itertools.product(*(itertools.permutations(range(len(group))) for group in groups)):
        noise = np.zeros(len(proxy))
        for group, pick in zip(groups, picks, strict=True):
            noise[group] = pick
        orders.append(noise)
    return orders


def test_best_of_one_is_the_mean_and_best_of_all_is_the_top() -> None:
    curve = best_of_n_curve(PROXY, GOLD, [1, 7])
    assert curve[0] == pytest.approx(GOLD.mean())
    assert curve[1] == pytest.approx(GOLD[np.arange(3), PROXY.argmax(1)].mean())


def test_proxy_of_the_proxys_best_rises_with_n() -> None:
    assert (np.diff(best_of_n_curve(PROXY, PROXY, range(1, 8))) > 0).all()


def test_many_samples_do_not_overflow_and_match_the_maximum_of_a_uniform() -> None:
    ranks = np.arange(1, 12_601, dtype=np.float64)[None]
    for n in (1, 2, 1000, 12_500):
        # The mean maximum of n drawn without replacement from 1..N is n (N + 1) / (n + 1).
        assert best_of_n_curve(ranks, ranks, [n])[0] == pytest.approx(n * 12_601 / (n + 1), rel=1e-8)


def test_best_of_n_takes_float32_and_integers() -> None:
    proxy, gold = PROXY.astype(np.float32), np.arange(21).reshape(3, 7)
    curve = best_of_n_curve(proxy, gold, [1, 3])
    assert curve.dtype == np.float64 and curve[0] == pytest.approx(10.0)


@pytest.mark.parametrize("n", [0, 8])
def test_best_of_n_refuses_an_n_beyond_the_samples(n: int) -> None:
    with pytest.raises(ValueError, match=rf"n \({n}\) must be from 1"):
        best_of_n_curve(PROXY, GOLD, [n])


def test_best_of_n_refuses_a_proxy_without_order() -> None:
    proxy = PROXY.copy()
    proxy[1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        best_of_n_values(proxy, GOLD, 2)


def test_gao_forms_by_hand() -> None:
    d = np.array([0.0, 0.5, 2.0])
    np.testing.assert_allclose(gao_best_of_n(d, 3.0, 0.5), [0.0, 0.5 * 2.75, 4.0])
    np.testing.assert_allclose(gao_rl(d, 3.0, 0.5), [0.0, 0.5 * (3 - 0.5 * math.log(0.5)), 2 * (3 - 0.5 * math.log(2))])
    for curve in (gao_best_of_n, gao_rl):
        with pytest.raises(ValueError, match="cannot be negative"):
            curve(np.array([1.0, -0.5]), 1.0, 1.0)


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_fit_finds_the_curve_that_made_the_points(form: str) -> None:
    truth = GaoFit(form=form, alpha=1.3, beta=0.4, initial_gold=0.7)
    kl = np.linspace(0.0, 12.0, 9)
    fit = fit_gao(kl, truth.predict(kl), form=form, initial_gold=0.7)
    assert (fit.alpha, fit.beta, fit.initial_gold) == pytest.approx((1.3, 0.4, 0.7))
    np.testing.assert_allclose(fit.predict(40.0), truth.predict(40.0))


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_no_other_coefficients_fit_noisy_points_better(form: str) -> None:
    kl = np.linspace(0.1, 12.0, 30)
    gold = GaoFit(form=form, alpha=1.3, beta=0.4).predict(kl) + 0.1 * RNG.normal(size=30)
    fit = fit_gao(kl, gold, form=form)

    def error(alpha: float, beta: float) -> float:
        return float(((GaoFit(form=form, alpha=alpha, beta=beta).predict(kl) - gold) ** 2).sum())

    best = error(fit.alpha, fit.beta)
    for step in itertools.product((-1e-3, 0.0, 1e-3), repeat=2):
        assert error(fit.alpha + step[0], fit.beta + step[1]) >= best - 1e-12


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_peak_is_where_the_curve_is_highest(form: str) -> None:
    fit = GaoFit(form=form, alpha=1.3, beta=0.7, initial_gold=-2.0)
    kl = np.linspace(0.0, 4 * fit.peak, 40_001)
    predicted = fit.predict(kl)
    assert kl[predicted.argmax()] == pytest.approx(fit.peak, rel=1e-3)
    assert predicted.max() == pytest.approx(fit.peak_gold, abs=1e-6)


def test_peak_formulas_of_the_paper() -> None:
    assert GaoFit(form="best_of_n", alpha=1.2, beta=0.3).peak == pytest.approx((1.2 / 0.6) ** 2)
    assert GaoFit(form="best_of_n", alpha=1.2, beta=0.3).peak_gold == pytest.approx(1.2**2 / (4 * 0.3))
    assert GaoFit(form="rl", alpha=1.2, beta=0.3).peak == pytest.approx(math.exp(1.2 / 0.3 - 1) ** 2)


@pytest.mark.parametrize(
    ("form", "alpha", "beta", "peak"),
    [
        ("best_of_n", 1.0, 0.0, math.inf),
        ("best_of_n", 1.0, -0.1, math.inf),
        ("best_of_n", -1.0, 0.1, 0.0),
        ("rl", 1.0, 0.0, math.inf),
        ("rl", -1.0, 0.0, 0.0),
        ("rl", 1.0, 1e-4, math.inf),  # beyond any float
    ],
)
def test_a_curve_that_never_turns_or_only_falls_says_so(form: str, alpha: float, beta: float, peak: float) -> None:
    fit = GaoFit(form=form, alpha=alpha, beta=beta)
    assert fit.peak == peak
    assert fit.peak_gold == peak


@pytest.mark.parametrize(
    ("kl", "gold", "form", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "ppo", "choose best_of_n or rl"),
        ([1.0, 2.0], [1.0], "rl", "one length"),
        ([1.0, -0.1], [1.0, 2.0], "rl", "cannot be negative"),
        ([1.0, math.nan], [1.0, 2.0], "rl", "finite"),
        ([1.0, 2.0], [1.0, math.inf], "rl", "finite"),
        ([1.0], [1.0], "rl", "two or more"),
        ([0.0, 1.0, 1.0], [0.0, 1.0, 2.0], "best_of_n", "two or more"),
        ([], [], "rl", "two or more"),
    ],
)
def test_fit_refuses_what_it_cannot_fit(kl: list, gold: list, form: str, message: str) -> None:
    error: type[Exception] = ValueError
    if form == "ppo":  # the shape hook, where it is on, is quicker than the message
        error = Exception
        message = "choose best_of_n or rl|Type-check"
    with pytest.raises(error, match=message):
        fit_gao(kl, gold, form=form)


def test_predict_refuses_a_negative_kl() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        GaoFit(form="rl", alpha=1.0, beta=1.0).predict(-1.0)
