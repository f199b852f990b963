import pytest

from rlhf_lab.course.item_statistics import exercise_rows, is_answered, statistics_rows
from rlhf_lab.course.written import WrittenGrade
from tests.course.sample_results import STUB, exercise, question, result


def test_each_student_and_exercise_has_a_row() -> None:
    results = [
        result("ben", "05_tldr", question()),
        result("ana", "04_ppo", exercise(), exercise("clip", 0), question("")),
    ]
    rows = exercise_rows(results, {("ben", "curve"): WrittenGrade(points=1.0, comment="Why?")})
    shown = [tuple(row.get(key) for key in ("student", "exercise", "points", "passed", "message")) for row in rows]
    assert shown == [
        ("ana", "gae", 3, "yes", "gae: right, 3 points."),
        ("ana", "clip", 0, "no", "clip: not yet. Did you add\nCase: two rows."),
        ("ana", "curve", 0.0, None, ""),
        ("ben", "curve", 1.0, None, "Why?"),
    ]


def test_statistics_say_how_an_exercise_fared() -> None:
    # By hand: passing (1, 1, 0, 0) against the points elsewhere, (3, 3, 0, 0) for gae and (3, 3, 0, 1) for clip.
    results = [
        result("a", "04_ppo", exercise("gae", 3), exercise("clip", 3)),
        result("b", "04_ppo", exercise("gae", 3), exercise("clip", 3)),
        result("c", "04_ppo", exercise("gae", 0, answer=STUB), exercise("clip", 0)),
        result(
            "d", "04_ppo", exercise("gae", 1, message="gae: 1 of 3 points. Output[1] is not 0.5."), exercise("clip", 0)
        ),
        result("e", "04_ppo", exercise("gae", 0, answer=""), status="refused"),
    ]
    gae, clip = statistics_rows(results, {})
    assert gae == {
        "notebook": "04_ppo",
        "exercise": "gae",
        "title": "The gae",
        "max points": 3,
        "handed in": 4,
        "answered": 3,
        "passed share": 0.5,
        "mean points": pytest.approx(1.75),
        "discrimination": pytest.approx(1.0),
        "most common message": "gae: 1 of 3 points. Output[1] is not 0.5.",
    }
    assert clip["discrimination"] == pytest.approx(2.5 / 6.75**0.5)


def test_messages_that_differ_in_numbers_are_one() -> None:
    messages = ["gae: not yet. [2] is not 1.5.", "gae: not yet. [3] is not -2e-05.", "gae: not yet. A rare one."]
    results = [
        result(name, "04_ppo", exercise(points=0, message=text)) for name, text in zip("abc", messages, strict=True)
    ]
    (row,) = statistics_rows(results, {})
    assert row["most common message"] == messages[0]


@pytest.mark.parametrize("points", [[3, 3, 3], [0, 0, 0], [3, 0]])
def test_a_discrimination_that_says_nothing_is_not_given(points: list[float]) -> None:
    results = [
        result(f"{number}", "04_ppo", exercise(points=one), exercise("clip", one)) for number, one in enumerate(points)
    ]
    assert all(row["discrimination"] is None for row in statistics_rows(results, {}))


def test_of_written_answers_the_graded_ones_count() -> None:
    results = [result(name, "04_ppo", question("" if name == "c" else "text")) for name in "abc"]
    (row,) = statistics_rows(results, {("a", "curve"): WrittenGrade(points=2.0)})
    assert (row["handed in"], row["answered"], row["mean points"]) == (3, 2, 1.0)


def test_a_stub_is_no_answer() -> None:
    assert [is_answered(exercise(points=0, answer=text)) for text in ("", " \n", STUB, "def f(): pass")] == [
        False,
        False,
        False,
        True,
    ]
    assert is_answered(exercise(points=3, answer=STUB))
