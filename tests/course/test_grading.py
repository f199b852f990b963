"""Grading, whole: a class of honest, wrong, broken and hostile submissions, resumed, killed, and in parallel."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from filelock import FileLock

from rlhf_lab.course import grading
from rlhf_lab.course.grading import Grading, grade
from rlhf_lab.course.submissions import safe_name
from tests.capabilities import ROOT
from tests.course.hostile import ATTACKS, LINKS, WRONG_GAE, Attack, put, solution

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.needs("sandbox")]
SECRET = "nobody may read this SECRET"
CELL_S, WALL_S = 8.0, 45.0


@pytest.fixture(scope="module")
def solutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course") / "solutions"
    folder.mkdir()
    nbformat.write(solution(), folder / "04_ppo.ipynb")
    return folder


def config(solutions: Path, submissions: Path, out: Path, **settings: Any) -> Grading:
    return Grading(
        **{
            "submissions": str(submissions),
            "out": str(out),
            "solutions": str(solutions),
            "wall_s": WALL_S,
            "cell_s": CELL_S,
            "jobs": 2,
            **settings,
        }
    )


def points(result: Mapping[str, Any]) -> float:
    return sum(exercise["points"] for exercise in result["exercises"])


@pytest.fixture(scope="module")
def hostile_class(solutions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "SECRET-submissions"
    for name, attack in ATTACKS.items():
        put(attack, folder / name / "04_ppo.ipynb")
    return folder


@pytest.fixture(scope="module")
def graded(hostile_class: Path, solutions: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    os.environ["RLHF_LAB_TEST_SECRET"] = SECRET
    before = {process.pid for process in psutil.process_iter()}
    out = tmp_path_factory.mktemp("grades")
    results = {result["student"]: result for result in grade(config(solutions, hostile_class, out))}
    del os.environ["RLHF_LAB_TEST_SECRET"]
    return {"results": results, "out": out, "before": before}


def test_every_submission_has_a_result(graded: dict[str, Any]) -> None:
    assert set(graded["results"]) == set(ATTACKS)
    assert len(ATTACKS) >= 60
    assert len(list((graded["out"] / "results").rglob("*.json"))) == len(ATTACKS)


@pytest.mark.parametrize(("name", "attack"), ATTACKS.items(), ids=ATTACKS)
def test_each_has_the_grade_that_it_earned(name: str, attack: Attack, graded: dict[str, Any]) -> None:
    result = graded["results"][name]
    about = {key: result[key] for key in ("status", "reason", "notes", "log", "exercises")}
    if attack.points is not None:
        assert points(result) == attack.points, json.dumps(about, indent=1)
    else:
        # `gae` was answered wrongly, whatever became of the other one.
        assert points(result) <= 2, json.dumps(about, indent=1)
    if attack.status:
        assert result["status"] == attack.status, json.dumps(about, indent=1)
    assert attack.reason.lower() in result["reason"].lower()
    assert "found [" not in json.dumps(about["exercises"]), "files of the host were seen"
    assert SECRET not in json.dumps(result)
    assert "reached (" not in json.dumps(result)
    assert "WROTE" not in result["log"]


def test_nothing_survives(graded: dict[str, Any]) -> None:
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid not in graded["before"]:
            assert "graded.ipynb" not in " ".join(process.info["cmdline"] or [])
            assert "bwrap" not in " ".join(process.info["cmdline"] or [])
    assert not (graded["out"] / ".workplace").exists()


def test_a_second_run_grades_nothing_anew(
    graded: dict[str, Any], hostile_class: Path, solutions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in graded["out"].rglob("*.json")}
    start = time.perf_counter()
    again = grade(config(solutions, hostile_class, graded["out"]))
    assert time.perf_counter() - start < 30
    assert {result["student"]: result for result in again} == graded["results"]
    assert {path: path.stat().st_mtime_ns for path in graded["out"].rglob("*.json")} == stamps


SMALL = ("right", "one sign wrong", "padding counted", "check redefined")


def small_class(folder: Path) -> Path:
    for name in SMALL:
        put(ATTACKS[name], folder / f"{safe_name(name)}_04_ppo.ipynb")
    return folder


def summary(results: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((one["student"], one["status"], points(one)) for one in results)


def test_only_what_changed_is_graded_again_and_one_job_agrees_with_two(solutions: Path, tmp_path: Path) -> None:
    folder, out = small_class(tmp_path / "handed_in"), tmp_path / "grades"
    first = grade(config(solutions, folder, out, jobs=1))
    assert summary(grade(config(solutions, folder, tmp_path / "others", jobs=2))) == summary(first)
    stamps = {path.parent.name: path.stat().st_mtime_ns for path in (out / "results").rglob("*.json")}
    put(Attack(points=2, gae=WRONG_GAE), folder / "right_04_ppo.ipynb")
    again = grade(config(solutions, folder, out, jobs=1))
    assert {one["student"]: points(one) for one in again}["right"] == 2
    changed = {path.parent.name for path in (out / "results").rglob("*.json")} and {
        path.parent.name
        for path in (out / "results").rglob("*.json")
        if path.stat().st_mtime_ns != stamps[path.parent.name]
    }
    assert changed == {"right"}


def test_links_and_odd_files_are_their_students_own_refusal(solutions: Path, tmp_path: Path) -> None:
    folder = tmp_path / "handed_in"
    put(ATTACKS["right"], folder / "ana" / "04_ppo.ipynb")
    (folder / "bob").mkdir()
    LINKS["a symbolic link"](folder / "bob" / "04_ppo.ipynb", {})
    put(ATTACKS["right"], folder / "cleo" / "scratch.ipynb")
    results = {one["student"]: one for one in grade(config(solutions, folder, tmp_path / "grades"))}
    assert {name: (one["status"], points(one)) for name, one in results.items()} == {
        "ana": ("graded", 6),
        "bob": ("refused", 0),
        "cleo": ("refused", 0),
    }
    assert "by its name: scratch.ipynb; name it 04_ppo.ipynb" in results["cleo"]["reason"]


def test_a_submission_replaced_while_it_is_graded_is_graded_again(
    solutions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "handed_in" / "ana_04_ppo.ipynb"
    put(ATTACKS["right"], path)
    judged = grading._judged

    def replaced(job: Any, *args: Any) -> Any:
        if job.submission:
            put(Attack(points=2, gae=WRONG_GAE), path)
        return judged(job, *args)

    monkeypatch.setattr(grading, "_judged", replaced)
    assert summary(grade(config(solutions, path.parent, tmp_path / "grades", jobs=1))) == [("ana", "graded", 6)]
    monkeypatch.setattr(grading, "_judged", judged)
    assert summary(grade(config(solutions, path.parent, tmp_path / "grades", jobs=1))) == [("ana", "graded", 2)]


def test_two_graders_do_not_share_a_folder(solutions: Path, tmp_path: Path) -> None:
    folder, out = small_class(tmp_path / "handed_in"), tmp_path / "grades"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(ValueError, match=r"somebody else is grading into .*grades just now"):
        grade(config(solutions, folder, out))
    assert not (out / "results").exists()


def test_trusted_submissions_are_graded_without_a_sandbox_and_say_so(
    solutions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_class(tmp_path / "handed_in")
    monkeypatch.setattr("rlhf_lab.course.grading.probe", lambda: "there is no bubblewrap here.")
    with pytest.raises(ValueError, match=r"there is no bubblewrap here\. Or trust the submissions"):
        grade(config(solutions, folder, tmp_path / "refused"))
    results = grade(config(solutions, folder, tmp_path / "grades", trust_submissions=True))
    assert {one["sandbox"] for one in results} == {"none: submissions were trusted"}
    assert {one["student"]: points(one) for one in results} == {safe_name(name): ATTACKS[name].points for name in SMALL}


def test_a_reference_that_fails_its_own_checks_grades_nobody(tmp_path: Path) -> None:
    broken = solution()
    broken.cells[1].source = broken.cells[1].source.replace("discount * after", "after")
    (tmp_path / "solutions").mkdir()
    nbformat.write(broken, tmp_path / "solutions" / "04_ppo.ipynb")
    with pytest.raises(ValueError, match="the solution of 04_ppo fails its own checks, so nobody is graded: gae"):
        grade(config(tmp_path / "solutions", small_class(tmp_path / "in"), tmp_path / "grades"))
    assert not (tmp_path / "grades" / "results").exists()


def test_what_cannot_be_graded_is_said_in_a_sentence(solutions: Path, tmp_path: Path) -> None:
    folder = small_class(tmp_path / "handed_in")
    with pytest.raises(ValueError, match=r"there is no notebook '13_more' in .*; it has 04_ppo"):
        grade(config(solutions, folder, tmp_path / "grades", notebooks=("13_more",)))
    with pytest.raises(ValueError, match="holds no solution notebooks"):
        grade(config(tmp_path / "nowhere", folder, tmp_path / "grades"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        grade(config(solutions, folder, tmp_path / "file"))


def test_killed_at_any_moment_it_goes_on_to_the_same_grades(solutions: Path, tmp_path: Path) -> None:
    folder = small_class(tmp_path / "handed_in")

    def command(out: Path) -> list[str]:
        about = ["--out", str(out), "--solutions", str(solutions), "--jobs", "2"]
        return [sys.executable, "-m", "rlhf_lab.cli", "grade", str(folder), *about]

    start = time.perf_counter()
    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    whole = time.perf_counter() - start
    out = tmp_path / "killed"
    for moment in range(6):
        process = subprocess.Popen(command(out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5 + (moment * 0.618 % 1.0) * 0.8 * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(out), cwd=ROOT, check=True, capture_output=True)
    for name in ("grades.csv", "statistics.csv", "canvas.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (out / ".workplace").exists()


def test_a_dask_cluster_gives_the_same_grades(solutions: Path, tmp_path: Path) -> None:
    folder = small_class(tmp_path / "handed_in")
    code = (
        "import sys; from dask.distributed import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:\n"
        "        from rlhf_lab.cli import main\n"
        "        sys.exit(main([*sys.argv[1:], '--cluster', cluster.scheduler_address]))\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    about = ["grade", str(folder), "--out", str(tmp_path / "grades"), "--solutions", str(solutions)]
    done = subprocess.run([sys.executable, str(script), *about], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in (tmp_path / "grades" / "results").rglob("*.json")]
    assert {one["student"]: points(one) for one in results} == {safe_name(name): ATTACKS[name].points for name in SMALL}


def test_a_cluster_that_is_not_there_is_named(solutions: Path, tmp_path: Path) -> None:
    folder = small_class(tmp_path / "handed_in")
    with pytest.raises(ValueError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9; check the address"):
        grade(config(solutions, folder, tmp_path / "grades", cluster="tcp://127.0.0.1:9"))
