"""Runs first in a sandbox: takes on limits, becomes nobody, and turns into the program that it is given.

python -I -S launching.py '{"limits": {"RLIMIT_CPU": 60}, "user": 1900000001, "waits": true}' PROGRAM ARGUMENT...

It is run as a file and imports nothing of the package.
"""

import contextlib
import importlib
import json
import os
import sys


def launch(limits: dict[str, int], user: int | None, waits: bool, program: list[str]) -> None:
    """Become `program`.

    Args:
        limits: Of the process, by the names of the module `resource`.
        user: Who to be, without any group; the same as now if None.
        waits: Until the grader, which watches from then on, says so on the standard input.
        program: Path and arguments.

    Raises:
        OSError: The program cannot be read or started.
    """
    if waits:
        if not os.read(0, 1):
            sys.exit("The grader is gone.")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # When the machine's memory runs out, this goes first, and the grader stays.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if limits:
        resource = importlib.import_module("resource")  # Which Windows does not have.
        for name, value in limits.items():
            kind = getattr(resource, name)
            most = resource.getrlimit(kind)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(kind, (value, value))
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.execv(program[0], program)


if __name__ == "__main__":
    launch(**json.loads(sys.argv[1]), program=sys.argv[2:])
