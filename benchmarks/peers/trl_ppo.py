"""PPO by TRL 1.12.0, the last with it. Runs under the Python that it is installed in.

    python trl_ppo.py FOLDER

TRL has no K: the prompts of a rollout are repeated, which is the same number of episodes and updates.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from protocol import Work, serve
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl.experimental.ppo import PPOConfig, PPOTrainer

FOLDER = Path(sys.argv[1])
SETTINGS = json.loads((FOLDER / "settings.json").read_text())
LINES = (FOLDER / "rows_in_order.jsonl").read_text(encoding="utf-8").splitlines()


def prepare() -> Work:
    """A fresh trainer; its tokenization of the data is not timed."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "policy", padding_side="left")
    dtype, batch = getattr(torch, SETTINGS["dtype"]), SETTINGS["batch_size"]
    prompts = [json.loads(line)["prompt"] for line in LINES for _ in range(SETTINGS["num_candidates"])]
    policy, reference = (AutoModelForCausalLM.from_pretrained(FOLDER / "policy", dtype=dtype) for _ in range(2))
    reward, critic = (
        AutoModelForSequenceClassification.from_pretrained(FOLDER / "reward", dtype=dtype) for _ in range(2)
    )
    config = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        total_episodes=SETTINGS["num_steps"] * batch,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_mini_batches=SETTINGS["num_minibatches"],
        num_ppo_epochs=SETTINGS["num_epochs"],
        local_rollout_forward_batch_size=batch,
        response_length=SETTINGS["max_response_tokens"],
        temperature=SETTINGS["temperature"],
        stop_token="eos",
        learning_rate=SETTINGS["learning_rate"],
        lr_scheduler_type="constant",
        adam_epsilon=1e-5,
        gradient_checkpointing=False,
        bf16=SETTINGS["dtype"] == "bfloat16",
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=SETTINGS["seed"],
    )
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=critic,
        train_dataset=Dataset.from_list([{"input_ids": tokenizer(prompt)["input_ids"]} for prompt in prompts]),
        eval_dataset=Dataset.from_list([{"input_ids": tokenizer(prompts[0])["input_ids"]}]),
    )
    logs: list[dict[str, Any]] = []
    trainer.log = lambda metrics, *more: logs.append(metrics)  # type: ignore[method-assign]

    def work() -> dict[str, Any]:
        trainer.train()
        means = {name: _mean(logs, f"objective/{name}") for name in ("scores", "kl", "entropy")}
        return {"score": means["scores"], "kl": means["kl"], "losses": [row["loss/policy_avg"] for row in logs]}

    return work


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return sum(float(row[name]) for row in rows) / len(rows)


if __name__ == "__main__":
    serve(prepare)
