"""Our side of every benchmark. Run by `benchmarks.run`, with the folder that `benchmarks.workload` wrote."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel

from benchmarks.peers.protocol import Work, serve
from benchmarks.workload import read
from rlhf_lab import Policy, RewardModel, Run, best_of_n, dpo, generate, ppo, sft, train_reward_model
from rlhf_lab.feedback import LearnedReward
from rlhf_lab.generation import Request, Rollout, SamplingConfig, TransformersBackend
from rlhf_lab.training.fit import OptimizerConfig

FOLDER = Path(sys.argv[1])
SETTINGS = read(FOLDER)
ROWS = [json.loads(line) for line in (FOLDER / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
DTYPE = getattr(torch, SETTINGS.dtype)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIMIZER = OptimizerConfig(learning_rate=SETTINGS.learning_rate, schedule="constant")
SAMPLING = SamplingConfig(max_response_tokens=SETTINGS.max_response_tokens, temperature=SETTINGS.temperature)


def _run() -> Run:
    return Run(seed=SETTINGS.seed, mixed_precision="bf16" if SETTINGS.dtype == "bfloat16" else None)


def learning(policy: Policy) -> Work:
    """SFT, reward model or DPO."""
    stage, loss = {
        "sft": (sft, "sft/loss"),
        "reward": (train_reward_model, "rm/loss"),
        "dpo": (dpo, "dpo/loss"),
    }[SETTINGS.stage]
    data = Dataset.from_list(ROWS)
    # Centring reads up to 512 answers after the last update, which no peer does: one answer is all it gets here.
    centring = Dataset.from_list([{"prompt": ROWS[0]["prompt"], "completion": " One."}])
    # The last is TRL's default.
    more = {"reward": {"references": centring}, "dpo": {"kl_coef": 0.1}}.get(SETTINGS.stage, {})

    def work() -> dict[str, Any]:
        trained: Any = stage(  # type: ignore[operator]
            policy,
            data,
            run=_run(),
            batch_size=SETTINGS.batch_size,
            optimizer=OPTIMIZER,
            max_prompt_tokens=SETTINGS.max_prompt_tokens,
            max_response_tokens=SETTINGS.max_response_tokens,
            **more,
        )
        return {"losses": [row[loss] for row in trained.history]}

    return work


def tuning(policy: Policy) -> Work:
    """PPO."""
    reward = RewardModel.load(FOLDER / "reward", dtype=DTYPE)
    prompts = SETTINGS.batch_size // SETTINGS.num_candidates

    def work() -> dict[str, Any]:
        tuned = ppo(
            policy,
            reward,
            Dataset.from_list(ROWS),
            run=_run(),
            num_steps=SETTINGS.num_steps,
            prompts_per_step=prompts,
            num_candidates=SETTINGS.num_candidates,
            num_epochs=SETTINGS.num_epochs,
            minibatch_size=prompts // SETTINGS.num_minibatches,
            micro_batch_size=prompts,
            max_prompt_tokens=SETTINGS.max_prompt_tokens,
            missing_eos_score=None,  # TRL keeps the score of an unfinished response.
            sampling=SAMPLING,
            optimizer=OPTIMIZER,
            critic_optimizer=OPTIMIZER,
        )
        means = {
            name: sum(row[f"objective/{name}"] for row in tuned.history) / len(tuned.history)
            for name in ("score", "kl", "response_tokens")
        }
        # A peer knows nothing of the centring.
        means["score"] += reward.network.config.score_offset
        return means | {"losses": [row["ppo/policy_loss"] for row in tuned.history]}

    return work


def writing(policy: Policy) -> Work:
    """Sampling, or best-of-n with the reward model's choice."""
    policy.network.to(DEVICE).eval()  # type: ignore[arg-type]
    reward = RewardModel.load(FOLDER / "reward", dtype=DTYPE)
    reward.network.to(DEVICE).eval()  # type: ignore[arg-type]
    prompts = [row["prompt"] for row in ROWS]

    def work() -> dict[str, Any]:
        counting = Counting()
        if SETTINGS.stage == "generate":
            generate(policy, prompts, SAMPLING, batch_size=SETTINGS.batch_size, backend=counting)
        else:
            best_of_n(policy, LearnedReward(reward), prompts, SETTINGS.num_candidates, SAMPLING, backend=counting)
        return {"response_tokens": counting.tokens / counting.responses}

    return work


class Counting(TransformersBackend):
    """Counts what is written, of which best-of-n throws the most away."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.tokens = self.responses = 0

    def sample(self, network: PreTrainedModel, request: Request) -> Rollout:
        """As ever."""
        rollout = super().sample(network, request)
        self.tokens += int(rollout.response_mask.sum())
        self.responses += rollout.response_mask.shape[:2].numel()
        return rollout


def prepare() -> Work:
    """The stage that the settings name, ready to be timed."""
    torch.manual_seed(SETTINGS.seed)
    policy = Policy.load(FOLDER / "policy", dtype=DTYPE)
    work = {"ppo": tuning, "generate": writing, "best_of_n": writing}.get(SETTINGS.stage, learning)
    return work(policy)


if __name__ == "__main__":
    serve(prepare)
