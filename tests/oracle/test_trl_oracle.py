"""PPO's per-token quantities equal those of TRL 1.12.0, except for where the score lies; and that is the only one.

TRL has PPO no more after 1.12.0, so it lives in an environment of its own, which `make trl-oracle` installs. TRL puts
the score on the first padding token *after* EOS and keeps the critic's value there; we put it on EOS, after which the
value is 0. Below, `mask` is the response up to EOS and `trl_mask` one token more where there is room: given TRL's mask,
our equations are TRL's; given ours, they differ from TRL's by what the two definitions say, and by nothing else.
"""

import dataclasses
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf_lab.equations.policy_gradient import (
    clipped_surrogate,
    clipped_value_error,
    gae,
    kl_shaped_rewards,
    replace_missing_eos_score,
)
from rlhf_lab.equations.sequence import entropy, kl_k1, kl_k3, masked_mean, masked_whiten, token_logprobs

pytestmark = pytest.mark.oracle

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("RLHF_LAB_TRL_PYTHON", ROOT / ".venv-trl" / "bin" / "python"))
PAD, EOS, VOCAB, PROMPT, RESPONSE = 0, 1, 11, 3, 8
EOS_AT = [0, 2, 4, 6, 7, None, 1, None]
"""EOS first, in between, one before the end, on the last token (no padding follows), and missing."""
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@dataclass(frozen=True, kw_only=True)
class Case:
    """TRL's options, under TRL's names."""

    kl_coef: float = 0.05
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    temperature: float = 0.7
    kl_estimator: str = "k1"
    whiten_rewards: bool = False
    missing_eos_penalty: float = 0.0
    seed: int = 0


CASES = {
    "default": Case(),
    "discounted": Case(gamma=0.9, lam=0.8, kl_coef=0.3, seed=1),
    "monte_carlo": Case(lam=1.0, seed=2),
    "one_step": Case(lam=0.0, temperature=1.0, seed=3),
    "whitened_rewards": Case(whiten_rewards=True, seed=4),
    "k3": Case(kl_estimator="k3", seed=5),
    "missing_eos": Case(missing_eos_penalty=1.5, seed=6),
}


def inputs(case: Case) -> dict[str, Tensor]:
    """What models would give: prompt and response tokens, logits, values; old and new policy are close."""
    rng = torch.Generator().manual_seed(case.seed)
    batch, time = len(EOS_AT), PROMPT + RESPONSE

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    responses = torch.randint(2, VOCAB, (batch, RESPONSE), generator=rng)
    for row, position in enumerate(EOS_AT):
        if position is not None:
            responses[row, position] = EOS
    logits, full_values = normal(batch, RESPONSE, VOCAB), normal(batch, time, 1)
    new_logits = normal(batch, time, VOCAB)
    new_logits[:, PROMPT - 1 : -1] = logits + 0.3 * normal(batch, RESPONSE, VOCAB)
    return {
        "queries": torch.randint(2, VOCAB, (batch, PROMPT), generator=rng),
        "responses": responses,
        "logits": logits,
        "ref_logits": normal(batch, time, VOCAB),
        "full_values": full_values,
        "reward_logits": 2.0 * normal(batch, time, 1),
        "new_logits": new_logits,
        "new_full_values": full_values + 0.3 * normal(batch, time, 1),
    }


@pytest.fixture(scope="module")
def trl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What TRL makes of every case, from one run of its Python."""
    if not PYTHON.exists():
        pytest.skip(f"TRL 1.12.0 is not installed at {PYTHON}; `make trl-oracle` installs it.")
    folder = tmp_path_factory.mktemp("oracle")
    for name, case in CASES.items():
        tensors = {key: tensor.numpy() for key, tensor in inputs(case).items()}
        np.savez(folder / f"{name}.in.npz", **tensors, **dataclasses.asdict(case), pad_token_id=PAD, eos_token_id=EOS)
    script = Path(__file__).with_name("trl_reference.py")
    environment = os.environ | {"TRL_EXPERIMENTAL_SILENCE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([PYTHON, script, folder], capture_output=True, text=True, env=environment, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    results = {}
    for name in CASES:
        with np.load(folder / f"{name}.out.npz") as data:
            results[name] = {key: torch.from_numpy(data[key]) for key in data.files}
    return results


class Ours:
    """The same quantities by the kit's equations, from the inputs alone."""

    def __init__(self, case: Case) -> None:
        self.case, x = case, inputs(case)
        responses = x["responses"]
        self.finished = (responses == EOS).any(1)
        at_eos = responses == EOS
        self.mask = at_eos.cumsum(1) - at_eos.long() == 0
        self.trl_mask = torch.nn.functional.pad(self.mask[:, :-1], (1, 0), value=True)
        steps = slice(PROMPT - 1, -1)
        self.logprobs = self.masked(token_logprobs(x["logits"] / case.temperature, responses))
        self.ref_logprobs = self.masked(token_logprobs(x["ref_logits"][:, steps] / case.temperature, responses))
        self.values = x["full_values"][:, steps, 0]
        last = PROMPT + self.mask.sum(1) - 1
        self.model_scores = x["reward_logits"][torch.arange(len(last)), last, 0]
        self.scores = self.model_scores - case.missing_eos_penalty * ~self.finished
        self.x, self.steps = x, steps

    def masked(self, tensor: Tensor) -> Tensor:
        return tensor.masked_fill(~self.mask, 0.0)

    def rewards(self, mask: Tensor) -> Tensor:
        if self.case.kl_estimator == "k3":  # the kit's reward is k1; k3 is built from its equation
            is_last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
            rewards = -self.case.kl_coef * kl_k3(self.logprobs, self.ref_logprobs) + self.scores[:, None] * is_last
        else:
            rewards = kl_shaped_rewards(self.scores, self.logprobs, self.ref_logprobs, mask, kl_coef=self.case.kl_coef)
        return masked_whiten(rewards, mask, center=False) if self.case.whiten_rewards else rewards

    def advantages(self, mask: Tensor, values: Tensor | None = None) -> Tensor:
        values = self.values if values is None else values
        return gae(self.rewards(mask), values, mask, discount=self.case.gamma, gae_lambda=self.case.lam)


def every_case(test):
    return pytest.mark.parametrize("name", CASES)(test)


@every_case
def test_tokens_masks_and_scores(trl, name: str) -> None:
    ours, theirs = Ours(CASES[name]), trl[name]
    assert torch.equal(ours.mask, ~theirs["padding_mask"])
    assert torch.equal(ours.trl_mask, ~theirs["padding_mask_p1"])
    assert torch.equal(ours.finished, theirs["contain_eos_token"])
    assert torch.equal(theirs["truncated"], ours.x["responses"].masked_fill(~ours.mask, PAD))
    assert torch.equal(theirs["first_pad"], ours.mask.sum(1))
    torch.testing.assert_close(ours.scores, theirs["scores"], **CLOSE)
    torch.testing.assert_close(ours.logprobs, ours.masked(theirs["logprobs"]), **CLOSE)
    torch.testing.assert_close(ours.ref_logprobs, ours.masked(theirs["ref_logprobs"]), **CLOSE)
    torch.testing.assert_close(ours.values * ours.trl_mask, theirs["values"], **CLOSE)


@every_case
def test_kl(trl, name: str) -> None:
    ours, theirs = Ours(CASES[name]), trl[name]
    estimate = kl_k3 if CASES[name].kl_estimator == "k3" else kl_k1
    torch.testing.assert_close(estimate(ours.logprobs, ours.ref_logprobs), theirs["kl"], **CLOSE)


@every_case
def test_mean_whitening_and_entropy(trl, name: str) -> None:
    ours, theirs = Ours(CASES[name]), trl[name]
    torch.testing.assert_close(masked_mean(ours.values, ours.mask), theirs["mean_value"], **CLOSE)
    uncentered = masked_whiten(ours.values, ours.mask, center=False)
    torch.testing.assert_close(uncentered, ours.masked(theirs["whitened_uncentered"]), **CLOSE)
    new_logits = ours.x["new_logits"][:, ours.steps] / CASES[name].temperature
    torch.testing.assert_close(entropy(new_logits), theirs["entropy"], **CLOSE)


@every_case
def test_rewards_advantages_and_returns_with_the_score_where_trl_puts_it(trl, name: str) -> None:
    ours, theirs = Ours(CASES[name]), trl[name]
    advantages = ours.advantages(ours.trl_mask)
    returns = advantages + ours.values * ours.trl_mask
    torch.testing.assert_close(ours.rewards(ours.trl_mask), theirs["rewards"], **CLOSE)
    torch.testing.assert_close(returns, theirs["returns"], **CLOSE)
    torch.testing.assert_close(masked_whiten(advantages, ours.mask), theirs["advantages"], **CLOSE)


@every_case
def test_losses_and_their_gradients(trl, name: str) -> None:
    ours, theirs, case = Ours(CASES[name]), trl[name], CASES[name]
    new_logits, new_values = (ours.x[key].clone().requires_grad_() for key in ("new_logits", "new_full_values"))
    logprobs = ours.masked(token_logprobs(new_logits[:, ours.steps] / case.temperature, ours.x["responses"]))
    advantages = ours.advantages(ours.trl_mask)
    returns = advantages + ours.values * ours.trl_mask
    whitened = masked_whiten(advantages, ours.mask)
    policy_terms = clipped_surrogate(logprobs, ours.logprobs, whitened, clip_range=case.cliprange)
    value_terms = clipped_value_error(
        new_values[:, ours.steps, 0], ours.values, returns, clip_range=case.cliprange_value
    )
    policy_loss, value_loss = masked_mean(policy_terms, ours.mask), masked_mean(value_terms, ours.trl_mask)
    (policy_loss + case.vf_coef * value_loss).backward()

    torch.testing.assert_close(ours.masked(policy_terms), ours.masked(theirs["pg_loss_max"]), **CLOSE)
    doubled = 2.0 * value_terms * ours.trl_mask  # TRL halves after the mean
    torch.testing.assert_close(doubled, theirs["vf_loss_max"] * ours.trl_mask, **CLOSE)
    torch.testing.assert_close(policy_loss, theirs["pg_loss"], **CLOSE)
    torch.testing.assert_close(value_loss, theirs["vf_loss"], **CLOSE)
    torch.testing.assert_close(new_logits.grad, theirs["new_logits_grad"], **CLOSE)
    torch.testing.assert_close(new_values.grad, theirs["new_full_values_grad"], **CLOSE)
    clipped = (policy_terms > -whitened * (logprobs - ours.logprobs).exp()) & ours.mask
    assert clipped.any() and not clipped[ours.mask].all()  # both sides of the clip were tried


UNWHITENED = [name for name, case in CASES.items() if not case.whiten_rewards]


def room_after_eos(ours: Ours) -> Tensor:
    return ours.trl_mask.sum(1) > ours.mask.sum(1)


@pytest.mark.parametrize("name", UNWHITENED)
def test_the_score_on_eos_differs_by_exactly_what_the_definitions_say(trl, name: str) -> None:
    """At EOS the difference TRL - ours is gamma (1 - lambda) V - (1 - gamma lambda) score, V TRL's value after EOS.

    (TRL: gamma V + gamma lambda (score - V); ours: score.) Each token before sees it times gamma lambda once more.
    """
    ours, theirs, case = Ours(CASES[name]), trl[name], CASES[name]
    lengths, room = ours.mask.sum(1), room_after_eos(ours)
    after = ours.values.gather(1, lengths.clamp(max=RESPONSE - 1)[:, None])[:, 0]
    at_eos = room * (case.gamma * (1 - case.lam) * after - (1 - case.gamma * case.lam) * ours.scores)
    steps_before_eos = (lengths[:, None] - 1 - torch.arange(RESPONSE)).clamp(min=0)
    expected = ours.masked(at_eos[:, None] * (case.gamma * case.lam) ** steps_before_eos)

    difference = ours.masked(theirs["returns"] - theirs["values"]) - ours.advantages(ours.mask)
    torch.testing.assert_close(difference, expected, **CLOSE)
    assert room.any() and (~room).any()
    assert torch.allclose(difference[~room], torch.zeros(1, dtype=torch.float64), atol=1e-5)
    is_visible = bool(difference.abs().max() > 1e-2)
    assert is_visible == (name != "monte_carlo")  # with gamma = lambda = 1 it makes no difference


@pytest.mark.parametrize("name", UNWHITENED)
def test_where_no_padding_follows_there_is_no_difference(trl, name: str) -> None:
    ours, theirs = Ours(CASES[name]), trl[name]
    full = ~room_after_eos(ours)
    torch.testing.assert_close(ours.rewards(ours.mask)[full], theirs["rewards"][full], **CLOSE)
    returns = ours.advantages(ours.mask) + ours.values
    torch.testing.assert_close(returns[full], theirs["returns"][full], **CLOSE)


def test_a_missing_eos_is_replaced_here_and_charged_there(trl) -> None:
    ours, theirs = Ours(CASES["missing_eos"]), trl["missing_eos"]
    assert (~ours.finished).sum() == 2
    charged = ours.model_scores - 1.5 * ~ours.finished
    torch.testing.assert_close(charged, theirs["scores"], **CLOSE)
    replaced = replace_missing_eos_score(ours.model_scores, ours.finished, -1.0)
    torch.testing.assert_close(replaced[ours.finished], theirs["scores"][ours.finished], **CLOSE)
    assert replaced[~ours.finished].tolist() == [-1.0, -1.0]
