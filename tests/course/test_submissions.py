import os
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lab.course.submissions import SubmissionsError, find_submissions, safe_name

NOTEBOOKS = ("04_ppo", "05_tldr", "06_overoptimization")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")
    return folder


def pack(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")


def found(folder: Path) -> list[tuple[str, str, str]]:
    submissions = find_submissions(folder, NOTEBOOKS)
    return [(one.student, one.notebook, str(one.path.relative_to(folder))) for one in submissions]


@pytest.mark.parametrize(
    ("name", "student"),
    [
        ("ana_04_ppo.ipynb", "ana"),
        ("ana-04_ppo.ipynb", "ana"),
        ("04_ppo_ana.ipynb", "ana"),
        ("04_ppo.ana.ipynb", "ana"),
        ("04_ppo - Ana María.IPYNB", "Ana María"),
        ("ana_04_ppo (1).ipynb", "ana"),
        ("ana_2024_04_ppo.ipynb", "ana_2024"),
        ("ana/04_ppo.ipynb", "ana"),
        ("ana/04_ppo (1).ipynb", "ana"),
        ("ana/homework/04_ppo.ipynb", "ana"),
        ("ana_04_ppo.ipynb.txt", "ana"),
        ("ana/04_ppo (2).ipynb.json", "ana"),
        ("ana/04_ppo_final.ipynb", "ana"),
        ("ana/ben_04_ppo.ipynb", "ana"),
        ("ana/ben_12345_67890_04_ppo.ipynb", "ana"),
        ("submitted/ana/week4/04_ppo.ipynb", "ana"),
        ("submitted_early/week4/04_ppo.ipynb", "submitted_early"),
        ("Ana Example_4711_assignsubmission_file_/04_ppo.ipynb", "Ana Example_4711"),
        ("Ana Example_4711_assignsubmission_file_04_ppo.ipynb", "Ana Example_4711"),
        ("Ana Example_4711_assignsubmission_file_9_9_04_ppo.ipynb", "Ana Example_4711"),
        ("exampleana_12345_67890_ben_assignsubmission_file_04_ppo.ipynb", "exampleana_12345"),
        ("exampleana_12345_67890_04_ppo.ipynb", "exampleana_12345"),
        ("exampleana_LATE_12345_67890_04_ppo-1.ipynb", "exampleana_12345"),
        ("exampleana_12345_67890_ben_99_77_04_ppo.ipynb", "exampleana_12345"),
        ("anon_aB3x9_67890_04_ppo.ipynb", "anon_aB3x9"),
        ("LATE_anon_aB3x9_67890_04_ppo.ipynb", "anon_aB3x9"),
    ],
)
def test_the_layouts_say_whose_it_is(name: str, student: str, tmp_path: Path) -> None:
    assert found(fill(tmp_path, name)) == [(student, "04_ppo", name)]


def test_a_class_comes_in_order(tmp_path: Path) -> None:
    fill(tmp_path, "ben/05_tldr.ipynb", "ben/04_ppo.ipynb", "ana/04_ppo.ipynb", "ben/figure.png", ".git/04_ppo.ipynb")
    fill(tmp_path, "ana/.ipynb_checkpoints/05_tldr.ipynb", "__MACOSX/x/04_ppo.ipynb", "._ana_05_tldr.ipynb")
    assert [one[:2] for one in found(tmp_path)] == [("ana", "04_ppo"), ("ben", "04_ppo"), ("ben", "05_tldr")]


def test_canvas_says_more(tmp_path: Path) -> None:
    fill(tmp_path, "exampleana_LATE_12345_67890_04_ppo.ipynb", "exampleana_777_67891_04_ppo.ipynb")
    first, other = find_submissions(tmp_path, NOTEBOOKS)
    assert (first.student, first.canvas_id, first.late_marked) == ("exampleana_12345", "12345", True)
    assert (other.student, other.canvas_id, other.late_marked) == ("exampleana_777", "777", False)
    assert first.submitted is None


def test_of_canvas_resubmissions_the_last_counts(tmp_path: Path) -> None:
    numbers = {"": 50, "-2": 60, "-10": 55, "-1": 70}
    fill(tmp_path, *(f"ana_1_{file}_04_ppo{number}.ipynb" for number, file in numbers.items()))
    (one,) = find_submissions(tmp_path, NOTEBOOKS)
    assert one.path.name == "ana_1_55_04_ppo-10.ipynb"
    assert one.notes[0].startswith("handed in again; left aside: ") and one.notes[0].count(".ipynb") == 3


def test_of_two_files_of_one_name_in_canvas_the_later_counts(tmp_path: Path) -> None:
    fill(tmp_path, "ana_1_9_04_ppo.ipynb", "ana_1_10_04_ppo.ipynb")
    assert found(tmp_path)[0][2] == "ana_1_10_04_ppo.ipynb"


@pytest.mark.parametrize(
    "text",
    ["2026-11-30 21:30:00.000000 UTC\n", "2026-11-30 22:30:00 +0100", "2026-11-30T21:30:00Z", "2026-11-30 21:30:00"],
)
def test_nbgrader_says_when(text: str, tmp_path: Path) -> None:
    fill(tmp_path, "submitted/ana/week4/04_ppo.ipynb", "source/week4/05_tldr.ipynb")
    (tmp_path / "submitted" / "ana" / "week4" / "timestamp.txt").write_text(text)
    (one,) = find_submissions(tmp_path, NOTEBOOKS)
    assert one.submitted == datetime(2026, 11, 30, 21, 30, tzinfo=UTC) and one.notes == ()


def test_a_time_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "ana/04_ppo.ipynb", "ben/04_ppo.ipynb", "timestamp.txt")
    (tmp_path / "ana" / "timestamp.txt").symlink_to("/etc/hostname")
    (tmp_path / "ben" / "timestamp.txt").write_bytes(b"\xff soon")
    submissions = find_submissions(tmp_path, NOTEBOOKS)
    assert [one.submitted for one in submissions] == [None, None]
    assert all("it is not known when" in one.notes[0] for one in submissions)


def test_an_archive_is_one_students(tmp_path: Path) -> None:
    pack(tmp_path / "ana.zip", "hw/04_ppo.ipynb", "hw/05_tldr.ipynb", "hw/notes.txt")
    pack(tmp_path / "ben_1_2_work-1.zip", "05_tldr.ipynb")
    pack(tmp_path / "cleo" / "all.zip", "04_ppo.ipynb")
    assert found(tmp_path) == [
        ("ana", "04_ppo", "ana.zip"),
        ("ana", "05_tldr", "ana.zip"),
        ("ben_1", "05_tldr", "ben_1_2_work-1.zip"),
        ("cleo", "04_ppo", "cleo/all.zip"),
    ]


def test_an_archive_that_cannot_be_read_is_left_to_who_reads_it(tmp_path: Path) -> None:
    fill(tmp_path, "ana_04_ppo.zip", "ben.zip", "cleo_05_tldr.ipynb")
    assert [one[:2] for one in found(tmp_path)] == [
        ("ana", "04_ppo"),
        ("ben", "04_ppo"),
        ("ben", "05_tldr"),
        ("cleo", "05_tldr"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "ana/scratch.ipynb",
        "ana/work.7z",
        "ana_work.rar",
        "ana_12345_67890_homework.ipynb",
        "Ana_4711_assignsubmission_file_homework.ipynb",
    ],
)
def test_an_odd_file_is_its_students_own_refusal(name: str, tmp_path: Path) -> None:
    fill(tmp_path, name, "ben_04_ppo.ipynb")
    first, *others = sorted(find_submissions(tmp_path, NOTEBOOKS), key=lambda one: one.student == "ben")
    assert [one.student for one in others] == ["ben"] and not others[0].refused
    assert first.student.lower().startswith("ana") and first.notebook == "04_ppo"
    assert first.refused == (f"not a notebook that is asked for, by its name: {Path(name).name}; name it 04_ppo.ipynb.")


def test_an_odd_file_beside_the_right_one_is_noted(tmp_path: Path) -> None:
    fill(tmp_path, "ana/scratch.ipynb", "ana/04_ppo.ipynb", "ben_04_ppo.ipynb")
    ana, ben = find_submissions(tmp_path, NOTEBOOKS)
    assert ana.notes == ("left aside, not a notebook that is asked for: scratch.ipynb.",) and not ana.refused
    assert ben.notes == ()


@pytest.mark.parametrize(
    "names", [("ana/04_ppo.ipynb", "ana/04_ppo (1).ipynb"), ("ana_04_ppo.ipynb", "04_ppo_ana.ipynb")]
)
def test_two_that_differ_are_refused_and_two_that_agree_are_one(names: tuple[str, str], tmp_path: Path) -> None:
    fill(tmp_path, *names, "ben_04_ppo.ipynb")
    ana, ben = find_submissions(tmp_path, NOTEBOOKS)
    assert not ana.refused and "handed in more than once, all the same" in ana.notes[0]
    (tmp_path / names[0]).write_bytes(b"{ }")
    ana, ben = find_submissions(tmp_path, NOTEBOOKS)
    assert "there are 2 that differ" in ana.refused and all(Path(name).name in ana.refused for name in names)
    assert not ben.refused and not ben.notes


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "04_ppo.ipynb", "05_tldr.ipynb")
    inside = fill(tmp_path / "inside", "ana/04_ppo.ipynb")
    (inside / "ben").symlink_to(outside)
    (inside / "cleo_05_tldr.ipynb").symlink_to(outside / "05_tldr.ipynb")
    (inside / "loop").symlink_to(inside)
    submissions = find_submissions(inside, NOTEBOOKS)
    assert [(one.student, one.notebook) for one in submissions] == [("ana", "04_ppo"), ("cleo", "05_tldr")]
    digests = [one.content_digest() for one in submissions]
    (outside / "05_tldr.ipynb").write_text("changed")
    assert [one.content_digest() for one in submissions] == digests


def test_what_is_no_file_can_be_named_and_is_refused_later(tmp_path: Path) -> None:
    fill(tmp_path, "ana_04_ppo.ipynb/inside.txt")
    os.mkfifo(tmp_path / "ben_04_ppo.ipynb")
    assert [one[0] for one in found(tmp_path)] == ["ana", "ben"]
    assert all(one.content_digest() for one in find_submissions(tmp_path, NOTEBOOKS))


def test_the_digest_changes_with_the_content(tmp_path: Path) -> None:
    fill(tmp_path, "ana_04_ppo.ipynb")
    (one,) = find_submissions(tmp_path, NOTEBOOKS)
    before = one.content_digest()
    assert one.content_digest() == before
    one.path.write_text("{ }")
    assert one.content_digest() != before


def folder_missing(folder: Path) -> Path:
    return folder / "none"


def folder_is_file(folder: Path) -> Path:
    return fill(folder, "class.zip") / "class.zip"


def empty(folder: Path) -> Path:
    return fill(folder, "ana/report.pdf", "readme.txt")


def unknown(folder: Path) -> Path:
    return fill(folder, "ana_04_ppo.ipynb", *(f"ben_0{number}_x.ipynb" for number in range(7)))


def nobodys(folder: Path) -> Path:
    return fill(folder, "04_ppo.ipynb")


def ambiguous(folder: Path) -> Path:
    return fill(folder, "04_ppo_05_tldr.ipynb")


def unknown_archive(folder: Path) -> Path:
    pack(folder / "class.zip", "ana_04_ppo.ipynb")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (folder_missing, "none does not exist"),
        (folder_is_file, r"class\.zip is a file; unpack it"),
        (empty, "holds no submissions"),
        (unknown, r"ben_00_x\.ipynb.*and 2 more; known are 04_ppo, 05_tldr, 06_overoptimization"),
        (nobodys, r"04_ppo\.ipynb does not say whose it is; name it STUDENT_04_ppo\.ipynb"),
        (ambiguous, "not clear which notebook this is"),
        (unknown_archive, r"class\.zip.*has to be unpacked"),
    ],
)
def test_a_folder_that_cannot_be_understood_is_refused_in_a_sentence(
    make: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    folder = make(tmp_path)
    with pytest.raises(SubmissionsError, match=message) as error:
        find_submissions(folder, NOTEBOOKS)
    assert "\n" not in str(error.value)


def test_names_that_cannot_be_printed_are_made_printable(tmp_path: Path) -> None:
    for name in (b"an\xff_04_ppo.ipynb", "b\nb\u202ec_04_ppo.ipynb".encode(), "Mu\u0308ller_04_ppo.ipynb".encode()):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"{}")
    students = [one.student for one in find_submissions(tmp_path, NOTEBOOKS)]
    assert students == [unicodedata.normalize("NFC", "Mu\u0308ller"), r"an\xff", "b\\u000ab\\u202ec"]
    Path(os.fsdecode(bytes(tmp_path) + b"/x\xff.ipynb")).write_bytes(b"{}")
    with pytest.raises(SubmissionsError, match=r"x\\xff\.ipynb"):
        find_submissions(tmp_path, NOTEBOOKS)


def test_a_name_within_another_is_not_meant(tmp_path: Path) -> None:
    fill(tmp_path, "ana_04_ppo.ipynb", "ana_ppo.ipynb")
    submissions = find_submissions(tmp_path, ("ppo", "04_ppo"))
    assert [(one.student, one.notebook) for one in submissions] == [("ana", "04_ppo"), ("ana", "ppo")]


NAMES = st.one_of(st.text(max_size=12), st.text(max_size=400), st.text("./\\~% \0a", max_size=6))


@given(NAMES)
def test_a_safe_name_is_a_file_name(student: str) -> None:
    name = safe_name(student)
    assert 0 < len(name.encode()) <= 200 and name == Path(name).name and name not in (".", "..")
    assert not set(name) & set('/\\\0\n:*?"<>|') and name[0] not in "." and name[-1] not in ". "


@given(NAMES, NAMES)
def test_no_two_students_have_one_safe_name(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@pytest.mark.parametrize("student", ["../../x", "/etc/passwd", "..", ".", "", "a/b", "CON\0", "~root"])
def test_no_student_writes_elsewhere(student: str, tmp_path: Path) -> None:
    path = tmp_path / f"{safe_name(student)}.html"
    path.write_text("x")
    assert list(tmp_path.iterdir()) == [path]
