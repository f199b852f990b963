"""What too much optimization of a proxy does to the truth: best-of-n, and the curves of Gao et al.

KL is KL(optimized policy || initial policy) of a whole response [nats]; d is its square root.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Real

Form = Literal["best_of_n", "rl"]


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n policy || sampling policy) [nats].

        KL = log n - (n - 1) / n

    Exact where no two responses tie in the proxy, as with continuous scores; otherwise an upper bound.

    Raises:
        ValueError: `n` is below 1.

    Reference:
        Stiennon et al. 2020, arXiv:2009.01325, appendix G.3.

    Example:
        >>> round(best_of_n_kl(64), 3)
        3.175
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}.")
    return math.log(n) - (n - 1) / n


def best_of_n_values(
    proxy: Real[np.ndarray, "prompts samples"], gold: Real[np.ndarray, "prompts samples"], n: int
) -> Float[np.ndarray, " prompts"]:
    """Expected gold of the best of n by proxy, for each prompt, estimated without bias from N >= n samples.

        R_n = sum_{i=n..N} C(i - 1, n - 1) / C(N, n) gold_(i),   samples sorted by proxy, lowest first

    That is the mean over all C(N, n) subsets of the samples. Samples of equal proxy share their weight, as if ties
    were broken at random. With `gold=proxy` it gives the proxy's own expectation.

    Raises:
        ValueError: The arrays are not (prompts, samples) of one shape, `n` is not in 1 to N, or a proxy is NaN.

    Reference:
        Nakano et al. 2021, arXiv:2112.09332, appendix I.

    Example:
        >>> proxy, gold = np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 6.0, 3.0]])
        >>> best_of_n_values(proxy, gold, 2)  # the subsets' best: 6, 3, 3
        array([4.])
    """
    proxy, gold = np.asarray(proxy, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if proxy.ndim != 2 or proxy.shape != gold.shape:
        raise ValueError(f"proxy {proxy.shape} and gold {gold.shape} must both have the shape (prompts, samples).")
    num_samples = proxy.shape[1]
    if not 1 <= n <= num_samples:
        raise ValueError(f"n ({n}) must be from 1 to the number of samples of a prompt ({num_samples}).")
    if np.isnan(proxy).any():
        raise ValueError("a proxy score is NaN, so the samples have no order; drop that prompt.")
    max_is_within = _subset_share(num_samples, n)
    means = np.empty(len(proxy))
    for row, (keys, values) in enumerate(zip(proxy, gold, strict=True)):
        _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        chosen_prob = np.diff(max_is_within[np.cumsum(sizes)], prepend=0.0)
        means[row] = chosen_prob @ (np.bincount(group, weights=values) / sizes)
    return means


def _subset_share(num_samples: int, n: int) -> Float[np.ndarray, " counts"]:
    """C(m, n) / C(N, n) for m = 0..N: the share of n-subsets that lie within the lowest m samples."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num_samples + 1)))])
    m = np.arange(n, num_samples + 1)
    log_binomials = log_factorials[m] - log_factorials[m - n]
    return np.concatenate([np.zeros(n), np.exp(log_binomials - log_binomials[-1])])


def best_of_n_curve(
    proxy: Real[np.ndarray, "prompts samples"], gold: Real[np.ndarray, "prompts samples"], ns: Sequence[int]
) -> Float[np.ndarray, " ns"]:
    """Expected gold of the best of n by proxy, the mean over the prompts, for each n.

    Every prompt weighs the same. For an interval over prompts take `best_of_n_values`.

    Raises:
        ValueError: As in `best_of_n_values`.

    Reference:
        Nakano et al. 2021, arXiv:2112.09332, appendix I.

    Example:
        >>> proxy, gold = np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 6.0, 3.0]])
        >>> best_of_n_curve(proxy, gold, [1, 2, 3])
        array([3., 4., 3.])
    """
    return np.array([best_of_n_values(proxy, gold, int(n)).mean() for n in ns], dtype=np.float64)


def gao_best_of_n(d: Real[np.ndarray, "*shape"] | float, alpha: float, beta: float) -> Float[np.ndarray, "*shape"]:
    """Gold score of best-of-n, above that of the initial policy.

        R(d) = d (alpha - beta d),   highest at d = alpha / (2 beta)

    Args:
        d: sqrt(KL), 0 or more.
        alpha: Slope at the start.
        beta: How fast over-optimization sets in.

    Raises:
        ValueError: A negative `d`.

    Reference:
        Gao, Schulman, Hilton 2022, arXiv:2210.10760, section 1, R_bon.

    Example:
        >>> gao_best_of_n(np.array([0.0, 1.0, 2.0]), 2.0, 1.0)
        array([0., 1., 0.])
    """
    d = _distances(d)
    return np.asarray(d * (alpha - beta * d))


def gao_rl(d: Real[np.ndarray, "*shape"] | float, alpha: float, beta: float) -> Float[np.ndarray, "*shape"]:
    """Gold score of a policy trained by RL, above that of the initial policy.

        R(d) = d (alpha - beta log d),   R(0) = 0,   highest at d = exp(alpha / beta - 1)

    The slope at 0 is infinite: not to be believed for the first steps.

    Args:
        d: sqrt(KL), 0 or more.
        alpha: Gold at d = 1.
        beta: How fast over-optimization sets in.

    Raises:
        ValueError: A negative `d`.

    Reference:
        Gao, Schulman, Hilton 2022, arXiv:2210.10760, section 1, R_RL.

    Example:
        >>> gao_rl(np.array([0.0, 1.0, np.e]), 2.0, 1.0).round(3)
        array([0.   , 2.   , 2.718])
    """
    d = _distances(d)
    return np.asarray(d * (alpha - beta * np.log(np.where(d > 0, d, 1.0))))


def _distances(d: Real[np.ndarray, "*shape"] | float) -> Float[np.ndarray, "*shape"]:
    d = np.asarray(d, dtype=np.float64)
    if (d < 0).any():
        raise ValueError(f"d is the square root of a KL and cannot be negative, as {d.min()} is.")
    return d


@dataclass(frozen=True, kw_only=True)
class GaoFit:
    """A fitted curve of Gao et al., such as GaoFit(form="rl", alpha=2.0, beta=1.0)."""

    form: Form
    alpha: float
    beta: float
    initial_gold: float = 0.0
    """Gold score at KL 0, which `predict` adds."""

    def predict(self, kl: Real[np.ndarray, "*shape"] | float) -> Float[np.ndarray, "*shape"]:
        """Gold score at each KL [nats], 0 or more.

        Raises:
            ValueError: A negative KL.

        Example:
            >>> GaoFit(form="best_of_n", alpha=2.0, beta=1.0).predict(np.array([0.0, 1.0, 4.0]))
            array([0., 1., 0.])
        """
        kl = np.asarray(kl, dtype=np.float64)
        if (kl < 0).any():
            raise ValueError(f"a KL cannot be negative, as {kl.min()} is.")
        curve = gao_best_of_n if self.form == "best_of_n" else gao_rl
        return np.asarray(self.initial_gold + curve(np.sqrt(kl), self.alpha, self.beta))

    @property
    def peak(self) -> float:
        """KL [nats] of the highest gold score; 0 if it only falls, inf if it never turns (beta not above 0).

        Example:
            >>> GaoFit(form="rl", alpha=1.0, beta=1.0).peak
            1.0
        """
        if self.beta < 0 or (self.beta == 0 and self.alpha > 0):
            return math.inf
        if self.beta == 0 or (self.form == "best_of_n" and self.alpha <= 0):
            return 0.0
        if self.form == "best_of_n":
            return (self.alpha / (2 * self.beta)) ** 2
        exponent = 2 * (self.alpha / self.beta - 1)
        return math.exp(exponent) if exponent < 700 else math.inf

    @property
    def peak_gold(self) -> float:
        """Gold score at `peak`; inf if it never turns.

        Example:
            >>> GaoFit(form="best_of_n", alpha=2.0, beta=1.0).peak_gold
            1.0
        """
        return float(self.predict(self.peak)) if math.isfinite(self.peak) else math.inf


def fit_gao(
    kl: Sequence[float] | Real[np.ndarray, " points"],
    gold: Sequence[float] | Real[np.ndarray, " points"],
    *,
    form: Form,
    initial_gold: float = 0.0,
) -> GaoFit:
    """Gao's curve through measured points, by linear least squares (both forms are linear in alpha and beta).

    Args:
        kl: KL [nats] of each point, 0 or more. Points at 0 say nothing: there every curve is at `initial_gold`.
        gold: Gold score of each point.
        form: Which curve; "best_of_n" or "rl".
        initial_gold: Gold score of the initial policy, by which the curve starts. Leave 0 if `gold` is already
            relative to it.

    Raises:
        ValueError: Unknown form; lengths that differ; a value that is not finite; a negative KL; fewer than two
            different KLs above 0.

    Reference:
        Gao, Schulman, Hilton 2022, arXiv:2210.10760, section 1.

    Example:
        >>> fit = fit_gao([1.0, 4.0], [1.0, 0.0], form="best_of_n")
        >>> round(fit.alpha, 6), round(fit.beta, 6), round(fit.peak, 6)
        (2.0, 1.0, 1.0)
    """
    if form not in ("best_of_n", "rl"):
        raise ValueError(f"form {form!r} is unknown; choose best_of_n or rl.")
    kls, golds = np.asarray(kl, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if kls.ndim != 1 or kls.shape != golds.shape:
        raise ValueError(f"kl {kls.shape} and gold {golds.shape} must be two lists of one length.")
    if not (np.isfinite(kls).all() and np.isfinite(golds).all() and math.isfinite(initial_gold)):
        raise ValueError("kl, gold and initial_gold must be finite.")
    if (kls < 0).any():
        raise ValueError(f"a KL cannot be negative, as {kls.min()} is: leave out points whose estimate is below 0.")
    if len(np.unique(kls[kls > 0])) < 2:
        raise ValueError(f"a fit needs points at two or more different KLs above 0; got {kls.tolist()}.")
    d = np.sqrt(kls)
    curve = gao_best_of_n if form == "best_of_n" else gao_rl
    columns = np.stack([curve(d, 1.0, 0.0), curve(d, 0.0, 1.0)], axis=1)
    alpha, beta = np.linalg.lstsq(columns, golds - initial_gold, rcond=None)[0]
    return GaoFit(form=form, alpha=float(alpha), beta=float(beta), initial_gold=initial_gold)
