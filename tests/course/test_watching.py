import subprocess
import sys

import pytest

from rlhf_lab.course.watching import Limits, Output, Usage, follow, plain

NOTHING = Usage()


def run(code: str, usage: Usage = NOTHING) -> tuple[str | None, str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    ran = follow(process, Limits(), look=lambda: usage, kill=process.kill)
    return ran.stopped, ran.log


def test_what_ends_by_itself_was_not_stopped() -> None:
    assert run("print('all of it')") == (None, "all of it\n")


@pytest.mark.parametrize(
    ("usage", "reason"),
    [
        (Usage(memory=3073 * 2**20), "more than 3072 MB of memory"),
        (Usage(cpu_s=240.5), "more than 240 s of processor time"),
        (Usage(files=20_001), "more than 20000 files"),
    ],
)
def test_what_takes_too_much_is_stopped(usage: Usage, reason: str) -> None:
    assert run("import time; time.sleep(100)", usage)[0] == reason
    just_not = Usage(memory=3072 * 2**20, cpu_s=240.0, files=20_000)
    assert run("print()", just_not)[0] is None


@pytest.mark.parametrize("sizes", [[10], [4, 4, 2], [1] * 10])
def test_the_ends_of_a_long_output_are_kept(sizes: list[int]) -> None:
    output, text = Output(4), b"0123456789"
    for size in sizes:
        output.take(text[:size])
        text = text[size:]
    assert output.total == 10
    assert output.text() == "0123\n[... 0 KiB left out ...]\n6789"


def test_a_short_output_is_kept_whole() -> None:
    output = Output(4)
    output.take(b"01234567")
    assert output.text() == "01234567"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("a\x00b\x08c\u202ed\u200be\x9b", "abcde"),
        ("tab\tand\nline, \u00e9 \u6f22", "tab\tand\nline, \u00e9 \u6f22"),
    ],
)
def test_nothing_steers_the_terminal(text: str, clean: str) -> None:
    assert plain(text) == clean


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    output = Output(10)
    output.take(b"\xff\xfe!")
    assert output.text() == "\ufffd\ufffd!"


@pytest.mark.parametrize("name", ["cpu_s", "memory_mb", "processes", "output_kb"])
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be more than 0, not 0"):
        Limits(**{name: 0})
