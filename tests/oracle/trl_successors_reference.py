"""What TRL's DPO, RLOO and GRPO compute on given tensors. Runs under the Python that TRL is installed in.

    python trl_successors_reference.py FOLDER      FOLDER/in.npz becomes FOLDER/out.npz and FOLDER/statements.json

No formula of TRL is typed here: the statements where advantages and losses stand are cut out of the installed source
files and executed on our tensors. `statements.json` holds their text, so that two versions can be compared.
"""

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

CUTS = {
    "dpo_loss": ("dpo", "_compute_loss", "chosen_logratios = ", "for loss_type, loss_weight in "),
    "rloo_advantages": (
        "rloo",
        "_generate_and_score_completions",
        "if self.beta != 0.0:\n    per_token_kl",
        "advantages = torch.nan_to_num",
    ),
    "rloo_loss": ("rloo", "_compute_loss", "logps = ", "loss = per_sequence_loss.mean()"),
    "grpo_advantages": (
        "grpo",
        "_generate_and_score_completions",
        "if self.multi_objective_aggregation",
        "advantages = torch.nan_to_num",
    ),
    "grpo_loss": ("grpo", "_compute_loss", "log_ratio = ", "if self.loss_type in ['grpo', 'sapo']"),
}
"""Trainer, method, and how the first and the last statement begin."""


class Cut:
    """Consecutive statements of a method of one of TRL's trainers."""

    def __init__(self, trainer: str, method: str, first: str, last: str) -> None:
        from trl.trainer import utils  # Here, so that the tests' own Python can import this file.

        self.utils = utils
        # Not imported: the trainers ask for packages that have nothing to do with their formulas.
        path = Path(str(utils.__file__)).with_name(f"{trainer}_trainer.py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        owner = f"{trainer.upper()}Trainer"
        body = next(
            function.body
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == owner
            for function in node.body
            if isinstance(function, ast.FunctionDef) and function.name == method
        )
        texts = [ast.unparse(statement) for statement in body]
        starts = [place for place, text in enumerate(texts) if text.startswith(first)]
        ends = [place for place, text in enumerate(texts) if text.startswith(last)]
        if len(starts) != 1 or len(ends) != 1:
            raise LookupError(f"{path}: {method} has {len(starts)} statements {first!r} and {len(ends)} {last!r}.")
        self.statements = body[starts[0] : ends[0] + 1]
        self.path = str(path)

    @property
    def text(self) -> str:
        return "\n".join(map(ast.unparse, self.statements))

    def run(self, /, **variables: Any) -> dict[str, Any]:
        """The method's locals afterwards, if they were `variables` before."""
        code = compile(ast.Module(body=self.statements, type_ignores=[]), self.path, "exec")
        names = {"torch": torch, "F": torch.nn.functional, "nanstd": self.utils.nanstd}
        exec(code, names | variables, variables)
        return variables


def dpo_losses(cut: Cut, data: dict[str, torch.Tensor], kind: str, beta: float, smoothing: float) -> dict[str, Any]:
    """Losses of the pairs and the gradients; one pair at a time, since one of TRL's kinds sorts a batch."""
    losses, gradients = [], []
    for row in range(len(data["chosen"])):
        chosen, rejected = (data[name][row : row + 1].clone().requires_grad_() for name in ("chosen", "rejected"))
        trainer = SimpleNamespace(
            f_divergence_type="reverse_kl",
            loss_types=[kind],
            loss_weights=[1.0],
            beta=beta,
            label_smoothing=smoothing,
            use_weighting=False,
        )
        found = cut.run(
            self=trainer,
            device="cpu",
            chosen_logps=chosen,
            rejected_logps=rejected,
            ref_chosen_logps=data["ref_chosen"][row : row + 1],
            ref_rejected_logps=data["ref_rejected"][row : row + 1],
            completion_mask=data["pair_mask"][[row, row + len(data["chosen"])]],
        )
        losses.append(found["loss"])
        gradients.append(torch.cat(torch.autograd.grad(found["loss"], (chosen, rejected))))
    return {"loss": torch.stack(losses), "gradient": torch.stack(gradients)}


def rloo(cuts: dict[str, Cut], data: dict[str, torch.Tensor], beta: float) -> dict[str, Any]:
    """Advantages, the loss and its gradient."""
    mask, old, ref = (data[name] for name in ("mask", "old_logprobs", "ref_logprobs"))
    trainer = SimpleNamespace(beta=beta, normalize_advantages=False, epsilon_low=0.2, epsilon_high=0.2)
    advantages = cuts["rloo_advantages"].run(
        self=trainer,
        rewards=data["scores"].flatten(),
        old_per_token_logps=old,
        ref_per_token_logps=ref,
        completion_mask=mask,
        num_generations=data["scores"].shape[1],
        gather=lambda tensor: tensor,
    )["advantages"]
    found = {"advantages": advantages}
    for name in ("old_logprobs", "logprobs"):  # As sampled, where the ratio is 1; and after an update.
        logprobs = data[name].clone().requires_grad_()
        inputs = {"old_logps": (old * mask).sum(1), "advantages": advantages}
        settings = {"per_token_logps": logprobs, "completion_mask": mask, "inputs": inputs}
        loss = cuts["rloo_loss"].run(self=trainer, **settings)["loss"]
        found |= {f"loss_{name}": loss, f"gradient_{name}": torch.autograd.grad(loss, logprobs)[0]}
    return found


def grpo(cuts: dict[str, Cut], data: dict[str, torch.Tensor], beta: float, kind: str) -> dict[str, Any]:
    """Advantages, the loss and its gradient."""
    logprobs = data["logprobs"].clone().requires_grad_()
    scores = data["scores"].flatten()
    trainer = SimpleNamespace(
        beta=beta,
        multi_objective_aggregation="sum_then_normalize",
        reward_weights=torch.ones(1, dtype=scores.dtype),
        scale_rewards="group" if kind == "grpo" else "none",
        importance_sampling_level="token",
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        loss_type=kind,
        epsilon_low=0.2,
        epsilon_high=0.2,
        off_policy_mask_threshold=None,
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=logprobs.shape[1],
    )
    advantages = cuts["grpo_advantages"].run(
        self=trainer,
        rewards_per_func=scores[:, None],
        unscorable_mask=torch.zeros(len(scores), dtype=torch.bool),
        num_generations=data["scores"].shape[1],
        device="cpu",
    )["advantages"]
    loss = cuts["grpo_loss"].run(
        self=trainer,
        per_token_logps=logprobs,
        old_per_token_logps=data["old_logprobs"],
        inputs={"ref_per_token_logps": data["ref_logprobs"]},
        advantages=advantages[:, None],
        mask=data["mask"],
        entropy_mask=None,
    )["loss"]
    return {"advantages": advantages, "loss": loss, "gradient": torch.autograd.grad(loss, logprobs)[0]}


def main(folder: Path) -> None:
    """Answer FOLDER/in.npz."""
    cuts = {name: Cut(*where) for name, where in CUTS.items()}
    with np.load(folder / "in.npz") as file:
        data = {name: torch.from_numpy(file[name]) for name in file.files}
    beta, smoothing = float(data["beta"]), float(data["label_smoothing"])
    found = {
        "sigmoid": dpo_losses(cuts["dpo_loss"], data, "sigmoid", beta, 0.0),
        "ipo": dpo_losses(cuts["dpo_loss"], data, "ipo", beta, 0.0),
        "aot": dpo_losses(cuts["dpo_loss"], data, "aot", beta, smoothing),
        "rloo": rloo(cuts, data, beta),
        "grpo": grpo(cuts, data, beta, "grpo"),
        "dr_grpo": grpo(cuts, data, beta, "dr_grpo"),
    }
    flat = {f"{method}.{name}": value.detach().numpy() for method, row in found.items() for name, value in row.items()}
    np.savez(folder / "out.npz", **flat)
    texts = {name: cut.text for name, cut in cuts.items()}
    (folder / "statements.json").write_text(json.dumps(texts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
