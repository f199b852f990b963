"""TAMER step by step: the same as `tamer`, and played again from its events the same to the bit."""

from typing import Any

import gymnasium
import pytest
import torch

from rlhf_lab.control.live import LiveTamer
from rlhf_lab.control.tamer import SimulatedTrainer, TAMERAgent, TAMERConfig, tamer
from rlhf_lab.control.tasks import judge_mountain_car, make_task, radial_features

CONFIG = TAMERConfig(steps_per_second=5.0)


def mountain_car() -> tuple[gymnasium.Env[Any, Any], TAMERAgent]:
    task = make_task("MountainCar-v0")
    return task, TAMERAgent(radial_features(task, grid=6), CONFIG, seed=3)


def weights_of(agent: TAMERAgent) -> torch.Tensor:
    assert agent.weights is not None
    return agent.weights


def played() -> tuple[LiveTamer, list[dict[str, Any]]]:
    """By a simulated trainer, who watches two episodes of 150 steps at most."""
    task, agent = mountain_car()
    live, trainer, events = LiveTamer(task, agent, seed=7, max_steps=150), SimulatedTrainer(judge_mountain_car), []
    while not live.is_over or len(live.rows) < 2:
        if live.is_over:
            live.apply({"what": "new_episode"})
        start, observation = agent.clock, live.observation
        trainer.watch(observation, live.step(), start, agent.clock)
        for press in trainer.presses(agent.clock):
            events.append({"what": "press", "after": live.num_steps, "value": press.value, "time": press.time})
            live.apply(events[-1])
    return live, events


def test_it_is_what_the_loop_does() -> None:
    live, events = played()
    task, agent = mountain_car()
    rows = tamer(task, agent, SimulatedTrainer(judge_mountain_car), num_episodes=2, max_steps=150, seed=7)
    assert live.rows == rows and len(events) > 50
    assert torch.equal(weights_of(live.agent), weights_of(agent))
    assert live.agent.clock == agent.clock


def test_played_again_from_its_events_it_is_the_same_agent() -> None:
    live, events = played()
    task, agent = mountain_car()
    again = LiveTamer(task, agent, seed=7, max_steps=150)
    again.replay([*events, {"what": "stop", "after": live.num_steps}])
    assert torch.equal(weights_of(agent), weights_of(live.agent)) and again.rows == live.rows
    # One press that is lost, or half a second late, makes another agent.
    for wrong in (events[1:], [{**events[0], "time": events[0]["time"] + 0.5}, *events[1:]]):
        task, agent = mountain_car()
        LiveTamer(task, agent, seed=7, max_steps=150).replay(wrong)
        assert not torch.equal(weights_of(agent), weights_of(live.agent))


def test_the_pace_is_how_long_a_step_takes_on_the_agents_clock() -> None:
    task, agent = mountain_car()
    live = LiveTamer(task, agent)
    events = [
        {"what": "pace", "after": 10, "value": 2.0},
        {"what": "pause", "after": 14},
        {"what": "play", "after": 14},
        {"what": "pace", "after": 14, "value": 10.0},
        {"what": "stop", "after": 24},
    ]
    live.replay(events)
    assert agent.clock == pytest.approx(10 / 5 + 4 / 2 + 10 / 10) and live.num_steps == 24
    assert agent.config == TAMERConfig(steps_per_second=10.0)


def test_episodes_end_where_the_task_ends_where_they_are_too_long_and_where_the_person_wants() -> None:
    task, agent = mountain_car()
    live = LiveTamer(task, agent, seed=7, max_steps=20)
    first = live.observation
    live.replay([{"what": "new_episode", "after": 5}, {"what": "stop", "after": 30}])
    assert [row["steps"] for row in live.rows] == [5, 20, 5] and [row["episode"] for row in live.rows] == [0, 1, 2]
    assert tuple(first) == tuple(task.reset(seed=7)[0])
    for name in ("goal_position", "goal_velocity"):
        setattr(task.unwrapped, name, -10.0)
    live.step()
    assert live.is_over and live.rows[-1]["steps"] == 6


def test_actions_without_end_are_refused() -> None:
    task = make_task("MountainCarContinuous-v0")
    with pytest.raises(ValueError, match="must be a finite set"):
        LiveTamer(task, TAMERAgent(lambda observation: torch.zeros(2, 2)))
