"""Tetris as TAMER met it: an action says how a piece is turned and where it drops, features say how the board changes.

Boards are arrays of numbers of pieces, counted from 1; 0 is empty, and row 0 is the floor.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete
from jaxtyping import Float, Int8, Integer, UInt8
from numpy import ndarray
from torch import Tensor

from rlhf_lab.control.tamer import SimulatedTrainer, TAMERAgent, TAMERConfig, tamer

ROWS, COLUMNS, TURNS = 20, 10, 4
ABOVE = 4
"""Rows over the board, where a piece comes in."""
PIECES = {
    "I": ["####"],
    "O": ["##", "##"],
    "T": ["###", ".#."],
    "S": [".##", "##."],
    "Z": ["##.", ".##"],
    "J": ["###", "..#"],
    "L": ["###", "#.."],
}
_COLORS = ["#FFFFFF", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#0072B2", "#E69F00"]
_LINES_BETWEEN, _SKY = "#D9D9D9", "#6B6B6B"
_CELL = 16


def _placements(shape: list[str]) -> Integer[ndarray, "actions cells two"]:
    """Row and column of each cell of a piece that stands on the floor, for each action."""
    upright = np.array([[cell == "#" for cell in row] for row in reversed(shape)])
    # Counterclockwise where row 0 is on top; here it is the floor, so clockwise.
    turned = [np.argwhere(np.rot90(upright, turns)) for turns in range(TURNS)]
    return np.array(
        [
            # A piece that is pushed against the wall goes no further, so that every action can be done.
            cells + [0, min(column, COLUMNS - 1 - cells[:, 1].max())]
            for cells in turned
            for column in range(COLUMNS)
        ]
    )


_PLACEMENTS = [_placements(shape) for shape in PIECES.values()]


def column_heights(boards: Int8[ndarray, "*many rows columns"]) -> Integer[ndarray, "*many columns"]:
    """The highest filled row of each column, counted from 1."""
    return ((boards != 0) * np.arange(1, boards.shape[-2] + 1)[:, None]).max(-2)


def drops(
    board: Int8[ndarray, "rows columns"], piece: int
) -> tuple[Int8[ndarray, "actions tall columns"], Integer[ndarray, " actions"]]:
    """What each action would leave of a board and the rows above it, and how many lines it would clear."""
    cells = _PLACEMENTS[piece]
    rows, columns = cells[..., 0], cells[..., 1]
    floor = (column_heights(board)[columns] - rows).max(-1, keepdims=True)
    boards = np.zeros((len(cells), ROWS + ABOVE, COLUMNS), dtype=np.int8)
    boards[:, :ROWS] = board
    boards[np.arange(len(cells))[:, None], floor + rows, columns] = piece + 1
    full = np.all(boards, axis=-1)
    boards[full] = 0
    for action in np.flatnonzero(full.any(-1)):
        # A stable sort keeps the order of the rows that stay, and lifts those that were cleared to the top.
        boards[action] = boards[action, np.argsort(full[action], kind="stable")]
    return boards, full.sum(-1)


class Tetris(gymnasium.Env[dict[str, Any], np.int64]):
    """A board of 20 rows and 10 columns, seven pieces, each as likely as another; the reward is the lines cleared.

    An observation is the `board` (row 0 is the floor) and the `piece` to drop. Action 10 t + c turns the piece t times
    clockwise, and lets it fall straight down, its left edge in column c, or as near to it as the wall allows. A game is
    over when something is left above the board; for a good player that may be never.

    Example:
        >>> task = Tetris()
        >>> observation, _ = task.reset(seed=0)
        >>> list(PIECES)[observation["piece"]]
        'J'
        >>> observation, lines, over, _, _ = task.step(3)
        >>> observation["board"][:3, 3:6]
        array([[0, 0, 6],
               [6, 6, 6],
               [0, 0, 0]], dtype=int8)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012  # As Gymnasium declares it.

    def __init__(self, render_mode: str | None = None) -> None:
        """Set up an empty board; `reset` begins a game.

        Raises:
            ValueError: There is no such way to render.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'rgb_array' or None, not {render_mode!r}.")
        self.render_mode = render_mode
        self.observation_space = Dict(board=Box(0, len(PIECES), (ROWS, COLUMNS), np.int8), piece=Discrete(len(PIECES)))
        self.action_space = Discrete(TURNS * COLUMNS)
        self._board = np.zeros((ROWS, COLUMNS), dtype=np.int8)
        self._piece = 0
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin a game; `seed` decides all its pieces, and there are no options."""
        super().reset(seed=seed)
        self._board, self._over = np.zeros_like(self._board), False
        return self._next_piece(), {}

    def step(self, action: int | np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Drop the piece.

        Raises:
            ValueError: There is no such action, or no game.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"an action must be a whole number from 0 to {TURNS * COLUMNS - 1}, not {action!r}.")
        if self._over:
            raise ValueError("no game is being played; call reset() first.")
        boards, lines = drops(self._board, self._piece)
        self._board = boards[action, :ROWS]
        self._over = bool(boards[action, ROWS:].any())
        return self._next_piece(), float(lines[action]), self._over, False, {}

    def _next_piece(self) -> dict[str, Any]:
        self._piece = int(self.np_random.integers(len(PIECES)))
        return {"board": self._board.copy(), "piece": self._piece}

    def render(self) -> UInt8[ndarray, "height width rgb"] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The board, and above it the next piece; None unless `render_mode` is "rgb_array"."""
        if self.render_mode is None:
            return None
        above = np.zeros((ABOVE, COLUMNS), dtype=np.int8)
        rows, columns = _PLACEMENTS[self._piece][3].T
        above[rows + 1, columns] = self._piece + 1
        colors = np.array([list(bytes.fromhex(color[1:])) for color in (*_COLORS, _SKY, _LINES_BETWEEN)], np.uint8)
        above[above == 0] = len(_COLORS)
        numbers = np.kron(np.vstack([self._board, above])[::-1], np.ones((_CELL, _CELL), dtype=np.int8))
        numbers[::_CELL] = numbers[:, ::_CELL] = len(_COLORS) + 1
        return colors[numbers]


def board_features(boards: Int8[ndarray, "*many rows columns"]) -> Float[ndarray, "*many 46"]:
    """The features of TAMER's authors: 23 that are lengths in cells, and their squares.

    The heights of the 10 columns, the greatest of them, the 9 steps between neighbors, the number of holes (empty cells
    under a filled one), and the depth of the deepest well and of all wells (columns lower than both neighbors; a wall
    is higher than all). Squares of heights are in hundreds.

    Reference:
        Knox's published code; under an overhang it sees a shallower well than here. The first 21 are said to be those
        of Bertsekas and Ioffe 1996 (unchecked).
    """
    heights = column_heights(boards)
    highest = heights.max(-1, keepdims=True)
    steps = np.abs(np.diff(heights))
    holes = heights.sum(-1, keepdims=True) - np.count_nonzero(boards, axis=(-1, -2))[..., None]
    walls = np.full_like(highest, ROWS + ABOVE)
    left = np.concatenate([walls, heights[..., :-1]], -1)
    right = np.concatenate([heights[..., 1:], walls], -1)
    wells = np.maximum(np.minimum(left, right) - heights, 0)
    tall = np.concatenate([heights, highest], -1)
    rough = np.concatenate([steps, holes, wells.max(-1, keepdims=True), wells.sum(-1, keepdims=True)], -1)
    return np.concatenate([tall, rough, tall**2 / 100, rough**2], -1)


def tetris_features(observation: Any) -> Float[Tensor, "actions size"]:
    """How each action would change the features of the board, and a constant."""
    boards, _ = drops(observation["board"], observation["piece"])
    changes = board_features(boards) - board_features(observation["board"])
    return torch.as_tensor(np.hstack([changes, np.ones((len(changes), 1))]), dtype=torch.float32)


def judge_tetris(observation: Any, action: int) -> float:
    """Whether a drop harms the board by no more than the four cells that a piece has to take.

        v = -51 (sum of heights) - 36 holes - 18 (sum of steps between neighbors) + 76 (lines cleared)

    It is good, 1, where v falls by at most 4 * 51, else bad, -1: without a line, the surface must not become rougher,
    and a hole is forgiven only where it makes the surface 5 steps smoother.

    Reference:
        The weights, rounded, are Lee's (2013), 'Tetris AI: the (near) perfect player'; where good begins is ours.
    """
    boards, lines = drops(observation["board"], observation["piece"])
    after, before = _value(boards[action]) + 76 * int(lines[action]), _value(observation["board"])
    return 1.0 if after - before >= -4 * 51 else -1.0


def _value(board: Int8[ndarray, "rows columns"]) -> int:
    heights = column_heights(board)
    holes = heights.sum() - np.count_nonzero(board)
    return int(-51 * heights.sum() - 36 * holes - 18 * np.abs(np.diff(heights)).sum())


def tetris_config() -> TAMERConfig:
    """TAMER at the pace of Tetris: a piece a second, and small steps, as features go to hundreds.

    H stays near 0 then, and w is nearly the sum of the features of what was liked, less those of what was not. For the
    choice of an action the order of H is enough.
    """
    return TAMERConfig(learning_rate=1e-5, steps_per_second=1.0)


def teach_tetris(
    config: TAMERConfig | None = None,
    *,
    attention: float = 0.5,
    num_games: int = 3,
    max_steps: int = 500,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A simulated trainer teaches an agent that knows nothing; returns `tamer`'s rows, whose `return` is lines cleared.

    Args:
        config: `tetris_config()` by default.
        attention: Share of the drops that the trainer says something about.
        num_games: To play.
        max_steps: Pieces in a game, if it is not over before; 10 pieces make 4 lines.
        seed: Of the agent, the trainer and the pieces.
    """
    agent = TAMERAgent(tetris_features, config or tetris_config(), seed=seed)
    trainer = SimulatedTrainer(judge_tetris, attention=attention, seed=seed)
    return tamer(Tetris(), agent, trainer, num_episodes=num_games, max_steps=max_steps, seed=100 * seed)
