"""Sixty people label at once, each in a process of their own."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from rlhf_lab.labeling import schema
from rlhf_lab.labeling.store import LabelStore

NUM_LABELERS, OVERLAP = 60, 3
NUM_ITEMS = int(os.environ.get("RLHF_LAB_LOAD_ITEMS", "1600"))
"""The page on labeling has 4,000, which takes minutes."""
LONGEST_WAIT = 2.0
"""Seconds that no assignment may be waited for."""


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1200)
def test_sixty_labelers_at_once(where: str, tmp_path: Path) -> None:
    store = LabelStore(where, overlap=OVERLAP)
    words = "word " * 150
    rows = [
        {"id": f"i{k}", "prompt": f"post {k} {words}", "answers": [f"one {k}", f"other {k}"]} for k in range(NUM_ITEMS)
    ]
    store.add_items(rows)
    names = [f"p{number}" for number in range(NUM_LABELERS)]
    store.add_labelers(names)
    program = Path(__file__).with_name("labeling_process.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), where, name, str(tmp_path / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    try:
        for word in ("ready", "done"):
            for process in processes:
                assert process.stdout is not None and process.stdout.readline() == word + "\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go on\n")
                process.stdin.flush()
        assert [process.wait(60) for process in processes] == [0] * NUM_LABELERS
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    told = [json.loads((tmp_path / name).read_text()) for name in names]
    confirmed = [uid for one in told for uid in one["confirmed"]]
    with store._reading() as connection:
        kept = list(connection.scalars(sa.select(schema.events.c.uid)))
    labels = store.labels()
    waits = sorted(wait for one in told for wait in one["waits"])
    seconds = max(one["seconds"] for one in told)
    print(
        f"{len(labels)} labels in {seconds:.0f} s ({len(labels) / seconds:.0f} a second); waits: median "
        f"{waits[len(waits) // 2]:.3f} s, longest {waits[-1]:.2f} s; labels of one person: "
        f"{min(len(one['confirmed']) for one in told)} to {max(len(one['confirmed']) for one in told)}"
    )
    assert len(confirmed) == len(labels) == NUM_ITEMS * OVERLAP
    assert sorted(confirmed) == sorted(kept)
    assert set(Counter(label["item"] for label in labels).values()) == {OVERLAP}
    assert len({(label["item"], label["labeler"]) for label in labels}) == len(labels)
    assert waits[-1] <= LONGEST_WAIT
    store.close()
