"""Texts that students wrote, where they can do no harm: in tables that a spreadsheet opens, on pages, in messages."""

import csv
import io
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lab.records import write_atomic

_KEPT = frozenset("\t\u200c\u200d")
"""Tabs, and the joiners that some scripts and emoji are written with."""
_FORMULA = re.compile(r"'*\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
"""How a cell begins that a spreadsheet may take for a formula, and how such a cell begins once it is protected."""


class TableError(ValueError):
    """A table cannot be read; the message says what to mend."""


def plain(text: str) -> str:
    """The text with what nobody can see made visible: control characters, and those that turn the direction around.

    Example:
        >>> plain("ab" + chr(0x202E) + "c")
        'ab[U+202E]c'
    """
    return "\n".join(line if line.isprintable() else _shown(line) for line in text.split("\n"))


def _shown(line: str) -> str:
    return "".join(letter if _is_visible(letter) else f"[U+{ord(letter):04X}]" for letter in line)


def _is_visible(letter: str) -> bool:
    return letter.isprintable() or letter in _KEPT or unicodedata.category(letter) == "Zs"


def as_cell(value: Any) -> str:
    """A value as a cell of a table: a number short, a text such that no spreadsheet computes it.

    Example:
        >>> as_cell("=1+1"), as_cell(2.50), as_cell(None)
        ("'=1+1", '2.5', '')
    """
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    text = plain(str(value))
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(text: str) -> str:
    """The text that `as_cell` protected.

    Example:
        >>> from_cell("'=1+1"), from_cell("'tis")
        ('=1+1', "'tis")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def number(value: float | int) -> str:
    """A number with at most two decimals.

    Example:
        >>> number(3.0), number(2 / 3)
        ('3', '0.67')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def counted(count: float | int, word: str) -> str:
    """A number and its word.

    Example:
        >>> counted(1, "day"), counted(2.5, "point")
        ('1 day', '2.5 points')
    """
    return f"{number(count)} {word}{'' if count == 1 else 's'}"


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """A CSV table of the rows; a column that a row lacks is empty there."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([as_cell(column) for column in columns])
    writer.writerows([as_cell(row.get(column)) for column in columns] for row in rows)
    return text.getvalue()


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file that spreadsheets open with its letters intact, which they do where it begins with a BOM."""
    write_atomic(path, table(columns, rows).encode("utf-8-sig"))


def read_table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file, as it was written or as a spreadsheet saved it; empty rows are left out.

    Args:
        path: A file in UTF-8, with commas, semicolons or tabs.
        needed: Columns that it must have.

    Raises:
        TableError: It cannot be read, or a column is missing or there twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))  # An answer may be longer than its 128 KiB.
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is not in UTF-8; save it as 'CSV UTF-8' in the spreadsheet program.") from error
    except OSError as error:
        raise TableError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise TableError(f"{path} is no table of comma-separated values ({error}); save it as CSV again.") from error
    columns = [from_cell(column.strip()) for column in rows[0]] if rows else []
    missing = [column for column in needed if columns.count(column) != 1]
    if missing:
        raise TableError(f"{path} must have one column {missing[0]!r}; it has {', '.join(columns) or 'none'}.")
    return [
        dict(zip(columns, map(from_cell, [*row, *[""] * len(columns)]), strict=False)) for row in rows[1:] if any(row)
    ]
