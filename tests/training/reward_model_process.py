"""One of the processes that train a reward model together; the first writes down what they made of it.

reward_model_process.py FOLDER, which holds a policy, comparisons.jsonl and settings.json
"""

import json
import sys
from pathlib import Path

import torch

from rlhf_lab.data.datasets import load_comparisons
from rlhf_lab.models import Policy
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.reward_model import train_reward_model


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    optimizer = OptimizerConfig(**settings.pop("optimizer"))
    run = Run(folder / "run")
    comparisons = load_comparisons(str(folder / "comparisons.jsonl"))
    model = train_reward_model(Policy.load(folder / "policy"), comparisons, run=run, optimizer=optimizer, **settings)
    if run.is_main:
        torch.save(model.network.state_dict(), folder / "state.pt")
        (folder / "num_processes").write_text(str(run.accelerator.num_processes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
