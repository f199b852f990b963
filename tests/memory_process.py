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
from rlhf_lab.runs import Run
from rlhf_lab.training import ppo, supervised

LIMITS = {"max_prompt_tokens": 192, "max_response_tokens": 48}
SHAPE = {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 6, "num_attention_heads": 5}


def main() -> None:
    stage, lora = sys.argv[1], LoRAConfig(rank=8) if "lora" in sys.argv else None
    recompute = "recompute" in sys.argv
    tokenizer = lab.load_base("tiny").tokenizer
    config = LlamaConfig(**SHAPE, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    policy = lab.Policy(LlamaForCausalLM(config), tokenizer)
    texts = [f"SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: {'my dog ' * 400}\n\nTL;DR:"] * 8
    run = Run()
    seen: list[MemoryEstimate] = []
    if recompute:
        memory.available_memory = lambda device: 0.0  # What fits is not looked at twice.

    def look(*args: object, **settings: object) -> bool:
        seen.append(estimate_memory(*args, **settings))  # type: ignore[arg-type]
        return recompute

    supervised.check_memory = ppo.check_memory = look  # type: ignore[assignment]
    process, done, most = psutil.Process(), threading.Event(), [0]
    held = process.memory_info().rss - sum(weight.nbytes for weight in policy.network.parameters())

    def watch() -> None:
        while not done.wait(0.001):
            most[0] = max(most[0], process.memory_info().rss)

    threading.Thread(target=watch, daemon=True).start()
    if stage == "sft":
        rows = Dataset.from_dict({"prompt": texts, "completion": [" my dog" * 100] * 8})
        supervised.sft(policy, rows, run=run, lora=lora, batch_size=8, **LIMITS)
    else:
        sampling = lab.SamplingConfig(max_response_tokens=48)
        sizes = {"num_steps": 1, "prompts_per_step": 4, "minibatch_size": 4, "num_candidates": 2, "num_epochs": 1}
        reward = new_reward_model(policy, generator=run.rng("head"), lora=lora)
        rows = Dataset.from_dict({"prompt": texts})
        ppo.ppo(policy, reward, rows, run=run, lora=lora, max_prompt_tokens=192, sampling=sampling, **sizes)
    done.set()
    print((most[0] - held) / 1e6, sum(seen[0].recomputed.values()) / 1e6)


if __name__ == "__main__":
    main()
