"""Losses and advantages of DPO, IPO, RLOO and GRPO equal those of TRL, where its definitions are the papers'.

CI asks TRL 1.12.0, which it has for PPO; a machine with the benchmarks' TRL 1.16.0 asks that too, and shows that the
statements are the same text in both. Where TRL means something else, a test says what.
"""

import ast
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf_lab.equations.groups import group_normalized, leave_one_out
from rlhf_lab.equations.policy_gradient import clipped_surrogate, policy_gradient_loss
from rlhf_lab.equations.preference import bradley_terry_loss, implicit_reward, ipo_loss
from rlhf_lab.equations.sequence import kl_k3, masked_mean
from tests.capabilities import peers_python, trl_python
from tests.networks import seeded

pytestmark = pytest.mark.oracle

GROUPS, CANDIDATES, RESPONSE, PAIRS = 3, 4, 6, 5
BETA, SMOOTHING, CLIP = 0.3, 0.1, {"clip_range": 0.2}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NEWEST = pytest.param("peers", marks=pytest.mark.needs("peers"))


def inputs() -> dict[str, Tensor]:
    """Log-probs of policy, sampler and reference, scores, and pairs; in float64."""
    rng = seeded(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    rows = GROUPS * CANDIDATES
    mask = torch.arange(RESPONSE) < torch.randint(1, RESPONSE + 1, (rows, 1), generator=rng)
    old_logprobs = -normal(rows, RESPONSE).abs() * mask
    scores = normal(GROUPS, CANDIDATES)
    scores[1] = 0.5  # Equal rewards.
    lengths = torch.randint(1, RESPONSE + 1, (2 * PAIRS, 1), generator=rng)
    return {
        "beta": torch.tensor(BETA),
        "label_smoothing": torch.tensor(SMOOTHING),
        "mask": mask.double(),
        "old_logprobs": old_logprobs,
        "logprobs": (old_logprobs + 0.2 * normal(rows, RESPONSE)) * mask,
        "ref_logprobs": (old_logprobs + 0.5 * normal(rows, RESPONSE)) * mask,
        "scores": scores,
        "chosen": 3 * normal(PAIRS),
        "rejected": 3 * normal(PAIRS),
        "ref_chosen": 3 * normal(PAIRS),
        "ref_rejected": 3 * normal(PAIRS),
        "pair_mask": (torch.arange(RESPONSE) < lengths).double(),
    }


def ask(python: Path, folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    np.savez(folder / "in.npz", **{name: tensor.numpy() for name, tensor in inputs().items()})
    script = Path(__file__).with_name("trl_successors_reference.py")
    environment = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([python, script, folder], capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    with np.load(folder / "out.npz") as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files}
    return found, json.loads((folder / "statements.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Tensor], dict[str, str]]]:
    """What a TRL makes of the inputs, and the text of its statements; each is asked once."""
    known: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = {}

    def answer(which: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        if which not in known:
            python = {"trl": trl_python, "peers": peers_python}[which]()
            known[which] = ask(python, tmp_path_factory.mktemp(which))
        return known[which]

    return answer


@pytest.fixture(params=["trl", NEWEST])
def theirs(request: pytest.FixtureRequest, answers: Callable[..., tuple[dict[str, Tensor], dict[str, str]]]):
    return answers(request.param)[0]


@pytest.mark.needs("peers")
def test_the_newest_trl_says_it_in_the_same_words(answers: Callable[..., tuple]) -> None:
    (_, old), (_, new) = answers("trl"), answers("peers")
    assert {name for name in old if old[name] != new[name]} <= {"dpo_loss"}  # Kinds of loss that are not asked here.
    for kind in ("sigmoid", "ipo", "aot"):
        assert branch(old["dpo_loss"], kind) == branch(new["dpo_loss"], kind)


def branch(text: str, kind: str) -> str:
    """What is done for a kind of loss."""
    tests = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.If)]
    (found,) = (node.body for node in tests if ast.unparse(node.test) == f"loss_type == '{kind}'")
    return "\n".join(map(ast.unparse, found))


def rewards_of(x: dict[str, Tensor], chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    pairs = ((chosen, x["ref_chosen"]), (rejected, x["ref_rejected"]))
    first, second = (implicit_reward(one[:, None], ref[:, None], kl_coef=BETA) for one, ref in pairs)
    return first, second


@pytest.mark.parametrize("kind", ["sigmoid", "aot"])
def test_losses_of_pairs(kind: str, theirs: dict[str, Tensor]) -> None:
    """TRL smooths the labels of `sigmoid` no more; `aot` does, and of a single pair it is the same loss."""
    x = inputs()
    chosen, rejected = (x[name].requires_grad_() for name in ("chosen", "rejected"))
    prob = 1.0 - SMOOTHING if kind == "aot" else 1.0
    losses = bradley_terry_loss(*rewards_of(x, chosen, rejected), prob)
    torch.testing.assert_close(losses, theirs[f"{kind}.loss"], **CLOSE)
    gradient = torch.stack(torch.autograd.grad(losses.sum(), (chosen, rejected)), 1)
    torch.testing.assert_close(gradient, theirs[f"{kind}.gradient"], **CLOSE)


def test_ipo_is_trls_but_for_the_means_over_tokens(theirs: dict[str, Tensor]) -> None:
    x = inputs()
    chosen, rejected = (x[name].requires_grad_() for name in ("chosen", "rejected"))
    lengths = x["pair_mask"].sum(1).split(PAIRS)
    means = [reward / length for reward, length in zip(rewards_of(x, chosen, rejected), lengths, strict=True)]
    losses = ipo_loss(*means, kl_coef=BETA)
    torch.testing.assert_close(losses, theirs["ipo.loss"], **CLOSE)
    gradient = torch.stack(torch.autograd.grad(losses.sum(), (chosen, rejected)), 1)
    torch.testing.assert_close(gradient, theirs["ipo.gradient"], **CLOSE)
    of_sums = ipo_loss(*rewards_of(x, x["chosen"], x["rejected"]), kl_coef=BETA)
    same = (of_sums - theirs["ipo.loss"]).abs() < 1e-5
    assert torch.equal(same, (lengths[0] == 1) & (lengths[1] == 1))


def test_advantages_of_rloo_and_its_gradient_as_sampled(theirs: dict[str, Tensor]) -> None:
    x = inputs()
    kl = (x["old_logprobs"] - x["ref_logprobs"]).sum(1).view(GROUPS, CANDIDATES)
    advantages = leave_one_out(x["scores"] - BETA * kl)
    torch.testing.assert_close(advantages.flatten(), theirs["rloo.advantages"], **CLOSE)
    logprobs = x["old_logprobs"].requires_grad_()
    of_sequence = logprobs.view(GROUPS, CANDIDATES, RESPONSE).sum(-1)
    loss = policy_gradient_loss(of_sequence, advantages).mean()
    (gradient,) = torch.autograd.grad(loss, logprobs)
    torch.testing.assert_close(gradient * x["mask"], theirs["rloo.gradient_old_logprobs"], **CLOSE)


def test_a_ratio_of_whole_responses_is_what_trl_adds_to_rloo(theirs: dict[str, Tensor]) -> None:
    x = inputs()
    now, old = (x[name].view(GROUPS, CANDIDATES, RESPONSE).sum(-1) for name in ("logprobs", "old_logprobs"))
    advantages = theirs["rloo.advantages"].view(GROUPS, CANDIDATES)
    torch.testing.assert_close(clipped_surrogate(now, old, advantages, **CLIP).mean(), theirs["rloo.loss_logprobs"])


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo"])
def test_advantages_and_losses_of_grpo(kind: str, theirs: dict[str, Tensor]) -> None:
    x = inputs()
    advantages = group_normalized(x["scores"], scale_by_std=kind == "grpo")
    torch.testing.assert_close(advantages.flatten(), theirs[f"{kind}.advantages"], **CLOSE)
    logprobs, mask = x["logprobs"].requires_grad_(), x["mask"].bool()
    of_tokens = advantages.flatten()[:, None].expand(-1, RESPONSE)
    terms = clipped_surrogate(logprobs, x["old_logprobs"], of_tokens, **CLIP)
    terms = terms + BETA * kl_k3(logprobs, x["ref_logprobs"])
    length = mask.sum(1, keepdim=True) if kind == "grpo" else RESPONSE
    loss = masked_mean(terms / length, mask, len(mask))
    torch.testing.assert_close(loss, theirs[f"{kind}.loss"], **CLOSE)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    torch.testing.assert_close(gradient, theirs[f"{kind}.gradient"], **CLOSE)
