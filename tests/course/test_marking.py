"""Grading written answers: the half in the kernel, and the page in a browser that speaks to it without Jupyter."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rlhf_lab.course.marking import Marking, MarkingWidget, grade_written
from rlhf_lab.course.written import WrittenError, WrittenGrade, merge_written, read_written
from tests.course.sample_results import question, result

if TYPE_CHECKING:  # A machine without a browser has no Playwright either, perhaps.
    from playwright.sync_api import Browser, Locator

HOSTILE = "<img src=x onerror=\"document.title='ran'\"> & <b>bold</b>\n\u202eright\n  indented"
RESULTS = [
    *(result(student, "04_ppo", question(f"Answer of {student}.")) for student in ("ana", "ben", "cleo")),
    result("dan", "05_tldr", question(HOSTILE, name="other")),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    merge_written(tmp_path, RESULTS)
    return tmp_path / "written.csv"


def save(marking: Marking, **given: Any) -> dict[str, Any]:
    message = {
        "uid": "u",
        "action": "save",
        "key": marking.screen()["item"]["key"],
        "met": [],
        "points": "",
        "comment": "",
    }
    return marking.handle(message | given)


def grades(table: Path) -> dict[str, WrittenGrade]:
    return {student: grade for (student, _), grade in merge_written(table.parent, RESULTS).items()}


def test_the_screen_shows_an_answer_with_its_rubric_and_not_whose_it_is(table: Path) -> None:
    screen = Marking(table).screen()
    assert (screen["place"], screen["total"], screen["graded"], screen["next_ungraded"]) == (0, 4, 0, 1)
    assert screen["item"] | {"key": ""} == {
        "key": "",
        "title": "Read the curve",
        "where": "04_ppo, curve",
        "answer": "Answer of ana.",
        "criteria": [{"text": "names the cause", "points": 2.0}, {"text": "cites the figure", "points": 1.0}],
        "met": [],
        "points": "",
        "max_points": "3",
        "comment": "",
    }
    assert Marking(table, show_names=True).screen()["item"]["where"] == "04_ppo, curve, ana"


def test_a_grade_is_in_the_table_at_once_and_the_next_answer_shown(table: Path) -> None:
    marking = Marking(table)
    reply = save(marking, met=[1], points="2", comment="And the figure? \n")
    assert reply["ok"] and reply["screen"]["place"] == 1 and reply["screen"]["graded"] == 1
    assert grades(table)["ana"] == WrittenGrade(points=2.0, met=(1,), comment="And the figure?")
    assert save(marking, met=[1], points="1,5")["screen"]["place"] == 2
    assert save(marking, met=[1, 2])["screen"]["place"] == 3
    assert grades(table)["ben"].points == 1.5 and grades(table)["cleo"].points == 3.0
    done = save(marking, points="0")
    assert done["screen"]["graded"] == 4 and done["screen"]["next_ungraded"] is None
    assert done["screen"]["place"] == 3 and done["screen"]["item"]["points"] == "0"
    assert save(marking, points="1")["screen"]["item"]["points"] == "1"


def test_grading_goes_on_where_nobody_has_graded(table: Path) -> None:
    save(Marking(table), points="1")
    again = Marking(table)
    assert again.screen()["place"] == 1
    assert again.handle({"uid": "u", "action": "show", "place": 3})["screen"]["next_ungraded"] == 1
    assert save(again, points="0")["screen"]["place"] == 1
    assert again.handle({"uid": "u", "action": "show", "place": 0})["screen"]["item"]["points"] == "1"
    assert [again.handle({"uid": "u", "action": "show", "place": place})["screen"]["place"] for place in (-5, 99)] == [
        0,
        3,
    ]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "tick what is met, or write the points"),
        ({"points": "4"}, "points must be a number from 0 to 3"),
        ({"points": "two"}, "points must be a number from 0 to 3"),
        ({"met": [3]}, "the rubric has the criteria 1 to 2"),
        ({"met": ["x"]}, "invalid literal"),
        ({"met": None}, "not iterable"),
        ({"key": "w0"}, "not in written.csv any more"),
        ({"action": "erase"}, "does not know"),
        ({"action": "show"}, "place"),
    ],
)
def test_a_message_that_cannot_be_meant_changes_nothing(given: dict[str, Any], error: str, table: Path) -> None:
    before, marking = table.read_bytes(), Marking(table)
    reply = save(marking, **given)
    assert not reply["ok"] and error in reply["error"] and reply["uid"] == "u"
    assert table.read_bytes() == before and marking.screen()["place"] == 0


def test_what_is_filled_in_elsewhere_meanwhile_stays(table: Path) -> None:
    one, other = Marking(table), Marking(table)
    save(one, points="1")
    other.handle({"uid": "u", "action": "show", "place": 2})
    save(other, points="3")
    save(one, points="2")
    assert [grades(table)[student].points for student in ("ana", "ben", "cleo")] == [1.0, 2.0, 3.0]


def test_a_table_that_cannot_be_written_is_said(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    marking = Marking(table)
    monkeypatch.setattr("rlhf_lab.course.written.write_atomic", full)
    assert "No space left on device" in save(marking, points="1")["error"]
    assert grades(table)["ana"].points is None


def test_the_widget_answers_messages(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widget = grade_written(table.parent)
    replies: list[dict[str, Any]] = []
    monkeypatch.setattr(MarkingWidget, "send", lambda self, content: replies.append(content))
    key = widget.screen["item"]["key"]
    message = {"uid": "a", "action": "save", "key": key, "met": [2], "points": "1", "comment": ""}
    for content in (message, "what?"):
        widget._handle_custom_msg(content, [])
    assert replies[0]["ok"] and replies[0]["uid"] == "a" and not replies[1]["ok"]
    assert grades(table)["ana"].points == 1.0


@pytest.mark.parametrize("is_there", [True, False])
def test_without_written_answers_there_is_nothing_to_grade(is_there: bool, table: Path) -> None:
    if is_there:
        table.write_text(table.read_text("utf-8").partition("\n")[0] + "\n", "utf-8")
    else:
        table.unlink()
    with pytest.raises(
        WrittenError, match="holds no written answers" if is_there else "does not exist; grade submissions"
    ):
        grade_written(table.parent)


# What anywidget does: it imports the module, and gives it a model whose messages go to the kernel.
LOAD = """async ([esm, css, screen]) => {
  document.head.append(Object.assign(document.createElement('style'), { textContent: css }));
  const front = await import(URL.createObjectURL(new Blob([esm], { type: 'text/javascript' })));
  const listeners = {};
  window.model = {
    comm_live: true, isDeaf: false, get: () => screen, set: () => {}, off: () => {},
    on: (name, listener) => { listeners[name] = listener; },
    send: async (message) => { if (!window.model.isDeaf) listeners['msg:custom'](await handle(message)); },
    fall: () => { window.model.comm_live = false; listeners['comm_live_update'](); },
  };
  front.default.render({ model: window.model, el: document.body });
}"""


@pytest.fixture
def root(browser: "Browser", table: Path) -> "Iterator[Locator]":
    """The page on the first answer, in focus; whatever goes wrong in it fails the test."""
    page, problems = browser.new_page(viewport={"width": 1000, "height": 760}), []
    page.set_default_timeout(5000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    marking = Marking(table)
    page.expose_function("handle", lambda message: marking.handle(message))
    page.evaluate(LOAD, [str(MarkingWidget._esm), str(MarkingWidget._css), marking.screen()])
    root = page.get_by_test_id("rlhf-grading")
    root.focus()
    yield root
    assert problems == []
    page.close()


def at(root: "Locator", graded: int, answer: int) -> None:
    from playwright.sync_api import expect

    expect(root.locator(".rg-count")).to_have_text(f"{graded} of 4 graded \u00b7 answer {answer}")


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_a_class_is_graded_by_keyboard(root: "Locator", table: Path) -> None:
    keys = root.page.keyboard
    for key in ("1", "n"):
        keys.press(key)
    keys.type("1, 2: which? u")  # Typed, not pressed as keys of the page.
    keys.press("Control+Enter")
    at(root, 1, 2)
    for key in ("1", "2", "2", "p"):
        keys.press(key)
    keys.type("1.5")
    keys.press("Enter")
    at(root, 2, 3)
    for key in ("1", "0", "Enter"):
        keys.press(key)
    at(root, 3, 4)
    for key in ("ArrowLeft", "ArrowLeft"):
        keys.press(key)
        root.page.wait_for_timeout(100)
    at(root, 3, 2)
    keys.press("u")
    at(root, 3, 4)
    for key in ("2", "Enter"):
        keys.press(key)
    at(root, 4, 4)
    assert root.locator(".rg-status").text_content() == "Saved. All answers are graded."
    assert grades(table) == {
        "ana": WrittenGrade(points=2.0, met=(1,), comment="1, 2: which? u"),
        "ben": WrittenGrade(points=1.5, met=(1,)),
        "cleo": WrittenGrade(points=0.0),
        "dan": WrittenGrade(points=1.0, met=(2,)),
    }


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_a_class_is_graded_by_mouse(root: "Locator", table: Path) -> None:
    root.get_by_label("cites the figure").click()
    assert root.get_by_label("Points, 0 to 3").input_value() == "1"
    root.get_by_role("button", name="Next", exact=False).first.click()
    at(root, 0, 2)
    root.get_by_role("button", name="Previous").click()
    at(root, 0, 1)
    assert root.get_by_label("cites the figure").is_checked()  # What was not saved yet is still there.
    root.get_by_test_id("save").click()
    at(root, 1, 2)
    assert grades(table)["ana"] == WrittenGrade(points=1.0, met=(2,))


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_an_answer_is_shown_as_it_was_written_and_never_run(root: "Locator") -> None:
    for _ in range(3):
        root.page.keyboard.press("ArrowRight")
        root.page.wait_for_timeout(100)
    at(root, 0, 4)
    answer = root.get_by_role("group", name="Answer", exact=True)
    assert answer.evaluate("node => node.textContent") == HOSTILE.replace("\u202e", "[U+202E]")
    assert answer.locator("*").count() == 0 and root.page.title() != "ran"


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_what_is_not_saved_is_said(root: "Locator", table: Path) -> None:
    from playwright.sync_api import expect

    status, keys = root.locator(".rg-status"), root.page.keyboard
    keys.press("Enter")
    expect(status).to_have_text("Not saved: tick what is met, or write the points; 0 if nothing is.")
    keys.press("1")
    root.page.evaluate("() => { window.model.isDeaf = true; }")
    keys.press("Enter")
    expect(status).to_have_text("Saving ...")
    expect(root.get_by_role("button", name="Try again")).to_be_visible(timeout=15_000)
    root.page.evaluate("() => { window.model.isDeaf = false; }")
    root.get_by_role("button", name="Try again").click()
    at(root, 1, 2)
    root.page.evaluate("() => window.model.fall()")
    expect(root).to_have_attribute("data-state", "lost")
    keys.press("0")
    keys.press("Enter")
    assert [row["points"] for row in read_written(table)] == ["2", "", "", ""]


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_no_key_reaches_the_notebook(root: "Locator") -> None:
    page = root.page
    page.evaluate(
        "() => { window.heard = []; document.body.addEventListener('keydown', (e) => window.heard.push(e.key)); }"
    )
    for key in ("d", "d", "x", "1", "u", "Escape", "Enter", "ArrowRight"):
        page.keyboard.press(key)
        page.wait_for_timeout(50)
    assert page.evaluate("() => window.heard") == []
    assert root.get_attribute("data-lm-suppress-shortcuts") is not None
