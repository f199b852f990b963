"""What compute and labels cost, by hand, and that best-of-n, RL and more labels do what the results page says."""

from typing import Any

import pytest

from rlhf_lab.experiments.systems.annotation_budget import cost
from rlhf_lab.experiments.systems.best_of_n_or_rl import Compute, break_even
from rlhf_lab.training.ppo import PPOConfig

COMPUTE = Compute(body=10, head=4, prompt_tokens=5.0)


def test_an_answer_costs_what_is_read_written_and_scored() -> None:
    # One answer of 3 tokens: 2 * 10 * (5 + 3) to read and write, 2 * 4 * 3 for the vocabulary; nobody scores it.
    assert COMPUTE.answer(1, 3.0) == 184.0
    # Two: 2 * 10 * (5 + 6) + 2 * 4 * 6 to write them, 2 * 10 * (5 + 6) to score them.
    assert COMPUTE.answer(2, 3.0) == 268.0 + 220.0


def test_a_step_of_ppo_costs_its_passes() -> None:
    config = PPOConfig(prompts_per_step=8, minibatch_size=8, num_candidates=2, num_epochs=4)
    write, read = 268.0, 220.0  # of two responses of 3 tokens, as above
    # Sampling, two kinds of log-probs, scores and values; then four epochs of forward and backward of two networks.
    assert COMPUTE.ppo_step(config, 3.0) == 8 * (3 * write + 2 * read + 4 * 3 * (write + read))


def test_imitation_costs_its_samples_and_one_epoch() -> None:
    assert COMPUTE.imitation(7, 2, 3.0) == 7 * (488.0 + 3 * 184.0)


def _row(method: str, n: int, mean: float, flops: float, training: float = 0.0) -> dict[str, Any]:
    costs = {"answer_flops": flops, "training_flops": training, "tokens": 3.0}
    return {"method": method, "n": n, "mean": mean, "above_rl": 0.0, "above_rl_se": 0.0} | costs


def test_training_is_paid_back_after_as_many_answers_as_it_saves_for() -> None:
    rows = [_row("best_of_n", n, 0.3 + 0.1 * n, 10.0 * n) for n in (1, 2, 4)] + [_row("rl", 1, 0.5, 12.0, 800.0)]
    # Best-of-2 is as good as RL, and takes 20 - 12 more for an answer.
    found = break_even(rows)
    assert found is not None and (found["n"], found["answers"]) == (2, 100.0)
    assert break_even([*rows[:1], rows[-1]]) is None


def test_labels_cost_their_price() -> None:
    assert cost(1000, dollars_per_label=0.25, seconds_per_label=36.0) == {"dollars": 250.0, "hours": 10.0}
    with pytest.raises(ValueError, match=r"dollars_per_label \(-1\)"):
        cost(10, dollars_per_label=-1)
