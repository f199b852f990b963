"""One labeler in a process of its own: answers until nothing is left; writes down what was confirmed, and the waits.

python labeling_process.py STORE LABELER OUT
"""

import json
import sys
import time
from pathlib import Path

from rlhf_lab.labeling.store import LabelStore


def main(where: str, labeler: str, out: str) -> None:
    store = LabelStore(where)
    print("ready", flush=True)
    sys.stdin.readline()  # All start together, each with its imports done, as in kernels that are running already.
    began = time.perf_counter()
    confirmed: list[str] = []
    waits: list[float] = []
    while True:
        start = time.perf_counter()
        found = store.ask(labeler, "compare", num=1)
        waits.append(time.perf_counter() - start)
        if not found:
            break
        uid = f"{labeler}/{found[0].id}"
        start = time.perf_counter()
        store.record(found[0], {"scale": 8, "step": 1 + len(confirmed) % 8}, uid=uid, seconds=1.0)
        waits.append(time.perf_counter() - start)
        confirmed.append(uid)
    seconds = time.perf_counter() - began
    # The others are still at work: to take a process down costs more than a label.
    print("done", flush=True)
    sys.stdin.readline()
    Path(out).write_text(json.dumps({"confirmed": confirmed, "waits": waits, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
