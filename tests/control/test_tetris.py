"""Tetris: the rules on boards drawn by hand, features by hand, and an agent taught by a trainer who is late."""

import random
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rlhf_lab.control.tamer import SimulatedTrainer, TAMERAgent, tamer
from rlhf_lab.control.tetris import (
    COLUMNS,
    PIECES,
    ROWS,
    Tetris,
    board_features,
    drops,
    judge_tetris,
    teach_tetris,
    tetris_config,
    tetris_features,
)

NUMBERS = {name: number for number, name in enumerate(PIECES)}
UNEVEN = [
    "x.........",
    "xx..x.x...",
    "x.xxx.xxx.",
]
SEEDS = range(3)


def board(*rows: str) -> np.ndarray[Any, Any]:
    """The lowest rows of a board, as one sees them."""
    drawn = np.zeros((ROWS, COLUMNS), dtype=np.int8)
    for row, text in enumerate(reversed(rows)):
        drawn[row] = [mark == "x" for mark in text]
    return drawn


def drawing(drawn: np.ndarray[Any, Any]) -> list[str]:
    """The rows in which there is something."""
    marks = ["".join("x" if cell else "." for cell in row) for row in drawn]
    return [row for row in reversed(marks) if "x" in row]


def dropped(drawn: np.ndarray[Any, Any], piece: str, action: int) -> tuple[list[str], int]:
    boards, lines = drops(drawn, NUMBERS[piece])
    return drawing(boards[action]), int(lines[action])


def playing(drawn: np.ndarray[Any, Any], piece: str) -> Tetris:
    task = Tetris()
    task.reset(seed=0)
    task._board, task._piece = drawn, NUMBERS[piece]
    return task


@pytest.mark.parametrize(
    ("piece", "action", "left"),
    [
        ("I", 3, ["...xxxx..."]),
        ("I", 13, ["...x......"] * 4),
        ("O", 8, ["........xx"] * 2),
        ("T", 0, ["xxx.......", ".x........"]),
        ("T", 14, [".....x....", "....xx....", ".....x...."]),
        ("S", 2, ["...xx.....", "..xx......"]),
        ("Z", 2, ["..xx......", "...xx....."]),
        ("J", 20, ["x.........", "xxx......."]),
        ("L", 20, ["..x.......", "xxx......."]),
    ],
)
def test_pieces_are_turned_clockwise_and_stand_on_the_floor(piece: str, action: int, left: list[str]) -> None:
    assert dropped(board(), piece, action) == (left, 0)


@pytest.mark.parametrize(
    ("piece", "ways"), [("I", 17), ("O", 9), ("S", 17), ("Z", 17), ("T", 34), ("J", 34), ("L", 34)]
)
def test_each_piece_has_its_number_of_ways(piece: str, ways: int) -> None:
    boards, _ = drops(board(), NUMBERS[piece])
    assert len({one.tobytes() for one in boards}) == ways
    assert (np.count_nonzero(boards, axis=(1, 2)) == 4).all()


def test_the_wall_stops_a_piece() -> None:
    assert {tuple(dropped(board(), "I", action)[0]) for action in (6, 7, 8, 9)} == {("......xxxx",)}


def test_a_piece_rests_on_the_highest_column_under_it() -> None:
    assert dropped(board(*UNEVEN), "I", 1) == (["xxxxx.....", *UNEVEN[1:]], 0)
    assert dropped(board(*UNEVEN), "I", 15) == ([".....x....", "x....x....", "xx..xxx...", "x.xxxxxxx."], 0)


def test_full_rows_go_and_those_above_fall() -> None:
    rows = ["x.........", "xxxxxxxxx.", ".xxxxxxxx.", "xxxxxxxxx."]
    assert dropped(board(*rows), "I", 19) == (["x........x", ".xxxxxxxxx"], 2)
    assert playing(board(*rows), "I").step(19)[1] == 2.0


def test_a_game_is_over_when_something_is_left_above_the_board() -> None:
    task = playing(board(), "O")
    for number in range(11):
        task._piece = NUMBERS["O"]
        observation, lines, over, _, _ = task.step(0)
        assert (lines, over) == (0.0, number == 10)
    assert drawing(observation["board"]) == ["xx........"] * 20
    with pytest.raises(ValueError, match=r"no game is being played; call reset\(\) first"):
        task.step(0)
    assert not task.reset()[0]["board"].any()


def test_a_line_that_is_cleared_brings_the_rest_down_again() -> None:
    task = playing(board(*["xxxxxxxxx."] * 2, *[".........x"] * 18), "I")
    observation, lines, over, _, _ = task.step(19)
    assert (lines, over) == (2.0, False)
    assert drawing(observation["board"]) == [".........x"] * 20


@pytest.mark.parametrize("action", [40, -1])
def test_an_action_that_is_not_there_is_refused(action: int) -> None:
    with pytest.raises(ValueError, match=f"an action must be a whole number from 0 to 39, not {action}"):
        playing(board(), "I").step(action)


def test_a_game_that_has_not_begun_is_refused() -> None:
    with pytest.raises(ValueError, match="no game is being played"):
        Tetris().step(0)


def test_a_seed_decides_the_pieces_and_each_comes_as_often() -> None:
    task = Tetris()

    def pieces(seed: int | None) -> list[int]:
        drawn = [task.reset(seed=seed)[0]["piece"]]
        for _ in range(9):
            task._board[:] = 0
            drawn.append(task.step(0)[0]["piece"])
        return drawn

    assert pieces(1) == pieces(1) != pieces(2)
    counts = np.bincount([piece for _ in range(140) for piece in pieces(None)], minlength=7)
    assert (np.abs(counts - 200) < 60).all()


def test_gymnasium_finds_nothing_to_complain_of() -> None:
    check_env(gymnasium.make(EnvSpec("Tetris-v0", entry_point=Tetris), render_mode="rgb_array").unwrapped)


def test_what_was_seen_does_not_change() -> None:
    task = playing(board(), "O")
    before, *_ = task.step(0)
    kept = before["board"].copy()
    task.step(4)
    assert np.array_equal(before["board"], kept)


def test_a_picture_shows_the_board_and_the_next_piece() -> None:
    task = Tetris(render_mode="rgb_array")
    task.reset(seed=0)
    task._piece = NUMBERS["O"]
    task.step(0)
    task._piece = NUMBERS["I"]
    picture = task.render()
    assert picture is not None and picture.shape == (24 * 16, 160, 3)
    cells = picture[8::16, 8::16]
    yellow, blue, white, gray = ([0xF0, 0xE4, 0x42], [0x56, 0xB4, 0xE9], [255] * 3, [0x6B] * 3)
    assert cells[-2:, :2].tolist() == [[yellow] * 2] * 2
    assert cells[-1, 2:].tolist() == [white] * 8 and cells[4].tolist() == [white] * 10
    assert cells[2].tolist() == [gray] * 3 + [blue] * 4 + [gray] * 3
    assert Tetris().render() is None


def test_a_way_to_render_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="render_mode must be 'rgb_array' or None, not 'human'"):
        Tetris(render_mode="human")


def test_features_are_those_of_the_drawing() -> None:
    heights, highest = [3, 2, 1, 1, 2, 0, 2, 1, 1, 0], 3
    steps, holes, deepest, wells = [1, 1, 0, 1, 2, 2, 1, 0, 1], 1, 2, 3
    lengths = [*heights, highest, *steps, holes, deepest, wells]
    squares = [length**2 / 100 for length in lengths[:11]] + [float(length**2) for length in lengths[11:]]
    assert board_features(board(*UNEVEN)) == pytest.approx([*lengths, *squares])
    assert not board_features(board()).any()


def test_an_agent_sees_how_an_action_would_change_them() -> None:
    rows = tetris_features({"board": board(*UNEVEN), "piece": NUMBERS["I"]})
    assert rows.shape == (40, 47) and rows[:, -1].eq(1).all()
    # Column 6 from 0 to 4: two wells become one step up, the highest column is one higher.
    heights, steps = [0, 0, 0, 0, 0, 4, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert rows[15, :23].tolist() == [*heights, 1, *steps, 0, -1, -2]
    assert rows[15, 23:46].tolist() == pytest.approx([*[0] * 5, 0.16, *[0] * 4, 0.07, *[0] * 9, 0, -3, -8])


@pytest.mark.parametrize(
    ("rows", "piece", "action", "opinion"),
    [
        (["xx........"] * 2, "O", 2, 1),  # As rough as before.
        (["xx........"] * 2, "O", 4, -1),  # Rougher.
        (["xx........"] * 2, "Z", 2, -1),  # A hole.
        (["xxxxxxxxx."], "I", 19, 1),  # Rougher, but a line is gone.
        (UNEVEN, "I", 1, -1),
        (UNEVEN, "O", 2, 1),
    ],
)
def test_what_does_no_harm_is_good(rows: list[str], piece: str, action: int, opinion: int) -> None:
    assert judge_tetris({"board": board(*rows), "piece": NUMBERS[piece]}, action) == opinion


def short_games(seed: int, **settings: float) -> list[float]:
    config = replace(tetris_config(), **settings)
    return [row["return"] for row in teach_tetris(config, attention=1.0, max_steps=150, seed=seed)]


def test_the_same_seed_teaches_the_same() -> None:
    one, other, third = (teach_tetris(num_games=1, max_steps=20, seed=seed) for seed in (1, 1, 2))
    assert one == other != third
    assert set(one[0]) == {"episode", "steps", "return", "presses"}


@pytest.mark.slow
def test_the_third_game_clears_more_than_fifty_lines() -> None:
    """With a trainer who says something about half of the drops, and late."""
    lines = [[row["return"] for row in teach_tetris(seed=seed)] for seed in SEEDS]
    assert all(games[2] > 50 for games in lines), lines


def test_it_is_the_trainers_opinion_that_is_learnt() -> None:
    chance = random.Random(0)
    agent = TAMERAgent(tetris_features, tetris_config())
    trainer = SimulatedTrainer(lambda observation, action: chance.choice([1.0, -1.0]), attention=1.0)
    lines = [row["return"] for row in tamer(Tetris(), agent, trainer, num_episodes=3, max_steps=150)]
    assert sum(lines) + 50 < sum(short_games(0)), lines


@pytest.mark.slow
def test_at_two_pieces_a_second_credit_is_needed() -> None:
    taught = [sum(short_games(seed, steps_per_second=2.0)) for seed in SEEDS]
    at_once = [sum(short_games(seed, steps_per_second=2.0, earliest=0.0, latest=0.0)) for seed in SEEDS]
    assert sum(taught) > 1.5 * sum(at_once), (taught, at_once)
