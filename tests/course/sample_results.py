"""Results as grading writes them, for the tests of what is made of them."""

from typing import Any

RUBRIC = {"names the cause": 2, "cites the figure": 1}
STUB = "# YOUR CODE HERE\nraise NotImplementedError()"


def exercise(name: str = "gae", points: float = 3, **more: Any) -> dict[str, Any]:
    passed = points == 3
    message = f"{name}: right, 3 points." if passed else f"{name}: not yet. Did you add\nCase: two rows."
    about = {"id": name, "title": f"The {name}", "max_points": 3, "points": points, "passed": passed}
    return about | {"message": message, "attempts": 1, "answer": f"def {name}():\n    return 1"} | more


def question(answer: str = "It falls, since beta grows.", name: str = "curve", **more: Any) -> dict[str, Any]:
    return {"id": name, "title": "Read the curve", "max_points": 3, "answer": answer, "rubric": RUBRIC} | more


def result(student: str = "ana", notebook: str = "04_ppo", *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A result with these exercises and written answers; by default one of each."""
    parts = parts or (exercise(), question())
    return {
        "student": student,
        "notebook": notebook,
        "status": "graded",
        "reason": "",
        "sandbox": "bubblewrap",
        "digest": "",
        "submitted": None,
        "late_marked": False,
        "seconds": 1.0,
        "notes": [],
        "exercises": [part for part in parts if "rubric" not in part],
        "written": [part for part in parts if "rubric" in part],
        "log": "",
    } | more
