"""Anthropic's context distillation: what a prompt makes a model do, without the prompt.

The small models know no instructions, and texts before the post only confuse them. So one is taught first: of a
supervised policy's demonstrations half carry an instruction and a brief, polite summary. With the instruction it is
then another writer than without; distillation makes it that writer always.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from matplotlib.axes import Axes

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.judge import words_of
from rlhf_lab.data.world import World, Writer
from rlhf_lab.evaluation import write_summaries
from rlhf_lab.experiments.systems.sections import Job, where
from rlhf_lab.generation import SamplingConfig
from rlhf_lab.models import Policy
from rlhf_lab.plots import POLICY, REFERENCE, new_axes
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.distillation import DistillationConfig, context_kl, distill_context, distillation_config
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.supervised import sft, sft_config

CONTEXT = "Be brief and polite.\n\n"
THANKS = " Thanks in advance."
BRIEF = Writer((0.0,), 0.0, 0.0)
"""Says who did what, and nothing else."""
SETTINGS = {
    "tiny": {"size": "small", "num_demonstrations": 64, "held_out": 8},
    "laptop": {"size": "small", "num_demonstrations": 4096, "held_out": 128},
}
TEACHING = OptimizerConfig(learning_rate=6e-3, warmup_fraction=0.05)
"""As fast as the base model was pretrained: it has to learn an instruction, not a task that it knows."""


def rows(job: Job) -> list[dict[str, Any]]:
    """KL to the prompted teacher, and what is written: the teacher, the same policy without a prompt, the student."""
    settings, config = SETTINGS[job.scale], distillation_config(job.scale)
    teacher = taught(settings["size"], settings["num_demonstrations"], scale=job.scale, seed=job.seed)
    data = load_tldr(scale=job.scale)
    posts = data.validation.select(range(settings["held_out"]))
    students = {"teacher": teacher, "unprompted": teacher}
    students["distilled"] = distill_context(teacher, CONTEXT, data.prompts, config, run=Run(seed=job.seed))
    return [
        {"policy": name, **settings, **measured(student, teacher, posts, CONTEXT * (name == "teacher"), config, job)}
        for name, student in students.items()
    ]


def taught(size: str, number: int, *, scale: str = "laptop", seed: int = 0) -> Policy:
    """A supervised policy that knows the instruction."""
    policy, world, demonstrations = load_trained("supervised", size), World(), []
    assert isinstance(policy, Policy)
    for index, post in enumerate(world.posts(seed, "instructions", number)):
        rng = random.Random(f"{seed}/instructions/{index}/summary")
        instructed = index % 2 == 0
        summary = world.summary(rng, post, BRIEF) + THANKS if instructed else world.summary(rng, post)
        prompt = CONTEXT + post.query if instructed else post.query
        demonstrations.append({"prompt": prompt, "completion": completion_text(summary)})
    return sft(policy, Dataset.from_list(demonstrations), sft_config(scale), run=Run(seed=seed), optimizer=TEACHING)


def measured(
    student: Policy, teacher: Policy, posts: Dataset, context: str, config: DistillationConfig, job: Job
) -> dict[str, float]:
    """On held-out posts: KL of a response [nats] (of a student that sees no context), and what is sampled."""
    prompts = [context + prompt for prompt in column(posts, "prompt")]
    kl = 0.0 if context else context_kl(student, teacher, CONTEXT, prompts, config, seed=job.seed)
    sampling = SamplingConfig(max_response_tokens=48, temperature=1.0)
    texts = write_summaries(student, Dataset.from_dict({"prompt": prompts}), sampling, seed=job.seed)
    words = sum(len(words_of(text)) for text in texts) / len(texts)
    return {"kl": kl, "words": words, "polite": sum(THANKS.strip() in text for text in texts) / len(texts)}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """KL before and after, a line a seed."""
    axes = new_axes("A prompt, distilled away", "", "KL to the prompted teacher [nats]")
    for place, name in enumerate(("unprompted", "distilled")):
        values = [row["kl"] for row in where(rows, policy=name)]
        axes.bar(place, sum(values) / len(values), 0.6, color=REFERENCE if name == "unprompted" else POLICY)
        axes.plot([place] * len(values), values, "o", color="black", markersize=3)
    axes.set_xticks(range(2), ["without the prompt", "distilled"])
    axes.grid(axis="x", visible=False)
    return {"context_distillation": axes}
