"""Runs a notebook under nbval where it can harm nothing: in bubblewrap, without a network, and within limits.

pytest, nbval and the notebook's kernel all run inside, so that nothing outside reads what the kernel says. What pytest
reports is therefore the student's word: good for feedback, never for points.
"""

import contextlib
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rlhf_lab.course import launching, nbval_alive
from rlhf_lab.course.bubblewrap import SandboxError, launched, run_enclosed, sandbox_user, start
from rlhf_lab.course.enclosure import HOME
from rlhf_lab.course.masking import PACKAGE
from rlhf_lab.course.watching import Limits, Ran, Usage, follow

VIEW, SOCKET = "/opt/course", "/run/check.sock"

_PROBE = """
import os, socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
    print("The network can be reached.")
except OSError:
    pass
for path in sys.argv[2:]:
    if os.path.exists(path):
        print(path, "can be seen.")
try:
    import nbval
except ImportError:
    print("nbval is missing; install it with `pip install 'rlhf-lab[grade]'`.")
print("Probed.")
"""


def probe(python: Path | None = None) -> str | None:
    """Why notebooks cannot be graded in a sandbox here, and what to do; None if they can.

    It starts one, and looks whether the network and the machine's files are out of reach.
    """
    python = python or Path(sys.executable)
    with tempfile.NamedTemporaryFile() as secret, sockets.create_server(("127.0.0.1", 0)) as server:
        wanted = (str(server.getsockname()[1]), secret.name, str(PACKAGE / "__init__.py"), "/etc/shadow")
        try:
            ran = run_enclosed(
                [str(python), "-I", "-c", _PROBE, *wanted],
                python=python,
                shown={},
                environment=_environment(python, home=HOME, view=VIEW, socket=SOCKET, threads=1),
                limits=Limits(wall_s=60.0),
            )
        except SandboxError as error:
            return str(error)
    if ran.log.strip() == "Probed.":
        return None
    if "Permission denied" in ran.log:
        return f"the sandbox's user cannot read {python}; let every user read its folders, or grade as their owner."
    found = " ".join(ran.log.replace("Probed.", "").split())[-300:]
    return f"the sandbox does not hold: {ran.stopped or found}"


def run_notebook(
    notebook: Path,
    view: Path,
    socket: Path,
    *,
    data: Path,
    limits: Limits | None = None,
    python: Path | None = None,
    threads: int = 1,
    trusted: bool = False,
    stop: Callable[[], str | None] | None = None,
) -> Ran:
    """Run a notebook's cells under nbval, to the end or to a limit; no process of it is left.

    Args:
        notebook: Read, not changed.
        view: The package that it imports, see `masking.make_view`.
        socket: Where the checker listens; root gives it to the sandbox's user.
        data: Folder with the world and the checkpoints.
        python: Whose environment has pytest and nbval; by default this one.
        threads: Of each process, for numerical work.
        trusted: Without a sandbox: the notebook can read, write and send what its user can.
        stop: Asked all the time; the run is stopped when it gives a reason.

    Raises:
        SandboxError: There is no sandbox here, or it did not start.
    """
    limits, python = limits or Limits(), python or Path(sys.executable)
    if trusted:
        return _run_trusted(notebook, view, socket, data=data, limits=limits, python=python, threads=threads, stop=stop)
    if (user := sandbox_user()) is not None:
        os.chown(socket, user, user)
    inside = f"{HOME}/{notebook.name}"
    shown = {f"{VIEW}/{path.name}": path for path in view.iterdir() if path.name != "data"}
    return run_enclosed(
        [str(python), *_nbval(inside, limits)],
        python=python,
        shown={**shown, f"{VIEW}/data": data, inside: notebook, SOCKET: socket},
        environment=_environment(python, home=HOME, view=VIEW, socket=SOCKET, threads=threads),
        limits=limits,
        stop=stop,
    )


def _run_trusted(
    notebook: Path,
    view: Path,
    socket: Path,
    *,
    data: Path,
    limits: Limits,
    python: Path,
    threads: int,
    stop: Callable[[], str | None] | None,
) -> Ran:
    with contextlib.suppress(FileExistsError):
        (view / "data").symlink_to(data.resolve(), target_is_directory=True)
    with tempfile.TemporaryDirectory(prefix="rlhf-lab-", ignore_cleanup_errors=True) as home:
        inside = shutil.copy(notebook, home)
        program = [str(python), *_nbval(inside, limits)]
        environment = _environment(python, home=home, view=str(view), socket=str(socket), threads=threads)
        process = start(
            launched(program, launching.__file__, limits),
            cwd=home,
            env={**os.environ, **environment, "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]])},
        )
        return follow(process, limits, look=Usage, kill=lambda: _kill_family(process), stop=stop)


def _kill_family(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants; nbval's kernel has a session of its own, so that its group would not do."""
    if process.poll() is not None:
        return
    for number in (*_descendants(process.pid), process.pid):
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def _descendants(number: int) -> Sequence[int]:
    if shutil.which("ps") is None:
        return []
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [number]
    for parent in found:  # It grows while it is walked.
        found += [child for child, of in pairs if of == parent]
    return found[1:]


def _nbval(notebook: str, limits: Limits) -> Sequence[str]:
    return (
        *("-m", "pytest", "-q", "--tb=short", "--color=no", "-W", "ignore", "-c", os.devnull),
        *("--rootdir", os.path.dirname(notebook), "-p", "no:cacheprovider"),
        *("-p", nbval_alive.__name__, "-p", "nbval.plugin"),
        *("--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={limits.cell_s}", notebook),
    )


def _environment(python: Path, *, home: str, view: str, socket: str, threads: int) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([str(python.parent), "/usr/bin", "/bin"]),
        **{"HOME": home, "USER": "student", "LOGNAME": "student", "LANG": "C.UTF-8", "TZ": "UTC"},
        **{"PYTHONPATH": view, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "PYTHONHASHSEED": "0"},
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
        **{"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"},
        **{"JUPYTER_PLATFORM_DIRS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "RLHF_LAB_CHECK_SOCKET": socket},
    }
