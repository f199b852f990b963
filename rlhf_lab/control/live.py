"""TAMER live: an agent that acts step by step, so that a person can speak, and change the pace, in between.

What `tamer` does in a loop is here one call for each step, and what the person does is an event after some step.
Whoever has the events, the seed and the agent as it was can play all of it again, and has the same agent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium.spaces import Discrete

from rlhf_lab.control.tamer import Press, TAMERAgent

Event = Mapping[str, Any]
"""{"what": "press", "after": 12, "value": 1.0, "time": 2.31}: after the 12th step, about a moment of the agent's clock.

Or `pace`, whose value is in steps a second; or `new_episode`. Others change nothing.
"""


class LiveTamer:
    """An agent in a task, and the events that shape it."""

    def __init__(
        self, task: gymnasium.Env[Any, Any], agent: TAMERAgent, *, seed: int = 0, max_steps: int = 1000
    ) -> None:
        """Begin the first episode.

        Args:
            task: With a finite set of actions.
            agent: It changes. It goes on from what it knows, and from the time on its clock.
            seed: Of where episodes begin, as in `tamer`.
            max_steps: An episode ends there, if the task does not end it before.

        Raises:
            ValueError: The task's actions are no finite set.
        """
        if not isinstance(task.action_space, Discrete):
            raise ValueError(f"the actions must be a finite set (Discrete), not {task.action_space}.")
        self.task, self.agent = task, agent
        self.num_steps = 0
        """Since it began, in all episodes."""
        self.rows: list[dict[str, Any]] = []
        """As of `tamer`: the last is the episode that is being played."""
        self._seed, self._max_steps = seed, max_steps
        self._begin()

    def _begin(self) -> None:
        self.observation, _ = self.task.reset(seed=self._seed + len(self.rows))
        self.rows.append({"episode": len(self.rows), "steps": 0, "return": 0.0, "presses": 0})
        self.is_over = False
        """Whether the next step begins another episode."""

    def step(self) -> int:
        """Let the agent act; its action."""
        if self.is_over:
            self._begin()
        action = self.agent.act(self.observation, self.agent.clock)
        self.observation, reward, ended, truncated, _ = self.task.step(action)
        row = self.rows[-1]
        row["steps"] += 1
        row["return"] += float(reward)
        self.num_steps += 1
        self.is_over = bool(ended or truncated) or row["steps"] >= self._max_steps
        return action

    def apply(self, event: Event) -> None:
        """Let the event happen now."""
        if event["what"] == "press":
            self.agent.hear(Press(event["time"], event["value"]))
            self.rows[-1]["presses"] += 1
        elif event["what"] == "pace":
            self.agent.config = replace(self.agent.config, steps_per_second=event["value"])
        elif event["what"] == "new_episode":
            self._begin()

    def replay(self, events: Iterable[Event]) -> None:
        """Act as often as was acted before each event, and let it happen."""
        for event in events:
            while self.num_steps < event["after"]:
                self.step()
            self.apply(event)
