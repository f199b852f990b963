"""A stage in a process of its own, watched; prints the memory that it took and what was estimated, in MB.

python -m tests.memory_process STAGE [lora] [recompute]      STAGE is sft or ppo
"""

import sys
import threading

import psutil
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM

import rlhf_lab as lab
from rlhf_lab import memory
from rlhf_lab.adapters import LoRAConfig
from rlhf_lab.memory import MemoryEstimate, estimate_memory
from rlhf_lab.models import new_reward_model
from rlhf_lab.training import actor_critic, ppo, supervised

LIMITS = {"max_prompt_tokens": 192, "max_response_tokens": 48}
SIZES = {"num_steps": 1, "prompts_per_step": 4, "minibatch_size": 4, "num_candidates": 2, "num_epochs": 2}
SHAPE = {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 6, "num_attention_heads": 5}
TEXTS = [f"SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: {'my dog ' * 400}\n\nTL;DR:"] * 8


def run_stage(stage: str, policy: lab.Policy, lora: LoRAConfig | None) -> None:
    """Two updates of two micro-batches: the second finds the moments there, and its second the gradients."""
    if stage == "sft":
        rows = Dataset.from_dict({"prompt": TEXTS, "completion": [" my dog" * 100] * 8})
        supervised.sft(policy, rows, lora=lora, batch_size=8, num_epochs=2, micro_batch_size=4, **LIMITS)
        return
    sampling = lab.SamplingConfig(max_response_tokens=48)
    reward = new_reward_model(policy, generator=lab.Run().rng("head"), lora=lora)
    rows = Dataset.from_dict({"prompt": TEXTS})
    ppo.ppo(policy, reward, rows, lora=lora, max_prompt_tokens=192, sampling=sampling, micro_batch_size=2, **SIZES)


def main() -> None:
    stage, lora = sys.argv[1], LoRAConfig(rank=8) if "lora" in sys.argv else None
    recompute = "recompute" in sys.argv
    seen: list[MemoryEstimate] = []
    if recompute:
        memory.available_memory = lambda device: 0.0  # What fits is not looked at twice.

    def look(*args: object, **settings: object) -> bool:
        seen.append(estimate_memory(*args, **settings))  # type: ignore[arg-type]
        return recompute

    supervised.check_memory = actor_critic.check_memory = look  # type: ignore[assignment]
    small = lab.load_base("tiny")
    run_stage(stage, small, lora)  # What is loaded when it is first needed, is here now.
    config = LlamaConfig(
        **SHAPE, vocab_size=len(small.tokenizer), eos_token_id=small.tokenizer.eos_token_id, bos_token_id=None
    )
    policy = lab.Policy(LlamaForCausalLM(config), small.tokenizer)
    process, done, most = psutil.Process(), threading.Event(), [0]
    held = process.memory_info().rss - sum(weight.nbytes for weight in policy.network.parameters())

    def watch() -> None:
        while not done.wait(0.001):
            most[0] = max(most[0], process.memory_info().rss)

    threading.Thread(target=watch, daemon=True).start()
    run_stage(stage, policy, lora)
    done.set()
    print((most[0] - held) / 1e6, sum(seen[-1].recomputed.values()) / 1e6)


if __name__ == "__main__":
    main()
