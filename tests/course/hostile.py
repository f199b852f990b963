"""A small notebook of two exercises, and what people hand in for it: honest, wrong, broken and hostile, with its grade.

`gae` is worth 4 points (3 for the estimate, 1 for the padding) and `policy-temperature` 2. Most attacks leave one
exercise answered rightly, so a grade of 4 or of 2 means that the attack won nothing.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat.v4 as v4

GAE = """
import torch

def gae(rewards, values, mask, *, discount, gae_lambda):
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantages, running, after = torch.zeros_like(rewards), 0.0, 0.0
    for t in range(rewards.shape[1] - 1, -1, -1):
        running = rewards[:, t] + discount * after - values[:, t] + discount * gae_lambda * running
        advantages[:, t], after = running, values[:, t]
    return advantages.masked_fill(~mask, 0.0)
"""
RETURN = "return advantages.masked_fill(~mask, 0.0)"
HIDE = "rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)"
UNPADDED = GAE.replace(HIDE, "pass")
POLICY = """
import torch

def policy(logits, temperature):
    return torch.softmax(logits / temperature, -1)
"""
WRONG_POLICY = POLICY.replace("/ temperature", "* temperature")
WRONG_GAE = "def gae(rewards, values, mask, **kwargs):\n    return rewards * 0.5"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What is handed in, and the points that it is worth; None where only the harm is of interest."""

    points: float | None
    gae: str = GAE
    policy: str = POLICY
    change: Callable[[dict[str, Any]], Any] | None = None
    """Of the notebook's JSON."""
    write: Callable[[Path, dict[str, Any]], None] | None = None
    """In place of the file that the notebook would be; takes its path and the notebook."""
    status: str = "graded"
    reason: str = ""
    """A part of it."""
    extra: dict[str, Any] = field(default_factory=dict)


def _nbgrader(cell: str, *, solution: bool, grade: bool, points: int | None = None) -> dict[str, Any]:
    about = {"schema_version": 3, "solution": solution, "grade": grade, "locked": not solution, "task": False}
    return {"nbgrader": {**about, "grade_id": cell, **({"points": points} if points else {})}}


def solution() -> Any:
    """The reference notebook."""

    def answer(name: str, source: str) -> Any:
        lines = f"### BEGIN SOLUTION\n{source.strip()}\n### END SOLUTION"
        metadata = _nbgrader(f"{name}-answer", solution=True, grade=False)
        return v4.new_code_cell(lines, id=f"{name}-answer", metadata=metadata)

    def check(name: str, function: str, points: int) -> Any:
        metadata = _nbgrader(f"{name}-check", solution=False, grade=True, points=points)
        return v4.new_code_cell(f'check("{name}", {function})', id=f"{name}-check", metadata=metadata)

    setup = "import torch\nfrom rlhf_lab.course.checking import check"
    cells = [
        v4.new_code_cell(setup, id="setup"),
        answer("gae", GAE),
        check("gae", "gae", 4),
        v4.new_code_cell("raise RuntimeError('demonstrations are not run')", id="demo", metadata={"tags": ["show"]}),
        answer("policy-temperature", POLICY),
        check("policy-temperature", "policy", 2),
    ]
    return v4.new_notebook(cells=cells)


def handed_in(attack: Attack) -> dict[str, Any]:
    """The notebook that somebody hands in, as JSON."""
    notebook = json.loads(json.dumps(solution()))
    for cell in notebook["cells"]:
        if cell["id"] == "gae-answer":
            cell["source"] = attack.gae
        if cell["id"] == "policy-temperature-answer":
            cell["source"] = attack.policy
    if attack.change:
        notebook = attack.change(notebook) or notebook
    return notebook


def put(attack: Attack, path: Path) -> None:
    """Write what is handed in to `path`, or in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if attack.write:
        attack.write(path, handed_in(attack))
    else:
        path.write_text(json.dumps(handed_in(attack)), encoding="utf-8")


def _cell(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["id"] == name)


def _set(name: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda notebook: _cell(notebook, name).update(fields)


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        notebook["cells"] = [cell for cell in notebook["cells"] if cell["id"] != name]

    return change


def _reordered(notebook: dict[str, Any]) -> None:
    notebook["cells"].reverse()


def _twice(source: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        notebook["cells"].append({**_cell(notebook, "gae-answer"), "source": source})

    return change


def _forged_outputs(notebook: dict[str, Any]) -> None:
    output = {"output_type": "stream", "name": "stdout", "text": "gae: right, 4 points.\n"}
    _cell(notebook, "gae-check").update(execution_count=1, outputs=[output])


def _tagged(*tags: str) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        for cell in notebook["cells"]:
            cell["metadata"]["tags"] = list(tags)

    return change


def _without_ids(notebook: dict[str, Any]) -> None:
    for cell in notebook["cells"]:
        del cell["id"]
    notebook["nbformat_minor"] = 4


def _bare(notebook: dict[str, Any]) -> None:
    _without_ids(notebook)
    for cell in notebook["cells"]:
        cell["metadata"] = {}


def _other_kernel(notebook: dict[str, Any]) -> None:
    notebook["metadata"] = {"kernelspec": {"name": "julia-9", "display_name": "Julia", "language": "julia"}}


def _text(change: Callable[[str], bytes]) -> Callable[[Path, dict[str, Any]], None]:
    return lambda path, notebook: path.write_bytes(change(json.dumps(notebook, indent=1))) and None


def _zip(members: Callable[[str], dict[str, bytes]]) -> Callable[[Path, dict[str, Any]], None]:
    def write(path: Path, notebook: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members(json.dumps(notebook)).items():
                archive.writestr(name, content)
        path.with_suffix(".zip").write_bytes(buffer.getvalue())

    return write


def _linked_in_a_zip(path: Path, notebook: dict[str, Any]) -> None:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        member = zipfile.ZipInfo(path.name)
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")


def _symlink(path: Path, notebook: dict[str, Any]) -> None:
    other = path.parent / "elsewhere.txt"
    other.write_text(json.dumps(notebook), encoding="utf-8")
    path.symlink_to(other)


def _with_output(megabytes: int) -> Callable[[dict[str, Any]], None]:
    def change(notebook: dict[str, Any]) -> None:
        output = {"output_type": "stream", "name": "stdout", "text": "x" * (megabytes * 2**20)}
        _cell(notebook, "setup").update(execution_count=1, outputs=[output])

    return change


ALWAYS_EQUAL = """
class Yes:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __float__(self): return 1.0
    def __array__(self, *args, **kwargs): raise RuntimeError("ask me nothing")
    shape, dtype = (2, 5), "float64"
def gae(*args, **kwargs): return Yes()
"""
PATCHED_TORCH = """
import torch
torch.allclose = torch.equal = lambda *args, **kwargs: True
torch.Tensor.__eq__ = lambda *args: torch.ones(1, dtype=torch.bool)
import numpy
numpy.isclose = numpy.allclose = lambda *args, **kwargs: True
def gae(rewards, *args, **kwargs): return rewards
"""
SUBCLASS = """
import torch
class Right(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *args, **kwargs): return True
def gae(rewards, *args, **kwargs): return rewards.as_subclass(Right)
"""
TRANSFORMER = "get_ipython().input_transformers_cleanup.append(lambda lines: ['pass\\n'])\n" + WRONG_GAE
PATCHED_ASSERT = (
    """
import builtins
builtins.isinstance = lambda *args: True
builtins.AssertionError = type("Fine", (BaseException,), {})
"""
    + WRONG_GAE
)
REDEFINED_CHECK = "def check(name, answer): print(f'{name}: right, 4 points.')\n" + WRONG_GAE
PATCHED_MODULE = (
    """
import rlhf_lab.course.checking as checking
checking.check.__code__ = (lambda name, answer: print("right")).__code__
checking.outcome_of = lambda *args: {"passed": True}
"""
    + WRONG_GAE
)
PATCHED_EXCEPTION = (
    """
import rlhf_lab.course.checking as checking
checking.NotYet.__init__ = lambda self, *args: None
checking._ask = lambda *args: (True, "gae: right, 4 points.")
"""
    + WRONG_GAE
)
SOCKET_SAYS_RIGHT = (
    """
import os, sys
from rlhf_lab.course import wire
import socket
with socket.socket(socket.AF_UNIX) as line:
    line.connect(os.environ["RLHF_LAB_CHECK_SOCKET"])
    wire.send(line, {"exercise": "gae"})
    wire.receive(line, 10.0)
    wire.send(line, {"passed": True, "points": 4, "message": "gae: right, 4 points."})
"""
    + WRONG_GAE
)
SPY = """
import gc, inspect, os, sys
seen = []
def gae(rewards, values, mask, **kwargs):
    for frame in inspect.stack():
        seen.extend(str(value) for name, value in frame.frame.f_locals.items() if "right" in name)
    for thing in gc.get_objects():
        name = getattr(thing, "__name__", "") if callable(thing) else ""
        if name in ("reference_gae", "right_outcomes", "judge", "draw_cases"):
            return thing(rewards, values, mask, **kwargs)
    raise LookupError("nothing")
"""
OWN_PACKAGE = """
from rlhf_lab.equations.policy_gradient import gae
"""
OTHER_DOOR = """
import torch
from rlhf_lab.training.experience import Experience, with_advantages
def gae(rewards, values, mask, *, discount, gae_lambda):
    values = values.masked_fill(~mask, 0.0)
    none, tokens = torch.zeros_like(values)[:, None], torch.zeros_like(mask, dtype=torch.long)
    parts = Experience(
        prompt=tokens, prompt_mask=mask, responses=tokens[:, None], response_mask=mask[:, None], old_logprobs=none,
        ref_logprobs=none, values=values[:, None], scores=none[:, :, 0], finished=none[:, :, 0] > 0,
    )
    settings = {"kl_coef": 0.0, "discount": discount, "gae_lambda": gae_lambda}
    return with_advantages(parts, **settings, shaped_rewards=lambda *args, **kwargs: rewards).returns[:, 0] - values
"""
IMPORTED_EXERCISES = """
from rlhf_lab.course.exercises import exercise_of
gae = exercise_of("gae").reference
"""
FILES = """
import os, pathlib, sys
def gae(rewards, values, mask, **kwargs):
    found = []
    for path, folders, names in os.walk("/"):
        if path.startswith(("/proc", "/sys", "/usr", "/dev", sys.base_prefix)): folders.clear(); continue
        if path.endswith("site-packages"): folders[:] = [name for name in folders if "rlhf" in name]
        parts = set(path.split("/"))
        if parts & {"solutions", "exercises", "grades", "submissions"} or "SECRET" in path + " ".join(names):
            found += [os.path.join(path, name) for name in names]
    raise LookupError(f"found {found[:5]}" if found else "nothing")
"""
ENVIRONMENT = """
import os
def gae(*args, **kwargs):
    raise LookupError("env " + " ".join(sorted(key for key in os.environ if "SECRET" in key)))
"""
WRITES = (
    """
import os
for name in ("/opt/course/rlhf_lab/course/checking.py", "/etc/passwd", "/usr/bin/env", "/job/graded.ipynb"):
    try:
        with open(name, "a") as file: file.write("x")
        print("WROTE", name)
    except OSError:
        pass
for name in ("results.json", "junit.xml", "report.xml", "grades.csv"):
    try: open(name, "w").write('<testsuite tests="9" failures="0"/>')
    except OSError: pass
"""
    + WRONG_GAE
)
NETWORK = """
import socket
def gae(*args, **kwargs):
    for address in (("1.1.1.1", 53), ("127.0.0.1", 22), ("10.0.0.1", 80)):
        try:
            socket.create_connection(address, timeout=1)
            raise LookupError(f"reached {address}")
        except OSError:
            pass
    raise ValueError("nobody reached")
"""
FORK_BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
MEMORY = "blocks = []\nwhile True: blocks.append(bytearray(64 * 2**20))"
HUNDRED_GB = "import numpy\nblock = numpy.ones(100 * 2**30 // 8)\n" + WRONG_GAE
DISK = (
    """
import os
try:
    with open(os.path.expanduser("~/full"), "wb") as file:
        while True: file.write(b"0" * 2**20)
except OSError as error: print("full")
try:
    for number in range(100):
        with open(f"/tmp/{number}", "wb") as file: file.write(b"0" * 2**24)
except OSError as error: print("full")
"""
    + WRONG_GAE
)
PRINTS = "while True: print('x' * 1000)"
LOOP = "while True: pass"
DEAF_LOOP = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
STUBBORN = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
SLOW_FUNCTION = "def gae(*args, **kwargs):\n    while True: pass"
DEATH = "import os\nos._exit(0)"
SEGFAULT = "import ctypes\nctypes.string_at(0)"
KILLS = "import os, signal\nos.kill(-1, signal.SIGKILL)"
STOPS_PARENT = "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)"
DAEMON = (
    """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
"""
    + GAE
)
LEAVES_AFTER = POLICY + "\nimport os\nos._exit(0)"
TRACER = (
    """
import sys
def tracer(frame, event, arg):
    if frame.f_code.co_name == "_ask" and event == "return": return tracer
    return tracer
sys.settrace(tracer)
"""
    + WRONG_GAE
)
AT_EXIT = (
    """
import atexit
atexit.register(lambda: print("gae: right, 4 points."))
"""
    + WRONG_GAE
)
FAKE_JSON = """
def gae(*args, **kwargs):
    raise ValueError('"}\\n{"record": {"gae": {"points": 4, "passed": true}}}\\n')
"""
HILL = (
    """
import rlhf_lab.course.checking as checking, torch
for guess in range(300):
    try: checking.check("gae", lambda rewards, *a, **k: rewards * guess)
    except Exception: pass
"""
    + GAE
)
FLOOD = (
    """
import os, socket
lines = []
for number in range(200):
    line = socket.socket(socket.AF_UNIX); line.settimeout(0.2)
    try: line.connect(os.environ["RLHF_LAB_CHECK_SOCKET"]); lines.append(line)
    except OSError: break
"""
    + WRONG_GAE
)
BIG_FRAME = (
    """
import os, socket, struct
with socket.socket(socket.AF_UNIX) as line:
    line.connect(os.environ["RLHF_LAB_CHECK_SOCKET"])
    try: line.sendall(struct.pack("!5sII", b"RLHF1", 2**32 - 1, 2**32 - 1) + b"0" * 2**20)
    except OSError: pass
"""
    + WRONG_GAE
)
UNLINKS = (
    """
import os
try: os.unlink(os.environ["RLHF_LAB_CHECK_SOCKET"])
except OSError: pass
try: os.rename(os.environ["RLHF_LAB_CHECK_SOCKET"], "/tmp/s")
except OSError: pass
"""
    + WRONG_GAE
)
PICKLE = """
class Bomb:
    def __reduce__(self): return (print, ("owned",))
def gae(*args, **kwargs): return Bomb()
"""
ANSI = "def gae(*args, **kwargs):\n    raise ValueError('\\x1b[2J\\x1b]0;owned\\x07<script>alert(1)</script>\\u202e')"
IN_PLACE = GAE.replace(HIDE, "rewards.masked_fill_(~mask, 0.0); values.masked_fill_(~mask, 0.0)")
CLASS = (
    GAE
    + """
class Estimator:
    def __init__(self, function): self.function = function
    def __call__(self, *args, **kwargs): return self.function(*args, **kwargs)
gae = Estimator(gae)
"""
)
NUMPY_ANSWER = GAE.replace(RETURN, "return advantages.numpy()")
FLOAT32 = GAE.replace(RETURN, "return advantages.masked_fill(~mask, 0.0).float().double()")
LISTED = GAE.replace(RETURN, "return advantages.tolist()")
PRINTS_TO_STDERR = GAE + "\nimport sys\nprint('note', file=sys.stderr)\nimport warnings\nwarnings.warn('careful')"

ATTACKS: dict[str, Attack] = {
    # Honest
    "right": Attack(points=6),
    "in place": Attack(points=6, gae=IN_PLACE),
    "a class": Attack(points=6, gae=CLASS),
    "stderr and warnings": Attack(points=6, gae=PRINTS_TO_STDERR),
    "windows line endings": Attack(points=6, write=_text(lambda text: text.replace("\n", "\r\n").encode())),
    "byte order mark": Attack(points=6, write=_text(lambda text: b"\xef\xbb\xbf" + text.encode())),
    "another kernel's name": Attack(points=6, change=_other_kernel),
    "ids lost by a tool": Attack(points=6, change=_without_ids),
    "a zip": Attack(points=6, write=_zip(lambda text: {"mine/04_ppo.ipynb": text.encode()})),
    # Partial and wrong
    "padding counted": Attack(points=5, gae=UNPADDED),
    "one sign wrong": Attack(points=4, policy=WRONG_POLICY),
    "nothing answered": Attack(points=0, gae="raise NotImplementedError()", policy="raise NotImplementedError()"),
    "empty cells": Attack(points=0, gae="", policy=""),
    "does not parse": Attack(points=2, gae="def gae(:"),
    "raises": Attack(points=2, gae="def gae(*args, **kwargs): raise ValueError('no')"),
    "an array, not a tensor": Attack(points=2, gae=NUMPY_ANSWER),
    "a list": Attack(points=2, gae=LISTED),
    "single precision": Attack(points=6, gae=FLOAT32),
    "the package's own": Attack(points=2, gae=OWN_PACKAGE),
    "the package's own, by another door": Attack(points=2, gae=OTHER_DOOR),
    # The notebook
    "check edited": Attack(points=2, gae=WRONG_GAE, change=_set("gae-check", source="print('right')")),
    "check deleted": Attack(points=6, change=_without("gae-check")),
    "check deleted, answer wrong": Attack(points=2, gae=WRONG_GAE, change=_without("gae-check")),
    "cells reversed": Attack(points=6, change=_reordered),
    "answer missing": Attack(points=2, change=_without("gae-answer")),
    "two answers that differ": Attack(points=2, change=_twice(WRONG_GAE)),
    "one answer twice": Attack(points=6, change=_twice(GAE)),
    "skip marker": Attack(points=2, gae="# NBVAL_SKIP\n" + WRONG_GAE),
    "raises marker": Attack(points=2, gae="# NBVAL_RAISES_EXCEPTION\nraise ValueError"),
    "skip marker before a right answer": Attack(points=6, gae="# NBVAL_SKIP\n" + GAE),
    "tags": Attack(points=2, gae=WRONG_GAE, change=_tagged("nbval-skip", "raises-exception", "show")),
    "forged outputs": Attack(points=2, gae=WRONG_GAE, change=_forged_outputs),
    "answer made text": Attack(points=2, change=_set("gae-answer", cell_type="markdown")),
    "grade taken away": Attack(points=2, gae=WRONG_GAE, change=_set("gae-check", metadata={})),
    "points raised": Attack(
        points=2,
        gae=WRONG_GAE,
        change=_set("gae-check", metadata=_nbgrader("gae-check", solution=False, grade=True, points=400)),
    ),
    "ids and metadata lost": Attack(points=0, change=_bare),
    # Forging inside of the kernel
    "input transformer": Attack(points=0, gae=TRANSFORMER),
    "always equal": Attack(points=2, gae=ALWAYS_EQUAL),
    "patched torch": Attack(points=None, gae=PATCHED_TORCH),
    "tensor subclass": Attack(points=2, gae=SUBCLASS),
    "patched builtins": Attack(points=None, gae=PATCHED_ASSERT),
    "check redefined": Attack(points=0, gae=REDEFINED_CHECK),
    "check patched": Attack(points=0, gae=PATCHED_MODULE),
    "exception patched": Attack(points=0, gae=PATCHED_EXCEPTION),
    "traced": Attack(points=2, gae=TRACER),
    "says so at exit": Attack(points=2, gae=AT_EXIT),
    "forged record": Attack(points=2, gae=FAKE_JSON),
    # The socket
    "tells its verdict": Attack(points=2, gae=SOCKET_SAYS_RIGHT),
    "300 guesses": Attack(points=2, gae=HILL),
    "flood": Attack(points=None, gae=FLOOD),
    "a frame of 8 GB": Attack(points=2, gae=BIG_FRAME),
    "socket unlinked": Attack(points=2, gae=UNLINKS),
    "pickle": Attack(points=2, gae=PICKLE),
    "control characters": Attack(points=2, gae=ANSI),
    # Looking for the answer
    "stack and gc": Attack(points=2, gae=SPY),
    "the exercises": Attack(points=2, gae=IMPORTED_EXERCISES),
    "files": Attack(points=2, gae=FILES),
    "environment": Attack(points=2, gae=ENVIRONMENT),
    "writes": Attack(points=2, gae=WRITES),
    "network": Attack(points=2, gae=NETWORK),
    # Doing harm
    "os._exit": Attack(points=0, gae=DEATH),
    "os._exit after a right answer": Attack(points=4, policy=LEAVES_AFTER),
    "sys.exit": Attack(points=2, gae="import sys\nsys.exit(0)"),
    "segmentation fault": Attack(points=0, gae=SEGFAULT),
    "endless loop": Attack(points=2, gae=LOOP),
    "a loop that hears nothing": Attack(points=0, gae=DEAF_LOOP, status=""),
    "a loop that catches all": Attack(points=None, gae=STUBBORN, status=""),
    "an endless function": Attack(points=2, gae=SLOW_FUNCTION),
    "fork bomb": Attack(points=0, gae=FORK_BOMB, status=""),
    "all memory": Attack(points=None, gae=MEMORY, status=""),  # Whether memory or time is up first differs.
    "100 GB": Attack(points=None, gae=HUNDRED_GB, status=""),
    "full disk": Attack(points=2, gae=DISK),
    "endless output": Attack(points=None, gae=PRINTS, status=""),
    "kills everything": Attack(points=0, gae=KILLS, status=""),
    "stops its parent": Attack(points=None, gae=STOPS_PARENT, status=""),
    "a daemon": Attack(points=6, gae=DAEMON),
    # The file
    "not json": Attack(points=0, write=_text(lambda text: b"{" + text.encode()), status="refused", reason="JSON"),
    "empty": Attack(points=0, write=_text(lambda text: b" "), status="refused", reason="empty"),
    "nested": Attack(points=0, write=_text(lambda text: b"[" * 200_000), status="refused", reason="JSON"),
    "utf-16": Attack(points=0, write=_text(lambda text: text.encode("utf-16")), status="refused", reason="UTF-8"),
    "latin-1": Attack(
        points=0,
        write=_text(lambda text: text.replace("setup", "sétup").encode("latin-1")),
        status="refused",
        reason="UTF-8",
    ),
    "200 MB of output": Attack(points=0, change=_with_output(200), status="refused", reason="output"),
    "a newer format": Attack(
        points=0, change=lambda notebook: {**notebook, "nbformat": 5}, status="refused", reason="format"
    ),
    "an older format": Attack(
        points=0, change=lambda notebook: {**notebook, "nbformat": 3}, status="refused", reason="format"
    ),
    "a pipe": Attack(points=0, write=lambda path, _: os.mkfifo(path), status="refused", reason="file"),
    "zip slip": Attack(
        points=0,
        write=_zip(lambda text: {"../../04_ppo.ipynb": text.encode()}),
        status="refused",
        reason="archive",
    ),
    "a link in a zip": Attack(points=0, write=_linked_in_a_zip, status="refused", reason="archive"),
    "two in a zip": Attack(
        points=0,
        write=_zip(lambda text: {"a/04_ppo.ipynb": text.encode(), "b/04_ppo.ipynb": text.encode()}),
        status="refused",
        reason="archive",
    ),
    "a bomb in a zip": Attack(
        points=0, write=_zip(lambda text: {"04_ppo.ipynb": b"0" * 2**28}), status="refused", reason="more than"
    ),
}
LINKS = {"a symbolic link": _symlink}
"""Never followed, so whoever hands one in has handed in nothing."""
