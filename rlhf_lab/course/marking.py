"""Written answers graded in the notebook: the answer, the rubric beside it, and one key for the next.

lab.grade_written("grades")
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from rlhf_lab.course.texts import number
from rlhf_lab.course.written import FILE, Row, WrittenError, criteria_of, grade_in, read_written, write_rows

_FRONT = Path(__file__).parent / "front"


class Marking:
    """The screens for a person who grades, and what a message from the page does to `written.csv`.

    The table is read again for each message, so what is filled in elsewhere meanwhile is not lost.

    Raises:
        WrittenError: There is no table, or nothing in it.
    """

    def __init__(self, path: Path, *, show_names: bool = False) -> None:
        """Begin with the first answer that nobody has graded."""
        self.path, self.show_names = path, show_names
        self._guard = threading.RLock()  # Messages come on another thread than cells run on.
        rows = self._rows()
        self._key = rows[_next_ungraded(rows, 0) or 0]["key"]

    def screen(self) -> dict[str, Any]:
        """What to show now, and how far the grading is."""
        with self._guard:
            rows = self._rows()
            place = self._place(rows)
            num_graded = sum(grade_in(row).points is not None for row in rows)
            return {
                "place": place,
                "total": len(rows),
                "graded": num_graded,
                "next_ungraded": _next_ungraded(rows, place + 1),
                "item": self._item(rows[place]),
            }

    def handle(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a message says; the reply has the new screen, or says why not.

        Never raises: an error in the kernel would leave the page waiting. What is sent twice does no harm.
        """
        uid = str(message.get("uid", ""))
        try:
            with self._guard:
                if message.get("action") == "save":
                    self._save(message)
                elif message.get("action") == "show":
                    self._show(int(message["place"]))
                else:
                    raise WrittenError("the page asked for what this version does not know; run the cell again.")
                return {"uid": uid, "ok": True, "screen": self.screen()}
        except Exception as error:
            return {"uid": uid, "ok": False, "error": f"{error or type(error).__name__}"}

    def _rows(self) -> list[Row]:
        if not self.path.exists():
            raise WrittenError(f"{self.path} does not exist; grade submissions with written answers first.")
        rows = read_written(self.path)
        if not rows:
            raise WrittenError(f"{self.path} holds no written answers; there is nothing to grade.")
        return rows

    def _place(self, rows: Sequence[Row]) -> int:
        """Where the answer that is shown is now; the first, if it is gone."""
        return next((place for place, row in enumerate(rows) if row["key"] == self._key), 0)

    def _item(self, row: Row) -> dict[str, Any]:
        grade = grade_in(row)
        return {
            "key": row["key"],
            "title": row["title"],
            "where": f"{row['notebook']}, {row['exercise']}" + (f", {row['student']}" if self.show_names else ""),
            "answer": row["answer"],
            "criteria": [{"text": text, "points": points} for text, points in criteria_of(row)],
            "met": list(grade.met),
            "points": "" if grade.points is None else number(grade.points),
            "max_points": row["max_points"],
            "comment": grade.comment,
        }

    def _show(self, place: int) -> None:
        rows = self._rows()
        self._key = rows[max(0, min(place, len(rows) - 1))]["key"]

    def _save(self, message: dict[str, Any]) -> None:
        """Write a grade down, and go on to the next answer that has none."""
        rows = self._rows()
        place = next((place for place, row in enumerate(rows) if row["key"] == message["key"]), None)
        if place is None:
            raise WrittenError(f"this answer is not in {FILE} any more; run the cell again.")
        met = " ".join(str(int(criterion)) for criterion in message["met"])
        given = {"met": met, "points": str(message["points"]).strip(), "comment": str(message["comment"]).strip()}
        changed = rows[place] | given
        if grade_in(changed).points is None:
            raise WrittenError("tick what is met, or write the points; 0 if nothing is.")
        rows[place] = changed
        write_rows(self.path, rows)
        following = _next_ungraded(rows, place + 1)
        self._key = rows[place if following is None else following]["key"]


def _next_ungraded(rows: Sequence[Row], start: int) -> int | None:
    """The next place, from `start` and around, that nobody has graded."""
    places = [(start + step) % len(rows) for step in range(len(rows))]
    return next((place for place in places if grade_in(rows[place]).points is None), None)


class MarkingWidget(anywidget.AnyWidget):
    """The page of a `Marking`, which it keeps as `.marking`."""

    _esm = (_FRONT / "written.js").read_text(encoding="utf-8")
    _css = (_FRONT / "written.css").read_text(encoding="utf-8")
    screen = traitlets.Dict().tag(sync=True)

    def __init__(self, marking: Marking) -> None:
        """Show it."""
        super().__init__(screen=marking.screen())
        self.marking = marking
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        self.send(self.marking.handle(content if isinstance(content, dict) else {}))


def grade_written(folder: str | Path, *, show_names: bool = False) -> MarkingWidget:
    """Grade written answers in the notebook; each grade is in `written.csv` as soon as it is given.

    Answers to one question come one after the other. `rlhf-lab grade` then takes the points into the grades.

    Args:
        folder: Of the grades.
        show_names: Show whose answer it is.

    Raises:
        WrittenError: There are no written answers, or the table cannot be used.
    """
    return MarkingWidget(Marking(Path(folder) / FILE, show_names=show_names))
