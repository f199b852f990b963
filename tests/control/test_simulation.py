"""Copies of a task: nobody is told of an end, and what happened can be looked at."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rlhf_lab.control.simulation import Simulation, pictures
from rlhf_lab.control.tasks import make_task

SHAPE: dict[str, Any] = {"num_copies": 2, "horizon": 8, "fragment": 4}


class Counting(gymnasium.Env[np.ndarray, Any]):
    """Counts its steps, and ends at 3 of them; the reward is the action."""

    observation_space = Box(0.0, 10.0, (1,))
    action_space = Discrete(2)

    def reset(self, **settings: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.state = np.zeros(1)
        return self.state.astype(np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.state = self.state + 1
        return self.state.astype(np.float32), float(action), bool(self.state[0] == 3), False, {}


class Blind(Counting):
    observation_space = Discrete(3)  # type: ignore[assignment]


class Steered(Counting):
    action_space = Box(np.array([0.0, -2.0], np.float32), np.array([1.0, 2.0], np.float32))  # type: ignore[assignment]

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return super().step(10 * action[0] + action[1])


gymnasium.register("rlhf_lab/Counting-v0", Counting)
gymnasium.register("rlhf_lab/Blind-v0", Blind)
gymnasium.register("rlhf_lab/Steered-v0", Steered)


def always(action: Any) -> Any:
    return lambda seen: torch.tensor([action] * len(seen))


def test_an_end_is_a_pause_that_nobody_is_told_of() -> None:
    simulation = Simulation("rlhf_lab/Counting-v0", **SHAPE | {"horizon": 16, "fragment": 8}, rest=2)
    fragment = simulation.run(always(1))
    # Three steps, two of standing still, and anew.
    assert fragment.observations[0, :, 0].tolist() == [0, 1, 2, 3, 3, 0, 1, 2, 3]
    assert fragment.rewards[0].tolist() == [1, 1, 1, 0, 0, 1, 1, 1]
    assert fragment.actions[0, 0].tolist() == [0, 1]
    assert fragment.states[0, :, 0].tolist() == [0, 1, 2, 3, 3, 0, 1, 2]


def test_copies_are_spread_over_the_episode_and_begin_anew_one_by_one() -> None:
    simulation = Simulation("Pendulum-v1", **SHAPE)
    first, second = simulation.run(always([0.0])), simulation.run(always([0.0]))
    # The second copy had half of its episode behind it, so that it begins anew after one fragment, the first after two.
    assert torch.equal(second.observations[0, 0], first.observations[0, -1])
    assert torch.equal(simulation.run(always([0.0])).observations[1, 0], second.observations[1, -1])
    assert not torch.equal(first.observations[:, 0], second.observations[:, 0])
    again = Simulation("Pendulum-v1", **SHAPE)
    assert torch.equal(again.run(always([0.0])).observations, first.observations)
    other = Simulation("Pendulum-v1", **SHAPE, seed=1)
    assert not torch.equal(other.run(always([0.0])).observations, first.observations)


def test_numbers_are_spread_over_the_bounds_and_cut_there() -> None:
    def reward(action: list[float]) -> float:
        return Simulation("rlhf_lab/Steered-v0", **SHAPE).run(always(action)).rewards[0, 0].item()

    assert reward([-1.0, -1.0]) == -2.0
    assert reward([0.0, 0.0]) == 5.0
    assert reward([1.0, 1.0]) == 12.0
    assert reward([9.0, -9.0]) == 8.0


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_picture_shows_the_state_that_was(name: str) -> None:
    task = make_task(name, render_mode="rgb_array")
    task.reset(seed=3)
    states, seen = [], []
    for _ in range(3):
        states.append(np.array(task.unwrapped.state, dtype=float))  # type: ignore[attr-defined]
        seen.append(task.render())
        for _ in range(3):
            task.step(task.action_space.high if name == "Pendulum-v1" else 1)  # type: ignore[attr-defined]
    shown = pictures(make_task(name, render_mode="rgb_array"), np.stack(states))
    assert shown.dtype == np.uint8 and shown.shape[-1] == 3
    if name == "CartPole-v1":  # A pendulum's picture shows its torque too.
        assert np.array_equal(shown, np.stack(seen))
    assert not np.array_equal(shown[0], shown[2])


def test_what_cannot_be_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"horizon \(9\) a multiple of fragment"):
        Simulation("Pendulum-v1", **SHAPE | {"horizon": 9})
    with pytest.raises(ValueError, match=r"observations of rlhf_lab/Blind-v0 must be a Box of one dimension, not Disc"):
        Simulation("rlhf_lab/Blind-v0", **SHAPE)
    with pytest.raises(ValueError, match="Gymnasium has no task 'Cartpole'"):
        Simulation("Cartpole", **SHAPE)
    with pytest.raises(ValueError, match=r'render_mode is None\); make it with render_mode="rgb_array"'):
        pictures(make_task("CartPole-v1"), np.zeros((1, 4)))


def test_a_task_of_mujoco_says_what_it_needs() -> None:
    code = (
        "import sys; sys.modules['mujoco'] = None\n"
        "from rlhf_lab.control.simulation import Simulation\n"
        "try:\n    Simulation('HalfCheetah-v5', num_copies=1, horizon=1, fragment=1)\n"
        "except ValueError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs more than Gymnasium" in said and "rlhf-lab[control]" in said
