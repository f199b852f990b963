"""Times `candidate_logprobs`, forward and backward, with a shared prompt against the prompt repeated K times.

The two are timed in alternating pairs, so that what else the machine does falls on both alike.

Example: .venv/bin/python -m benchmarks.shared_prompt --size wide --threads 2
"""

import argparse
import time

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.workload import SHAPES
from rlhf_lab.data.batching import Candidates
from rlhf_lab.experiments.pretraining import VOCABULARY
from rlhf_lab.scoring import candidate_logprobs


def random_candidates(batch: int, count: int, prompt_tokens: int, response_tokens: int) -> Candidates:
    """Random tokens, nothing padded."""
    prompt = torch.randint(VOCABULARY, (batch, prompt_tokens))
    responses = torch.randint(VOCABULARY, (batch, count, response_tokens))
    return Candidates(prompt, torch.ones_like(prompt).bool(), responses, torch.ones_like(responses).bool())


def seconds(network: PreTrainedModel, candidates: Candidates, *, shared_prompt: bool) -> float:
    """Time of one forward and backward [s]."""
    network.zero_grad()
    start = time.perf_counter()
    candidate_logprobs(network, candidates, shared_prompt=shared_prompt).sum().backward()
    return time.perf_counter() - start


def quartiles(values: np.ndarray) -> str:
    """The median, and in brackets the first and third quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def compare(network: PreTrainedModel, candidates: Candidates, pairs: int) -> None:
    """Print the times of both ways, and their ratio within each pair."""
    times = []
    for pair in range(pairs + 2):
        order = (True, False) if pair % 2 else (False, True)
        taken = {shared: seconds(network, candidates, shared_prompt=shared) for shared in order}
        times.append((taken[True], taken[False]))
    shared, repeated = np.array(times[2:]).T  # The first pair of each order warms up.
    print(  # noqa: T201
        f"K = {candidates.responses.shape[1]}: shared / repeated = {quartiles(shared / repeated)}; "
        f"shared {quartiles(shared)} s, repeated {quartiles(repeated)} s"
    )


def main() -> None:
    """Read the options, and measure for each K."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="wide")
    parser.add_argument("--candidates", type=int, nargs="+", default=[2, 8], help="K, one or several")
    parser.add_argument("--batch", type=int, default=8, help="prompts")
    parser.add_argument("--prompt-tokens", type=int, default=70)
    parser.add_argument("--response-tokens", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1, help="1 is the least disturbed")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    config = LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, bos_token_id=None, **SHAPES[options.size])
    network = LlamaForCausalLM(config).train()
    for count in options.candidates:
        candidates = random_candidates(options.batch, count, options.prompt_tokens, options.response_tokens)
        compare(network, candidates, options.pairs)


if __name__ == "__main__":
    main()
