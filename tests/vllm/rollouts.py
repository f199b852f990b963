"""The same rollouts and the same training by Transformers and by vLLM; writes what came out.

python -m tests.vllm.rollouts OUT       in an environment with vLLM; on as many processes as start it
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, PretrainedConfig

from rlhf_lab import LoRAConfig, SamplingConfig, load_base, load_tldr
from rlhf_lab.adapters import with_lora
from rlhf_lab.generation import Backend, Request, TransformersBackend, best_of_n, generate
from rlhf_lab.models import Policy
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.ppo import ppo
from rlhf_lab.vllm_backend import VLLMBackend

SAMPLING = SamplingConfig(max_response_tokens=24, temperature=0.9, top_p=0.95)
STEADY = OptimizerConfig(learning_rate=1e-3, schedule="constant")
CANDIDATES = 3


def differences(backend: Backend, policy: Policy, prompts: list[str], config: SamplingConfig = SAMPLING) -> int:
    """Responses of which a token, the mask or the end differs from Transformers'."""
    uniforms = torch.rand(
        len(prompts), CANDIDATES, config.max_response_tokens, generator=torch.Generator().manual_seed(1)
    )
    place: dict[str, Any] = {"max_prompt_tokens": 96, "device": policy.network.device}
    request = Request.of(policy.tokenizer, prompts, uniforms, config, **place)
    made = [writer.sample(policy.network, request) for writer in (TransformersBackend(), backend)]
    if made[0].responses.shape != made[1].responses.shape:
        return len(uniforms.flatten(0, 1))
    same = [(getattr(made[0], name) == getattr(made[1], name)) for name in ("responses", "response_mask")]
    return int((~(same[0].all(-1) & same[1].all(-1) & (made[0].finished == made[1].finished))).sum())


def refused(act: Callable[[], object]) -> str:
    try:
        act()
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "not refused"


def changed(policy: Policy) -> Policy:
    """With other weights in place, as after an update."""
    with torch.no_grad():
        for weight in policy.network.parameters():
            if weight.ndim > 1:
                weight.mul_(1.05)
    return policy


def adapted(policy: Policy) -> Policy:
    """With adapters that have learnt something."""
    network = with_lora(policy.network, LoRAConfig(rank=4), rng=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(3))
    return Policy(network, policy.tokenizer)


def untrained(kind: type[PretrainedConfig], policy: Policy, num_attention_heads: int) -> Policy:
    """Another architecture with weights so large that every token changes what follows it."""
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "max_position_embeddings": 256}
    config = kind(
        **sizes,
        num_attention_heads=num_attention_heads,
        vocab_size=len(policy.tokenizer),
        eos_token_id=policy.tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    return Policy(AutoModelForCausalLM.from_config(config).eval(), policy.tokenizer)


def rollouts() -> dict[str, Any]:
    policy, prompts = load_base("laptop"), [str(text) for text in load_tldr(scale="tiny").prompts["prompt"][:24]]
    backend = VLLMBackend(cache_gb=0.2, eager=True)
    out: dict[str, Any] = {"unasked": refused(lambda: differences(backend, policy, prompts))}
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    backend.follow(policy.network)
    out["leaves alone"] = threads == torch.get_num_threads() and bool((state == torch.get_rng_state()).all())
    out["full weights"] = differences(backend, policy, prompts)
    out["greedy"] = differences(backend, policy, prompts, SamplingConfig(max_response_tokens=24, temperature=0.0))
    out["crowded"] = differences(backend, policy, prompts * 8)  # 576 at once, of which 256 are written
    changed(policy)
    out["stale"] = differences(backend, policy, prompts)
    backend.follow(policy.network)
    out["changed weights"] = differences(backend, policy, prompts)
    with_adapters = adapted(policy)
    backend.follow(with_adapters.network)
    out["adapters"] = differences(backend, with_adapters, prompts)
    out["adapters matter"] = differences(backend, policy, prompts)
    long = SamplingConfig(max_response_tokens=100_000)
    out["too long"] = refused(lambda: differences(backend, policy, prompts[:1], long))
    settings: dict[str, Any] = {"config": SAMPLING, "num_candidates": 2}
    out["texts"] = generate(policy, prompts, **settings) == generate(policy, prompts, backend=backend, **settings)
    longest = (policy, lambda _, texts: [len(text) for text in texts], prompts, 4, SAMPLING)
    out["best of n"] = best_of_n(*longest) == best_of_n(*longest, backend=backend)
    for kind in (GPTNeoXConfig, GPT2Config):
        other = untrained(kind, policy, num_attention_heads=4)
        backend.follow(other.network)
        out[kind.model_type] = differences(backend, other, prompts)
    thin = untrained(LlamaConfig, policy, num_attention_heads=32)
    backend.follow(thin.network)
    out["heads of 4"] = refused(lambda: differences(backend, thin, prompts))
    return out


def training(folder: Path) -> dict[str, Any]:
    """PPO's metrics by each backend, and the largest difference of their weights."""
    data = load_tldr(scale="tiny")
    settings: dict[str, Any] = {
        "num_steps": 3,
        "prompts_per_step": 8,
        "num_candidates": 2,
        "num_epochs": 1,
        "minibatch_size": 4,
        "micro_batch_size": 2,
        "max_prompt_tokens": 96,
        "sampling": SAMPLING,
        "optimizer": STEADY,
        "critic_optimizer": STEADY,
    }
    made = {
        name: ppo(
            load_base("laptop"),
            lambda prompts, responses: [len(response) / 50 for response in responses],
            data.prompts,
            backend=backend,
            run=Run(folder / name),
            **settings,
        )
        for name, backend in {"transformers": None, "vllm": VLLMBackend(cache_gb=0.2, eager=True)}.items()
    }
    pairs = zip(made["transformers"].network.parameters(), made["vllm"].network.parameters(), strict=True)
    return {
        "weights": max(float((one - other).abs().max()) for one, other in pairs),
        "histories": {name: policy.history for name, policy in made.items()},
    }


def main() -> None:
    out = Path(sys.argv[1])
    alone = PartialState().num_processes == 1
    made = {"training": training(out / "runs")} | ({"rollouts": rollouts()} if alone else {})
    if PartialState().is_main_process:
        (out / "made.json").write_text(json.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    main()
