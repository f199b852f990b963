"""Notebook 12: how do I do this for real? Memory, adapters, arithmetic, and a plan."""

from collections.abc import Sequence

import numpy as np

from rlhf_lab.course.exercise import Case, Exercise, Written


def _truth_of_the_bill() -> list[str]:
    return ["about 35 GB", "about 2 GB", "at 1.0", "updating"]


def _weights_only() -> list[str]:
    """Four networks of 4 GB are 16 GB. But two of them learn: what does AdamW keep for each of their weights?"""
    return ["about 16 GB", "about 2 GB", "at 1.0", "updating"]


def _adapters_save_half() -> list[str]:
    """Adapters save more than that: which weights need gradients and moments now?"""
    return ["about 35 GB", "about 18 GB", "at 1.0", "updating"]


def _a_base_for_each() -> list[str]:
    """Four bases of 2 GB would be 8. But frozen weights can be shared: how many copies of the base are needed?"""
    return ["about 35 GB", "about 8 GB", "at 1.0", "updating"]


def _bf16_adds_up() -> list[str]:
    """Bf16 has 8 bits for the digits: what is the next number after 1, and is 1.001 nearer to it or to 1?"""
    return ["about 35 GB", "about 2 GB", "at 2.0", "updating"]


def _writing_is_work() -> list[str]:
    """Writing takes long because memory is slow, one token after the other. But what is the arithmetic?

    Each token is written once, and trained on in every epoch by two networks, forwards and backwards.
    """
    return ["about 35 GB", "about 2 GB", "at 1.0", "writing"]


BILL_PREDICTION = Exercise(
    id="bill-prediction",
    title="What will it take?",
    kind="predict",
    points=2,
    minutes=5,
    difficulty=2,
    reference=_truth_of_the_bill,
    cases=lambda rng: [Case(title="your four answers")],
    mistakes=(_weights_only, _adapters_save_half, _a_base_for_each, _bf16_adds_up, _writing_is_work),
    variants=(
        lambda: ["about 35 GB", "about 2 GB", "at 1.0", "updating"],
        lambda: [*_truth_of_the_bill()],
    ),
)


def _training_bytes(num_weights: int, num_trained: int, weight_bytes: int, moment_bytes: int) -> int:
    frozen = (num_weights - num_trained) * weight_bytes
    return frozen + num_trained * (4 + 4 + 2 * moment_bytes)


def _bytes_cases(rng: np.random.Generator) -> list[Case]:
    def drawn(title: str, share: float, weight_bytes: int, moment_bytes: int) -> Case:
        number = int(rng.integers(10**6, 10**9))
        return Case(title=title, args=(number, int(share * number), weight_bytes, moment_bytes))

    return [
        drawn("all weights are trained, in fp32", 1.0, 4, 4),
        drawn("all weights are trained, with moments of 8 bits", 1.0, 4, 1),
        drawn("an adapter on a base of bf16", 0.01, 2, 4),
        drawn("an adapter on a base of fp32, with moments of 8 bits", 0.03, 4, 1),
        drawn("nothing is trained", 0.0, 2, 4),
    ]


def _one_moment(num_weights: int, num_trained: int, weight_bytes: int, moment_bytes: int) -> int:
    """AdamW has two moments for each trained weight: a mean of gradients, and a mean of their squares."""
    return (num_weights - num_trained) * weight_bytes + num_trained * (8 + moment_bytes)


def _no_gradients(num_weights: int, num_trained: int, weight_bytes: int, moment_bytes: int) -> int:
    """Before AdamW can update a weight, its gradient must be somewhere."""
    return (num_weights - num_trained) * weight_bytes + num_trained * (4 + 2 * moment_bytes)


def _moments_for_all(num_weights: int, num_trained: int, weight_bytes: int, moment_bytes: int) -> int:
    """A frozen weight has no gradient and no moments: that is what an adapter saves."""
    return num_weights * (weight_bytes + 4 + 2 * moment_bytes)


def _trained_twice(num_weights: int, num_trained: int, weight_bytes: int, moment_bytes: int) -> int:
    """The trained weights are among all of them: count each once, either as frozen or as trained."""
    return num_weights * weight_bytes + num_trained * (8 + 2 * moment_bytes)


def _trained_in_the_bases_precision(num_weights: int, num_trained: int, weight_bytes: int, moment_bytes: int) -> int:
    """What is trained stays in fp32 though the base is of bf16: small updates would be rounded away."""
    return num_weights * weight_bytes + num_trained * (4 + 2 * moment_bytes)


def _bytes_by_name(num_weights: int, num_trained: int, weight_bytes: int, moment_bytes: int) -> float:
    parts = {"frozen": weight_bytes * (num_weights - num_trained), "weights": 4 * num_trained}
    parts |= {"gradients": 4 * num_trained, "moments": 2.0 * moment_bytes * num_trained}
    return sum(parts.values())


TRAINING_BYTES = Exercise(
    id="training-bytes",
    title="What a network that learns takes",
    kind="implement",
    points=3,
    minutes=8,
    difficulty=1,
    reference=_training_bytes,
    cases=_bytes_cases,
    mistakes=(_one_moment, _no_gradients, _moments_for_all, _trained_twice, _trained_in_the_bases_precision),
    variants=(
        _bytes_by_name,
        lambda n, t, weight, moment: n * weight + t * (8 + 2 * moment - weight),
    ),
)


def _adapted(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    return x @ weight.T + alpha / len(a) * (x @ a.T) @ b.T


def _adapter_cases(rng: np.random.Generator) -> list[Case]:
    def drawn(title: str, tokens: int, width: int, out: int, rank: int, alpha: float, *, fresh: bool = False) -> Case:
        b = np.zeros((out, rank)) if fresh else rng.normal(size=(out, rank))
        parts = rng.normal(size=(tokens, width)), rng.normal(size=(out, width)), rng.normal(size=(rank, width)), b
        return Case(title=title, args=(*parts, alpha))

    return [
        drawn("rank 2", 3, 6, 5, 2, 8.0),
        drawn("a new adapter, whose B is 0", 3, 6, 5, 2, 8.0, fresh=True),
        drawn("a square layer, as queries have", 4, 6, 6, 3, 1.5),
        drawn("rank 1", 2, 4, 7, 1, 16.0),
        drawn("as many tokens as ranks", 4, 4, 4, 4, 2.0),
    ]


def _without_scale(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """Where is alpha? The adapter's output is scaled by alpha / rank."""
    return x @ weight.T + (x @ a.T) @ b.T


def _alpha_alone(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """Alpha is divided by the rank, so that another rank needs no other learning rate."""
    return x @ weight.T + alpha * (x @ a.T) @ b.T


def _by_width(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """The rank is the length of A's first axis: you have divided by the width of the layer."""
    return x @ weight.T + alpha / a.shape[1] * (x @ a.T) @ b.T


def _adapter_only(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """An adapter is added to the layer, it does not replace it: a new one, whose B is 0, must change nothing."""
    return alpha / len(a) * (x @ a.T) @ b.T


def _root_of_rank(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """Dividing by the root of the rank is another paper's (rsLoRA). Here it is the rank itself."""
    return x @ weight.T + alpha / len(a) ** 0.5 * (x @ a.T) @ b.T


def _adapter_of_the_output(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    """B A stands beside W: both read the layer's input x. You have put the scale on W too."""
    return alpha / len(a) * (x @ weight.T + (x @ a.T) @ b.T)


def _by_merging(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    return x @ (weight + alpha / a.shape[0] * b @ a).T


def _by_einsum(x: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: float) -> np.ndarray:
    return np.einsum("ti,oi->to", x, weight) + np.einsum("ti,ri,or->to", x, a, b) * (alpha / b.shape[1])


ADAPTER = Exercise(
    id="adapter",
    title="A layer with an adapter",
    kind="implement",
    points=3,
    minutes=10,
    difficulty=2,
    reference=_adapted,
    cases=_adapter_cases,
    mistakes=(_without_scale, _alpha_alone, _by_width, _adapter_only, _root_of_rank, _adapter_of_the_output),
    variants=(_by_merging, _by_einsum),
)


def _episode_flops(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    once = 2 * num_weights * (prompt_tokens + response_tokens)
    return once * (1 + 4 + 2 * 3 * num_epochs)


def _flops_cases(rng: np.random.Generator) -> list[Case]:
    def drawn(title: str, num_epochs: int, response_tokens: int | None = None) -> Case:
        number, prompt = int(rng.integers(10**6, 10**9)), int(rng.integers(50, 600))
        written = int(rng.integers(10, 80)) if response_tokens is None else response_tokens
        return Case(title=title, args=(number, prompt, written, num_epochs))

    return [
        drawn("four epochs, as in Huang et al.", 4),
        drawn("one epoch", 1),
        drawn("two epochs, a long response", 2, 1000),
        drawn("no epoch: a rollout that is only looked at", 0),
        drawn("a response of one token", 3, 1),
    ]


def _without_backward(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    """To train is to read and to go back: the backward takes twice what the forward takes."""
    return 2 * num_weights * (prompt_tokens + response_tokens) * (5 + 2 * num_epochs)


def _policy_alone(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    """PPO trains two networks in each epoch: who else learns besides the policy?"""
    return 2 * num_weights * (prompt_tokens + response_tokens) * (5 + 3 * num_epochs)


def _one_epoch(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    """Each episode is trained on in every epoch."""
    return 2 * num_weights * (prompt_tokens + response_tokens) * (5 + 6)


def _without_a_cache(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    """You read the whole text anew for each token that is written. A cache of keys and values spares that."""
    tokens = prompt_tokens + response_tokens
    return 2 * num_weights * (tokens * response_tokens + tokens * (4 + 6 * num_epochs))


def _response_only(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    """The loss counts the response, but every network must read the prompt too, forwards and backwards."""
    return 2 * num_weights * response_tokens * (5 + 6 * num_epochs)


def _one_a_weight(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    """A weight is multiplied and the product is added: two operations for each weight and token."""
    return num_weights * (prompt_tokens + response_tokens) * (5 + 6 * num_epochs)


def _two_readers(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> int:
    """Who reads an episode before the updates? Policy, reference, critic and reward model: four."""
    return 2 * num_weights * (prompt_tokens + response_tokens) * (3 + 6 * num_epochs)


def _flops_by_part(num_weights: int, prompt_tokens: int, response_tokens: int, num_epochs: int) -> float:
    tokens = prompt_tokens + response_tokens
    writing, reading = 2.0 * num_weights * tokens, 4 * 2.0 * num_weights * tokens
    updating = sum(2 * 6.0 * num_weights * tokens for _ in range(num_epochs))
    return writing + reading + updating


EPISODE_FLOPS = Exercise(
    id="episode-flops",
    title="The arithmetic of an episode",
    kind="implement",
    points=3,
    minutes=10,
    difficulty=2,
    reference=_episode_flops,
    cases=_flops_cases,
    mistakes=(
        _without_backward,
        _policy_alone,
        _one_epoch,
        _without_a_cache,
        _response_only,
        _one_a_weight,
        _two_readers,
    ),
    variants=(
        _flops_by_part,
        lambda n, prompt, response, epochs: (10 + 12 * epochs) * n * (prompt + response),
    ),
)

PLAN_A_RUN = Written(
    id="plan-a-run",
    title="Plan a run",
    points=3,
    minutes=15,
    difficulty=3,
    rubric={
        "Chooses settings that fit, with the estimate's figures, and says which part the choice makes smaller.": 1,
        "Says what the run will take in GPU-days, with the share of the peak that it assumes and why.": 1,
        "Says what is looked at before the money is spent and while it is: a dry run, and at least two signals.": 1,
    },
)

EXERCISES: Sequence[Exercise | Written] = (BILL_PREDICTION, TRAINING_BYTES, ADAPTER, EPISODE_FLOPS, PLAN_A_RUN)
