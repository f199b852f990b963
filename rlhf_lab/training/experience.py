"""From prompts to `Experience`: sampled responses, their rewards, and what the critic expected.

The one place where the policy gradient methods of this kit meet the world. It is shared; their loops are not.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rlhf_lab.data.batching import Candidates, decode_responses
from rlhf_lab.equations.policy_gradient import gae, kl_shaped_rewards, replace_missing_eos_score
from rlhf_lab.equations.sequence import masked_whiten
from rlhf_lab.feedback import Reward, scores_of
from rlhf_lab.generation import Backend, Request, Rollout, SamplingConfig, TransformersBackend
from rlhf_lab.models import RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_logprobs, candidate_scores, candidate_values
from rlhf_lab.training.fit import Fit, Frozen

SameExperience = TypeVar("SameExperience", bound="Experience")


@dataclass(frozen=True)
class Experience(Candidates):
    """A rollout with everything that an update needs; tensors are zero outside the response mask."""

    old_logprobs: Float[Tensor, "batch candidates response"]
    """Of the policy that sampled, from the same forward pass that trains."""
    ref_logprobs: Float[Tensor, "batch candidates response"]
    values: Float[Tensor, "batch candidates response"]
    scores: Float[Tensor, "batch candidates"]
    """One a response, after the replacement of unfinished ones."""
    finished: Bool[Tensor, "batch candidates"]

    @property
    def kl(self) -> Float[Tensor, "batch candidates"]:
        """KL(policy || reference) of each response, k1 estimate [nats]."""
        return (self.old_logprobs - self.ref_logprobs).sum(-1)

    def padded(self: SameExperience, prompt: int, response: int) -> SameExperience:
        """The same rows, `prompt` tokens wide on the left and `response` tokens wide on the right."""
        more_prompt, more_response = prompt - self.prompt.shape[1], response - self.responses.shape[2]
        wider = {}
        for name, tensor in vars(self).items():
            if tensor.ndim == 3:
                wider[name] = nn.functional.pad(tensor, (0, more_response))
            elif name in ("prompt", "prompt_mask"):
                wider[name] = nn.functional.pad(tensor, (more_prompt, 0))
            else:
                wider[name] = tensor
        return dataclasses.replace(self, **wider)

    def minibatches(
        self: SameExperience, num_epochs: int, size: int, part: slice, rng: torch.Generator
    ) -> Iterator[SameExperience]:
        """This process's part of each minibatch: every row once an epoch, in a fresh order.

        Args:
            num_epochs: Passes over the experience.
            size: Prompts in a global minibatch.
            part: This process's rows of a minibatch.
            rng: Draws the orders; the same on every process.
        """
        for _ in range(num_epochs):
            order = torch.randperm(len(self), generator=rng)
            for start in range(0, len(self), size):
                yield self[order[start : start + size][part].to(self.responses.device)]


@dataclass(frozen=True)
class Training(Experience):
    """Experience with what each token is worth; zero outside the response mask."""

    rewards: Float[Tensor, "batch candidates response"]
    """The KL penalty, and the score on the last."""
    advantages: Float[Tensor, "batch candidates response"]
    """Whitened over the whole."""
    returns: Float[Tensor, "batch candidates response"]

    @property
    def explained_variance(self) -> float:
        """Of the returns, by the critic; 1 is perfect, 0 no better than a constant."""
        residual = (self.returns - self.values)[self.response_mask]
        spread = self.returns[self.response_mask].var()
        return (1 - residual.var() / spread.clamp_min(1e-8)).item()


@dataclass(frozen=True)
class Models:
    """Who takes part in assessing a rollout."""

    policy: Fit | Frozen
    reference: Fit | Frozen
    critic: Fit | Frozen | None
    """None where nothing is learnt from the rollout: its values are then zero."""
    reward: Reward | RewardModel
    """A reward model, read on the tokens, or any function of texts."""
    backend: Backend = field(default_factory=TransformersBackend)
    """Who writes in the policy's place."""

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Within, each process can read on its own."""
        with self.policy.whole(), self.critic.whole() if self.critic else contextlib.nullcontext():
            yield


def collect(
    run: Run,
    prompts: list[str],
    models: Models,
    tokenizer: Any,
    *,
    num_candidates: int,
    sampling: SamplingConfig,
    missing_eos_score: float | None,
    max_prompt_tokens: int,
    batch_size: int,
    rng: torch.Generator,
) -> Experience:
    """The global rollout on `prompts` with its assessment, each process having done its part.

    Args:
        run: Whose processes.
        prompts: Texts; of all processes.
        models: Who writes, and who assesses.
        tokenizer: Of the policy.
        num_candidates: K.
        sampling: How to write.
        missing_eos_score: As in `assess`.
        max_prompt_tokens: Longer prompts are cut inside the post.
        batch_size: Prompts in memory at once.
        rng: Draws the texts; the same on every process.
    """
    number = len(prompts)
    # Held-out prompts need not divide among the processes: some are asked twice, and counted once.
    asked = [prompts[row % number] for row in range(number + -number % run.accelerator.num_processes)]
    uniforms = torch.rand(len(asked), num_candidates, sampling.max_response_tokens, generator=rng)
    mine = run.share(len(asked))
    parts = []
    # In one precision all: the KL is a difference of two networks' log-probs.
    with models.whole(), run.accelerator.autocast():
        models.policy(models.backend.follow)
        size = len(asked) if models.backend.queues else batch_size
        for start in range(mine.start, mine.stop, size):
            rows = slice(start, min(start + size, mine.stop))
            settings = {"max_prompt_tokens": max_prompt_tokens, "device": run.device}
            request = Request.of(tokenizer, asked[rows], uniforms[rows], sampling, **settings)
            rollout = models.policy(models.backend.sample, request)
            kind = {"missing_eos_score": missing_eos_score, "temperature": sampling.temperature}
            parts.append(assess(rollout, asked[rows], models, tokenizer, batch_size=batch_size, **kind))
    return gathered(parts, run.accelerator)[:number]


@torch.no_grad()
def assess(
    rollout: Rollout,
    prompts: list[str],
    models: Models,
    tokenizer: object,
    *,
    missing_eos_score: float | None,
    temperature: float,
    batch_size: int,
) -> Experience:
    """What the update needs to know of `rollout`.

    Args:
        rollout: K responses to each prompt.
        prompts: The prompts' texts, for rewards on texts.
        models: Policy, reference, critic and reward.
        tokenizer: Decodes the responses, for rewards on texts.
        missing_eos_score: Score of a response that was cut before EOS; None keeps the reward's own.
        temperature: Of the policy's distribution, as sampled.
        batch_size: Prompts in a forward pass.

    Raises:
        ValueError: The reward raised, or gave a wrong number of scores, or one that is not finite.
    """
    parts = list(rollout.split(batch_size))
    policy, reference, critic = models.policy, models.reference, models.critic
    old_logprobs = torch.cat([policy(candidate_logprobs, part, temperature=temperature) for part in parts])
    ref_logprobs = torch.cat([reference(candidate_logprobs, part, temperature=temperature) for part in parts])
    values = (
        torch.zeros_like(old_logprobs)
        if critic is None
        else torch.cat([critic(candidate_values, part) for part in parts])
    )
    scores = rollout_scores(models.reward, rollout, prompts, tokenizer, batch_size=batch_size)
    if missing_eos_score is not None:
        scores = replace_missing_eos_score(scores, rollout.finished, missing_eos_score)
    return Experience(
        prompt=rollout.prompt,
        prompt_mask=rollout.prompt_mask,
        responses=rollout.responses,
        response_mask=rollout.response_mask,
        old_logprobs=old_logprobs,
        ref_logprobs=ref_logprobs,
        values=values,
        scores=scores,
        finished=rollout.finished,
    )


@torch.no_grad()
def rollout_scores(
    reward: Reward | RewardModel, rollout: Rollout, prompts: list[str], tokenizer: object, *, batch_size: int
) -> Float[Tensor, "batch candidates"]:
    """The reward of each response, checked to be finite."""
    if isinstance(reward, RewardModel):
        scores = torch.cat([candidate_scores(reward.network, part) for part in rollout.split(batch_size)])
        if not bool(torch.isfinite(scores).all()):
            raise ValueError("the reward model gave a score that is NaN or infinite; train it again with a lower rate.")
        return scores
    texts = decode_responses(tokenizer, rollout)
    repeated = [prompt for prompt, group in zip(prompts, texts, strict=True) for _ in group]
    scores = scores_of(reward, repeated, [text for group in texts for text in group])
    return scores.view(len(prompts), -1).to(rollout.responses.device)


def with_advantages(
    experience: Experience,
    *,
    kl_coef: float,
    discount: float,
    gae_lambda: float,
    shaped_rewards: Callable[..., Tensor] = kl_shaped_rewards,
    estimator: Callable[..., Tensor] = gae,
) -> Training:
    """What each token is worth.

    Args:
        experience: The whole of a step, since advantages are whitened over it.
        kl_coef: Price of one nat of KL(policy || reference), in reward units.
        discount: gamma.
        gae_lambda: lambda.
        shaped_rewards: From scores to the rewards of tokens.
        estimator: From rewards and values to advantages.
    """
    scores, mask = experience.scores.flatten(), experience.response_mask.flatten(0, 1)
    values, logprobs, ref_logprobs = (
        tensor.flatten(0, 1) for tensor in (experience.values, experience.old_logprobs, experience.ref_logprobs)
    )
    rewards = shaped_rewards(scores, logprobs, ref_logprobs, mask, kl_coef=kl_coef)
    raw = estimator(rewards, values, mask, discount=discount, gae_lambda=gae_lambda)
    worth = {"rewards": rewards, "advantages": masked_whiten(raw, mask), "returns": (raw + values) * mask}
    return Training(**vars(experience), **{name: tensor.view_as(experience.values) for name, tensor in worth.items()})


def means_of(
    experience: Experience,
    kind: str,
    prompts: list[str],
    tokenizer: object,
    *,
    kl_coef: float,
    watch: Mapping[str, Reward] | None = None,
) -> dict[str, float]:
    """What to log of a rollout, as `kind/NAME`.

    Args:
        experience: The rollout, assessed.
        kind: What it is for, such as `objective`.
        prompts: The prompts' texts.
        tokenizer: Decodes the responses.
        kl_coef: Price of one nat of KL(policy || reference), in reward units.
        watch: Further rewards of the texts, logged by their names.

    Returns:
        Means of `score`, `kl` [nats] and `rlhf_reward` (score - kl_coef kl) over responses, of `entropy` [nats] over
        tokens, of `response_tokens`, the share `finished`, `kl_coef`, and a mean for each of `watch`.
    """
    scores, kl, mask = experience.scores, experience.kl, experience.response_mask
    means = {
        "score": scores.mean(),
        "kl": kl.mean(),
        "rlhf_reward": (scores - kl_coef * kl).mean(),
        "kl_coef": kl_coef,
        "entropy": -experience.old_logprobs.sum() / mask.sum(),
        "response_tokens": mask.sum(-1).float().mean(),
        "finished": experience.finished.float().mean(),
    }
    if watch:
        groups = decode_responses(tokenizer, experience)
        repeated = [prompt for prompt, group in zip(prompts, groups, strict=True) for _ in group]
        texts = [text for group in groups for text in group]
        means |= {name: scores_of(reward, repeated, texts).mean() for name, reward in watch.items()}
    return {f"{kind}/{name}": float(value) for name, value in means.items()}


def gathered(parts: list[Experience], accelerator: Accelerator) -> Experience:
    """All processes' parts as one experience, in the order of the prompts, on every process.

    Minibatches are then drawn from the whole, so that two processes take the very updates that one would.
    """
    widths = torch.tensor(
        [[part.prompt.shape[1] for part in parts], [part.responses.shape[2] for part in parts]],
        device=accelerator.device,
    ).amax(dim=1, keepdim=True)
    prompt, response = accelerator.gather(widths.T).amax(dim=0).tolist()  # type: ignore[union-attr]
    padded = [part.padded(prompt, response) for part in parts]
    fields = {name: torch.cat([getattr(part, name) for part in padded]) for name in vars(padded[0])}
    return Experience(**{name: accelerator.gather(tensor) for name, tensor in fields.items()})  # type: ignore[arg-type]
