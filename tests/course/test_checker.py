"""The checker's process and its protocol, spoken by honest and by lying clients."""

import contextlib
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_lab.course import checking
from rlhf_lab.course.checker import MAX_ATTEMPTS, Room
from rlhf_lab.course.checking import NotYet, check
from rlhf_lab.course.exercises import exercise_of
from rlhf_lab.course.wire import MAGIC, WireError, pack, receive, send, unpack
from rlhf_lab.equations.policy_gradient import gae
from tests.capabilities import ROOT


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    path = str(tmp_path / "check.sock")
    opened = Room(path, [exercise_of("gae")])
    monkeypatch.setenv(checking.SOCKET, path)
    yield opened
    opened.close()


def connect(room: Room) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(room._listener.getsockname())
    connection.settimeout(10)
    return connection


def wrong(rewards: Any, values: Any, mask: Any, **kwargs: Any) -> Any:
    return torch.zeros_like(rewards)


def test_a_right_answer_is_recorded(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    check("gae", gae)
    assert capsys.readouterr().out == "gae: right, 4 points.\n"
    assert room.close()["record"]["gae"] == {
        "points": 4,
        "max_points": 4,
        "passed": True,
        "message": "gae: right, 4 points.",
        "attempts": 1,
    }


def test_any_pass_of_three_attempts_counts(room: Room) -> None:
    with pytest.raises(NotYet, match="gae: not yet"):
        check("gae", wrong)
    check("gae", gae)
    with pytest.raises(NotYet):
        check("gae", wrong)
    with pytest.raises(NotYet, match="checked 3 times already"):
        check("gae", gae)
    record = room.close()["record"]["gae"]
    assert (record["points"], record["attempts"]) == (4, MAX_ATTEMPTS)


def test_three_wrong_answers_end_it(room: Room) -> None:
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(NotYet):
            check("gae", wrong)
    with pytest.raises(NotYet, match="checked 3 times already"):
        check("gae", gae)
    assert room.close()["record"]["gae"]["points"] == 0


def test_an_exercise_of_another_notebook_is_not_checked(room: Room) -> None:
    with pytest.raises(NotYet, match="no such exercise"):
        check("other", wrong)
    assert room.close() == {"record": {}, "trouble": []}


def test_errors_in_answers_are_outcomes(room: Room) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ValueError("line one\nline two\x1b[31m")

    with pytest.raises(NotYet, match=r"raised an error: ValueError: line one line two \[31m"):
        check("gae", broken)
    with pytest.raises(NotYet, match="raised an error: a builtin_function_or_method cannot be checked"):
        check("gae", lambda *args, **kwargs: print)


def test_inputs_are_fresh_each_time(room: Room) -> None:
    seen = []

    def spy(rewards: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(rewards)
        return rewards

    for _ in range(2):
        with pytest.raises(NotYet):
            check("gae", spy)
    half = len(seen) // 2
    assert not any(torch.equal(first, second) for first, second in zip(seen[:half], seen[half:], strict=True))


LIES = {
    "a verdict": {"passed": True, "points": 4, "message": "right"},
    "no list": {"outcomes": "right"},
    "a list of nothing": {"outcomes": []},
    "too many": {"outcomes": [{"output": torch.zeros(1)}] * 50},
    "no outputs": {"outcomes": [{}] * 4},
    "texts": {"outcomes": ["right"] * 4},
    "nested": {"outcomes": [{"output": [[[[1]]]]}] * 4},
    "an error that is no text": {"outcomes": [{"error": {"a": 1}}] * 4},
    "wide": {"outcomes": [{"output": torch.zeros(2, 5), "gradients": "all"}] * 4},
    "names": {"exercise": "gae"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_lies_earn_nothing(lie: Any, room: Room) -> None:
    with connect(room) as connection:
        send(connection, {"exercise": "gae"})
        assert "questions" in receive(connection, 10.0)
        send(connection, lie)
        with contextlib.suppress(WireError, OSError):
            assert receive(connection, 10.0)["passed"] is False
    closed = room.close()
    assert closed["trouble"] == []
    assert closed["record"].get("gae", {"points": 0})["points"] == 0


BYTES = {
    "nothing": b"",
    "noise": b"\xff" * 64,
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "a length of 4 GiB": struct.pack("!5sII", MAGIC, 0xFFFFFFFF, 0),
    "a payload of 4 GiB": struct.pack("!5sII", MAGIC, 2, 0xFFFFFFFF) + b"{}",
    "a header that is cut": struct.pack("!5sII", MAGIC, 100, 0) + b'{"a"',
    "deep": struct.pack("!5sII", MAGIC, 200_000, 0) + b"[" * 200_000,
    "not json": struct.pack("!5sII", MAGIC, 4, 0) + b"\x00\x01\x02\x03",
    "a list": pack(["exercise", "gae"]),
    "a number": pack(1),
    "a name that is no text": pack({"exercise": ["gae"]}),
    "a long name": pack({"exercise": "gae" * 10_000}),
    "a newline": pack({"exercise": 'gae\n{"record": 4}'}),
}


@pytest.mark.parametrize("message", BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_message_harm_nobody(message: bytes, room: Room) -> None:
    with connect(room) as connection:
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(WireError, OSError):
            assert "questions" not in receive(connection, 10.0)
    check("gae", gae)
    assert room.close()["trouble"] == []


def test_a_silent_client_holds_up_nobody(room: Room) -> None:
    with connect(room), connect(room) as second:
        send(second, {"exercise": "gae"})
        check("gae", gae)


HEADERS = {
    "a size below zero": ({"tensor": ["float64", [-1]]}, b""),
    "a size beyond the bytes": ({"tensor": ["float64", [2**40]]}, b""),
    "sizes whose product overflows": ({"tensor": ["float64", [2**40, 2**40, 2**40]]}, b""),
    "nine axes": ({"array": ["int8", [1] * 9]}, b"\x00"),
    "objects": ({"array": ["object", [1]]}, b"\x00" * 8),
    "a structure": ({"array": ["f8,f8", [1]]}, b"\x00" * 16),
    "a size that is a bool": ({"array": ["int8", [True]]}, b"\x00"),
    "a size that is real": ({"array": ["int8", [1.0]]}, b"\x00"),
    "bytes too many": ({"array": ["int8", [1]]}, b"\x00\x00"),
    "two kinds": ({"array": ["int8", [1]], "list": []}, b"\x00"),
    "a kind that is none": ({"pickle": "gASV"}, b""),
    "a bare list": ([1, 2], b""),
    "a number of 400 digits": (10**400, b""),
}


@pytest.mark.parametrize(("header", "payload"), HEADERS.values(), ids=HEADERS)
def test_headers_that_lie_are_refused(header: Any, payload: bytes) -> None:
    text = json.dumps(header).encode()
    with pytest.raises(WireError):
        unpack(struct.pack("!5sII", MAGIC, len(text), len(payload)) + text + payload)


def test_values_survive_the_way() -> None:
    values = {
        "float64": torch.tensor([[1.5, float("nan")], [float("inf"), -0.0]], dtype=torch.float64),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.0),
        "transposed": torch.arange(6.0).view(2, 3).T,
        "array": np.arange(3),
        "numpy number": np.float32(0.5),
        "plain": [None, True, 3, -2.5, float("inf"), "text\n\u202e", {"list": [1]}, []],
    }
    back = unpack(pack(values))
    assert list(back) == list(values)
    for name in ("float64", "bool", "empty", "scalar", "transposed"):
        assert back[name].dtype == values[name].dtype
        assert torch.equal(back[name].nan_to_num(7), values[name].nan_to_num(7))
    assert (back["array"] == values["array"]).all()
    assert back["numpy number"] == 0.5
    assert back["plain"] == values["plain"]


def test_a_value_is_what_it_means_however_it_is_held() -> None:
    numbers = np.array([1.0, -2.5])
    assert (unpack(pack(numbers.astype(">f8"))) == numbers).all()
    assert (unpack(pack(numbers.astype(">f4"))) == numbers).all()
    assert unpack(pack(np.array(["a", "b"]))) == ["a", "b"]
    assert torch.equal(unpack(pack(torch.tensor(numbers, dtype=torch.bfloat16))), torch.tensor([1.0, -2.5]))
    negative = torch.conj(torch.tensor([1 + 2j])).imag
    assert negative.is_neg() and unpack(pack(negative)).item() == -2.0


def test_large_messages_are_refused_before_they_are_read(room: Room) -> None:
    with connect(room) as connection:
        send(connection, {"exercise": "gae", "more": "x" * 5000})
        with pytest.raises((WireError, OSError)):
            receive(connection, 10.0)
    with connect(room) as connection:
        send(connection, {"exercise": "gae"})
        receive(connection, 10.0)
        with contextlib.suppress(OSError):
            send(connection, {"outcomes": [{"output": np.zeros(2**22)}]})
        with pytest.raises((WireError, OSError)):
            receive(connection, 10.0)
    check("gae", gae)


def test_a_room_goes_on_where_a_connection_could_not_be_taken(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = socket.socket.accept
    troubles = [OSError(24, "Too many open files")] * 2

    def accept(self: socket.socket) -> Any:
        if troubles:
            raise troubles.pop()
        return accepted(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    connect(room).close()  # The room waits in the true `accept` until then.
    check("gae", gae)
    assert troubles == [] and room.close()["record"]["gae"]["passed"]


def test_a_room_waits_as_long_as_a_cell_may_take(tmp_path: Path) -> None:
    room = Room(str(tmp_path / "short.sock"), [exercise_of("gae")], timeout_s=0.2)
    with connect(room) as connection:
        send(connection, {"exercise": "gae"})
        receive(connection, 10.0)
        with pytest.raises((WireError, OSError)):
            receive(connection, 10.0)
    room.close()


@pytest.mark.parametrize("value", [print, {1: 2}, b"x", {3}, 1j, np.array(["a"], dtype=object), 2**70], ids=repr)
def test_what_cannot_be_checked_is_named(value: Any) -> None:
    with pytest.raises(WireError, match=r"cannot be checked|must be texts|too large"):
        pack(value)


def test_the_process_obeys_and_ends_with_its_grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rlhf_lab.course.checker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin and process.stdout

    def ask(command: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    [about] = ask({"describe": ["gae"]})["exercises"]
    assert about["hidden"] == ["rlhf_lab.equations.policy_gradient.gae"]
    assert about["points"] == 4
    assert ask({"describe": ["gea"]}) == {"error": "the course has no exercise 'gea'."}
    path = str(tmp_path / "s")
    assert ask({"open": path, "exercises": ["gae"]}) == {"opened": path}
    monkeypatch.setenv(checking.SOCKET, path)
    check("gae", gae)
    assert ask({"close": path})["record"]["gae"]["points"] == 4
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()
    process.stdout.close()
