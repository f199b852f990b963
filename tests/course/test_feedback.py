import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.course.feedback import write_feedback
from rlhf_lab.course.late import LatePolicy
from rlhf_lab.course.written import WrittenGrade
from tests.capabilities import chromium
from tests.course.sample_results import STUB, exercise, question, result

POLICY = LatePolicy(due=datetime(2026, 11, 30, tzinfo=UTC), percent_per_day=10, max_days=5)
HOSTILE = (
    "</pre></title></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'><a href='javascript:alert(1)'>"
    "{{ 7*7 }}{% raw %}\x1b[31m\u202egnirts\u2066\0\ufeff&lt;]]>"
)


class Page(HTMLParser):
    """What a page holds: its elements, its text, and where that text stands."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.inside = "", ""
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside != "style":
            self.text += data
            self.texts.append((self.inside, data.strip()))


def page(
    tmp_path: Path, *results: dict[str, Any], written: Mapping[tuple[str, str], WrittenGrade] | None = None
) -> Page:
    (path,) = write_feedback(tmp_path, results, written or {}, late=POLICY)
    return Page(path.read_text(encoding="utf-8"))


def words(shown: Page) -> str:
    return " ".join(shown.text.split())


def test_a_student_sees_points_messages_and_their_own_answers(tmp_path: Path) -> None:
    wrong = exercise(
        "gae", 1, answer="def gae():\n    return 1 < 2", message="gae: 1 of 3 points. Did you add?\nCase: two."
    )
    empty = exercise("clip", 0, answer=STUB, message="clip: not yet. NotImplementedError")
    shown = page(
        tmp_path, result("ana", "04_ppo", exercise("kl"), wrong, empty), result("ana", "05_tldr", exercise("x"))
    )
    text = words(shown)
    assert "Feedback for ana 7 of 12 points" in text and "04_ppo 4 of 9" in text and "05_tldr 3 of 3" in text
    assert "The kl right 3 of 3" in text and "The gae partly right 1 of 3" in text
    assert "The clip not answered 0 of 3" in text and "NotImplementedError" not in text
    assert ("pre", "def gae():\n    return 1 < 2") in shown.texts
    assert ("p", "1 of 3 points. Did you add?\nCase: two.") in shown.texts


def test_a_written_answer_comes_with_its_rubric(tmp_path: Path) -> None:
    grades = {("ana", "curve"): WrittenGrade(points=2.0, met=(1,), comment="And why?")}
    shown = page(tmp_path, result("ana", "04_ppo", question()), written=grades)
    assert "Read the curve partly right 2 of 3 It falls, since beta grows." in words(shown)
    assert "names the cause 2" in words(shown) and "And why?" in words(shown)
    assert [attributes.get("aria-label") for _, attributes in shown.elements if attributes.get("role") == "img"] == [
        "met",
        "not met",
    ]


def test_an_answer_that_waits_shows_no_points_and_no_comment(tmp_path: Path) -> None:
    grades = {("ana", "curve"): WrittenGrade(comment="for me: ask Ben")}
    text = words(page(tmp_path, result("ana", "04_ppo", question()), written=grades))
    assert "waits to be graded of 3" in text and "1 written answer still to be graded" in text
    assert "ask Ben" not in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"status": "refused", "reason": "it is empty."}, "This could not be graded: it is empty."),
        (
            {"status": "stopped", "reason": "it took 180 s.", "log": "F.."},
            "before its end: it took 180 s. What had been",
        ),
        ({"status": "needs a person", "reason": "KeyError"}, "a person will look at it"),
        (
            {"late_marked": True},
            "Late: marked late by Canvas, which does not say when: counted as 1 day, 10% off, which is 0.3",
        ),
        ({"notes": ["gae: a marker was taken out."]}, "gae: a marker was taken out."),
    ],
)
def test_what_went_wrong_is_said(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    text = words(page(tmp_path, result("ana", "04_ppo", exercise(), **more)))
    assert said in text
    assert "KeyError" not in text and ("The gae" in text) == (more.get("status") != "refused")


def test_in_time_and_time_unknown_are_not_worth_a_word(tmp_path: Path) -> None:
    assert "ate:" not in words(page(tmp_path, result("ana", "04_ppo", exercise())))


def hostile_result() -> dict[str, Any]:
    parts = [exercise("gae", 0, answer=HOSTILE, message=HOSTILE, title=HOSTILE), question(HOSTILE)]
    kept = {"notes": [HOSTILE], "reason": HOSTILE, "log": HOSTILE}
    return result(HOSTILE, HOSTILE, *parts, status="stopped", **kept)


def test_nothing_that_a_student_wrote_is_more_than_text(tmp_path: Path) -> None:
    shown = page(tmp_path, hostile_result(), written={(HOSTILE, "curve"): WrittenGrade(points=1.0, comment=HOSTILE)})
    tame = result("ana", "04_ppo", exercise(points=0), question(), status="stopped", log="x", notes=["x"])
    plain = page(tmp_path, tame, written={("ana", "curve"): WrittenGrade(points=1.0, comment="x")})
    assert [tag for tag, _ in shown.elements] == [tag for tag, _ in plain.elements]
    assert {"script", "img", "a", "iframe", "object", "link", "form"}.isdisjoint(tag for tag, _ in shown.elements)
    names = {name for _, attributes in shown.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("href", "src", "style")]
    assert "[U+202E]gnirts[U+2066][U+0000][U+FEFF]" in shown.text and "{{ 7*7 }}" in shown.text
    assert not set(shown.text) & set("\x1b\u202e\u2066\0\ufeff")


def test_the_page_allows_no_script(tmp_path: Path) -> None:
    shown = page(tmp_path, result())
    (policy,) = [more["content"] for tag, more in shown.elements if more.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "script" not in policy


def test_a_text_without_end_is_cut(tmp_path: Path) -> None:
    shown = page(tmp_path, result("ana", "04_ppo", exercise(points=0, answer="x" * 100_000)))
    assert "[cut: 80000 more letters]" in shown.text and len(shown.text) < 30_000


def test_pages_stay_in_their_folder_and_old_ones_go(tmp_path: Path) -> None:
    write_feedback(tmp_path, [result("old")], {})
    paths = write_feedback(tmp_path, [result("../../x"), result("ana")], {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["%2E.%2F..%2Fx.html", "ana.html", "feedback"]
    assert sorted(paths) == sorted((tmp_path / "feedback").iterdir())
    first = paths[0].read_bytes()
    write_feedback(tmp_path, [result("../../x"), result("ana")], {})
    assert paths[0].read_bytes() == first


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_a_browser_runs_nothing_and_finds_nothing_missing(tmp_path: Path) -> None:
    (path,) = write_feedback(tmp_path, [hostile_result()], {})
    marked = path.read_text().replace("</main>", "<script>document.title='ran'</script></main>")
    path.write_text(marked)
    program = chromium()
    assert program is not None
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dom = subprocess.run(
        [*command, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ},
        check=True,
    ).stdout
    assert "<title>Feedback for" in dom and "<title>ran" not in dom


def test_a_notebook_that_was_not_handed_in_counts(tmp_path: Path) -> None:
    results = [result("ana", "04_ppo", exercise()), result("ben", "05_tldr", exercise()), result("ben", "04_ppo")]
    write_feedback(tmp_path, results, {})
    text = (tmp_path / "feedback" / "ana.html").read_text()
    assert "05_tldr: nothing was handed in, 0 of 3 points." in text and "3 of 9 points" in text
    assert "nothing was handed in" not in (tmp_path / "feedback" / "ben.html").read_text()
