import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlhf_lab.course import bubblewrap, enclosure
from rlhf_lab.course.masking import make_view
from rlhf_lab.course.sandbox import Limits, probe
from tests.capabilities import ROOT
from tests.course.enclosures import enclosed, run_cells, sleeper, without_rights

needs_sandbox = pytest.mark.needs("sandbox")
pytestmark = pytest.mark.alone

SPY = """
import ctypes, mmap, os, socket, sys
from pathlib import Path

def outcome(function):
    try:
        function()
        return "done"
    except OSError as error:
        return error.strerror

def clone(flags):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

import importlib.metadata, rlhf_lab
from rlhf_lab.course.checking import check
from rlhf_lab.data.lexicon import load_lexicon

report(
    network=outcome(lambda: socket.create_connection(("127.0.0.1", PORT), timeout=5)),
    far_network=outcome(lambda: socket.create_connection(("192.0.2.1", 80), timeout=5)),
    vsock=outcome(lambda: socket.socket(40, socket.SOCK_STREAM)),
    written={path: outcome(lambda: Path(path, "mine").touch()) for path in PLACES},
    seen=[path for path in HIDDEN if os.path.exists(path)],
    top=sorted(os.listdir("/")),
    course=sorted(os.listdir(Path(rlhf_lab.__file__).parent / "course")),
    copies=sorted(map(str, Path(sys.prefix).rglob("site-packages/rlhf_lab/*"))),
    environment=dict(os.environ),
    folder=os.getcwd(),
    home=sorted(os.listdir(Path.home())),
    processes=len([name for name in os.listdir("/proc") if name.isdigit()]),
    status=Path("/proc/self/status").read_text(),
    devices=os.listdir("/dev"),
    shared_memory=outcome(lambda: mmap.mmap(-1, 4096)),
    shared_zeros=outcome(lambda: mmap.mmap(os.open("/dev/zero", os.O_RDWR), 4096)),
    memfd=outcome(lambda: os.memfd_create("mine")),
    namespace=outcome(lambda: clone(0x10000000)),
    cuda=__import__("os").environ["CUDA_VISIBLE_DEVICES"],
    version=importlib.metadata.version("rlhf-lab"),
    frames=len(load_lexicon().frames),
)
"""


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    make_view(folder, ["rlhf_lab.equations.policy_gradient.gae"])
    return folder


@pytest.fixture(scope="module")
def spied(view: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a notebook finds out about where it runs."""
    secret = tmp_path_factory.mktemp("secret") / "secret.txt"
    secret.touch()
    hidden = [secret, ROOT / "solutions", ROOT / "docs", ROOT / ".git", ROOT / "rlhf_lab", "/etc/shadow", "/etc/passwd"]
    places = ["/", "/usr", "/usr/lib", "/etc", "/opt", "/opt/course", "/opt/course/data", "/run", "/dev", sys.prefix]
    with socket.create_server(("127.0.0.1", 0)) as server:
        values = {
            "PORT": server.getsockname()[1],
            "PLACES": [*places, "/tmp", "/home/student", "/dev/shm"],
            "HIDDEN": [str(path) for path in hidden],
        }
        given = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        run = run_cells([given, SPY], view)
    assert run.reports, run.ran.log
    return run.reports[0]


@needs_sandbox
def test_no_network(spied: dict[str, Any]) -> None:
    assert spied["network"] == "Connection refused"
    assert spied["far_network"] == "Network is unreachable"
    assert spied["vsock"] == "Address family not supported by protocol"


@needs_sandbox
def test_only_its_home_and_temporary_folders_can_be_written(spied: dict[str, Any]) -> None:
    free = {place for place, outcome in spied["written"].items() if outcome == "done"}
    assert free == {"/tmp", "/home/student", "/dev/shm"}


@needs_sandbox
def test_the_machines_files_are_not_there(spied: dict[str, Any]) -> None:
    assert spied["seen"] == []
    assert not {"var", "mnt", "srv", "boot", "sys"} & set(spied["top"])
    assert spied["folder"] == "/home/student"
    assert sorted(name for name in spied["home"] if not name.startswith(".")) == ["graded.ipynb", "mine"]


@needs_sandbox
def test_of_the_course_only_the_client_is_there(spied: dict[str, Any]) -> None:
    assert {"checking.py", "wire.py"} < set(spied["course"])
    assert not {"exercises", "judging.py", "checker.py", "grading.py"} & set(spied["course"])
    assert spied["copies"] == []


@needs_sandbox
def test_the_environment_is_clean(spied: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = spied["environment"]
    assert not {"PYTEST_XDIST_WORKER", "SSH_AUTH_SOCK", "PYTHONSTARTUP", "LD_PRELOAD"} & set(environment)
    assert environment["HOME"] == "/home/student"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["RLHF_LAB_CHECK_SOCKET"] == "/run/check.sock"
    monkeypatch.setenv("A_SECRET", "of the instructor")
    assert "instructor" not in enclosed("import os; print(dict(os.environ))").log


@needs_sandbox
def test_it_has_no_power(spied: dict[str, Any]) -> None:
    status = dict(line.split(":\t", 1) for line in spied["status"].splitlines())
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "0" not in status["Uid"].split()
    assert spied["namespace"] == "Operation not permitted"


@needs_sandbox
def test_no_memory_that_no_process_would_be_found_to_hold(spied: dict[str, Any]) -> None:
    assert spied["shared_memory"] == "Operation not permitted"
    assert spied["shared_zeros"] == "No such device"
    assert spied["memfd"] == "Operation not permitted"


@needs_sandbox
def test_neither_graphics_cards_nor_other_processes(spied: dict[str, Any]) -> None:
    assert not [name for name in spied["devices"] if name.startswith(("nvidia", "dri", "kfd", "vd", "sd"))]
    assert spied["cuda"] == ""
    assert spied["processes"] < 10


@needs_sandbox
def test_no_file_of_the_grader_stays_open() -> None:
    code = """
import os
links = []
for name in os.listdir("/proc/self/fd"):
    try:
        links.append(os.readlink(f"/proc/self/fd/{name}").split(":")[0])
    except OSError:
        pass
print(sorted(links))
"""
    with open(ROOT / "pyproject.toml") as file:
        os.set_inheritable(file.fileno(), True)
        assert enclosed(code).log == "['/dev/null', 'pipe', 'pipe']\n"


@needs_sandbox
def test_the_package_and_its_data_work_inside(spied: dict[str, Any]) -> None:
    assert spied["version"]
    assert spied["frames"] >= 60


@needs_sandbox
def test_an_endless_cell_is_interrupted_and_the_next_still_runs(view: Path) -> None:
    run = run_cells(["while True: pass", "report(after=True)"], view, cell_s=1.0)
    assert run.reports == [{"after": True}]
    assert run.ran.stopped is None
    assert run.ran.returncode == 1


@needs_sandbox
def test_a_dead_kernel_is_noticed_soon(view: Path) -> None:
    run = run_cells(["import os; os._exit(0)", "report(after=True)"], view, cell_s=100.0)
    assert run.reports == []
    assert "The kernel died" in run.ran.log
    assert run.ran.seconds < 50


@needs_sandbox
def test_the_run_is_stopped_when_it_is_asked_to(view: Path) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); report(started=True)\nwhile True: pass"
    run = run_cells([code], view, stop=lambda reports: "enough" if reports else None)
    assert run.ran.stopped == "enough"
    assert run.ran.returncode != 0


@needs_sandbox
def test_a_run_without_end_is_stopped() -> None:
    ran = enclosed("import time; time.sleep(1000)", wall_s=0.5)
    assert ran.stopped == "more than 0.5 s"
    assert ran.seconds < 10


@needs_sandbox
def test_processor_time_is_of_all_processes_together() -> None:
    ran = enclosed("import os\nos.fork(); os.fork()\nwhile True: pass", cpu_s=1)
    assert ran.stopped == "more than 1 s of processor time"


FILL = """
import os, socket, time
def fill(*ends):
    for end in ends:
        end.setblocking(False)
        try:
            while end.send(bytes(65536)): pass
        except BlockingIOError: pass
held = []
"""
# Each process may open 512 files, so several are needed; what is sent to a process that never reads it lives on.
UNIX_SOCKETS = f"{FILL}os.fork(); os.fork(); os.fork()\nfor _ in range(200):\n    held.append(socket.socketpair())\n"
UNIX_SOCKETS += "    fill(*held[-1])\ntime.sleep(60)"
TCP_SOCKETS = f"{FILL}server = socket.create_server(('127.0.0.1', 0), backlog=200)\nfor _ in range(200):\n"
TCP_SOCKETS += "    held.append(socket.create_connection(server.getsockname()))\n    fill(held[-1])\ntime.sleep(60)"


@needs_sandbox
@pytest.mark.parametrize(
    "code",
    [
        "held = []\nwhile True: held.append(b'x' * 10_000_000)",
        "import os\nos.fork(); os.fork()\nheld = b'x' * 60_000_000\nwhile True: pass",
        UNIX_SOCKETS,
        TCP_SOCKETS,
    ],
    ids=["one", "many", "unix sockets", "tcp sockets"],
)
def test_memory_is_of_all_processes_together(code: str) -> None:
    assert enclosed(code, memory_mb=200).stopped == "more than 200 MB of memory"


@needs_sandbox
def test_a_fork_bomb_stays_small_and_leaves_nothing() -> None:
    code = "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.1)"
    name = sleeper()
    ran = enclosed(name.code + code, processes=40, wall_s=2.0)
    assert ran.stopped == "more than 2 s"
    assert ran.seconds < 20
    assert not name.is_alive()


@needs_sandbox
def test_the_number_of_processes_is_limited() -> None:
    code = (
        "import os, time\nfor n in range(1000):\n    try:\n        if os.fork() == 0: time.sleep(100)\n"
        "    except OSError:\n        break\nprint('forks', n)"
    )
    log = enclosed(code, processes=30).log
    assert 20 < int(log.split()[1]) < 30


@needs_sandbox
def test_the_disk_can_be_filled_only_so_far() -> None:
    fill = "open('big', 'wb', buffering=0)\nn = 0\ntry:\n    while True: n += file.write(b'x' * 2**20)\n"
    code = f"file = {fill}except OSError as error: print(n // 2**20, error.strerror)"
    assert enclosed(code, disk_mb=8).log.split(maxsplit=1) == ["8", "No space left on device\n"]
    assert enclosed(code, disk_mb=8, file_mb=3).log.split(maxsplit=1) == ["3", "File too large\n"]


@needs_sandbox
def test_so_can_the_number_of_files() -> None:
    ran = enclosed("n = 0\nwhile True:\n    n += 1\n    open(f'/tmp/{n}', 'w').close()", files=500)
    assert ran.stopped == "more than 500 files"


@needs_sandbox
def test_endless_output_is_stopped_and_its_ends_are_kept() -> None:
    ran = enclosed("print('first line')\nwhile True: print('and on', flush=True)", output_mb=1, output_kb=4)
    assert ran.stopped == "more than 1 MB of output"
    assert ran.log.startswith("first line\n")
    assert ran.log.rstrip().endswith("on")
    assert "KiB left out" in ran.log
    assert len(ran.log) < 10_000


@needs_sandbox
def test_what_detaches_itself_ends_with_the_run() -> None:
    name = sleeper()
    ran = enclosed(name.code + "import time; time.sleep(0.2); print('over')")
    assert ran.log == "over\n"
    assert ran.returncode == 0
    assert not name.is_alive()


@needs_sandbox
def test_everything_ends_when_the_grader_is_killed() -> None:
    name = sleeper()
    code = f"from tests.course.enclosures import enclosed; enclosed({name.code!r} + 'import time; time.sleep(1000)')"
    grader = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        assert name.wait_until(alive=True)
        grader.send_signal(signal.SIGKILL)
        assert name.wait_until(alive=False)
    finally:
        grader.kill()
        grader.wait()


@needs_sandbox
def test_nothing_runs_when_the_grader_ends_before_it_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    name = sleeper()

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bubblewrap, "_census", interrupted)
    with pytest.raises(KeyboardInterrupt):
        enclosed(name.code)
    assert not name.wait_until(alive=True, seconds=1.0)
    assert not [process for process in psutil.process_iter(["cmdline"]) if name.name in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    return process.info["cmdline"] or []  # type: ignore[attr-defined]


@needs_sandbox
def test_a_notebook_that_is_trusted_runs_without_a_sandbox(view: Path, tmp_path: Path) -> None:
    name = sleeper()
    started = f"import subprocess; subprocess.Popen(['{name.name}', '1000'], executable='/usr/bin/sleep')"
    cells = [started, f"open({str(tmp_path / 'proof')!r}, 'w'); report(at=os.getcwd())", "while True: pass"]
    run = run_cells(cells, view, trusted=True, stop=lambda reports: "enough" if reports else None)
    assert run.ran.stopped == "enough"
    assert (tmp_path / "proof").exists()
    assert not Path(run.reports[0]["at"]).exists()
    assert not name.is_alive()


@pytest.mark.slow
@needs_sandbox
def test_all_of_it_holds_for_a_user_without_rights() -> None:
    """Some of the tests again, by a user who can only make namespaces."""
    some = "network or written or power or memory or bomb or number or detaches or killed"
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        options = ("-p", "no:cacheprovider", "--basetemp", f"{home}/base", "-k", some)
        done = subprocess.run(
            [*without_rights(), sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", *options, __file__],
            cwd=ROOT,
            env={**os.environ, "HOME": home, "PYTHONDONTWRITEBYTECODE": "1", "RLHF_LAB_REQUIRE": "sandbox"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_machine_without_bubblewrap_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe() == "bubblewrap is missing; install it, as by `apt-get install bubblewrap`."


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("bwrap: setting up uid map: Permission denied", "apparmor_restrict_unprivileged_userns=0"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "do not grade inside a container"),
        ("bwrap: Unknown option --disable-userns", "install version 0.8 or later"),
        ("bwrap: out of luck", "bubblewrap did not start (bwrap: out of luck)."),
    ],
)
def test_what_stops_bubblewrap_is_told(said: str, mend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = probe() or ""
    assert said in found
    assert mend in found


def test_other_systems_are_told_to_use_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "needs Linux" in (probe() or "")


@needs_sandbox
@pytest.mark.parametrize(
    ("without", "more", "found"),
    [
        ("--unshare-net", (), "The network can be reached."),
        ("none of them", ("--ro-bind", "/etc", "/etc"), "/etc/shadow can be seen."),
    ],
)
def test_a_sandbox_that_does_not_hold_is_found_out(
    without: str, more: Sequence[str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(*args: Any, **options: Any) -> list[str]:
        program, *command = enclosure.enclose(*args, **options)
        return [program, *more, *(part for part in command if part != without)]

    monkeypatch.setattr(bubblewrap, "enclose", leaky)
    assert found in (probe() or "")


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="memory_mb must be more than 0, not 0"):
        Limits(memory_mb=0)
