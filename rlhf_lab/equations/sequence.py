"""Token sequences: log-probabilities, entropy, losses, KL divergences, and the one mean of the kit.

Everything here returns one number per token, except `masked_mean`, which alone reduces.
"""

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor
from torch.nn import functional


def token_logprobs(
    logits: Float[Tensor, "*positions vocab"], tokens: Int[Tensor, "*positions"]
) -> Float[Tensor, "*positions"]:
    """Log-probability of each token under the distribution at its place [nats].

        log p(token) = logits[token] - log sum_v exp(logits[v])

    Nothing is shifted: `logits[t]` must be the prediction *of* `tokens[t]`, made from the tokens before it.

    Args:
        logits: Unnormalized; divide by the sampling temperature first, if there was one.
        tokens: Index into the vocabulary.

    Example:
        >>> logits = torch.tensor([[1.0, 3.0]]).log()
        >>> token_logprobs(logits, torch.tensor([1])).exp()
        tensor([0.7500])
    """
    return functional.log_softmax(logits, dim=-1).gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)


def next_token_loss(
    logits: Float[Tensor, "*positions vocab"], tokens: Int[Tensor, "*positions"]
) -> Float[Tensor, "*positions"]:
    """Loss of each token in pretraining and supervised fine-tuning, its surprise [nats].

        L_t = -log p(x_t | x_{<t})

    Not shifted, as in `token_logprobs`: pass `logits[:, :-1]` with `tokens[:, 1:]`.

    Reference:
        Radford et al. 2018, 'Improving Language Understanding by Generative Pre-Training', eq. 1 with its sign
        changed, so that it is to be minimized.

    Example:
        >>> next_token_loss(torch.zeros(2, 8), torch.tensor([3, 5])) / torch.tensor(2.0).log()
        tensor([3., 3.])
    """
    return -token_logprobs(logits, tokens)


def entropy(logits: Float[Tensor, "*positions vocab"]) -> Float[Tensor, "*positions"]:
    """Entropy of the distribution at each place [nats].

        H = -sum_v p_v log p_v

    A token that is ruled out (logit -inf) counts 0, in the gradient too.

    Example:
        >>> entropy(torch.tensor([[0.0, 0.0, -torch.inf]])) / torch.tensor(2.0).log()
        tensor([1.])
    """
    logprobs = functional.log_softmax(logits, dim=-1)
    return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(-1)


def kl_exact(
    logprobs_p: Float[Tensor, "*positions vocab"], logprobs_q: Float[Tensor, "*positions vocab"]
) -> Float[Tensor, "*positions"]:
    """KL(p || q) of the distributions at each place, summed over the vocabulary [nats].

        KL(p || q) = sum_v p_v (log p_v - log q_v)

    The first argument is the one that the expectation is over. Infinite where p allows a token that q rules out;
    a token that p rules out counts 0.

    Args:
        logprobs_p: Normalized log-probabilities of all tokens (`log_softmax`).
        logprobs_q: The same of the other distribution.

    Example:
        >>> p = torch.tensor([0.5, 0.5, 0.0])
        >>> q = torch.tensor([0.25, 0.25, 0.5])
        >>> kl_exact(p.log(), q.log()) / torch.tensor(2.0).log()
        tensor(1.)
        >>> kl_exact(q.log(), p.log())
        tensor(inf)
    """
    absent = logprobs_p == -torch.inf
    return (logprobs_p.exp() * (logprobs_p.masked_fill(absent, 0.0) - logprobs_q.masked_fill(absent, 0.0))).sum(-1)


def kl_k1(logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Estimate k1 of KL(policy || reference) from tokens that the *policy* sampled [nats].

        k1 = -r = log pi(x) - log pi_ref(x),   r = log pi_ref(x) - log pi(x)

    Unbiased; a single token's may be negative. This is the price in the reward. As a *loss* it is useless: the mean
    of its gradient is 0.

    Reference:
        Schulman 2020, 'Approximating KL divergence', http://joschu.net/blog/kl-approx.html, k1.

    Example:
        >>> kl_k1(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0]))
        tensor([ 0.5000, -1.0000])
    """
    return logprobs - ref_logprobs


def kl_k3(logprobs: Float[Tensor, "*shape"], ref_logprobs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Estimate k3 of KL(policy || reference) from tokens that the *policy* sampled [nats].

        k3 = e^r - 1 - r,   r = log pi_ref(x) - log pi(x)

    Unbiased, never negative, and of lower variance than k1 while policy and reference are close. The mean of its
    gradient is that of KL(reference || policy), the other direction: k3 in the loss (GRPO) and k1 in the reward (PPO)
    do not pull the same way.

    Reference:
        Schulman 2020, 'Approximating KL divergence', http://joschu.net/blog/kl-approx.html, k3.

    Example:
        >>> kl_k3(torch.zeros(2), torch.tensor([0.0, 2.0]).log())
        tensor([   inf, 0.3069])
    """
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


def distillation_loss(
    logits: Float[Tensor, "*positions vocab"],
    teacher_logits: Float[Tensor, "*positions vocab"],
    *,
    top_k: int | None = None,
) -> Float[Tensor, "*positions"]:
    """Loss of a student at each place, KL(teacher || student) over the whole vocabulary [nats].

        L_t = KL( p_teacher(. | C, x_{<t}) || p_student(. | x_{<t}) )

    In context distillation the teacher has seen the context C and the student has not. The gradient flows into both:
    make `teacher_logits` without a graph.

    Args:
        top_k: Tell apart the teacher's k likeliest tokens only, and take all others for one, the rest. That is never
            more than the whole KL; k must be smaller than the vocabulary.

    Reference:
        Askell et al. 2021, arXiv:2112.00861, section 2 (context distillation). They store the teacher's most probable
        tokens only.

    Example:
        >>> teacher = torch.tensor([[1.0, 1.0]]).log()
        >>> student = torch.tensor([[1.0, 3.0]]).log()
        >>> distillation_loss(student, teacher).exp() ** 2  # (0.5 / 0.25) * (0.5 / 0.75)
        tensor([1.3333])
        >>> teacher, student = torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()
        >>> distillation_loss(student, teacher, top_k=1).exp() ** 2  # (0.5 / 0.25) * (0.5 / 0.75), the rest as one
        tensor([1.3333])
    """
    teacher_logprobs, logprobs = (functional.log_softmax(one, dim=-1) for one in (teacher_logits, logits))
    if top_k is not None:
        likeliest = teacher_logprobs.topk(top_k, dim=-1).indices
        teacher_logprobs, logprobs = (_with_rest(one, likeliest) for one in (teacher_logprobs, logprobs))
    return kl_exact(teacher_logprobs, logprobs)


def _with_rest(
    logprobs: Float[Tensor, "*positions vocab"], tokens: Int[Tensor, "*positions kept"]
) -> Float[Tensor, "*positions outcomes"]:
    """Log-probabilities of some tokens, and of any other."""
    rest = logprobs.scatter(-1, tokens, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logprobs.gather(-1, tokens), rest], dim=-1)


def masked_mean(
    values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], count: float | int | Real[Tensor, ""] | None = None
) -> Float[Tensor, ""]:
    """Mean of the counted elements: the only reduction of the kit.

        sum_{i in mask} x_i / count

    What lies outside the mask is not even read, so it may be infinite or NaN. With no counted element the mean is 0.
    (A NaN or infinity outside the mask still spoils the *gradient* of the equation that made it.)

    Args:
        count: Elements counted in the *global* batch, if `values` is a part of it: the parts' results then add up to
            the global mean, whatever their sizes. By default those of `mask`.

    Example:
        >>> values = torch.tensor([[1.0, 2.0], [6.0, torch.nan]])
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> masked_mean(values, mask)
        tensor(3.)
        >>> masked_mean(values[:1], mask[:1], count=3) + masked_mean(values[1:], mask[1:], count=3)
        tensor(3.)
    """
    total = values.masked_fill(~mask, 0.0).sum()
    return total / (mask.sum().clamp(min=1) if count is None else count)


def masked_moments(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, "3"]:
    """Count, mean, and sum of squared deviations from the mean, of the counted elements.

    In float32 or wider. A process with no counted element gives zeros. See `pooled_moments`.

    Example:
        >>> masked_moments(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
        tensor([2., 2., 2.])
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32)).masked_fill(~mask, 0.0)
    count = mask.sum().to(wide.dtype)
    mean = wide.sum() / count.clamp(min=1)
    return torch.stack([count, mean, ((wide - mean) * mask).square().sum()])


def pooled_moments(parts: Float[Tensor, "process 3"]) -> Float[Tensor, "3"]:
    """Moments of the whole from the moments of its parts, exactly: count, mean, sum of squared deviations.

    So several processes whiten with global statistics after exchanging three numbers each:
    `masked_whiten(values, mask, moments=pooled_moments(gather(masked_moments(values, mask)[None])))`.

    Reference:
        Chan, Golub, LeVeque 1983, 'Algorithms for computing the sample variance', the pairwise formula.

    Example:
        >>> values, mask = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([True, True, True])
        >>> pooled_moments(torch.stack([masked_moments(values[:1], mask[:1]), masked_moments(values[1:], mask[1:])]))
        tensor([ 3.,  4., 26.])
    """
    counts, means, squares = parts.unbind(-1)
    count = counts.sum()
    mean = (counts * means).sum() / count.clamp(min=1)
    return torch.stack([count, mean, squares.sum() + (counts * (means - mean).square()).sum()])


def masked_whiten(
    values: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    *,
    center: bool = True,
    moments: Float[Tensor, "3"] | None = None,
) -> Float[Tensor, "*shape"]:
    """The counted elements scaled to standard deviation 1, zero outside the mask.

        (x_i - m) / sqrt(s^2 + 1e-8) [+ m, if not centered],   s^2 = sum_{i in mask} (x_i - m)^2 / (count - 1)

    The unbiased variance and the 1e-8 are TRL 1.12.0's `masked_whiten` (OpenAI's code used the population variance).
    Not as there: a single counted element becomes its deviation 0 instead of NaN, and the padding becomes 0.

    Args:
        center: False keeps the mean where it is, as for rewards, whose zero has a meaning.
        moments: Of the global batch, from `pooled_moments`; by default those of `values`.

    Reference:
        Huang et al. 2024, arXiv:2403.17031, details 24 and 25.

    Example:
        >>> values, mask = torch.tensor([1.0, 3.0, 5.0, 99.0]), torch.tensor([True, True, True, False])
        >>> masked_whiten(values, mask)
        tensor([-1.,  0.,  1.,  0.])
        >>> masked_whiten(values, mask, center=False)
        tensor([2., 3., 4., 0.])
    """
    count, mean, squares = (masked_moments(values, mask) if moments is None else moments).unbind()
    whitened = (values - mean) * torch.rsqrt(squares / (count - 1).clamp(min=1) + 1e-8)
    if not center:
        whitened = whitened + mean
    return whitened.masked_fill(~mask, 0.0).to(values.dtype)
