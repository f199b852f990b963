"""Feedback from a model in place of people: how often it agrees with them, what it costs, what policy comes of it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from matplotlib.axes import Axes

from rlhf_lab import plots
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.evaluation import wins
from rlhf_lab.experiments.systems.annotation_budget import SECONDS_PER_LABEL
from rlhf_lab.experiments.systems.samples import Samples
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, Reward, gold_judge, population, scores_of, simulated_labels
from rlhf_lab.model_feedback import InformationReward, model_labels
from rlhf_lab.models import Policy, RewardModel, load_base
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_shipped_comparisons, load_trained
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' presets."""

    num_labels: int
    few_labels: int
    """By people, where they can afford no more."""
    models: tuple[str, ...]
    """Sizes of the language models that are asked; the last one labels for policies too."""
    rl_steps: int
    num_posts: int
    num_samples: int
    num_held_out: int
    """Comparisons to test the labelers on."""


SIZES = {
    "tiny": Sizes(48, 16, ("small",), 2, 8, 2, 16),
    "laptop": Sizes(1500, 300, ("small", "medium", "large"), 12, 96, 4, 600),
}
LABELERS = {
    "people": ("people", plots.POLICY),
    "few": ("people, a fifth", plots.REFERENCE),
    "taught": ("people a fifth, then a model", plots.GOLD),
    "model": ("a model", plots.PROXY),
    "direct": ("a model, asked during RL", plots.PROXY),
}


def rows(job: Job) -> list[dict[str, Any]]:
    """What each labeler is worth: agreement, cost, and the policy that PPO makes of its labels."""
    trial = _Trial(job)
    found = [trial.asked(size) for size in trial.sizes.models]
    few = trial.labels.select(range(trial.sizes.few_labels))
    rest = trial.labels.select(range(trial.sizes.few_labels, len(trial.labels)))
    taught = trial.reward_model("few", few)
    by_taught = trial.relabeled(rest, LearnedReward(taught), temperature=1.0)
    base = InformationReward(load_base(trial.sizes.models[-1]))
    by_model = trial.reward_model("model", trial.relabeled(trial.labels, base))
    found += [
        trial.start(),
        trial.tuned("people", trial.reward_model("people", trial.labels), len(trial.labels)),
        trial.tuned("few", taught, len(few)),
        trial.tuned("taught", trial.reward_model("taught", _joined(few, by_taught)), len(few), len(rest)),
        trial.tuned("model", by_model, 0, len(trial.labels)),
        trial.tuned("direct", _in_units_of(by_model, base, trial.labels), critic_from=by_model),
    ]
    return found


class _Trial:
    """What the labelers of a seed share: posts, pairs of the supervised policy's summaries, and people."""

    def __init__(self, job: Job) -> None:
        self.job, self.sizes, self.config = job, SIZES[job.scale], ppo_config(job.scale)
        self.data = load_tldr(scale=job.scale, seed=job.seed)
        policy, smaller = load_trained("supervised"), load_trained("supervised", "medium")
        assert isinstance(policy, Policy) and isinstance(smaller, Policy)
        self.policy, self.smaller = policy, smaller
        self.posts = self.data.validation.select(range(self.sizes.num_posts))
        self.held_out = load_shipped_comparisons("held_out").select(range(self.sizes.num_held_out))
        asked = {"people": population(seed=job.seed), "sampling": self.config.sampling, "seed": job.seed + 1}
        self.labels = simulated_labels(policy, self.data.prompts, num_pairs=self.sizes.num_labels, **asked)

    def asked(self, size: str) -> dict[str, Any]:
        """A base model's own opinion, and the processor's time that it takes."""
        began = time.process_time()
        agreed = self.agreement(InformationReward(load_base(size)))
        seconds = (time.process_time() - began) / len(self.held_out)
        return _row("asked", size=size, seconds_per_label=seconds, **agreed)

    def agreement(self, judge: Reward) -> dict[str, float]:
        """How often a judge chooses as people did, and as the gold judge does where it has an opinion."""
        prompts, chosen, rejected = (column(self.held_out, name) for name in ("prompt", "chosen", "rejected"))
        first, second = (scores_of(judge, prompts, texts).tolist() for texts in (chosen, rejected))
        truth = np.subtract(gold_judge()(prompts, chosen), gold_judge()(prompts, rejected))
        right = wins(first, second)
        as_gold = np.where(truth > 0, right, 1.0 - right)[truth != 0]
        return {"agrees": float(right.mean()), "agrees_with_gold": float(as_gold.mean())}

    def relabeled(self, labels: Dataset, judge: Reward, temperature: float | None = None) -> Dataset:
        """The same pairs, by a model."""
        pairs = list(zip(column(labels, "chosen"), column(labels, "rejected"), strict=True))
        return model_labels(judge, column(labels, "prompt"), pairs, temperature=temperature)

    def reward_model(self, name: str, labels: Dataset) -> RewardModel:
        """Of the medium size, as in `annotation_budget`."""
        run = Run(self.job.folder / f"reward_model-{name}", seed=self.job.seed, checkpoint_every=50)
        return train_reward_model(self.smaller, labels, reward_model_config(self.job.scale), run=run, batch_size=16)

    def start(self) -> dict[str, Any]:
        """The supervised policy."""
        return _row("start", **self.measured(self.policy))

    def tuned(
        self,
        labeler: str,
        reward: Reward | RewardModel,
        num_people: int = 0,
        num_model: int = 0,
        critic_from: RewardModel | None = None,
    ) -> dict[str, Any]:
        """What PPO makes of these labels."""
        run = Run(self.job.folder / f"ppo-{labeler}", seed=self.job.seed, checkpoint_every=5)
        settings = {"run": run, "num_steps": self.sizes.rl_steps, "critic_from": critic_from}
        tuned = ppo(self.policy, reward, self.data.prompts, self.config, **settings)
        judge = LearnedReward(reward) if isinstance(reward, RewardModel) else reward
        counts = {"num_people": num_people, "num_model": num_model, "kl": float(tuned.history[-1]["objective/kl"])}
        return _row(labeler, **counts, **self.agreement(judge), **self.measured(tuned))

    def measured(self, policy: Policy) -> dict[str, float]:
        """Gold score, and win rate over the posters' own, on held-out posts."""
        samples = Samples.of(policy, self.posts, self.sizes.num_samples, self.config.sampling, seed=self.job.seed)
        return {"gold": float(samples.scores(gold_judge()).mean()), "won": float(samples.won.mean())}


def _row(labeler: str, **known: Any) -> dict[str, Any]:
    """Every row of a table has the same columns."""
    empty = {"size": "", "seconds_per_label": math.nan, "agrees": math.nan, "agrees_with_gold": math.nan}
    return {"labeler": labeler} | empty | {"num_people": 0, "num_model": 0, "kl": 0.0, "gold": 0.0, "won": 0.0} | known


def _joined(people: Dataset, model: Dataset) -> Dataset:
    columns = ["prompt", "chosen", "rejected", "labeler", "chosen_prob"]
    sure = people.add_column("chosen_prob", [1.0] * len(people)).select_columns(columns)
    return concatenate_datasets([sure, model.select_columns(columns)])


def _in_units_of(reward_model: RewardModel, judge: Reward, labels: Dataset) -> Reward:
    """What the judge says, on the scale of the scores that were learnt from it, so that a nat has the same price."""
    prompts, texts = column(labels, "prompt"), column(labels, "chosen")
    learnt, own = (scores_of(one, prompts, texts).numpy() for one in (LearnedReward(reward_model), judge))
    scale = learnt.std() / own.std()

    def rescaled(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        scores = scores_of(judge, prompts, responses).numpy()
        return (learnt.mean() + scale * (scores - own.mean())).tolist()

    return rescaled


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template says, beside the rows."""
    points = []
    for labeler, (name, _) in LABELERS.items():
        mine = where(rows, labeler=labeler)
        keys = ("agrees", "agrees_with_gold", "num_people", "num_model", "kl", "gold", "won")
        seeds = [row["gold"] for row in mine]
        point = {"labeler": labeler, "name": name, "lowest": min(seeds), "highest": max(seeds)}
        points.append(point | {key: mean(mine, key) for key in keys})
    sizes = list(dict.fromkeys(row["size"] for row in where(rows, labeler="asked")))
    return {"points": points, "sizes": sizes, "pace": SECONDS_PER_LABEL}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Gold of the policies, by who labeled for them and how many hours that took people."""
    axes = plots.new_axes("Feedback, by who gives it", "gold score [1 to 7]", "")
    points = summary(rows)["points"][::-1]
    for place, point in enumerate(points):
        error = [[point["gold"] - point["lowest"]], [point["highest"] - point["gold"]]]
        color = LABELERS[point["labeler"]][1]
        axes.errorbar(point["gold"], place, xerr=error, fmt="o", color=color, capsize=4, markersize=8)
    hours = [point["num_people"] * SECONDS_PER_LABEL / 3600 for point in points]
    axes.set_yticks(range(len(points)), [f"{one['name']}: {at:g} h" for one, at in zip(points, hours, strict=True)])
    start = mean(where(rows, labeler="start"), "gold")
    axes.axvline(start, color=plots.REFERENCE, linestyle=":")
    axes.annotate("the supervised policy", (start, len(points) - 0.6), (4, 0), textcoords="offset points", fontsize=8)
    axes.set_ylim(-0.5, len(points) - 0.2)
    return {"model_feedback": axes}
