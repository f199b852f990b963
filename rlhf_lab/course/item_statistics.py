"""How each exercise fared: its points by student, and what they say about the exercise."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import StatisticsError, correlation, mean
from typing import Any

from rlhf_lab.course.written import WrittenGrade

WrittenGrades = Mapping[tuple[str, str], WrittenGrade]

EXERCISE_COLUMNS = (
    *("student", "notebook", "exercise", "title", "points", "max points", "passed", "attempts", "message"),
)
STATISTICS_COLUMNS = (
    *("notebook", "exercise", "title", "max points", "handed in", "answered", "passed share", "mean points"),
    *("discrimination", "most common message"),
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_LEAST = 3
"""Students, below which a correlation says nothing."""


def written_grade(result: Mapping[str, Any], exercise: Mapping[str, Any], written: WrittenGrades) -> WrittenGrade:
    """What a person gave for a written answer; no answer earns nothing."""
    default = WrittenGrade() if str(exercise["answer"]).strip() else WrittenGrade(points=0.0)
    return written.get((result["student"], exercise["id"]), default)


def is_answered(exercise: Mapping[str, Any]) -> bool:
    """Whether a student wrote an answer; the stub that they received is none."""
    answer = str(exercise["answer"])
    return bool(answer.strip()) and (exercise.get("passed", False) or "raise NotImplementedError()" not in answer)


def exercise_rows(results: Sequence[Mapping[str, Any]], written: WrittenGrades) -> list[dict[str, Any]]:
    """A row for each student and exercise."""
    rows = []
    for result in sorted(results, key=lambda result: (result["student"], result["notebook"])):
        for one in result["exercises"]:
            passed = "yes" if one["passed"] else "no"
            given = {"points": one["points"], "passed": passed, "attempts": one["attempts"], "message": one["message"]}
            rows.append({"student": result["student"], **_about(result, one), **given})
        for one in result["written"]:
            grade = written_grade(result, one, written)
            given = {"points": grade.points, "message": grade.comment}
            rows.append({"student": result["student"], **_about(result, one), **given})
    return rows


def _about(result: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    about = {"notebook": result["notebook"], "exercise": one["id"]}
    return about | {"title": one["title"], "max points": one["max_points"]}


def statistics_rows(results: Sequence[Mapping[str, Any]], written: WrittenGrades) -> list[dict[str, Any]]:
    """A row for each exercise. Submissions that were refused, or that a person must look at, are left out.

    The discrimination is the point-biserial correlation of passing an exercise with the points for the notebook's
    other exercises: near 0 or below, those who know the rest do not know this.
    """
    counted = [result for result in results if result["status"] in ("graded", "stopped")]
    found: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = defaultdict(list)
    for result in counted:
        for one in [*result["exercises"], *result["written"]]:
            found[result["notebook"], one["id"]].append((result, one))
    notebooks = sorted({notebook for notebook, _ in found})  # Within one, the order of its exercises.
    return [_statistics(found[key], written) for name in notebooks for key in found if key[0] == name]


def _statistics(found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], written: WrittenGrades) -> dict[str, Any]:
    row = _about(*found[0]) | {"handed in": len(found), "answered": sum(is_answered(one) for _, one in found)}
    if "rubric" in found[0][1]:
        points = [written_grade(result, one, written).points for result, one in found]
        graded = [value for value in points if value is not None]
        return row | {"mean points": mean(graded) if graded else None}
    passed = [float(one["passed"]) for _, one in found]
    rest = [float(sum(other["points"] for other in result["exercises"] if other is not one)) for result, one in found]
    missed = [str(one["message"]) for _, one in found if not one["passed"] and is_answered(one)]
    return row | {
        "passed share": mean(passed),
        "mean points": mean(one["points"] for _, one in found),
        "discrimination": _correlation(passed, rest),
        "most common message": _most_common(missed),
    }


def _correlation(passed: Sequence[float], rest: Sequence[float]) -> float | None:
    if len(passed) < _LEAST:
        return None
    try:
        return correlation(passed, rest)
    except StatisticsError:  # All passed, or none did, or all have the same points.
        return None


def _most_common(messages: Sequence[str]) -> str:
    """The first line of the message most often given; messages that differ in numbers only are the same."""
    lines = [message.partition("\n")[0] for message in messages]
    counts = Counter(_NUMBER.sub("0", line) for line in lines)
    if not counts:
        return ""
    most = min(counts, key=lambda line: (-counts[line], line))
    return min(line for line in lines if _NUMBER.sub("0", line) == most)
