"""`rlhf-lab release` and `rlhf-lab grade`: what an instructor does with the course from the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tyro

from rlhf_lab.course.checker_client import GradingError
from rlhf_lab.course.late import LatePolicy


@dataclass(frozen=True, kw_only=True)
class ReleaseCommand:
    """Make the students' notebooks from the solutions."""

    solutions: str = "solutions"
    """Folder of the solution notebooks."""
    out: str = "notebooks"
    """Folder of the students' notebooks."""
    check: bool = False
    """Write nothing; fail if what is there differs from what the solutions give."""


@dataclass(frozen=True, kw_only=True)
class GradeCommand:
    """Grade a folder of submissions; the same command continues, and grades what is new or changed."""

    submissions: tyro.conf.Positional[str]
    """Flat files, a folder for each student, or the download of nbgrader or Canvas."""
    out: str
    """Folder of the grades."""
    solutions: str = "solutions"
    """Folder of the solution notebooks."""
    notebooks: tuple[str, ...] = ()
    """Only these, such as 04_ppo; by default every one that has a solution."""
    jobs: int = 1
    """Notebooks to grade at a time; -1 takes every core."""
    cluster: str = ""
    """Address of a Dask scheduler, whose workers then do the grading."""
    wall_s: float = 600.0
    """Seconds that a notebook may take."""
    cell_s: float = 60.0
    """Seconds that a cell of it may take."""
    trust_submissions: bool = False
    """Run submissions without a sandbox: they can do whatever you can. Every result says so."""
    due: str = ""
    """When the submissions were due, such as 2026-11-30T23:59."""
    late_percent_per_day: float = 10.0
    """Percent of the points that each day, or part of one, takes off after `due`."""
    late_days: int = 5
    """Days after which nothing is accepted any more."""
    grace_minutes: int = 15
    """Minutes after `due` that cost nothing."""
    roster: str = ""
    """CSV file with a column `student` and what the learning platform needs of each (see docs/teaching.md)."""
    canvas: tuple[str, ...] = ()
    """Numbers of the assignments in Canvas, such as 04_ppo=1234567."""


@dataclass(frozen=True, kw_only=True)
class SampleClassCommand:
    """Make a class of twelve invented students to try grading on, from honest to hostile."""

    out: str
    """Folder of what they hand in."""
    notebook: str = "04_ppo"
    solutions: str = "solutions"
    """Folder of the solution notebooks."""


def run_sample_class(command: SampleClassCommand) -> str:
    """Do what is asked; returns what there is to say about it.

    Raises:
        ValueError: There is no such solution.
    """
    from rlhf_lab.course.sample_class import STUDENTS, make_class

    make_class(Path(command.solutions), command.notebook, Path(command.out))
    lines = [f"{student}: {about}" for student, (_, about) in STUDENTS.items()]
    return "\n".join([*lines, f"Grade them: rlhf-lab grade {command.out} --out grades"])


def run_release(command: ReleaseCommand) -> str:
    """Do what is asked; returns what there is to say about it.

    Raises:
        ValueError: A solution that is not as it must be, or, with `check`, students' notebooks that differ.
    """
    from rlhf_lab.course.release import release

    written = release(Path(command.solutions), Path(command.out), check=command.check)
    return f"{command.out}: {len(written)} notebooks {'agree with the solutions' if command.check else 'written'}."


def run_grade(command: GradeCommand) -> str:
    """Do what is asked; returns what there is to say about it.

    Raises:
        ValueError: As in `grade`; a date or a roster that cannot be read.
    """
    # Here, because other commands, of which this module gives the help, do without what grading needs.
    from rlhf_lab.course.feedback import write_feedback
    from rlhf_lab.course.gradebook import write_gradebook
    from rlhf_lab.course.grading import Grading, grade
    from rlhf_lab.course.written import merge_written

    late = _late_policy(command)
    names = ("submissions", "out", "solutions", "notebooks", "jobs", "cluster", "trust_submissions", "wall_s", "cell_s")
    results = grade(Grading(**{name: getattr(command, name) for name in names}))
    out = Path(command.out)
    written = merge_written(out, results)
    roster = Path(command.roster) if command.roster else None
    canvas_ids = _canvas_ids(command.canvas)
    write_gradebook(out, results, written, late=late, roster=roster, canvas_ids=canvas_ids)
    write_feedback(out, results, written, late=late)
    said = [_summary(command.out, results, sum(grade.points is None for grade in written.values()))]
    undated = sum(result["submitted"] is None and not result["late_marked"] for result in results)
    if late and undated:
        said.append(
            f"--due says nothing about {undated} of {len(results)} notebooks: nbgrader's timestamp.txt, or LATE in "
            f"a file of Canvas, tell when one was handed in. They were taken as in time."
        )
    return "\n".join(said)


def _canvas_ids(pairs: Sequence[str]) -> dict[str, str]:
    if wrong := [pair for pair in pairs if pair.count("=") != 1]:
        raise GradingError(f"--canvas {wrong[0]!r} is not NOTEBOOK=NUMBER, such as 04_ppo=1234567.")
    return dict(pair.split("=") for pair in pairs)


def _late_policy(command: GradeCommand) -> LatePolicy | None:
    if not command.due:
        return None
    try:
        due = datetime.fromisoformat(command.due)
    except ValueError as error:
        raise GradingError(f"--due {command.due!r} is no date; write it like 2026-11-30T23:59.") from error
    return LatePolicy(
        due=due,
        percent_per_day=command.late_percent_per_day,
        max_days=command.late_days,
        grace_minutes=command.grace_minutes,
    )


def _summary(out: str, results: Sequence[dict[str, Any]], waiting: int) -> str:
    students = {result["student"] for result in results}
    lines = [f"{len(results)} notebooks of {len(students)} students: {out}/grades.csv"]
    if waiting:
        lines.append(f"{waiting} written answers: grade them in {out}/written.csv or with lab.grade_written({out!r})")
    for status in ("refused", "stopped", "needs a person"):
        found = [result for result in results if result["status"] == status]
        lines += [f"{status}: {one['student']} {one['notebook']}: {one['reason']}" for one in found]
    if any(result["sandbox"] != "bubblewrap" for result in results):
        lines.append("WITHOUT A SANDBOX: these submissions were trusted.")
    return "\n".join(lines)
