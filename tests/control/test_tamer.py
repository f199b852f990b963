"""TAMER: credit for what was seen, H by hand, and MountainCar taught by a trainer who is late."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import pytest
import torch

from rlhf_lab.control.tamer import Press, SimulatedTrainer, TAMERAgent, TAMERConfig, tamer
from rlhf_lab.control.tasks import judge_mountain_car, make_task, radial_features
from rlhf_lab.equations.preference import feedback_credit

LATE = TAMERConfig(steps_per_second=5.0, learning_rate=0.5)
AT_ONCE = TAMERConfig(earliest=0.0, latest=0.0, steps_per_second=5.0, learning_rate=0.5)
SEEDS = range(3)


def two_actions(observation: Any) -> torch.Tensor:
    """A weight for each action in each of three places."""
    rows = torch.zeros(2, 6)
    rows[0, observation], rows[1, 3 + observation] = 1.0, 1.0
    return rows


def agent_that_was_in(places: Sequence[int], config: TAMERConfig) -> tuple[TAMERAgent, list[int]]:
    """And what it did there, a fifth of a second each."""
    agent = TAMERAgent(two_actions, config)
    return agent, [agent.act(place, 0.2 * number) for number, place in enumerate(places)]


def weights_of(agent: TAMERAgent) -> list[float]:
    assert agent.weights is not None
    return agent.weights.tolist()


def test_a_press_is_about_what_was_seen_a_moment_before() -> None:
    agent, actions = agent_that_was_in([0, 1, 2, 0], LATE)
    # At 0.9 s, 0.1 to 0.7 s ago by 0.2 s: half of the first step, the second, the third, half of the fourth.
    agent.hear(Press(0.9, 1.0))
    assert agent.weights is not None
    first = 0.5 * (1 / 6)
    fourth = 0.5 * (1 / 6) * (1 - (first if actions[3] == actions[0] else 0.0))
    expected = torch.zeros(6)
    for place, action, share in zip((0, 1, 2, 0), actions, (first, 0.5 / 3, 0.5 / 3, fourth), strict=True):
        expected[3 * action + place] += share
    torch.testing.assert_close(agent.weights, expected)


def test_without_credit_assignment_it_is_about_the_step_of_that_moment() -> None:
    agent, actions = agent_that_was_in([0, 1, 2], AT_ONCE)
    agent.hear(Press(0.3, -1.0))
    expected = torch.zeros(6)
    expected[3 * actions[1] + 1] = -0.5
    torch.testing.assert_close(agent.weights, expected)


def test_errors_shrink_as_h_learns() -> None:
    agent, (action,) = agent_that_was_in([0], AT_ONCE)
    seen = []
    for _ in range(4):
        agent.hear(Press(0.1, 1.0))
        seen.append(agent.expected(0)[action].item())
    assert seen == pytest.approx([0.5, 0.75, 0.875, 0.9375])


def test_what_is_liked_is_done_again_and_ties_are_broken_by_chance() -> None:
    agent = TAMERAgent(two_actions, AT_ONCE)
    assert {agent.act(0, 0.2 * number) for number in range(30)} == {0, 1}
    agent.weights = torch.tensor([0.0, 0.0, 0.0, 1e-6, 0.0, 0.0])
    assert {agent.act(0, 10 + 0.2 * number) for number in range(30)} == {1}


def test_what_is_long_ago_is_forgotten() -> None:
    agent, _ = agent_that_was_in([0] * 50, LATE)
    assert len(agent._steps) == 12  # Two seconds, the one that ended then, and the one that goes on.
    agent.hear(Press(2.0, 1.0))
    assert not any(weights_of(agent))


def test_a_press_before_anything_was_done_is_about_nothing() -> None:
    agent = TAMERAgent(two_actions, LATE)
    agent.hear(Press(0.0, 1.0))
    assert not any(agent.expected(0).tolist())


def test_an_hour_later_credit_is_as_exact() -> None:
    agent = TAMERAgent(two_actions, LATE)
    hour = 3600.0
    action = agent.act(1, hour)
    agent.hear(Press(hour + 0.5, 1.0))
    assert agent.expected(1)[action].item() == pytest.approx(0.5 / 3, rel=1e-4)


def test_a_simulated_trainer_is_late_and_misses_some() -> None:
    trainer = SimulatedTrainer(lambda observation, action: float(observation), attention=0.7, seed=1)
    for number in range(2000):
        trainer.watch([1.0, -1.0, 0.0][number % 3], 0, float(number), float(number))
    presses = list(trainer.presses(3000.0))
    assert len(presses) == pytest.approx(0.7 * 2000 * 2 / 3, rel=0.06)  # Of 0 it thinks nothing.
    delays = torch.tensor([press.time % 1 for press in presses if press.time % 1 >= 0.2])
    assert len(delays) > 0.9 * len(presses) and delays.mean().item() == pytest.approx(0.48, abs=0.03)
    assert [press.time for press in presses] == sorted(press.time for press in presses)
    assert not trainer.presses(3000.0)


def test_nobody_presses_before_the_time() -> None:
    trainer = SimulatedTrainer(lambda observation, action: 1.0, attention=1.0)
    trainer.watch(0, 0, 0.0, 1.0)
    assert not trainer.presses(0.2)
    assert len(trainer.presses(10.0)) == 1


def mountain_car(seed: int, config: TAMERConfig, episodes: int = 5) -> list[dict[str, Any]]:
    task = make_task("MountainCar-v0")
    agent = TAMERAgent(radial_features(task), config, seed=seed)
    trainer = SimulatedTrainer(judge_mountain_car, seed=seed)
    return tamer(task, agent, trainer, num_episodes=episodes, seed=100 * seed)


def test_mountain_car_is_learnt_within_five_episodes_and_worse_without_credit() -> None:
    taught = [[row["steps"] for row in mountain_car(seed, TAMERConfig())] for seed in SEEDS]
    at_once = [[row["steps"] for row in mountain_car(seed, TAMERConfig(earliest=0.0, latest=0.0))] for seed in SEEDS]
    assert all(max(steps[1:]) < 200 for steps in taught), taught
    means = [[sum(steps) / len(steps) for steps in runs] for runs in (taught, at_once)]
    assert all(one + 20 < other for one, other in zip(*means, strict=True)), means


def test_the_same_seed_teaches_the_same() -> None:
    one, other = (mountain_car(1, TAMERConfig(), episodes=1) for _ in range(2))
    assert one == other != mountain_car(2, TAMERConfig(), episodes=1)
    assert one[0]["return"] == -one[0]["steps"] and 0 < one[0]["presses"] <= one[0]["steps"]


def test_an_episode_without_end_is_ended() -> None:
    task = make_task("MountainCar-v0")
    agent = TAMERAgent(radial_features(task), seed=0)
    nobody = SimulatedTrainer(lambda observation, action: 0.0)
    rows = tamer(task, agent, nobody, num_episodes=1, max_steps=30)
    assert rows == [{"episode": 0, "steps": 30, "return": -30.0, "presses": 0}]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v1", "the observations must be a bounded Box of one dimension, not Box"),
        ("Pendulum-v1", r"the actions must be a finite set \(Discrete\), not Box"),
        ("FrozenLake-v1", "the observations must be a bounded Box of one dimension, not Discrete"),
    ],
)
def test_other_spaces_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        radial_features(make_task(name))


def test_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="Gymnasium has no task 'MountainCart-v0'"):
        make_task("MountainCart-v0")


def test_a_task_that_needs_more_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*args: object, **settings: object) -> None:
        raise gymnasium.error.DependencyNotInstalled("pip install gymnasium[mujoco]")

    monkeypatch.setattr(gymnasium, "make", without)
    with pytest.raises(ValueError, match=r"HalfCheetah-v5 needs more than Gymnasium \(pip install gymnasium\["):
        make_task("HalfCheetah-v5")


def test_an_agent_that_is_taught_again_goes_on_at_its_clock() -> None:
    task = make_task("MountainCar-v0")
    whole, parts = (TAMERAgent(radial_features(task), seed=1) for _ in range(2))
    trainers = [SimulatedTrainer(judge_mountain_car, seed=1) for _ in range(2)]
    tamer(task, whole, trainers[0], num_episodes=2, max_steps=150)
    for episode in range(2):
        tamer(task, parts, trainers[1], num_episodes=1, max_steps=150, seed=episode)
    assert parts.clock == whole.clock > 15.0
    assert torch.equal(torch.tensor(weights_of(parts)), torch.tensor(weights_of(whole)))


def test_a_task_that_ends_an_episode_is_obeyed() -> None:
    task = gymnasium.make("MountainCar-v0", max_episode_steps=20)
    agent = TAMERAgent(radial_features(task))
    rows = tamer(task, agent, SimulatedTrainer(lambda observation, action: 0.0), num_episodes=2)
    assert [row["steps"] for row in rows] == [20, 20]


def test_a_learning_rate_that_is_too_high_is_named() -> None:
    agent, _ = agent_that_was_in([0], TAMERConfig(earliest=0.0, latest=0.0, learning_rate=1e20))
    for _ in range(9):
        agent.hear(Press(0.05, 1.0))
    with pytest.raises(ValueError, match=r"became .*; lower learning_rate \(now 1e\+20\)"):
        agent.act(0, 1.0)


def test_too_many_bumps_are_refused() -> None:
    with pytest.raises(ValueError, match="10 bumps along each of 6 dimensions are too many; lower grid"):
        radial_features(make_task("Acrobot-v1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"earliest": 0.9}, "0 <= earliest <= latest <= memory must hold, not 0.9, 0.8, 2.0"),
        ({"latest": 3.0}, "must hold"),
        ({"learning_rate": 0.0}, r"learning_rate \(0.0\) and steps_per_second"),
        ({"steps_per_second": -1.0}, "must be above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TAMERConfig(**settings)


def test_features_are_bumps_of_their_own_action() -> None:
    features = radial_features(make_task("MountainCar-v0"), grid=3)
    rows = features([-0.3, 0.0])  # The middle of the place, [-1.2, 0.6], and of the speed.
    assert rows.shape == (3, 27)
    near, beside = 1.0, torch.tensor(-0.5).exp().item()
    expected = torch.tensor([beside**2, beside, beside**2, beside, near, beside, beside**2, beside, beside**2])
    expected /= expected.norm()
    for action in range(3):
        torch.testing.assert_close(rows[action, 9 * action : 9 * action + 9], expected, atol=1e-5, rtol=0)
    assert rows.count_nonzero() == 27
    with pytest.raises(ValueError, match="grid must be at least 2, not 1"):
        radial_features(make_task("MountainCar-v0"), grid=1)


@pytest.mark.parametrize(
    ("velocity", "action", "opinion"),
    [(0.02, 2, 1), (0.02, 0, -1), (-0.02, 0, 1), (-0.02, 1, -1), (0.0, 1, -1), (0.0, 0, 1)],
)
def test_what_gives_the_car_energy_is_good(velocity: float, action: int, opinion: int) -> None:
    assert judge_mountain_car([-0.5, velocity], action) == opinion


def test_attention_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"attention must lie in \[0, 1\], not 1.5"):
        SimulatedTrainer(judge_mountain_car, attention=1.5)


def test_credit_of_ones_own_is_what_the_agent_learns_by() -> None:
    taught = {}
    for name, credit in (
        ("own", feedback_credit),
        ("same", lambda *times, **window: feedback_credit(*times, **window)),
        ("half", lambda *times, **window: 0.5 * feedback_credit(*times, **window)),
    ):
        agent = TAMERAgent(two_actions, LATE, credit=credit)
        agent.act(0, 0.0)
        agent.hear(Press(0.5, 1.0))
        taught[name] = agent.weights
    # Of its window, 0.3 s before the press and earlier, a third lies in the only step; its error is 1.
    assert taught["own"].sum().item() == pytest.approx(0.5 / 3)
    assert torch.equal(taught["own"], taught["same"])
    assert torch.equal(0.5 * taught["own"], taught["half"])


def test_credit_that_is_wrong_is_refused_in_one_sentence() -> None:
    agent = TAMERAgent(two_actions, LATE, credit=lambda starts, ends, said_at, **window: starts.sum())
    agent.act(0, 0.0)
    with pytest.raises(ValueError, match=r"credit \(.*\) returned the shape \(\), not \(1,\): .* for each step"):
        agent.hear(Press(0.5, 1.0))
