"""Context distillation: a policy that behaves as if a text stood before every prompt.

Differences from supervised fine-tuning:
- the teacher is the policy itself, with the context C before the prompt; the student does not see C;
- what is imitated is the teacher's whole distribution at each token, not the one token that was written;
- nobody writes demonstrations: the prompted teacher samples what is imitated, unless texts are given.

Reference: Askell et al. 2021, arXiv:2112.00861, section 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_lab.adapters import LoRAConfig, shared_copy
from rlhf_lab.data.batching import Candidates, encode_candidates, encode_prompts
from rlhf_lab.data.datasets import prompts_of
from rlhf_lab.equations.sequence import distillation_loss
from rlhf_lab.generation import Request, SamplingConfig, sample
from rlhf_lab.memory import Texts, check_memory
from rlhf_lab.models import Policy, trainable
from rlhf_lab.records import check_scale, require_text
from rlhf_lab.runs import Run, configured
from rlhf_lab.scoring import over_vocabulary, response_hidden, vocabulary_head
from rlhf_lab.seams import checked
from rlhf_lab.training.fit import Fit, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Context distillation."""

    num_steps: int = 200
    batch_size: int = 32
    """Prompts in an update, over all processes."""
    micro_batch_size: int | None = None
    max_prompt_tokens: int = 512
    """Of the student's; the teacher's has the context besides."""
    top_k: int | None = None
    """Tell apart the teacher's k likeliest tokens, and take all others for one; None takes the whole vocabulary."""
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=1.0))
    """How the teacher writes; at other temperatures than 1 the loss is no estimate of a KL of responses."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoRAConfig | None = None
    """Train an adapter on the policy's frozen weights, instead of all of them."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be meant."""
        if self.num_steps < 1 or self.batch_size < 1:
            raise ValueError(f"num_steps ({self.num_steps}) and batch_size ({self.batch_size}) must be at least 1.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None for the whole vocabulary, not {self.top_k}.")

    def largest(self, num_processes: int, context_tokens: int) -> Texts:
        """The largest micro-batch of a process, with a context of so many tokens."""
        rows = self.micro_batch_size or self.batch_size // num_processes
        prompt, response = self.max_prompt_tokens + context_tokens, self.sampling.max_response_tokens
        return Texts(rows=rows, prompt_tokens=prompt, response_tokens=response)


def distillation_config(scale: str) -> DistillationConfig:
    """The preset of a scale."""
    laptop = DistillationConfig(
        batch_size=16,
        max_prompt_tokens=192,
        sampling=SamplingConfig(max_response_tokens=48, temperature=1.0),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_fraction=0.05),
    )
    tiny = replace(laptop, num_steps=4, batch_size=4)
    return {"tiny": tiny, "laptop": laptop, "gpu": DistillationConfig(micro_batch_size=16)}[check_scale(scale)]


@dataclass(frozen=True)
class InContext(Candidates):
    """Prompts with a response each, as the student reads them and as the teacher does."""

    context_prompt: Int[Tensor, "batch context_prompt"]
    """The context, and the prompt."""
    context_prompt_mask: Bool[Tensor, "batch context_prompt"]

    @property
    def in_context(self) -> Candidates:
        """What the teacher reads."""
        return Candidates(self.context_prompt, self.context_prompt_mask, self.responses, self.response_mask)


def distill_context(
    policy: Policy,
    context: str,
    prompts: Dataset | Sequence[Any],
    config: DistillationConfig | None = None,
    *,
    responses: Sequence[str] | None = None,
    run: Run | None = None,
    divergence: Callable[..., Tensor] = distillation_loss,
    **overrides: Any,
) -> Policy:
    """A policy that answers as `policy` does with `context` before the prompt.

    Args:
        policy: The start, and with the context the teacher; not changed.
        context: Stands before each prompt, as it is.
        prompts: Rows with `prompt`, or a list of `Prompt` or of texts.
        config: Settings; `overrides` replace single fields.
        responses: A text for each prompt, on which both are compared; by default the prompted teacher writes them.
        run: Where to log and to keep checkpoints.
        divergence: The loss of each place, called as `distillation_loss` is; an exercise's own goes here.

    Returns:
        The trained policy; `distillation/kl` of its history is KL(teacher || student) of a response [nats].

    Raises:
        ValueError: No context, no prompts, not as many responses as prompts, a config field that does not exist, a
            top_k that is no part of the vocabulary, or a `divergence` that does not give one finite number a place.
    """
    config = configured(DistillationConfig(), config, overrides)
    run = run or Run()
    texts, context = prompts_of(prompts), require_text(context, "context")
    if responses is not None and len(responses) != len(texts):
        raise ValueError(f"there are {len(responses)} responses to {len(texts)} prompts; give one for each, or none.")
    if config.top_k is not None and config.top_k >= policy.network.config.vocab_size:
        size = policy.network.config.vocab_size
        raise ValueError(f"top_k ({config.top_k}) must be smaller than the vocabulary ({size}); None takes all of it.")
    network = trainable(policy.network, config.lora, rng=run.rng("adapter"), device=run.device)
    memory = config.largest(run.accelerator.num_processes, len(policy.tokenizer(context)["input_ids"]))  # type: ignore[arg-type]
    kind = config.optimizer.kind
    recompute = check_memory("context distillation", [(network, kind)], [policy.network], memory, **run.place)
    fit = Fit(run, network, config.optimizer, num_updates=config.num_steps, recompute=recompute)
    teacher = Policy(shared_copy(policy.network).to(run.device), policy.tokenizer)  # type: ignore[arg-type]

    def loss(part: InContext, count: float) -> Tensor:
        return fit(divergences, part, teacher.network, config.top_k, divergence).sum() / count

    for step in run.steps(config.num_steps, {"fit": fit}, name="context distillation"):
        rows, mine = run.batch_rows(step, len(texts), config.batch_size), run.share(config.batch_size)
        asked, rng = [texts[row] for row in rows[mine]], run.rng("sampling", step)
        uniforms = torch.rand(config.batch_size, 1, config.sampling.max_response_tokens, generator=rng)[mine]
        given = None if responses is None else [responses[row] for row in rows[mine]]
        with run.accelerator.autocast():
            batch = read_in_context(teacher, context, asked, uniforms, config, given)
        rate, settings = (
            fit.learning_rate,
            {"counted": batch.response_mask, "micro_batch_size": config.micro_batch_size},
        )
        value = fit.step(batch, loss, **settings)
        tokens = fit.count(batch.response_mask) * run.accelerator.num_processes / config.batch_size
        logged = {"loss": value, "kl": value * tokens, "response_tokens": tokens, "learning_rate": rate}
        run.log(step, {f"distillation/{name}": number for name, number in logged.items()})
    return Policy(fit.trained(), policy.tokenizer, tuple(run.history))  # type: ignore[arg-type]


def divergences(
    student: PreTrainedModel,
    batch: InContext,
    teacher: PreTrainedModel,
    top_k: int | None = None,
    divergence: Callable[..., Tensor] = distillation_loss,
) -> Float[Tensor, " counted"]:
    """KL(teacher in context || student) at each response token, in the order of the mask [nats]."""
    with torch.no_grad():
        taught = response_hidden(teacher, batch.in_context)

    divergence = checked("divergence", divergence, distillation_loss, lambda logits, _: logits.shape[:-1], "place")

    def divergence_at(logits: Tensor, places: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_logits = vocabulary_head(teacher)(taught[places]).float()
        return divergence(logits, teacher_logits, top_k=top_k)

    hidden = response_hidden(student, batch)
    return over_vocabulary(student, hidden, torch.arange(len(hidden), device=hidden.device), divergence_at)


def read_in_context(
    teacher: Policy,
    context: str,
    prompts: list[str],
    uniforms: Float[Tensor, "batch 1 max_response"],
    config: DistillationConfig,
    responses: Sequence[str] | None = None,
) -> InContext:
    """Prompts as both read them, with what the teacher writes in context, or with the given responses."""
    device, limit = teacher.network.device, config.max_prompt_tokens
    before, before_mask = (
        tensor.to(device)
        for tensor in encode_prompts(teacher.tokenizer, prompts, max_prompt_tokens=limit, context=context)
    )
    prompt, mask = (tensor.to(device) for tensor in encode_prompts(teacher.tokenizer, prompts, max_prompt_tokens=limit))
    if responses is None:
        eos: int = teacher.tokenizer.eos_token_id  # type: ignore[assignment]
        request = {"uniforms": uniforms.to(device), "config": config.sampling, "eos_token_id": eos}
        answered: Candidates = sample(teacher.network, Request(prompt=before, prompt_mask=before_mask, **request))
    else:
        limits = {"max_prompt_tokens": limit, "max_response_tokens": config.sampling.max_response_tokens}
        groups = [[text] for text in responses]
        answered = encode_candidates(teacher.tokenizer, prompts, groups, **limits).to(device)
    return InContext(prompt, mask, answered.responses, answered.response_mask, before, before_mask)


@torch.no_grad()
def context_kl(
    student: Policy, teacher: Policy, context: str, prompts: Sequence[str], config: DistillationConfig, *, seed: int = 0
) -> float:
    """KL(teacher in context || student) of a whole response [nats], summed over the vocabulary at each token.

    The teacher writes one response to each prompt; at the config's default temperature of 1 the estimate is unbiased.
    """
    rng, total = torch.Generator().manual_seed(seed), 0.0
    for start in range(0, len(prompts), config.batch_size):
        asked = list(prompts[start : start + config.batch_size])
        uniforms = torch.rand(len(asked), 1, config.sampling.max_response_tokens, generator=rng)
        batch = read_in_context(teacher, context, asked, uniforms, config)
        total += divergences(student.network, batch, teacher.network).sum().item()
    return total / len(prompts)
