"""What goes wrong while people label: a kernel dies, the disk is full, others lock the store. Nothing is lost."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from rlhf_lab.labeling import schema
from rlhf_lab.labeling.session import Options, Session
from rlhf_lab.labeling.store import LabelStore

if TYPE_CHECKING:
    from tests.jupyter import Lab

NUM_KILLS = 50
# Labels as fast as they are confirmed, as in the worst moment for a kernel to die.
STREAM = """(root) => { window.stream = setInterval(() => {
  if (root.dataset.state !== 'saving') root.querySelector('[data-testid="choice-2"]')?.click(); }, 3); }"""


def uids(where: Path) -> list[str]:
    store = LabelStore(where)
    with store._reading() as connection:
        return list(connection.scalars(sa.select(schema.events.c.uid).order_by(schema.events.c.id)))


@pytest.mark.needs("browser")
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_no_confirmed_label_is_lost_when_the_kernel_is_killed(lab: "Lab", tmp_path: Path) -> None:
    from tests.labeling.front_ends import cell

    where, page, draw = tmp_path / "labels.sqlite", lab.page, random.Random(0)
    sent: list[str] = []
    confirmed: list[str] = []

    def on_socket(socket: Any) -> None:
        socket.on("framesent", lambda frame: sent.extend(_said(frame, "action", "answer")))
        socket.on("framereceived", lambda frame: confirmed.extend(_said(frame, "ok", True)))

    page.on("websocket", on_socket)
    name = lab.server.notebook(cell("compare", where, num=4000))
    lab.switch(name)
    for _ in range(NUM_KILLS):
        widget = lab.run()
        before = len(confirmed)
        widget.evaluate(STREAM)
        # Not a fixed time: on a slow machine the kernel would die before the first label.
        end = time.monotonic() + 30
        while len(confirmed) == before:
            assert time.monotonic() < end, "no label was confirmed within 30 s"
            page.wait_for_timeout(5)
        page.wait_for_timeout(draw.uniform(0, 450))
        os.kill(lab.server.kernel_process(name), signal.SIGKILL)
        dialog = page.locator(".jp-Dialog")
        dialog.wait_for(timeout=30_000)
        page.evaluate("() => clearInterval(window.stream)")
        dialog.locator("button.jp-mod-accept").click()
        lab.wait()
    page.remove_listener("websocket", on_socket)
    kept = uids(where)
    print(f"{NUM_KILLS} kills: {len(confirmed)} confirmed, {len(kept)} kept, {len(sent)} sent")
    assert len(kept) == len(set(kept))
    assert set(confirmed) <= set(kept) <= set(sent)
    labels = LabelStore(where).labels()
    assert len({label["item"] for label in labels}) == len(labels) == len(kept)


def _said(frame: Any, field: str, value: Any) -> list[str]:
    """The uid in a message of the widget's own, if its `field` has that value. Frames are binary, with JSON inside."""
    text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
    start = text.find('"content":{"uid"')
    if start < 0:
        start = text.find('"content": {"uid"')
    if start < 0:
        return []
    message, _ = json.JSONDecoder().raw_decode(text[text.index("{", start + 9) :])
    return [message["uid"]] if message.get(field) == value else []


@pytest.fixture
def session(tmp_path: Path) -> Session:
    store = LabelStore(tmp_path / "labels.sqlite")
    store.add_items([{"id": f"i{k}", "prompt": f"post {k}", "answers": ["one", "other"]} for k in range(40)])
    return Session(store, "ana", "compare", Options())


def answer(session: Session, uid: str) -> dict[str, Any]:
    found = session.store.ask("ana", "compare")[0]
    return {"action": "answer", "uid": uid, "assignment": found.id, "value": {"scale": 8, "step": 3}, "seconds": 1.0}


def test_a_locked_store_says_so_and_goes_on_afterwards(session: Session) -> None:
    message = answer(session, "first")
    other = sqlite3.connect(session.store.where, check_same_thread=False, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(10.0, lambda: other.execute("ROLLBACK"))
    release.start()
    start = time.monotonic()
    reply = session.handle(message)
    waited = time.monotonic() - start
    assert not reply["ok"] and reply["retry"] and waited < 6.0
    assert "in use by another program" in reply["error"] and "try again" in reply["error"]
    replies = [reply]
    while not replies[-1]["ok"]:  # As the page does.
        replies.append(session.handle(message))
    assert 9.5 < time.monotonic() - start < 16.0
    release.join()
    other.close()
    assert len(session.store.labels()) == 1 and session.handle(message)["ok"] and len(session.store.labels()) == 1


@pytest.mark.needs("mount")
def test_a_full_disk_says_so_and_goes_on_afterwards(small_disk: Path) -> None:
    store = LabelStore(small_disk / "labels.sqlite")
    store.add_items([{"id": f"i{k}", "prompt": f"post {k}", "answers": ["one", "other"]} for k in range(40)])
    session = Session(store, "ana", "compare", Options())
    assert session.handle(answer(session, "before"))["ok"]
    filler = small_disk / "filler"
    _fill(filler)
    message = answer_by_hand(session, "during")
    reply = session.handle(message)
    assert not reply["ok"] and reply["retry"] and "disk is full" in reply["error"], reply
    assert len(store.labels()) == 1
    filler.unlink()
    assert session.handle(message)["ok"]
    assert [label["event"] for label in store.labels()] == [1, 2]
    store.close()


def answer_by_hand(session: Session, uid: str) -> dict[str, Any]:
    """An answer to the item that is open already: to ask for one would need the disk."""
    found = session.store.at("ana", "compare", 1)
    assert found is not None
    value, known = {"choice": "tie"}, {"comment": "x" * 100_000, "seconds": 1.0}
    return {"action": "answer", "uid": uid, "assignment": found.id, "value": value, **known}


def _fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"x" * 512):
            pass


def test_what_an_error_leaves_behind_is_nothing(session: Session) -> None:
    message = answer(session, "bad") | {"value": {"scale": 8, "step": 9}}
    reply = session.handle(message)
    assert not reply["ok"] and not reply["retry"] and "is no answer" in reply["error"]
    assert reply["screen"]["current"]["assignment"] == message["assignment"]
    for odd in (
        {},
        {"action": "answer"},
        {"action": "nonsense"},
        {"action": "answer", "assignment": 10**9, "value": {}},
    ):
        assert not session.handle(odd)["ok"]
    assert session.store.labels() == []


def test_a_dead_writer_does_not_keep_the_others_waiting(session: Session) -> None:
    code = (
        "import os, sys; from rlhf_lab.labeling.turns import turn\n"
        f"with turn({session.store.where!r}): print('in', flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"in\n"
    killer = threading.Timer(1.0, process.kill)
    killer.start()
    start = time.monotonic()
    assert session.handle(answer(session, "one"))["ok"]
    assert 0.5 < time.monotonic() - start < 3.0
    process.wait()
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.close()
