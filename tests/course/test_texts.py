import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lab.course.texts import TableError, as_cell, from_cell, plain, read_table, table, write_table


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\n+", "'=", "\uff1d", "\u00a0@"])
def test_no_text_of_a_student_is_a_formula(start: str) -> None:
    cell = as_cell(f"{start}cmd|' /C calc'!A0")
    assert cell.startswith("'") and from_cell(cell) == f"{start}cmd|' /C calc'!A0"


def test_numbers_of_ours_stay_numbers() -> None:
    assert [as_cell(value) for value in (-1.5, -2, 0.0, -0.0, 1 / 3)] == ["-1.5", "-2", "0", "0", "0.33"]


@pytest.mark.parametrize("code", [0x00, 0x07, 0x1B, 0x7F, 0x9B, 0xAD, 0x200B, 0x202E, 0x2028, 0x2066, 0xFEFF, 0xE0041])
def test_what_nobody_can_see_is_shown(code: int) -> None:
    assert plain(f"a{chr(code)}b") == f"a[U+{code:04X}]b"


def test_what_people_write_stays() -> None:
    text = "Müller\n\tça va\u00a0? 你好 नमस्ते שלום 👩\u200d🚀"
    assert plain(text) == text


@given(st.text())
def test_every_text_comes_back_from_a_cell_as_it_is_shown(text: str) -> None:
    assert from_cell(as_cell(text)) == plain(text)
    as_cell(text).encode()


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=4))
def test_a_table_is_read_as_it_was_written(rows: list[list[str]]) -> None:
    written = table(("a", "b"), [dict(zip("ab", row, strict=True)) for row in rows])
    read = list(csv.reader(io.StringIO(written, newline="")))
    assert [list(map(from_cell, row)) for row in read[1:]] == [list(map(plain, row)) for row in rows]


@pytest.mark.parametrize(
    "content",
    ['\ufeffa,b\r\n1,"x,\ny"\r\n', 'a;b\n1;"x,\ny"\n', 'a\tb\n\n1\t"x,\ny"\n\t\n'],
    ids=["written", "semicolons", "tabs and empty rows"],
)
def test_a_table_is_read_as_spreadsheets_save_it(content: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode())
    assert read_table(path, ["a", "b"]) == [{"a": "1", "b": "x,\ny"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\nü,2".encode("cp1252"), "is not in UTF-8; save it as 'CSV UTF-8'"),
        (b"a,c\n1,2", "must have one column 'b'; it has a, c"),
        (b"a,b,b\n1,2,3", "must have one column 'b'"),
        (b"", "must have one column 'a'; it has none"),
        (b'a,b\n"1,2', "is no table of comma-separated values"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_table(path, ["a", "b"])


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="cannot be read"):
        read_table(tmp_path / "none.csv", ["a"])


def test_spreadsheets_see_which_letters_a_table_has(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", ("ä",), [{"ä": "ß"}])
    assert (tmp_path / "table.csv").read_bytes() == b"\xef\xbb\xbf\xc3\xa4\r\n\xc3\x9f\r\n"
