"""A task that draws itself without a library, and the cell that lets somebody train an agent in it."""

from pathlib import Path
from typing import Any

TASK = """
import gymnasium, numpy as np, torch
import rlhf_lab as lab


class Walk(gymnasium.Env):
    # Seven places in a row; the way to the right is the long one. It ends at either end.

    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(0.0, 6.0, (1,))
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode, self.place = render_mode, 2

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(1, 4))
        return np.array([self.place], np.float32), {}

    def step(self, action):
        self.place += 1 if action == 1 else -1
        is_end = self.place in (0, 6)
        return np.array([self.place], np.float32), float(self.place == 6), is_end, False, {}

    def render(self):
        picture = np.full((100, 280, 3), 245, np.uint8)
        picture[70:74] = 90
        picture[60:74, 240:280] = 60, 140, 60
        picture[40:70, 40 * self.place + 5:40 * self.place + 35] = 30, 80, 170
        return picture


def features(observation):
    rows = torch.zeros(2, 14)
    rows[0, int(observation[0])] = rows[1, 7 + int(observation[0])] = 1.0
    return rows


def new_agent(pace=5.0, seed=1):
    return lab.TAMERAgent(features, lab.TAMERConfig(steps_per_second=pace), seed=seed)
"""


def names() -> dict[str, Any]:
    """What `TASK` defines."""
    made: dict[str, Any] = {}
    exec(TASK, made)
    return made


def cell(store: Path, pace: float = 5.0, before: str = "", options: str = "") -> str:
    """A cell with a pad; `before` is run before it."""
    call = f"lab.tamer_pad(Walk(render_mode='rgb_array'), agent, store={str(store)!r}, labeler='ana'{options})"
    return f"{TASK}\nagent = new_agent({pace})\n{before}\n{call}"
