"""The system calls that a graded notebook may make, as a filter program for `bwrap --seccomp`.

It closes what namespaces leave open: memory that belongs to no process and could not be counted, kinds of sockets that
reach past the network namespace, new namespaces, and calls with a history of holes in the kernel. Everything else is
allowed.
"""

import errno
import os
import platform
import struct
from collections.abc import Iterator

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What the kernel calls the processors whose numbers are in the tables below, which have a column for each."""

_SOCKET, _SETSOCKOPT, _MMAP, _CLONE, _CLONE3 = (41, 198), (54, 208), (9, 222), (56, 220), (435, 435)
_REFUSED = {
    # Memory outside of any process, or of others.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # Large parts of the kernel that a notebook has no use for.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "syslog": (103, 116),
    # File systems and namespaces.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "unshare": (272, 97),
    "setns": (308, 268),
    # The machine.
    "quotactl": (179, 60),
    "acct": (163, 89),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
}

# Offsets into the kernel's `struct seccomp_data`; of an argument, the lower half.
_NUMBER, _MACHINE, _FIRST_ARGUMENT, _SECOND_ARGUMENT, _THIRD_ARGUMENT, _FOURTH_ARGUMENT = 0, 4, 16, 24, 32, 40
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
"""Where a second table of the x86_64's calls begins."""
_NEW_NAMESPACES = 0x7E020000
"""Every flag of `clone` that makes a namespace."""
_SHARED_ANONYMOUS = 0x21
"""Flags of `mmap`. Such memory stays after a process has let go of it, so that no process would be found to hold it."""
_SOCKET_LEVEL, _BUFFER_OPTIONS = 1, (7, 32)
"""SO_SNDBUF and SO_SNDBUFFORCE: what a Unix socket holds is not listed, so it must hold no more than by default."""
_FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6, and netlink, without which ZeroMQ ends the notebook's kernel."""


def program(machine: str) -> bytes:
    """The filter in the kernel's own form.

    Raises:
        ValueError: The numbers of this processor's calls are not in the tables.
    """
    if machine not in MACHINES:
        raise ValueError(f"the sandbox runs on {' and '.join(MACHINES)}, not on {machine}; grade on another machine.")
    return b"".join(_instructions(machine, list(MACHINES).index(machine)))


def open_program() -> int:
    """A file descriptor from which bubblewrap reads the filter of this machine; the caller closes it.

    Raises:
        ValueError: As in `program`.
    """
    filters = program(platform.machine())
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, filters)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _instructions(machine: str, column: int) -> Iterator[bytes]:
    yield from (_step(_LOAD, _MACHINE), _step(_EQUAL, MACHINES[machine], yes=1), _step(_RETURN, _KILL))
    yield _step(_LOAD, _NUMBER)
    if machine == "x86_64":
        yield from (_step(_AT_LEAST, _X32, no=1), _step(_RETURN, _KILL))
    for numbers in _REFUSED.values():
        yield from (_step(_EQUAL, numbers[column], no=1), _refuse(errno.EPERM))
    # Its flags lie in memory, where a filter cannot read them; the C library falls back on `clone`.
    yield from (_step(_EQUAL, _CLONE3[column], no=1), _refuse(errno.ENOSYS))
    yield from _of(
        _CLONE[column],
        [_step(_LOAD, _FIRST_ARGUMENT), _step(_ANY_BIT, _NEW_NAMESPACES, no=1), _refuse(errno.EPERM)],
    )
    yield from _of(
        _MMAP[column],
        [
            _step(_LOAD, _FOURTH_ARGUMENT),
            _step(_AND, _SHARED_ANONYMOUS),
            _step(_EQUAL, _SHARED_ANONYMOUS, no=1),
            _refuse(errno.EPERM),
        ],
    )
    yield from _of(
        _SETSOCKOPT[column],
        [
            _step(_LOAD, _SECOND_ARGUMENT),
            _step(_EQUAL, _SOCKET_LEVEL, no=3),
            _step(_LOAD, _THIRD_ARGUMENT),
            *(_step(_EQUAL, option, yes=len(_BUFFER_OPTIONS) - place) for place, option in enumerate(_BUFFER_OPTIONS)),
            _step(_RETURN, _ALLOW),
            _refuse(errno.EPERM),
        ],
    )
    # Each known family jumps over the refusal that follows the last.
    known = [_step(_EQUAL, family, yes=len(_FAMILIES) - place) for place, family in enumerate(_FAMILIES)]
    yield from _of(_SOCKET[column], [_step(_LOAD, _FIRST_ARGUMENT), *known, _refuse(errno.EAFNOSUPPORT)])
    yield _step(_RETURN, _ALLOW)


def _of(number: int, steps: list[bytes]) -> Iterator[bytes]:
    """`steps` for one call, which is allowed where they have not refused it."""
    yield _step(_EQUAL, number, no=len(steps) + 1)
    yield from steps
    yield _step(_RETURN, _ALLOW)


def _step(code: int, value: int, *, yes: int = 0, no: int = 0) -> bytes:
    """An instruction; `yes` and `no` are how many of the next ones to jump over."""
    return struct.pack("HBBI", code, yes, no, value)


def _refuse(error: int) -> bytes:
    return _step(_RETURN, _REFUSE | error)
