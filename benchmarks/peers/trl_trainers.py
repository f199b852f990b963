"""SFT, reward model and DPO by TRL's newest trainers. Runs under the Python that TRL is installed in.

python trl_trainers.py FOLDER [option=value ...]      options of TRL's config, such as packing=true
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
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

FOLDER = Path(sys.argv[1])
OPTIONS = {name: json.loads(value) for name, value in (option.split("=") for option in sys.argv[2:])}
SETTINGS = json.loads((FOLDER / "settings.json").read_text())
LINES = (FOLDER / "rows_in_order.jsonl").read_text(encoding="utf-8").splitlines()
TRAINERS = {"sft": (SFTTrainer, SFTConfig), "reward": (RewardTrainer, RewardConfig), "dpo": (DPOTrainer, DPOConfig)}


def prepare() -> Work:
    """A fresh trainer; its tokenization of the data is not timed."""
    trainer_class, config_class = TRAINERS[SETTINGS["stage"]]
    stage, dtype = SETTINGS["stage"], getattr(torch, SETTINGS["dtype"])
    options: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": SETTINGS["batch_size"],
        "num_train_epochs": 1,
        "learning_rate": SETTINGS["learning_rate"],
        "lr_scheduler_type": "constant",
        "adam_epsilon": 1e-5,
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential",
        "max_length": SETTINGS["max_prompt_tokens"] + SETTINGS["max_response_tokens"],
        # TRL recomputes activations by default, which only costs time where memory suffices.
        "gradient_checkpointing": False,
        "bf16": SETTINGS["dtype"] == "bfloat16",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "seed": SETTINGS["seed"],
    }
    models: dict[str, Any] = {"model": AutoModelForCausalLM.from_pretrained(FOLDER / "policy", dtype=dtype)}
    if stage == "reward":
        models = {"model": AutoModelForSequenceClassification.from_pretrained(FOLDER / "start", dtype=dtype)}
    if stage == "dpo":
        models["ref_model"] = AutoModelForCausalLM.from_pretrained(FOLDER / "policy", dtype=dtype)
    trainer = trainer_class(
        **models,
        args=config_class(**options | OPTIONS),
        train_dataset=Dataset.from_list([json.loads(line) for line in LINES]),
        processing_class=AutoTokenizer.from_pretrained(FOLDER / "policy"),
    )

    def work() -> dict[str, Any]:
        trainer.train()
        return {"losses": [row["loss"] for row in trainer.state.log_history if "loss" in row]}

    return work


if __name__ == "__main__":
    serve(prepare)
