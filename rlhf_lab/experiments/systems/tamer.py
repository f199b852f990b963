"""TAMER: a few episodes of feedback teach a task, and credit for what was seen is what makes late feedback useful."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes

from rlhf_lab.control.tamer import SimulatedTrainer, TAMERAgent, TAMERConfig, tamer
from rlhf_lab.control.tasks import judge_mountain_car, make_task, radial_features
from rlhf_lab.control.tetris import teach_tetris, tetris_config
from rlhf_lab.experiments.systems.sections import Job, seeds_of, where
from rlhf_lab.plots import POLICY, REFERENCE
from rlhf_lab.policy_plots import plot_runs

GAMES = {"tiny": (2, 50), "laptop": (5, 500)}
"""Games of Tetris, and pieces in a game at most."""
NO_CREDIT = {"earliest": 0.0, "latest": 0.0}
"""Feedback is taken to be about the step in which it comes."""


def rows(job: Job) -> list[dict[str, Any]]:
    """What each episode brought, with and without credit; Tetris at two paces."""
    games, pieces = GAMES[job.scale]
    made: list[dict[str, Any]] = []
    for credit in (True, False):
        slow = tetris_config() if credit else replace(tetris_config(), **NO_CREDIT)
        played = {
            "MountainCar-v0": _mountain_car(TAMERConfig() if credit else TAMERConfig(**NO_CREDIT), job.seed),
            "Tetris, a piece a second": teach_tetris(slow, num_games=games, max_steps=pieces, seed=job.seed),
            "Tetris, two pieces a second": teach_tetris(
                replace(slow, steps_per_second=2.0), num_games=games, max_steps=pieces, seed=job.seed
            ),
        }
        made += [{"task": task, "credit": int(credit), **row} for task, episodes in played.items() for row in episodes]
    return made


def _mountain_car(config: TAMERConfig, seed: int) -> list[dict[str, Any]]:
    task = make_task("MountainCar-v0")
    agent = TAMERAgent(radial_features(task), config, seed=seed)
    trainer = SimulatedTrainer(judge_mountain_car, seed=seed)
    return tamer(task, agent, trainer, num_episodes=5, seed=100 * seed)


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Steps or lines by episode, with and without credit."""
    titles = {
        "MountainCar-v0": (
            "tamer_mountain_car",
            "Credit for what was seen makes late feedback useful",
            "steps to the goal",
        ),
        "Tetris, two pieces a second": (
            "tamer_tetris",
            "Tetris, fast: without credit, late praise misleads",
            "lines cleared",
        ),
    }
    return {
        name: plot_runs(
            {
                label: (
                    _by_seed(where(rows, task=task, credit=credit), "return" if "lines" in unit else "steps"),
                    color,
                )
                for label, credit, color in (("with credit", 1, POLICY), ("without", 0, REFERENCE))
            },
            title=title,
            xlabel="episodes before",
            ylabel=unit,
        )
        for task, (name, title, unit) in titles.items()
    }


def _by_seed(rows: Sequence[Mapping[str, Any]], key: str) -> list[list[float]]:
    return [[float(row[key]) for row in where(rows, seed=seed)] for seed in seeds_of(rows)]


def good_games(rows: Sequence[Mapping[str, Any]], task: str, credit: int, episode: int, least: int = 50) -> int:
    """How many seeds cleared more than so many lines in a game."""
    return sum(row["return"] > least for row in where(rows, task=task, credit=credit, episode=episode))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the section calls by name."""
    return {"good_games": good_games}
