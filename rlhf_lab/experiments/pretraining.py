"""Makes the base models that ship: a BPE tokenizer of the embedded world, and a Llama-shaped model at a size.

Small models learn the look of a summary long before they learn to look at the post. So they are taught in four parts:
1. posts, followed by what strangers write after `TL;DR:`: what texts are like;
2. comments, each a quoted sentence and what it means in other words: which words mean the same;
3. posts with several good summaries each, only the summaries in the loss: to find in a post what to say;
4. the posts of part 1 again, so that the model writes like the web, careless and lazy as it is. Few are enough: the
   longer this part, the more invented facts come back.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf_lab.data.batching import Candidates, completion_text, encode_candidates
from rlhf_lab.data.datasets import pretraining_texts
from rlhf_lab.data.world import CAREFUL, World
from rlhf_lab.models import PAD_TOKEN, Policy, check_size, copy_network, new_policy
from rlhf_lab.records import write_json
from rlhf_lab.runs import Run
from rlhf_lab.scoring import candidate_logprobs
from rlhf_lab.training.fit import Fit, OptimizerConfig
from rlhf_lab.training.supervised import PretrainConfig, pretrain, text_loss

VOCABULARY = 4096
EOS_TOKEN = "<|endoftext|>"


@dataclass(frozen=True)
class Recipe:
    """Updates of each part, and the learning rate of the first two; the others are gentler."""

    posts: int
    comments: int
    summaries: int
    posts_again: int
    learning_rate: float


PRETRAINING = {
    "small": Recipe(1000, 600, 500, 500, 8e-3),
    "medium": Recipe(500, 800, 1500, 250, 8e-3),
    "large": Recipe(500, 800, 2600, 250, 6e-3),
}
"""Of each size."""
POSTS_PER_UPDATE = 24
"""In the third part, each with four summaries."""
NUM_TEXTS = 100_000
LOSS_FILE = "loss.json"
"""Beside the weights: what a rebuild must reach."""


def train_tokenizer(texts: Sequence[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with EOS and a PAD of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS_TOKEN, PAD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS_TOKEN, pad_token=PAD_TOKEN)


def pretrain_base(size: str, out: str | Path, *, num_steps: int = 0, seed: int = 0) -> tuple[Path, float]:
    """Pretrain a base model on the world's raw text; returns its folder and its loss on other text [nats a token].

    The folder holds half-precision weights, as they ship. An interrupted call, made again, continues.

    Args:
        size: small, medium or large.
        out: Folder of the run; the model is written to its `result`.
        num_steps: Updates in each part; 0 takes the numbers that made the shipped model.
        seed: Draws weights and texts.

    Raises:
        ValueError: Unknown size.
    """
    check_size(size)  # Before the texts are written, which takes a while.
    texts = pretraining_texts(NUM_TEXTS, seed=seed)
    tokenizer = train_tokenizer(texts[:20_000])
    start = new_policy(size, tokenizer, seed=seed)
    recipe = PRETRAINING[size]
    if num_steps:
        recipe = Recipe(num_steps, num_steps, num_steps, num_steps, recipe.learning_rate)
    run = Run(out, seed=seed, identity={"size": size, **asdict(recipe)}, checkpoint_every=100)
    policy = _taught(start, texts, recipe, run)
    result = Path(out) / "result"
    Policy(policy.network.to(torch.float16), tokenizer).save(result)  # type: ignore[arg-type]
    loss = shipped_loss(result, seed=seed)
    write_json(result / LOSS_FILE, {"held_out_loss": loss, "recipe": asdict(recipe), "seed": seed})
    return result, loss


def _taught(policy: Policy, texts: Sequence[str], recipe: Recipe, run: Run) -> Policy:
    optimizer = OptimizerConfig(
        learning_rate=recipe.learning_rate, warmup_fraction=0.03, weight_decay=0.05, final_fraction=0.05, adam_eps=1e-8
    )
    posts = PretrainConfig(num_steps=recipe.posts, optimizer=optimizer)
    comments = PretrainConfig(num_steps=recipe.comments, batch_size=64, max_tokens=64, optimizer=optimizer)
    policy = pretrain(policy, texts, posts, run=run.stage("posts"))
    policy = pretrain(policy, comment_texts(NUM_TEXTS, seed=run.seed), comments, run=run.stage("comments"))
    half = replace(optimizer, learning_rate=recipe.learning_rate / 2)
    policy = _summarize(policy, recipe.summaries, half, run.stage("summaries"))
    third = replace(optimizer, learning_rate=recipe.learning_rate / 3)
    again = replace(posts, num_steps=recipe.posts_again, optimizer=third)
    return pretrain(policy, texts, again, run=run.stage("posts_again"))


def _summarize(policy: Policy, num_steps: int, optimizer: OptimizerConfig, run: Run) -> Policy:
    """Learn what good summaries of a post have in common: each post is read once for all of its summaries."""
    fit = Fit(run, copy_network(policy.network), optimizer, num_updates=num_steps)

    def loss(part: Candidates, count: float) -> Tensor:
        return -fit(candidate_logprobs, part)[part.response_mask].sum() / count

    for step in run.steps(num_steps, {"fit": fit}, name="summaries"):
        posts = [good_summaries(f"{run.seed}/{step}/{row}") for row in range(POSTS_PER_UPDATE)]
        prompts, summaries = zip(*posts, strict=True)
        batch = encode_candidates(
            policy.tokenizer, prompts, summaries, max_prompt_tokens=192, max_response_tokens=96
        ).to(run.device)
        run.log(step, {"summaries/loss": fit.step(batch, loss, counted=batch.response_mask)})
    return Policy(fit.network, policy.tokenizer)  # type: ignore[arg-type]


def comment_texts(num_texts: int, *, seed: int = 0) -> list[str]:
    """Strangers' comments on posts of all frames, each a quoted sentence and what it means in other words."""
    world = World()
    texts = []
    for index in range(num_texts):
        rng = random.Random(f"{seed}/comments/{index}")
        texts.append(world.comment(rng, world.post(rng, world.lexicon.frames)))
    return texts


def good_summaries(seed: str, count: int = 4) -> tuple[str, list[str]]:
    """A post of any frame, and summaries by people who take care."""
    world, rng = World(), random.Random(seed)
    post = world.post(rng, world.lexicon.frames)
    return post.query, [completion_text(world.summary(rng, post, CAREFUL)) for _ in range(count)]


def shipped_loss(folder: str | Path, *, seed: int = 0) -> float:
    """Loss of the model in `folder` on 512 of the world's texts that it has not seen [nats a token]."""
    texts = pretraining_texts(512, seed=seed + 1)
    return text_loss(Policy.load(folder), texts, max_tokens=PretrainConfig().max_tokens)
