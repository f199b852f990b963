"""The checker: a process that sends inputs to graded notebooks, judges what comes back, and keeps the score.

No student's code runs here. It takes commands as lines of JSON on its standard input and answers each with one line on
its standard output; a room is a socket that one submission's checks talk to.

    {"describe": [ID, ...]}                    titles, points, rubrics, and the functions to hide
    {"open": SOCKET, "exercises": [ID, ...], "timeout_s": 60.0}   a room
    {"close": SOCKET}                          the record: for each exercise the best attempt
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rlhf_lab.course.exercise import Exercise
from rlhf_lab.course.exercises import all_exercises
from rlhf_lab.course.judging import draw_cases, judge, questions
from rlhf_lab.course.wire import WireError, receive, send

MAX_ATTEMPTS = 3
"""Times that an exercise may be checked in one run; any pass counts."""
MAX_CONNECTIONS = 8
"""At once, from one submission."""
TIMEOUT_S = 60.0
"""For a message, the student's own computation included, where the grader says nothing else."""
MAX_QUESTION_BYTES, MAX_OUTCOME_BYTES = 4096, 2**22


class Room:
    """A socket for one submission, with its own secret and its own record."""

    def __init__(self, path: str, exercises: Sequence[Exercise], timeout_s: float = TIMEOUT_S) -> None:
        """Listen at `path`; anybody who can see the path may connect."""
        self._timeout_s = timeout_s
        self._is_closed = threading.Event()
        self.exercises = {exercise.id: exercise for exercise in exercises}
        self.record: dict[str, dict[str, Any]] = {}
        self.trouble: list[str] = []
        self._secret = secrets.token_bytes(32)
        self._attempts = dict.fromkeys(self.exercises, 0)
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        os.chmod(path, 0o666)
        self._listener.listen(MAX_CONNECTIONS)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> dict[str, Any]:
        """Hear nobody any more; returns the record."""
        self._is_closed.set()
        # A blocked accept() is not woken by close() alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            return {"record": self.record, "trouble": self.trouble}

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # The room is closed; or too many files are open here, which passes.
                if self._is_closed.wait(0.1):
                    return
                continue
            if self._slots.acquire(blocking=False):
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._answer(connection)
        except (WireError, OSError):  # Their loss: an attempt that was begun is counted.
            pass
        except Exception as error:  # Ours: a person must look at it.
            with self._lock:
                self.trouble.append(f"{type(error).__name__}: {error}"[:300])
        finally:
            self._slots.release()

    def _answer(self, connection: socket.socket) -> None:
        asked = receive(connection, self._timeout_s, MAX_QUESTION_BYTES)
        name = asked.get("exercise") if isinstance(asked, dict) else None
        exercise = self.exercises.get(name) if isinstance(name, str) else None
        if exercise is None:
            send(connection, {"message": "this notebook has no such exercise."})
            return
        with self._lock:
            attempt = self._attempts[exercise.id]
            self._attempts[exercise.id] += attempt < MAX_ATTEMPTS
        if attempt >= MAX_ATTEMPTS:
            send(connection, {"message": f"{exercise.id}: checked {MAX_ATTEMPTS} times already."})
            return
        cases = draw_cases(exercise, self._secret, attempt)
        send(connection, {"questions": questions(cases)})
        received = receive(connection, self._timeout_s, MAX_OUTCOME_BYTES)
        outcomes = received.get("outcomes") if isinstance(received, dict) else None
        if not isinstance(outcomes, list) or not all(isinstance(outcome, dict) for outcome in outcomes):
            raise WireError("no outcomes")
        verdict = judge(exercise, cases, outcomes)
        self._keep(exercise.id, asdict(verdict))  # Before it is told: who kills the notebook now has lost nothing.
        send(connection, {"passed": verdict.passed, "message": verdict.message})

    def _keep(self, name: str, verdict: dict[str, Any]) -> None:
        with self._lock:
            known = self.record.get(name)
            if known is None or verdict["points"] >= known["points"]:
                self.record[name] = verdict
            self.record[name]["attempts"] = self._attempts[name]


def describe(names: Sequence[str]) -> list[dict[str, Any]]:
    """What the grader must know of exercises, which it does not load itself.

    Raises:
        ValueError: An exercise that the course does not have.
    """
    known, described = all_exercises(), []
    for name in names:
        if name not in known:
            raise ValueError(f"the course has no exercise {name!r}.")
        exercise = known[name]
        about: dict[str, Any] = {"id": name, "title": exercise.title, "points": exercise.points, "kind": exercise.kind}
        about |= {"hidden": exercise.hidden} if isinstance(exercise, Exercise) else {"rubric": dict(exercise.rubric)}
        described.append(about)
    return described


def main() -> None:
    """Take commands until the grader is gone."""
    rooms: dict[str, Room] = {}
    commands, replies = sys.stdin, sys.stdout
    sys.stdout = sys.stderr  # A library that prints must not speak in our name.
    for line in commands:
        try:
            reply = _obey(json.loads(line), rooms)
        except Exception as error:
            reply = {"error": str(error) or type(error).__name__}
        print(json.dumps(reply), file=replies, flush=True)


def _obey(command: dict[str, Any], rooms: dict[str, Room]) -> dict[str, Any]:
    if "describe" in command:
        return {"exercises": describe(command["describe"])}
    if "open" in command:
        known = all_exercises()
        asked = [known[name] for name in command["exercises"]]
        checked = [one for one in asked if isinstance(one, Exercise)]
        rooms[command["open"]] = Room(command["open"], checked, command.get("timeout_s", TIMEOUT_S))
        return {"opened": command["open"]}
    return rooms.pop(command["close"]).close()


if __name__ == "__main__":
    main()
    # A thread that still serves somebody must neither hold up the end nor be torn out of PyTorch, which aborts.
    os._exit(0)
