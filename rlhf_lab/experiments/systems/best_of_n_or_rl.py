"""WebGPT's question: is compute better spent once, on RL, or at every answer, on best-of-n?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib.axes import Axes
from transformers import PreTrainedModel

from rlhf_lab import plots
from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.evaluation import rate, wins
from rlhf_lab.experiments.systems.samples import Samples
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, gold_judge
from rlhf_lab.generation import best_of_n
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.scoring import vocabulary_head
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.ppo import PPOConfig, ppo, ppo_config
from rlhf_lab.training.supervised import sft, sft_config


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    num_posts: int
    num_samples: int
    """For each post, of the supervised policy."""
    num_tuned_samples: int
    """The same of the policies that were trained against the reward model."""
    imitated_posts: int
    imitated_n: int
    """What the policy that imitates best-of-n learns from: that many posts, the best of so many each."""


SIZES = {"tiny": Sizes(8, 4, 2, 16, 2), "laptop": Sizes(128, 32, 16, 256, 8)}
NAMES = {
    "best_of_n": ("best-of-n", plots.PROXY, "o-"),
    "rl": ("RL, then best-of-n", plots.POLICY, "s--"),
    "imitation": ("best-of-n imitated, then best-of-n", plots.GOLD, "^:"),
}
"""Label, colour and style of each method."""


@dataclass(frozen=True)
class Compute:
    """Floating-point operations of a model's work on texts: two for each weight and token that passes it.

    Attention's products of tokens with tokens, a few percent at these lengths, are left out.
    """

    body: int
    """Weights that every token passes."""
    head: int
    """Weights over the vocabulary, which only the tokens that are written pass."""
    prompt_tokens: float

    @classmethod
    def of(cls, network: PreTrainedModel, prompt_tokens: float) -> "Compute":
        """Of a policy; its reward model and its critic have the same body."""
        head = sum(weight.numel() for weight in vocabulary_head(network).parameters())
        return cls(network.num_parameters() - head, head, prompt_tokens)

    def read(self, response_tokens: float) -> float:
        """The body reads a prompt once, and that many tokens of all its responses."""
        return 2.0 * self.body * (self.prompt_tokens + response_tokens)

    def write(self, response_tokens: float) -> float:
        """The policy writes them, or gives their log-probs."""
        return self.read(response_tokens) + 2.0 * self.head * response_tokens

    def answer(self, n: int, tokens: float) -> float:
        """Best-of-n of responses of `tokens` each; a single one is not scored."""
        return self.write(n * tokens) + (self.read(n * tokens) if n > 1 else 0.0)

    def ppo_step(self, config: PPOConfig, tokens: float) -> float:
        """A rollout and its updates, where a backward takes twice a forward.

        Sampling, the policy's and the reference's log-probs are of the first kind, the score and the values of the
        second; then both networks are updated.
        """
        group = config.num_candidates * tokens
        write, read = self.write(group), self.read(group)
        return config.prompts_per_step * (3 * write + 2 * read + 3 * config.num_epochs * (write + read))

    def imitation(self, num_posts: int, n: int, tokens: float) -> float:
        """Best-of-n for each post, and one epoch of fine-tuning on the choices."""
        return num_posts * (self.answer(n, tokens) + 3 * self.write(tokens))


def rows(job: Job) -> list[dict[str, Any]]:
    """Each method by n, and RL as it learns: win rate over the posters' own summaries, and what it took."""
    sizes, config = SIZES[job.scale], ppo_config(job.scale)
    data = load_tldr(scale=job.scale, seed=job.seed)
    policy, reward_model = load_trained("supervised"), load_trained("reward_model")
    assert isinstance(policy, Policy) and isinstance(reward_model, RewardModel)
    posts = data.validation.select(range(sizes.num_posts))
    compute = Compute.of(policy.network, _mean_tokens(policy, column(posts, "prompt")))
    rl, looks, rl_flops = _rl(policy, reward_model, data.prompts, posts, config, compute, job)
    imitator, imitation_flops = _imitator(policy, reward_model, data.prompts, sizes, config, compute, job)
    tuned = sizes.num_tuned_samples
    methods = {
        "best_of_n": (policy, sizes.num_samples, 0.0),
        "rl": (rl, tuned, rl_flops),
        "imitation": (imitator, tuned, imitation_flops),
    }
    measured = {
        method: Samples.of(one, posts, number, config.sampling, seed=job.seed)
        for method, (one, number, _) in methods.items()
    }
    scores = {method: samples.scores(LearnedReward(reward_model)) for method, samples in measured.items()}
    rl_alone = measured["rl"].won.mean(1)
    found = []
    for method, (_, number, training_flops) in methods.items():
        tokens = 1.0 + _mean_tokens(policy, measured[method].texts)  # EOS is written too.
        for n in (2**power for power in range(int(math.log2(number)) + 1)):
            values = measured[method].best_of(scores[method], n)
            above, one = values - rl_alone, rate(values)
            found.append(
                {"method": method, "n": n, "step": config.num_steps, "mean": one.mean, "low": one.low, "high": one.high}
                | {"above_rl": float(above.mean()), "above_rl_se": float(above.std(ddof=1) / math.sqrt(len(above)))}
                | {"tokens": tokens, "answer_flops": compute.answer(n, tokens), "training_flops": training_flops}
            )
    # Every row of a table has the same columns.
    return found + [dict.fromkeys(found[0], 0.0) | look for look in looks]


def _mean_tokens(policy: Policy, texts: Sequence[str]) -> float:
    return float(np.mean([len(policy.tokenizer(text)["input_ids"]) for text in texts]))  # type: ignore[arg-type]


def _rl(
    policy: Policy,
    reward_model: RewardModel,
    prompts: Dataset,
    posts: Dataset,
    config: PPOConfig,
    compute: Compute,
    job: Job,
) -> tuple[Policy, list[dict[str, Any]], float]:
    """The policy that PPO makes, what looks at half of the posts saw on the way, and what it took."""
    reference = {row["prompt"]: row["completion"] for part in (prompts, posts) for row in part.to_list()}

    def won(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        truth = gold_judge()(prompts, [reference[prompt] for prompt in prompts])
        return wins(gold_judge()(prompts, responses), truth).tolist()

    held_out = posts.select(range(len(posts) // 2))
    every = max(1, (config.num_steps - 1) // 3)
    run = Run(job.folder / "ppo", seed=job.seed, checkpoint_every=5)
    tuned = ppo(
        policy, reward_model, prompts, config, watch={"won": won}, held_out=held_out, run=run, evaluate_every=every
    )
    spent, looks = 0.0, []
    for row in tuned.history:
        if "held_out/won" in row:
            seen = {"step": row["step"], "mean": row["held_out/won"], "training_flops": spent}
            looks.append({"method": "rl_look", **seen})
        spent += compute.ppo_step(config, row["objective/response_tokens"])
    return tuned, looks, spent


def _imitator(
    policy: Policy,
    reward_model: RewardModel,
    prompts: Dataset,
    sizes: Sizes,
    config: PPOConfig,
    compute: Compute,
    job: Job,
) -> tuple[Policy, float]:
    """Expert iteration, once: the supervised policy fine-tuned on its own best-of-n; and what that took."""
    asked = column(prompts.select(range(sizes.imitated_posts)), "prompt")
    rng = torch.Generator().manual_seed(job.seed)
    chosen = best_of_n(policy, LearnedReward(reward_model), asked, sizes.imitated_n, config.sampling, rng=rng)
    demonstrations = Dataset.from_list(
        [
            {"prompt": prompt, "completion": completion_text(text)}
            for prompt, text in zip(asked, chosen, strict=True)
            if text.strip()
        ]
    )
    flops = compute.imitation(len(asked), sizes.imitated_n, 1.0 + _mean_tokens(policy, chosen))
    return sft(policy, demonstrations, sft_config(job.scale), run=Run(seed=job.seed)), flops


def break_even(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The smallest n at which best-of-n is preferred as often as RL alone, and the `answers` that cost it as much.

    None where it is at no n of the table.
    """
    (rl,) = _means(rows, "rl", (1,))
    for point in _means(rows, "best_of_n"):
        if point["mean"] >= rl["mean"]:
            more = point["answer_flops"] - rl["answer_flops"]
            return {**point, "answers": rl["training_flops"] / more if more > 0 else math.inf}
    return None


def _means(rows: Sequence[Mapping[str, Any]], method: str, ns: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Means over the seeds, for each n."""
    mine = where(rows, method=method)
    keys = ("mean", "answer_flops", "training_flops", "above_rl", "tokens")
    return [
        {"n": n}
        | {key: mean(where(mine, n=n), key) for key in keys}
        # Seeds have posts of their own, so their errors are independent.
        | {"above_rl_se": math.hypot(*(row["above_rl_se"] for row in where(mine, n=n))) / len(where(mine, n=n))}
        for n in ns or sorted({row["n"] for row in mine})
    ]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""
    methods = {method: _means(rows, method) for method in NAMES}
    looks = where(rows, method="rl_look")
    at = [where(looks, step=step) for step in sorted({row["step"] for row in looks})]
    curve = [{"step": look[0]["step"]} | {key: mean(look, key) for key in ("mean", "training_flops")} for look in at]
    return {"methods": methods, "names": NAMES, "looks": curve, "break_even": break_even(rows)}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Preference against the compute of an answer, and at equal compute, training included, by answers served."""
    return {"best_of_n_or_rl": _by_answer(rows), "best_of_n_or_rl_equal": _at_equal_compute(rows)}


def _by_answer(rows: Sequence[Mapping[str, Any]]) -> Axes:
    axes = plots.new_axes("What n buys, before and after RL", "compute of an answer [GFLOPs]", "win rate [%]")
    for method, (label, color, style) in NAMES.items():
        points = _means(rows, method)
        by_seed = [[100 * row["mean"] for row in where(rows, method=method, n=point["n"])] for point in points]
        at = [point["answer_flops"] / 1e9 for point in points]
        axes.plot(at, [100 * point["mean"] for point in points], style, color=color, label=label)
        axes.fill_between(
            at, [min(seeds) for seeds in by_seed], [max(seeds) for seeds in by_seed], color=color, alpha=0.15
        )
    for point in _means(rows, "best_of_n"):
        spot = {"xytext": (0, -12), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        axes.annotate(f"n={point['n']}", (point["answer_flops"] / 1e9, 100 * point["mean"]), **spot)
    axes.set_xscale("log")
    doubled = [0.25, 0.5, 1.0, 2.0, 4.0]
    axes.set_xticks(doubled, [f"{tick:g}" for tick in doubled])
    axes.minorticks_off()
    axes.legend(loc="lower right", frameon=False)
    return axes


def _at_equal_compute(rows: Sequence[Mapping[str, Any]]) -> Axes:
    """Best-of-n may spend on each answer what RL does, its training divided by the answers served, or less."""
    (rl,) = _means(rows, "rl", (1,))
    points = _means(rows, "best_of_n")
    served = np.logspace(1, 5, 81)
    budget = rl["answer_flops"] + rl["training_flops"] / served
    flops, won = ([point[key] for point in points] for key in ("answer_flops", "mean"))
    # Between two values of n, a share of the answers gets the larger one; nobody has to spend all that there is.
    best = np.maximum.accumulate(np.interp(budget[::-1], flops, won))[::-1]
    axes = plots.new_axes(
        "RL pays once many answers share its training", "answers served", "win rate at equal compute [%]"
    )
    axes.plot(served, 100 * best, color=plots.PROXY, label="best-of-n")
    axes.axhline(100 * rl["mean"], color=plots.POLICY, linestyle="--", label="RL")
    axes.set_xscale("log")
    axes.legend(loc="best", frameon=False)
    return axes
