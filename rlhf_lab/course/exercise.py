"""What an exercise is: inputs, the right answer, and the wrong answers that must be refused."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["implement", "predict", "find the bug"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One call of the student's function, such as Case(title="a row of one token", args=(rewards, values))."""

    title: str
    """What is special about these inputs; messages name it."""
    args: tuple[Any, ...] = ()
    """Tensors, arrays, texts, numbers, and lists, tuples or dicts of them."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    """The part of the points that it decides."""
    gradient_of: tuple[int, ...] = ()
    """Places in `args`: the gradient of the output with respect to these is compared too."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """A question whose answer a program can check."""

    id: str
    title: str
    kind: Kind
    points: int
    minutes: int
    difficulty: Literal[1, 2, 3]
    reference: Callable[..., Any]
    """The right answer: the package's own equation, or a small function."""
    cases: Callable[[np.random.Generator], Sequence[Case]]
    """Inputs: edge cases that are always there, and random ones."""
    mistakes: tuple[Callable[..., Any], ...]
    """Wrong answers that students give. The docstring of each is the hint for whoever gives it."""
    variants: tuple[Callable[..., Any], ...]
    """Right answers that are written differently."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """Points by part; empty if all depends on every case."""
    tolerance: float = 1e-5
    """Relative and absolute; by default what single precision reaches."""
    masked: tuple[str, ...] = ()
    """Functions of the package that would give the answer away, by their dotted names; `reference` is always one."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check_header(self.id, self.points, self.minutes, self.difficulty)
        if self.parts and sum(self.parts.values()) != self.points:
            raise ValueError(f"{self.id}: the parts' points add up to {sum(self.parts.values())}, not {self.points}.")
        if len(self.mistakes) < 3 or len(self.variants) < 2:
            raise ValueError(f"{self.id}: an exercise has at least 3 mistakes and 2 variants.")
        if mute := [mistake.__name__ for mistake in self.mistakes if not mistake.__doc__]:
            raise ValueError(f"{self.id}: {mute[0]} has no docstring, which is the hint for those who answer so.")

    @property
    def hidden(self) -> tuple[str, ...]:
        """Dotted names of the package's functions that a graded notebook cannot call."""
        home = self.reference.__module__
        own = () if home.startswith("rlhf_lab.course") else (f"{home}.{self.reference.__qualname__}",)
        return (*own, *self.masked)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A question whose answer a person reads."""

    id: str
    title: str
    points: int
    minutes: int
    difficulty: Literal[1, 2, 3]
    rubric: Mapping[str, int]
    """Points by criterion."""
    kind: Literal["read the curve"] = "read the curve"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check_header(self.id, self.points, self.minutes, self.difficulty)
        if sum(self.rubric.values()) != self.points:
            raise ValueError(f"{self.id}: the rubric adds up to {sum(self.rubric.values())} points, not {self.points}.")


def _check_header(name: str, points: int, minutes: int, difficulty: int) -> None:
    if not name.replace("-", "").isalnum() or name != name.lower():
        raise ValueError(f"an exercise's id is lower-case words with dashes, not {name!r}.")
    if points < 1 or minutes < 1 or difficulty not in (1, 2, 3):
        raise ValueError(f"{name}: points and minutes are at least 1 and the difficulty is 1, 2 or 3.")
