"""The exercises of the course, a module for each notebook, loaded when they are first asked for."""

import importlib
from collections.abc import Sequence

from rlhf_lab.course.exercise import Exercise, Written

MODULES = {
    "00_vocabulary": "vocabulary",
    "01_imitation": "imitation",
    "02_asking_people": "asking",
    "03_reward_model": "reward_model",
    "04_ppo": "policy",
    "05_tldr": "summaries",
    "06_overoptimization": "pushing",
    "07_variations": "variations",
    "08_origins": "origins",
    "09_telling": "telling",
    "10_whose": "whose",
    "11_successors": "successors",
    "12_for_real": "real_runs",
}
"""Module of each notebook's exercises."""


def exercises_of(notebook: str) -> Sequence[Exercise | Written]:
    """The exercises of a notebook, in the order in which they stand there.

    Raises:
        ValueError: There is no such notebook.
    """
    if notebook not in MODULES:
        raise ValueError(f"no notebook {notebook!r}; the course has {', '.join(MODULES)}.")
    return importlib.import_module(f"rlhf_lab.course.exercises.{MODULES[notebook]}").EXERCISES


def all_exercises() -> dict[str, Exercise | Written]:
    """Every exercise of the course by its id.

    Raises:
        ValueError: Two have one id.
    """
    found: dict[str, Exercise | Written] = {}
    for notebook in MODULES:
        for exercise in exercises_of(notebook):
            if exercise.id in found:
                raise ValueError(f"two exercises have the id {exercise.id!r}.")
            found[exercise.id] = exercise
    return found


def exercise_of(name: str) -> Exercise:
    """The exercise that a program can check, by its id.

    Raises:
        ValueError: There is none of that id.
    """
    found = all_exercises()
    exercise = found.get(name)
    if not isinstance(exercise, Exercise):
        known = ", ".join(key for key, value in found.items() if isinstance(value, Exercise))
        raise ValueError(f"no exercise {name!r} to check; there are {known}.")
    return exercise
