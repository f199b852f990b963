import errno
import struct

import pytest

from rlhf_lab.course.seccomp import MACHINES, program

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
CALLS = {
    "x86_64": {"read": 0, "mmap": 9, "socket": 41, "clone": 56, "ptrace": 101, "memfd_create": 319, "clone3": 435},
    "aarch64": {
        "read": 63,
        "mmap": 222,
        "socket": 198,
        "clone": 220,
        "ptrace": 117,
        "memfd_create": 279,
        "clone3": 435,
    },
}


def verdict(machine: str, number: int, *arguments: int, code: int = 0) -> int:
    """What the kernel would make of a call: the filter, run step by step."""
    data = struct.pack("<iIQ6Q", number, code or MACHINES[machine], 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("HBBI", program(machine)))
    held, place = 0, 0
    while True:
        operation, yes, no, value = steps[place]
        place += 1
        if operation == 0x20:
            held = int.from_bytes(data[value : value + 4], "little")
        elif operation == 0x54:
            held &= value
        elif operation == 0x06:
            return value
        else:
            is_so = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[operation]
            place += yes if is_so else no


def refused(error: int) -> int:
    return 0x00050000 | error


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_of_each_machine(machine: str) -> None:
    calls = CALLS[machine]
    assert verdict(machine, calls["read"]) == ALLOWED
    assert verdict(machine, calls["ptrace"]) == refused(errno.EPERM)
    assert verdict(machine, calls["memfd_create"]) == refused(errno.EPERM)
    assert verdict(machine, calls["clone3"]) == refused(errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_and_processes_are_made_but_no_namespaces(machine: str) -> None:
    number = CALLS[machine]["clone"]
    assert verdict(machine, number, 0x3D0F00) == ALLOWED  # As the C library makes a thread.
    assert verdict(machine, number, 17) == ALLOWED  # As it forks.
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(machine, number, 17 | namespace) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_memory_is_private_or_a_files(machine: str) -> None:
    number, private, shared, validated, anonymous = CALLS[machine]["mmap"], 2, 1, 3, 0x20
    assert verdict(machine, number, 0, 4096, 3, private | anonymous) == ALLOWED
    assert verdict(machine, number, 0, 4096, 3, shared) == ALLOWED
    assert verdict(machine, number, 0, 4096, 3, shared | anonymous) == refused(errno.EPERM)
    assert verdict(machine, number, 0, 4096, 3, validated | anonymous | 0x40000) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_sockets_are_of_four_families(machine: str) -> None:
    families = [family for family in range(50) if verdict(machine, CALLS[machine]["socket"], family, 1) == ALLOWED]
    assert families == [1, 2, 10, 16]
    assert verdict(machine, CALLS[machine]["socket"], 40, 1) == refused(errno.EAFNOSUPPORT)


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 54), ("aarch64", 208)])
def test_a_sockets_buffer_keeps_its_size(machine: str, number: int) -> None:
    socket_level, tcp_level = 1, 6
    options = [option for option in range(100) if verdict(machine, number, 3, socket_level, option) != ALLOWED]
    assert options == [7, 32]  # SO_SNDBUF, SO_SNDBUFFORCE
    assert verdict(machine, number, 3, socket_level, 7) == refused(errno.EPERM)
    assert verdict(machine, number, 3, tcp_level, 7) == ALLOWED


def test_other_tables_of_calls_end_the_process() -> None:
    assert verdict("x86_64", 3, code=0x40000003) == KILLED  # As a program of 32 bits.
    assert verdict("x86_64", 0x40000000) == KILLED
    assert verdict("aarch64", 3, code=0x40000028) == KILLED


def test_another_processor_is_refused() -> None:
    with pytest.raises(ValueError, match="x86_64 and aarch64, not on riscv64"):
        program("riscv64")
