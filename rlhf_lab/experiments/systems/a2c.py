"""A2C beside PPO: the same start, the same reward model, as many responses, and what the truth says of it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.experiments.systems.timing import TimedRun, seconds_of_step
from rlhf_lab.feedback import gold_judge
from rlhf_lab.models import Policy
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.a2c import a2c, a2c_config
from rlhf_lab.training.ppo import ppo, ppo_config

SIZES = {"tiny": ("small", 4, 2), "laptop": ("large", 32, 4)}
"""Of the models, held-out posts, and looks at them after the first."""
COLORS = {"ppo": plots.POLICY, "a2c": plots.PROXY}


def rows(job: Job) -> list[dict[str, Any]]:
    """What each method's looks saw, with the processor's seconds up to then that were not spent on looking."""
    size, num_posts, num_looks = SIZES[job.scale]
    data = load_tldr(scale=job.scale)
    settings: dict[str, Any] = {"held_out": data.validation.select(range(num_posts)), "watch": {"gold": gold_judge()}}
    found = []
    stages: dict[str, tuple[Callable[..., Policy], Any]] = {
        "ppo": (ppo, ppo_config(job.scale)),
        "a2c": (a2c, a2c_config(job.scale)),
    }
    for method, (stage, config) in stages.items():
        every = max(2, (config.num_steps - 1) // num_looks)
        train = partial(stage, load_trained("supervised", size), load_trained("reward_model", size), data.prompts)
        tuned = train(config, run=TimedRun(seed=job.seed), evaluate_every=every, **settings)
        found += [{"method": method} | row for row in _looks(tuned.history, config)]
    return found


def _looks(history: Sequence[Mapping[str, Any]], config: Any) -> list[dict[str, Any]]:
    """A row for each look, with the time of the steps up to it."""
    each = seconds_of_step(history)
    names = {"kl": "held_out/kl", "proxy": "held_out/score", "gold": "held_out/gold"}
    return [
        {"step": row["step"], "responses": row["step"] * config.prompts_per_step * config.num_candidates}
        | {"seconds": row["step"] * each}
        | {name: row[key] for name, key in names.items()}
        for row in history
        if "held_out/kl" in row
    ]


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Gold against KL, and against the processor's time."""
    return {
        "a2c_kl": _drawn(rows, "kl", "KL(policy || start) [nats]", "What a nat buys"),
        "a2c_seconds": _drawn(rows, "seconds", "processor time [s]", "What a second buys"),
    }


def _drawn(rows: Sequence[Mapping[str, Any]], across: str, label: str, title: str) -> Axes:
    axes = plots.new_axes(title, label, "gold score [1 to 7]")
    for method, color in COLORS.items():
        mine = where(rows, method=method)
        for seed in sorted({row["seed"] for row in mine}):
            one = where(mine, seed=seed)
            axes.plot([row[across] for row in one], [row["gold"] for row in one], color=color, alpha=0.35, linewidth=1)
        looks = [where(mine, step=step) for step in sorted({row["step"] for row in mine})]
        at, gold = ([mean(look, key) for look in looks] for key in (across, "gold"))
        axes.plot(at, gold, "o-" if method == "ppo" else "s--", color=color, linewidth=2.5, label=method.upper())
    axes.legend(loc="lower right", frameon=False)
    return axes
