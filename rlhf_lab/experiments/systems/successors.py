"""What came after PPO: RLOO and GRPO without a critic; DPO, IPO and smoothed DPO without a reward model.

All start from the same supervised policy, and learn from the same comparisons: the first three through the reward model
that was trained on them, the others from them alone. Each is looked at in the same way: the same held-out posts, at the
sampling temperature, with the same random numbers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import load_tldr, prompts_of
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.experiments.systems.timing import TimedRun, seconds_of_step
from rlhf_lab.feedback import gold_judge
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.actor_critic import collecting
from rlhf_lab.training.dpo import dpo, dpo_config
from rlhf_lab.training.experience import Models, collect, means_of
from rlhf_lab.training.fit import Frozen
from rlhf_lab.training.grpo import grpo, grpo_config
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.rloo import rloo, rloo_config

SIZES = {"tiny": ("small", 4, 2, 8), "laptop": ("large", 32, 3, 1400)}
"""Of the models, held-out posts, looks at them after the first, and comparisons."""
ONLINE: dict[str, tuple[Callable[..., Policy], Callable[[str], Any]]] = {
    "ppo": (ppo, ppo_config),
    "rloo": (rloo, rloo_config),
    "grpo": (grpo, grpo_config),
}
OFFLINE: dict[str, dict[str, Any]] = {
    "dpo": {},
    "smoothed": {"label_smoothing": 0.2},
    "ipo": {"loss": "ipo"},
}
BETAS = (0.1, 0.4)
"""`kl_coef` of each method without a reward model."""
LOOKS = {
    "ppo": ("PPO", plots.POLICY, "o-"),
    "rloo": ("RLOO", plots.PROXY, "s-"),
    "grpo": ("GRPO", "#CC79A7", "^-"),
    "dpo": ("DPO", plots.GOLD, "o--"),
    "smoothed": ("DPO, smoothed", "#D55E00", "s--"),
    "ipo": ("IPO", plots.REFERENCE, "^--"),
}
"""Label, color and style of each method: solid with a reward model, dashed without."""


def rows(job: Job) -> list[dict[str, Any]]:
    """What each look saw, and the processor's seconds of training up to it: of the policy, and of its reward model."""
    size, num_posts, num_looks, num_pairs = SIZES[job.scale]
    data, comparisons = load_tldr(scale=job.scale), load_shipped_comparisons("train").select(range(num_pairs))
    policy, reward_model = load_trained("supervised", size), load_trained("reward_model", size)
    assert isinstance(policy, Policy) and isinstance(reward_model, RewardModel)
    posts = data.validation.select(range(num_posts))
    reward_seconds = _seconds_of_reward_model(policy, comparisons, job)
    found = []
    for method, (stage, config_of) in ONLINE.items():
        config = config_of(job.scale)
        every = max(2, -(-(config.num_steps - 1) // num_looks))
        settings = {"held_out": posts, "watch": {"gold": gold_judge()}, "evaluate_every": every}
        tuned = stage(policy, reward_model, data.prompts, config, run=TimedRun(seed=job.seed), **settings)
        each = seconds_of_step(tuned.history)
        found += [
            _row(method, config.kl_coef, row["step"], row["step"] * each, reward_seconds, row)
            for row in tuned.history
            if "held_out/kl" in row
        ]
    for method, given in OFFLINE.items():
        for beta in BETAS:
            begun = time.process_time()
            settings = {**given, "kl_coef": beta}
            tuned = dpo(policy, comparisons, dpo_config(job.scale), run=Run(seed=job.seed), **settings)
            seconds, seen = time.process_time() - begun, look(tuned, policy, reward_model, posts, job)
            found.append(_row(method, beta, len(tuned.history), seconds, 0.0, seen))
    return [{**row, "comparisons": num_pairs} for row in found]


def look(policy: Policy, reference: Policy, reward_model: RewardModel, posts: Dataset, job: Job) -> dict[str, float]:
    """What PPO's looks at held-out posts would see of this policy: the same posts, sampling and random numbers."""
    run, asked, config = Run(seed=job.seed), prompts_of(posts), ppo_config(job.scale)
    models = Models(Frozen(policy.network), Frozen(reference.network), None, reward_model)
    answers = collect(run, asked, models, policy.tokenizer, rng=run.rng("held_out"), **collecting(config))
    watch = {"gold": gold_judge()}
    return means_of(answers, "held_out", asked, policy.tokenizer, kl_coef=config.kl_coef, watch=watch)


def _row(
    method: str, beta: float, step: int, seconds: float, reward_seconds: float, seen: Mapping[str, Any]
) -> dict[str, Any]:
    names = {"kl": "held_out/kl", "proxy": "held_out/score", "gold": "held_out/gold"}
    settings = {"method": method, "beta": beta, "step": step}
    spent = {"seconds": seconds, "reward_seconds": reward_seconds}
    return settings | spent | {name: seen[key] for name, key in names.items()}


def _seconds_of_reward_model(policy: Policy, comparisons: Dataset, job: Job) -> float:
    """Of training one on the comparisons, as the one that ships was: of a few updates, times how many it takes."""
    config, begun = reward_model_config(job.scale), time.process_time()
    few = train_reward_model(policy, comparisons.select(range(min(len(comparisons), 3 * config.batch_size))), config)
    updates = config.num_epochs * len(comparisons) / config.batch_size
    return (time.process_time() - begun) / len(few.history) * updates


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A line of the table for each method and beta, at its last look."""
    ends = []
    for method, (label, _, _) in LOOKS.items():
        mine = where(rows, method=method)
        for beta in sorted({row["beta"] for row in mine}):
            one = where(mine, beta=beta)
            last = where(one, step=max(row["step"] for row in one))
            golds = [row["gold"] for row in last]
            means = {key: mean(last, key) for key in ("gold", "kl", "proxy", "seconds", "reward_seconds")}
            ends.append({"label": label, "beta": beta, "low": min(golds), "high": max(golds), **means})
    return {
        "ends": ends,
        "num_pairs": rows[0]["comparisons"],
        "smoothing": OFFLINE["smoothed"]["label_smoothing"],
        "betas": BETAS,
    }


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Gold against KL, and against the processor's time with that of the reward model."""
    timed = [{**row, "total": row["seconds"] + row["reward_seconds"]} for row in rows]
    return {
        "successors_kl": _drawn(timed, "kl", "KL(policy || start) [nats]", "What a nat buys"),
        "successors_seconds": _drawn(
            timed, "total", "processor time, reward model's included [s]", "What a second buys"
        ),
    }


def _drawn(rows: Sequence[Mapping[str, Any]], across: str, label: str, title: str) -> Axes:
    axes = plots.new_axes(title, label, "gold score [1 to 7]")
    start = mean(where(rows, step=0), "gold")
    for method, (name, color, style) in LOOKS.items():
        mine = where(rows, method=method)
        by = "step" if method in ONLINE else "beta"
        points = [where(mine, **{by: value}) for value in sorted({row[by] for row in mine})]
        at = [mean(point, across) for point in points]
        order = np.argsort(at) if by == "beta" else np.arange(len(at))
        at, points = [at[index] for index in order], [points[index] for index in order]
        golds = [[row["gold"] for row in point] for point in points]
        axes.plot(at, [float(np.mean(gold)) for gold in golds], style, color=color, markersize=4, label=name)
        if by == "step":
            axes.fill_between(at, [min(gold) for gold in golds], [max(gold) for gold in golds], color=color, alpha=0.12)
        else:
            spans = [[np.mean(gold) - min(gold) for gold in golds], [max(gold) - np.mean(gold) for gold in golds]]
            axes.errorbar(at, [np.mean(gold) for gold in golds], spans, fmt="none", ecolor=color, alpha=0.5, capsize=2)
    axes.axhline(start, color=plots.REFERENCE, linewidth=0.8, linestyle=":")
    axes.legend(**plots.BESIDE, frameon=False)
    return axes
