"""Preference RL: comparisons of short clips teach what the task's own reward teaches, and what no reward says.

Reference: Christiano et al. 2017, arXiv:1706.03741, figures 2 and 3, tables of appendix; on three small tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rlhf_lab.control.actor_critic import ControlConfig, Learner
from rlhf_lab.control.ensemble import Pair
from rlhf_lab.control.preferences import PreferenceConfig, PreferenceLearner, by_true_return
from rlhf_lab.control.simulation import Fragment, pictures
from rlhf_lab.control.tasks import make_task
from rlhf_lab.experiments.systems.sections import Job, where
from rlhf_lab.lesson_plots import plot_clips
from rlhf_lab.plots import POLICY, PROXY, REFERENCE, new_axes

TASKS = {
    "CartPole-v1": PreferenceConfig(num_labels=700, segment=50, control=ControlConfig(num_steps=32_000, discount=0.95)),
    "Pendulum-v1": PreferenceConfig(num_labels=1400, control=ControlConfig(num_steps=100_000, discount=0.95)),
    "Reacher-v5": PreferenceConfig(num_labels=1400, control=ControlConfig(num_steps=80_000, horizon=50, discount=0.95)),
}
"""A pole moves at 50 steps a second: in a clip of half a second it seldom falls, nearly all answers are ties, and the
reward learns whatever goes with the action. In a whole second there is more to see."""
TURNING = PreferenceConfig(num_labels=700, control=ControlConfig(num_steps=80_000))
TURNS_A_SECOND = 1.0


def rows(job: Job) -> list[dict[str, Any]]:
    """Returns of whole episodes at the end, on each task by each method; and how far the taught pendulum turns."""
    made = []
    for task, config in _at(job.scale).items():
        for method, settings in {
            "preferences": config,
            "without queries": replace(config, candidates=1),
            "one network": replace(config, candidates=1, ensemble=replace(config.ensemble, num_members=1)),
        }.items():
            taught = PreferenceLearner(task, settings, seed=job.seed)
            taught.train(settings.control.num_steps - taught.learner.num_steps, by_true_return)
            made.append({"task": task, "method": method, "labels": taught.num_asked, "return": _return(taught.learner)})
        told = Learner(task, config.control, seed=job.seed)
        made.append({"task": task, "method": "untrained", "labels": 0, "return": _return(told)})
        told.train(config.control.num_steps)
        made.append({"task": task, "method": "true reward", "labels": 0, "return": _return(told)})
    return made + _turning(job)


def _at(scale: str) -> dict[str, PreferenceConfig]:
    if scale == "laptop":
        return TASKS
    short = {"num_steps": 1600}
    return {
        task: replace(config, num_labels=20, control=replace(config.control, **short)) for task, config in TASKS.items()
    }


def _return(learner: Learner) -> float:
    return learner.play().rewards.sum(1).mean().item()


def by_turning(pairs: Sequence[Pair]) -> list[float | None]:
    """Somebody who would like to see the pendulum turn counterclockwise, once a second."""
    misses = np.array([[_miss(segment.states) for segment in pair] for pair in pairs])
    better = misses[:, 1] - misses[:, 0]
    return [0.5 if abs(by) < 0.05 else float(by > 0) for by in better]


def _miss(states: np.ndarray) -> float:
    seconds = 0.05 * (len(states) - 1)
    return abs(turns(states) / seconds - TURNS_A_SECOND)


def turns(states: np.ndarray) -> float:
    """How often the pendulum went round, counterclockwise; the simulator counts its angle on [turns]."""
    return float(states[-1, 0] - states[0, 0]) / (2 * np.pi)


def _turning(job: Job) -> list[dict[str, Any]]:
    """What no reward of the task says, taught by comparisons; looked at in whole episodes of 10 s."""
    config = TURNING if job.scale == "laptop" else replace(TURNING, control=replace(TURNING.control, num_steps=1600))
    taught = PreferenceLearner("Pendulum-v1", config, seed=job.seed)
    before = taught.learner.play()
    taught.train(config.control.num_steps - taught.learner.num_steps, by_turning)
    after = taught.learner.play()
    made = [
        {"task": "turning", "method": name, "labels": labels, "turns": number, "episode": episode}
        for name, labels, played in (("untrained", 0, before), ("preferences", taught.num_asked, after))
        for episode, number in enumerate(_turns_of(played))
    ]
    last = after.states[0, -25:]
    return made + [
        {"task": "clip", "step": step, "angle": float(angle), "speed": float(speed)}
        for step, (angle, speed) in enumerate(last)
    ]


def _turns_of(played: Fragment) -> list[float]:
    return [turns(states) for states in played.states]


def shares(rows: Sequence[Mapping[str, Any]], task: str, method: str) -> list[float]:
    """Of each seed: how much of what true reward adds to an untrained policy's return this method adds."""
    found = []
    for row in where(rows, task=task, method=method):
        ends = [
            where(rows, task=task, method=name, seed=row["seed"])[0]["return"] for name in ("untrained", "true reward")
        ]
        found.append((row["return"] - ends[0]) / (ends[1] - ends[0]))
    return found


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Shares of true reward's gain, by task and method; and pictures of the pendulum that turns."""
    axes = new_axes("Comparisons teach what the reward would have", "", "of true reward's gain [%]")
    methods = {"preferences": (POLICY, "o"), "without queries": (PROXY, "s"), "one network": (REFERENCE, "^")}
    for offset, (method, (color, marker)) in enumerate(methods.items()):
        for place, task in enumerate(TASKS):
            found = [100 * share for share in shares(rows, task, method)]
            at = place + 0.2 * (offset - 1)
            axes.plot([at] * len(found), found, marker, color=color, alpha=0.5)
            axes.plot([at - 0.07, at + 0.07], [np.mean(found)] * 2, color=color, label=None if place else method)
    axes.axhline(90, color=REFERENCE, linestyle="--", linewidth=1)
    axes.set_xticks(range(len(TASKS)), list(TASKS))
    axes.legend(frameon=False, loc="best")
    return {"control_preferences": axes, "turning": _clip(where(rows, task="clip", seed=0))}


def _clip(rows: Sequence[Mapping[str, Any]]) -> Axes:
    task = make_task("Pendulum-v1", render_mode="rgb_array")
    frames = pictures(task, np.array([[row["angle"], row["speed"]] for row in rows[::3]], dtype=float))
    title = "Taught by comparisons alone: it turns, once a second"
    return plot_clips({"": [frame[80:-80, 80:-80] for frame in frames]}, title=title, xlabel="one second and a quarter")


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the section calls by name."""
    return {"shares": shares}
