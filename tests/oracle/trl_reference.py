"""What TRL 1.12.0 computes on given tensors. Runs under the Python that TRL is installed in, not under the tests'.

    python trl_reference.py FOLDER        each FOLDER/NAME.in.npz becomes FOLDER/NAME.out.npz

No formula of TRL is typed here: its functions are called, and the statements of `PPOTrainer.train`, where GAE and the
losses stand, are cut out of the installed source file and executed on our tensors.
"""

import ast
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

INPUTS = (
    "logits",
    "ref_logits",
    "responses",
    "queries",
    "full_values",
    "reward_logits",
    "new_logits",
    "new_full_values",
)
OPTIONS = ("kl_coef", "gamma", "lam", "cliprange", "cliprange_value", "vf_coef", "temperature")


def statement_lists(tree: ast.AST) -> list[list[ast.stmt]]:
    """All blocks of statements inside `PPOTrainer.train`."""
    trainer = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "PPOTrainer")
    train = next(node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    return [block for node in ast.walk(train) if isinstance(block := getattr(node, "body", None), list)]


def assigned(statement: ast.stmt) -> set[str]:
    """Names that a statement itself assigns; `_, score, _ = ...` gives `score`."""
    if not isinstance(statement, ast.Assign):
        return set()
    return {node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)} - {"_"}


class Lines:
    """The statements of `PPOTrainer.train`, to be executed in parts."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.path = module, str(module.__file__)
        self.blocks = statement_lists(ast.parse(Path(self.path).read_text(encoding="utf-8")))

    def run(self, variables: dict[str, Any], first: str, last: str, containing: str = "") -> None:
        """Execute from the first assignment of `first` to the last of `last` in the one block that holds both.

        Args:
            variables: Read and written, as the locals of `train`.
            first: Name of the variable.
            last: Name of the variable.
            containing: Text by which the statement of `first` is told from others of its name.
        """
        found = []
        for block in self.blocks:
            starts = [i for i, line in enumerate(block) if first in assigned(line) and containing in ast.unparse(line)]
            ends = [i for i, line in enumerate(block) if last in assigned(line)]
            if starts and ends and starts[0] <= ends[-1]:
                found.append(block[starts[0] : ends[-1] + 1])
        if len(found) != 1:
            raise LookupError(f"{self.path}: {len(found)} blocks go from {first} to {last}; expected one.")
        code = compile(ast.Module(body=found[0], type_ignores=[]), self.path, "exec")
        exec(code, vars(self.module) | variables, variables)


class Head(torch.nn.Module):
    """A model whose hidden states are given, so that `get_reward` reads our numbers off it."""

    base_model_prefix = "backbone"

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.score = torch.nn.Identity()

    def backbone(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[self.logits])


def reference(data: dict[str, Any], ppo_trainer: ModuleType) -> dict[str, np.ndarray]:
    """TRL's quantities for one case."""
    lines = Lines(ppo_trainer)
    tensors = {name: torch.from_numpy(data[name]) for name in INPUTS}
    args = SimpleNamespace(
        **{name: float(data[name]) for name in OPTIONS},
        kl_estimator=str(data["kl_estimator"]),
        whiten_rewards=bool(data["whiten_rewards"]),
        missing_eos_penalty=float(data["missing_eos_penalty"]) or None,
    )
    tokenizer = SimpleNamespace(pad_token_id=int(data["pad_token_id"]), eos_token_id=int(data["eos_token_id"]))
    queries, response = tensors["queries"], tensors["responses"]
    query_response = torch.cat([queries, response], dim=1)
    v: dict[str, Any] = {  # the locals of `train`
        "self": SimpleNamespace(args=args, stop_token_id=tokenizer.eos_token_id, processing_class=tokenizer),
        "args": args,
        "processing_class": tokenizer,
        "context_length": queries.shape[1],
        "query": queries,
        "response": response,
        "responses": response,
        "query_response": query_response,
        "query_responses": query_response,
        # Generation divides by the temperature before it returns its scores.
        "logits": tensors["logits"] / (args.temperature + 1e-7),
        "ref_output": SimpleNamespace(logits=tensors["ref_logits"]),
        "unwrapped_value_model": Head(tensors["full_values"]),
        "reward_model": Head(tensors["reward_logits"]),
    }
    with torch.no_grad():
        lines.run(v, "logprob", "logprob")
        lines.run(v, "ref_logits", "ref_logprob")
        lines.run(v, "postprocessed_response", "sequence_length")
        lines.run(v, "full_value", "score")
        for name in ("logprob", "ref_logprob", "sequence_length", "score", "value", "postprocessed_response"):
            v[name + "s"] = v[name]  # the lists over rollout batches, of one batch
        lines.run(v, "contain_eos_token", "advantages")

    new_logits, new_values = (tensors[name].requires_grad_() for name in ("new_logits", "new_full_values"))
    v["micro_batch_inds"] = np.arange(len(response))
    lines.run(v, "mb_advantage", "mb_values")
    # A copy: TRL divides by the temperature in place.
    v["output"], v["vpred_temp"] = SimpleNamespace(logits=new_logits.clone()), new_values
    lines.run(v, "logits", "loss", containing="output.logits")
    v["loss"].backward()
    with torch.no_grad():
        lines.run(v, "prob_dist", "entropy")
    v |= {
        "new_logits_grad": new_logits.grad,
        "new_full_values_grad": new_values.grad,
        "prompt_tokens": queries.shape[1],
    }

    mask = ~v["padding_mask"]
    v["whitened_uncentered"] = ppo_trainer.masked_whiten(v["value"], mask, shift_mean=False)
    v["mean_value"] = ppo_trainer.masked_mean(v["value"], mask)
    v["first_pad"] = ppo_trainer.first_true_indices(v["postprocessed_response"] == tokenizer.pad_token_id)
    v["truncated"] = ppo_trainer.truncate_response(tokenizer.eos_token_id, tokenizer.pad_token_id, response)
    return {name: value.detach().numpy() for name, value in v.items() if isinstance(value, torch.Tensor)}


def main(folder: Path) -> None:
    """Answer every case in `folder`."""
    from trl.experimental.ppo import ppo_trainer  # here, so that the tests' own Python can import this file

    for path in sorted(folder.glob("*.in.npz")):
        with np.load(path) as data:
            results = reference(dict(data), ppo_trainer)
        np.savez(path.with_name(path.name.replace(".in.npz", ".out.npz")), **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
