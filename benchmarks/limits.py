"""What the machine can do, measured, and what a stage needs, counted from its shapes.

A share of the limit is the arithmetic that a stage cannot do without (real tokens, a shared prompt once, logits for
targets only), over what the machine does in large matrix products in the same time. Work that is needed by no equation,
such as padding, counts as nothing, for ours and for a peer alike.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


def product_rate(dtype: torch.dtype, hidden: int, device: str = "cpu") -> float:
    """FLOP/s of a matrix product as a feed-forward's: 4096 tokens, from `hidden` to three times that."""
    left, right = (torch.randn(*shape, dtype=dtype, device=device) for shape in ((4096, hidden), (hidden, 3 * hidden)))
    return 2 * 4096 * hidden * 3 * hidden / _median_seconds(lambda: left @ right, device)


def bandwidth(device: str = "cpu") -> float:
    """Bytes/s, read and written, of copying 256 MiB."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_seconds(lambda: target.copy_(source), device, times=10)


def _median_seconds(work: Callable[[], object], device: str, times: int = 40) -> float:
    seconds = []
    for turn in range(times + 5):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        if turn >= 5:
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)[times // 2]


@dataclass(frozen=True, kw_only=True)
class Work:
    """Tokens of one element: a demonstration, a pair, or one episode with its part of a shared prompt."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    prompt: float
    response: float
    responses: int = 1
    """That share a prompt."""
    key_width: int = 0
    """Of all keys of a token together, where several queries share one; 0 is `hidden`."""
    is_gated: bool = True
    """Whether the feed-forward has three matrices, or two."""

    @property
    def weights(self) -> tuple[int, int]:
        """Of a layer's attention, and of its feed-forward."""
        key_width = self.key_width or self.hidden
        matrices = 3 if self.is_gated else 2
        return 2 * self.hidden * (self.hidden + key_width), matrices * self.hidden * self.intermediate

    def forward(self, wanted: float, targets: float) -> float:
        """FLOPs of reading a prompt and all its responses.

        Args:
            wanted: Tokens whose last hidden states are asked for: only they pass the last feed-forward.
            targets: Tokens that logits are made for.
        """
        tokens = self.prompt + self.responses * self.response
        attention, feed_forward = self.weights
        products = self.layers * tokens * (attention + feed_forward) - (tokens - wanted) * feed_forward
        seen = self.prompt**2 / 2 + self.responses * self.response * (self.prompt + self.response / 2)
        return 2 * products + 4 * self.layers * self.hidden * seen + 2 * self.hidden * self.vocabulary * targets

    def flops(self, stage: str, num_epochs: int = 1) -> float:
        """FLOPs of a stage on one demonstration or pair, or on one prompt with all its responses; backward is twice."""
        written = self.responses * self.response
        language = self.forward(written, written)
        if stage == "sft":
            return 3 * language
        if stage == "reward":
            return 3 * self.forward(self.responses, 0)
        if stage == "dpo":
            return 4 * language
        # Sampling reads every token once too, the prompts' ends and the responses being wanted.
        if stage == "generate":
            return language
        if stage == "best_of_n":
            return language + self.forward(self.responses, 0)
        values, scores = self.forward(written, 0), self.forward(self.responses, 0)
        return 3 * language + values + scores + num_epochs * 3 * (language + values)

    def seconds(
        self, stage: str, *, prompts: int, batches: int, num_epochs: int, products: float, bandwidth: float, size: int
    ) -> float:
        """The least time of a stage on so many prompts or pairs: arithmetic, or memory where writing waits for it.

        Args:
            stage: See `flops`.
            prompts: Elements of the whole run.
            batches: In which they are written; each of their steps reads all weights.
            num_epochs: Of updates.
            products: FLOP/s.
            bandwidth: Bytes/s.
            size: Bytes of a number.
        """
        arithmetic = prompts * self.flops(stage, num_epochs) / products
        if stage not in ("ppo", "generate", "best_of_n"):
            return arithmetic
        written = self.responses * self.response
        steps = prompts * (self.forward(written, written) - replace(self, responses=0).forward(0, 0)) / products
        weights = self.layers * sum(self.weights) + self.hidden * self.vocabulary
        # The first token comes of reading the prompt. Each step after it sees a shared prompt once, and of a response
        # what is there: half of it on average.
        reads = max(0.0, self.response - 1)
        cached = 2 * self.layers * (self.key_width or self.hidden) * reads
        cached *= self.prompt + self.responses * self.response / 2
        memory = size * (batches * reads * weights + prompts * cached) / bandwidth
        return arithmetic + max(0.0, memory - steps)
