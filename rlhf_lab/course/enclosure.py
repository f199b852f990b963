"""What a program in bubblewrap sees: the system and its Python to read, and an empty home that is its own.

Everything else of the machine is not there: no network, no other process, no file that is not named.
"""

import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rlhf_lab.course.masking import PACKAGE
from rlhf_lab.course.watching import MIB, Limits

HOME = "/home/student"
WRITABLE = ("/tmp", HOME, "/dev/shm")
_SHARED_MEMORY = 64 * MIB
_SYSTEM = Path("/usr")


class Where(NamedTuple):
    """Folders of a Python installation."""

    prefixes: tuple[str, ...]
    """The virtual environment, and what it is made from."""
    packages: tuple[str, ...]


def enclose(
    program: Sequence[str],
    *,
    bubblewrap: str,
    python: Path,
    shown: Mapping[str, Path],
    environment: Mapping[str, str],
    limits: Limits,
    descriptors: Mapping[str, int],
) -> list[str]:
    """The command that runs `program` in bubblewrap.

    Args:
        bubblewrap: Its path.
        program: Path, inside, and arguments.
        python: Whose environment is there to read.
        shown: Files and folders to read, by their paths inside.
        environment: All of it.
        descriptors: bubblewrap's options that take a file descriptor, such as seccomp.
    """
    options = [
        *_identity(),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv"),
        *_mounts(where(python), shown, limits),
        *("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", HOME),
    ]
    for name, value in environment.items():
        options += ["--setenv", name, value]
    for name, descriptor in descriptors.items():
        options += [f"--{name}", str(descriptor)]
    return [bubblewrap, *options, "--", *program]


def _identity() -> Sequence[str]:
    if os.geteuid() != 0:
        return ("--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL")
    # Root arranges the folders itself, since they may lie where only root can look; then `launching` gives up the rest.
    return ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")


def _mounts(where: Where, shown: Mapping[str, Path], limits: Limits) -> Iterator[str]:
    disk = ("--perms", "1777", "--size", str(limits.disk_mb * MIB), "--tmpfs")
    shared = ("--perms", "1777", "--size", str(_SHARED_MEMORY), "--tmpfs", "/dev/shm")
    mounts: dict[str, Sequence[str]] = {
        "/proc": ("--proc", "/proc"),
        # A shared mapping of /dev/zero is memory that no process would be found to hold.
        "/dev": ("--dev", "/dev", *shared, "--dev-bind", "/dev/null", "/dev/zero"),
        "/tmp": (*disk, "/tmp"),
        HOME: (*disk, HOME),
        **{path: ("--ro-bind-try", path, path) for path in ("/etc/ld.so.cache", "/etc/alternatives")},
        **{str(path): ("--ro-bind", str(path), str(path)) for path in (_SYSTEM, *where.prefixes)},
        **{str(path): ("--size", "4096", "--tmpfs", str(path)) for path in _hidden(where)},
        **{inside: ("--ro-bind", str(path), inside) for inside, path in shown.items()},
    }
    made: set[PurePosixPath] = set()
    # A folder before those inside of it.
    for inside in sorted(mounts, key=lambda inside: PurePosixPath(inside).parts):
        for parent in reversed(PurePosixPath(inside).parents[:-1]):
            if parent not in made:
                made.add(parent)
                yield from ("--perms", "0755", "--dir", str(parent))
        yield from mounts[inside]
    yield from _system_links()
    for path in _hidden(where):
        yield from ("--remount-ro", str(path))


def _system_links() -> Iterator[str]:
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64")):
        if path.is_symlink():
            yield from ("--symlink", os.readlink(path), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))


def _hidden(where: Where) -> Sequence[Path]:
    """Copies of this package, and the solutions beside it, in folders that are shown."""
    checkout = [PACKAGE.parent] if (PACKAGE.parent / "solutions").is_dir() else []
    copies = [*checkout, PACKAGE, *(Path(folder, PACKAGE.name) for folder in where.packages)]
    shown = [_SYSTEM, *map(Path, where.prefixes)]
    return [path for path in dict.fromkeys(copies) if path.is_dir() and any(map(path.is_relative_to, shown))]


@functools.cache
def where(python: Path) -> Where:
    """Where a Python keeps its files."""
    code = (
        "import json, os, site, sys, sysconfig; print(json.dumps(["
        "[sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))],"
        "[sysconfig.get_path('purelib'), sysconfig.get_path('platlib'),"
        " *site.getsitepackages([sys.prefix, sys.base_prefix])]]))"
    )
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, check=True, text=True)
    prefixes, packages = json.loads(done.stdout)
    outside = [path for path in dict.fromkeys(prefixes) if not Path(path).is_relative_to(_SYSTEM)]
    return Where(tuple(outside), tuple(dict.fromkeys(packages)))
