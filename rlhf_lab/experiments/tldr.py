"""The main job: from a pretrained model to a policy that people prefer, and what happens when it is pushed too far.

Every stage keeps its result in a folder of its own; a stage that is done is loaded, one that was cut short continues
from its checkpoint. So the same command, run again, ends with the same bits.
"""

import dataclasses
import platform
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import torch
from datasets import Dataset

from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.data.datasets import TLDR, column, load_comparisons, load_tldr
from rlhf_lab.evaluation import best_of_n_rows, compare_with_reference, reward_model_report
from rlhf_lab.experiments.job import Job, Rows, load_rows
from rlhf_lab.experiments.report import write_report
from rlhf_lab.feedback import LearnedReward, Population, gold_judge, population, simulated_labels
from rlhf_lab.generation import Backend, TransformersBackend
from rlhf_lab.models import Policy, RewardModel, load_base
from rlhf_lab.records import check_scale, write_json
from rlhf_lab.runs import Run
from rlhf_lab.training.ppo import ppo, ppo_config
from rlhf_lab.training.reward_model import reward_model_config, train_reward_model
from rlhf_lab.training.supervised import sft, sft_config
from rlhf_lab.vllm_backend import VLLMBackend


@dataclass(frozen=True, kw_only=True)
class TLDRConfig:
    """The main job. Derived settings come from the scale's presets."""

    scale: str = "laptop"
    """tiny, laptop or gpu."""
    seed: int = 0
    out: str = "runs/tldr"
    """Folder of the run; the same command continues what lies there."""
    data: str = "world"
    """world, a JSONL, CSV or Parquet file, or a dataset's id on the Hub."""
    comparisons: str = ""
    """File or id of comparisons; needed with data that is not the world's, where simulated people give them."""
    model: str = ""
    """Folder or id of a causal language model; by default the base that ships for this scale."""
    num_pairs: int = 0
    """Comparisons to train on; 0 takes the scale's number."""
    held_out_pairs: int = 0
    """Comparisons to test the reward model on; 0 takes the scale's number."""
    curve_posts: int = 0
    """Held-out posts on which PPO is measured as it goes, and best-of-n; 0 takes the scale's number."""
    lora_rank: int = 0
    """Train adapters of this rank, on frozen weights that are of bf16 where the precision is; 0 trains all weights."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """Who writes summaries in PPO and in the evaluation; vllm is an extra, for GPUs."""
    overoptimize: bool = True
    """Also run PPO without penalty, and best-of-n."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a folder must have been made with to be continued."""
        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in ("out", "seed")}
        # Folders of earlier versions know no adapters, and no backends.
        new = {"lora_rank": 0, "backend": "transformers"}
        return {name: value for name, value in settings.items() if name not in new or value != new[name]}

    @property
    def lora(self) -> LoRAConfig | None:
        """What is trained, if not all weights."""
        return LoRAConfig(rank=self.lora_rank) if self.lora_rank else None

    @property
    def writer(self) -> Backend:
        """Who writes.

        Raises:
            ValueError: vLLM is not installed.
        """
        return VLLMBackend() if self.backend == "vllm" else TransformersBackend()

    def dtype(self, run: Run) -> torch.dtype:
        """Of the weights in memory; those that are trained are of fp32."""
        return torch.bfloat16 if self.lora_rank and run.accelerator.mixed_precision == "bf16" else torch.float32

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        check_scale(self.scale)
        for name in ("num_pairs", "held_out_pairs", "curve_posts", "lora_rank"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        if self.data != "world" and not self.comparisons:
            raise ValueError(
                f"--data {self.data} has no judge of its own; give comparisons of real people with --comparisons "
                f"(for example trl-lib/tldr-preference)."
            )


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes besides the stages' own presets."""

    num_pairs: int
    held_out_pairs: int
    hard_steps: int
    """PPO steps without penalty."""
    hard_rate: float
    """Their learning rate, in units of the preset's."""
    best_of: tuple[int, ...]
    curve_posts: int
    checkpoint_every: int
    """Steps between a stage's checkpoints."""
    agreement: float
    """Of two labelers. A policy whose summaries are nearly all worthless leaves people little to agree on."""


SIZES = {
    "tiny": Sizes(128, 64, 6, 2.5, (1, 2, 4), 16, 2, 0.6),
    "laptop": Sizes(1400, 600, 22, 2.5, (1, 2, 4, 8, 16), 40, 10, 0.73),
    "gpu": Sizes(64_000, 4000, 400, 1.0, (1, 2, 4, 8, 16, 32, 64, 128), 512, 50, 0.73),
}

NUM_REFERENCES = 512
"""Enough to know the references' mean score to a twentieth of its standard deviation."""


@dataclass(frozen=True)
class Comparisons:
    """Labels to train on and to test with, and the people who gave them (none for a file of comparisons)."""

    train: Dataset
    held_out: Dataset
    people: Population | None


class TLDRJob(Job):
    """The main job's stages, and its settings."""

    def __init__(self, config: TLDRConfig) -> None:
        """Open or make the folder."""
        every = SIZES[config.scale].checkpoint_every
        super().__init__(config.out, seed=config.seed, identity=config.identity, checkpoint_every=every)
        self.config, self.writer = config, config.writer


def run_tldr(config: TLDRConfig) -> dict[str, Any]:
    """The whole job; writes `results.json` and `report.html` into the run's folder and returns what the first holds.

    Raises:
        ValueError: A setting, a file or a model that does not fit; the folder holds a different run.
    """
    sizes, lora = SIZES[config.scale], config.lora
    job = TLDRJob(config)
    load_policy = partial(Policy.load, dtype=config.dtype(job.run))
    load_reward_model = partial(RewardModel.load, dtype=config.dtype(job.run))
    data = load_tldr(config.data, scale=config.scale, seed=config.seed)
    base = load_policy(config.model) if config.model else load_base(config.scale)
    tuning = sft_config(config.scale)
    policy = job.stage(
        "supervised", lambda run: sft(base, data.demonstrations, tuning, run=run, lora=lora), load_policy
    )
    labels = _comparisons(job, policy, data, sizes)
    reward_model = job.stage(
        "reward_model",
        lambda run: train_reward_model(
            policy, labels.train, reward_model_config(config.scale), references=_references(data), run=run, lora=lora
        ),
        load_reward_model,
    )
    preset = dataclasses.replace(ppo_config(config.scale), lora=lora)
    held_out = data.validation.select(range(min(config.curve_posts or sizes.curve_posts, len(data.validation))))
    seen = {"watch": {"gold": gold_judge()} if config.data == "world" else {}, "held_out": held_out}
    seen["backend"] = job.writer
    tuned = job.stage(
        "human_feedback", lambda run: ppo(policy, reward_model, data.prompts, preset, run=run, **seen), load_policy
    )
    results = _evaluate(
        job, {"pretrained": base, "supervised": policy, "human_feedback": tuned}, data, labels, reward_model
    )
    if config.overoptimize and config.data == "world":
        # A low rate that ends near 0 would stop the policy before the truth has fallen.
        rate = sizes.hard_rate * preset.optimizer.learning_rate
        steady = dataclasses.replace(preset.optimizer, learning_rate=rate, schedule="constant")
        hard = dataclasses.replace(preset, kl_coef=0.0, num_steps=sizes.hard_steps, optimizer=steady)
        job.stage("no_penalty", lambda run: ppo(policy, reward_model, data.prompts, hard, run=run, **seen), load_policy)
        results["overoptimization"] = _overoptimization(job, policy, reward_model, held_out, sizes)
    results["seconds"] = job.seconds
    results["versions"] = _versions()
    if job.run.is_main:
        write_json(job.folder / "results.json", results)
        write_report(job.folder, results, {name: job.history(name) for name in ("reward_model", "human_feedback")})
    return results


def _comparisons(job: TLDRJob, policy: Policy, data: TLDR, sizes: Sizes) -> Comparisons:
    config = job.config
    num_pairs, num_held_out = config.num_pairs or sizes.num_pairs, config.held_out_pairs or sizes.held_out_pairs
    if config.comparisons:
        rows = load_comparisons(config.comparisons).shuffle(seed=config.seed)
        held_out = max(1, min(num_held_out, len(rows) // 10))
        last = min(len(rows), held_out + num_pairs)
        return Comparisons(rows.select(range(held_out, last)), rows.select(range(held_out)), None)
    people, sampling = population(seed=config.seed, agreement=sizes.agreement), ppo_config(config.scale).sampling

    def ask(prompts: Dataset, number: int, seed: int) -> Callable[[Run], Rows]:
        return lambda run: Rows(
            simulated_labels(policy, prompts, num_pairs=number, people=people, sampling=sampling, seed=seed)
        )

    train = job.stage("comparisons", ask(data.prompts, num_pairs, 1), load_rows)
    held_out = job.stage("comparisons_held_out", ask(data.validation, num_held_out, 2), load_rows)
    return Comparisons(train, held_out, people)


def _evaluate(
    job: TLDRJob, policies: Mapping[str, Policy], data: TLDR, labels: Comparisons, reward_model: RewardModel
) -> dict[str, Any]:
    judge = None if job.config.data == "world" else _second_judge(job, policies["supervised"], data, labels)
    settings = {"judge": judge, "seed": job.config.seed, "backend": job.writer}
    compared = compare_with_reference(policies, data.validation, **settings)
    report = reward_model_report(reward_model, labels.held_out, labels.people, seed=job.config.seed)
    rows = random.Random(job.config.seed).sample(range(len(data.validation)), min(5, len(data.validation)))
    prompts, references = column(data.validation, "prompt"), column(data.validation, "completion")
    examples = [
        {"prompt": prompts[row], "reference": references[row]}
        | {name: entry["summaries"][row] for name, entry in compared.items()}
        for row in rows
    ]
    return {
        "config": dataclasses.asdict(job.config),
        "win_rate_vs_reference": {name: entry["win_rate"] for name, entry in compared.items()},
        "length_controlled_win_rate": {name: entry["length_controlled"] for name, entry in compared.items()},
        "judge": "gold" if job.config.data == "world" else "reward model trained on other comparisons",
        "axes": {name: entry["axes"] for name, entry in compared.items()},
        "words": {name: entry["words"] for name, entry in compared.items()},
        "reward_model": report,
        "examples": examples,
        "overoptimization": [],
    }


def _references(data: TLDR) -> Dataset:
    """The demonstrations whose mean score becomes 0."""
    return data.demonstrations.select(range(min(NUM_REFERENCES, len(data.demonstrations))))


def _second_judge(job: TLDRJob, policy: Policy, data: TLDR, labels: Comparisons) -> LearnedReward:
    """For real posts, whose truth nobody knows: a reward model of other comparisons than the policy was tuned on."""
    config = reward_model_config(job.config.scale)
    model = job.stage(
        "judge",
        lambda run: train_reward_model(policy, labels.held_out, config, references=_references(data), run=run),
        RewardModel.load,
    )
    return LearnedReward(model)


def _overoptimization(
    job: TLDRJob, policy: Policy, reward_model: RewardModel, held_out: Dataset, sizes: Sizes
) -> list[dict[str, Any]]:
    """Points (KL, proxy, gold) of best-of-n, and of PPO without and with the penalty, all on the same held-out posts.

    Both scores are above those of the supervised policy, in standard deviations of its scores.
    """
    preset, num_samples = ppo_config(job.config.scale), max(sizes.best_of)
    settings = {"num_samples": num_samples, "ns": sizes.best_of, "sampling": preset.sampling, "seed": job.config.seed}
    settings["backend"] = job.writer
    proxy = LearnedReward(reward_model)
    best_of = job.stage(
        "best_of_n",
        lambda run: Rows(Dataset.from_list(best_of_n_rows(policy, proxy, held_out, **settings))),
        load_rows,
    ).to_list()
    # Scores that are all alike have no deviation, and stay as they are.
    start = {role: (best_of[0][role], best_of[0][f"{role}_std"] or 1.0) for role in ("proxy", "gold")}

    def point(method: str, samples: int, row: Mapping[str, Any]) -> dict[str, Any]:
        known = {key: row[key] for key in ("n", "step", "kl") if key in row}
        gains = {role: (row[role] - mean) / std for role, (mean, std) in start.items()}
        return {"method": method, "seed": job.config.seed, "samples": len(held_out) * samples} | known | gains

    points = [point("best_of_n", num_samples, row) for row in best_of]
    for method, stage in (("ppo", "no_penalty"), ("ppo_penalty", "human_feedback")):
        points += [point(method, preset.num_candidates, row) for row in _looks(job.history(stage))]
    return points


def _looks(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What PPO's steps saw on the held-out posts, by the curves' names."""
    names = {"kl": "held_out/kl", "proxy": "held_out/score", "gold": "held_out/gold"}
    seen = [row for row in history if names["kl"] in row]
    return [{"step": row["step"]} | {name: row[key] for name, key in names.items()} for row in seen]


def _versions() -> dict[str, str]:
    names = ("rlhf-lab", "torch", "transformers", "accelerate", "datasets", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
