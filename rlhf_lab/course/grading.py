"""Grade a folder of submissions: each is rebuilt from the reference, run in a sandbox, and judged from outside.

A student's notebook is never run as it was handed in. Its answers are put into the reference, and points exist only for
checks that the checker recorded as passed. Each result is one file; a second run grades only what is new or changed.
"""

import functools
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rlhf_lab.course.checker_client import CheckerProcess, GradingError, own_checker
from rlhf_lab.course.intake import Refused, read_answers
from rlhf_lab.course.masking import PACKAGE, data_folder, make_view
from rlhf_lab.course.notebooks import ANSWER, STUBS, Reference, dump, exercise_id, splice
from rlhf_lab.course.sandbox import Limits, probe, run_notebook
from rlhf_lab.course.submissions import Submission, find_submissions, safe_name
from rlhf_lab.fan_out import each
from rlhf_lab.records import write_json


@dataclass(frozen=True, kw_only=True)
class Grading:
    """What to grade and how, such as Grading(submissions="handed_in", out="grades")."""

    submissions: str
    out: str
    solutions: str = "solutions"
    notebooks: tuple[str, ...] = ()
    """Only these; by default every one that has a solution."""
    jobs: int = 1
    trust_submissions: bool = False
    cluster: str = ""
    """Address of a Dask scheduler."""
    wall_s: float = 600.0
    """Seconds that a notebook may take; enough for several answers that never end, so that the others still count."""
    cell_s: float = 60.0
    """Seconds that a cell of it may take."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A notebook to run: a submission, or, without one, the reference's own answers."""

    reference: Reference
    exercises: tuple[dict[str, Any], ...]
    view: Path
    limits: Limits
    trusted: bool
    code: str = field(default_factory=lambda: _code_digest())
    """The package's digest when the grading began, wherever it is run."""
    submission: Submission | None = None


def grade(config: Grading) -> list[dict[str, Any]]:
    """Grade what is new or changed; returns the results of all submissions, as they stand in their files.

    Raises:
        ValueError: No submissions, an unknown notebook, two submissions of one, no sandbox, a reference that fails its
            own checks, or a folder that cannot be written.
    """
    references = _references(config)
    submissions = find_submissions(Path(config.submissions), list(references))
    if not config.trust_submissions and (why := probe()):
        raise GradingError(f"{why} Or trust the submissions with --trust-submissions: they can then do what you can.")
    out = Path(config.out)
    with _workplace(out) as place:
        jobs = _jobs(config, references, place)
        asked = sorted({submission.notebook for submission in submissions})
        _each([jobs[name] for name in asked], config, "references")
        _check_references([_stored(out, jobs[name]) for name in asked])
        todo = [_with(jobs[submission.notebook], submission) for submission in submissions]
        _each(todo, config, "submissions")
        # As it was graded, even where a submission was replaced meanwhile: the next run sees to that.
        return [json.loads((out / _result_path(job)).read_text(encoding="utf-8")) for job in todo]


def _references(config: Grading) -> dict[str, Reference]:
    paths = {path.stem: path for path in sorted(Path(config.solutions).glob("*.ipynb"))}
    if not paths:
        raise GradingError(f"{config.solutions} holds no solution notebooks; give their folder with --solutions.")
    if unknown := [name for name in config.notebooks if name not in paths]:
        raise GradingError(f"there is no notebook {unknown[0]!r} in {config.solutions}; it has {', '.join(paths)}.")
    return {name: Reference.load(paths[name]) for name in config.notebooks or paths}


def _jobs(config: Grading, references: Mapping[str, Reference], place: Path) -> dict[str, _Job]:
    """For each notebook, how to run it; the package that it sees is made once."""
    checker, jobs = CheckerProcess(), {}
    try:
        for name, reference in references.items():
            asked = [exercise_id(cell) for cell in reference.answers]
            exercises = tuple(checker.ask({"describe": asked})["exercises"])
            view = place / "views" / name
            make_view(view, [dotted for one in exercises for dotted in one.get("hidden", ())])
            limits = Limits(wall_s=config.wall_s, cell_s=config.cell_s, cpu_s=math.ceil(2 * config.wall_s))
            trusted = config.trust_submissions
            jobs[name] = _Job(reference=reference, exercises=exercises, view=view, limits=limits, trusted=trusted)
    finally:
        checker.close()
    return jobs


def _with(job: _Job, submission: Submission) -> _Job:
    return _Job(**{**vars(job), "submission": submission})


def _check_references(results: Sequence[dict[str, Any] | None]) -> None:
    for result in results:
        assert result is not None
        failed = [one for one in result["exercises"] if not one["passed"]]
        if failed or result["status"] != "graded":
            why = failed[0]["message"] if failed else result["reason"]
            raise GradingError(f"the solution of {result['notebook']} fails its own checks, so nobody is graded: {why}")


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A temporary folder that the sandbox can read; what a killed run left is removed first."""
    note = out / ".workplace"
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock", timeout=0).acquire()
    except Timeout as error:
        raise GradingError(f"somebody else is grading into {out} just now; wait, or choose another --out.") from error
    except OSError as error:
        raise GradingError(f"{out} cannot be written ({error.strerror}); choose another folder with --out.") from error
    with lock:
        if note.exists():
            left = Path(note.read_text(encoding="utf-8"))
            if left.name.startswith("rlhf-lab-grading-") and left.parent == Path(tempfile.gettempdir()):
                shutil.rmtree(left, ignore_errors=True)
        place = Path(tempfile.mkdtemp(prefix="rlhf-lab-grading-"))
        try:
            note.write_text(str(place), encoding="utf-8")
            place.chmod(0o711)  # Another user, as whom the sandbox runs, may pass but not look around.
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            note.unlink(missing_ok=True)


def _each(jobs: Sequence[_Job], config: Grading, name: str) -> None:
    """Run what has no result yet, and keep each result as soon as it is there."""
    out = Path(config.out)
    todo = [job for job in jobs if not _is_final(_stored(out, job))]
    for result, path in each(_run, todo, num_jobs=config.jobs, cluster=config.cluster, name=name):
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, result)


def _result_path(job: _Job) -> Path:
    if job.submission is None:
        return Path("references") / f"{job.reference.name}.json"
    return Path("results") / safe_name(job.submission.student) / f"{job.submission.notebook}.json"


def _stored(out: Path, job: _Job) -> dict[str, Any] | None:
    """The result of an earlier run, if it is of the same submission, reference and exercises."""
    path = out / _result_path(job)
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if result.get("digest") == _digest(job) else None


def _is_final(result: dict[str, Any] | None) -> bool:
    """Whether a result need not be made again: what failed for a reason of ours may succeed the next time."""
    if result is None or result["status"] == "needs a person":
        return False
    is_reference = not result["student"]
    return not is_reference or (result["status"] == "graded" and all(one["passed"] for one in result["exercises"]))


@functools.cache
def _code_digest() -> str:
    """Of the package's sources: who mends an exercise or an equation wants the class graded again."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _digest(job: _Job) -> str:
    """Changes when anything changes that the result depends on."""
    about = [job.code, dump(job.reference.notebook), job.exercises, str(job.limits), job.trusted]
    if one := job.submission:
        about += [one.content_digest(), one.student, str(one.submitted), one.late_marked, one.notes, one.refused]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _run(job: _Job) -> tuple[dict[str, Any], Path]:
    """The result of one notebook, whatever happens, and where it belongs."""
    submission, reference = job.submission, job.reference
    result: dict[str, Any] = {
        "student": submission.student if submission else "",
        "notebook": reference.name,
        "status": "graded",
        "reason": "",
        "sandbox": "none: submissions were trusted" if job.trusted else "bubblewrap",
        "digest": _digest(job),
        "submitted": submission.submitted.isoformat() if submission and submission.submitted else None,
        "late_marked": submission.late_marked if submission else False,
        "canvas_id": submission.canvas_id if submission else "",
        "seconds": 0.0,
        "notes": list(submission.notes) if submission else [],
        "exercises": [],
        "written": [],
        "log": "",
    }
    answers: dict[str, str] = {}
    record: dict[str, Any] = {}
    try:
        if not submission:
            answers = {cell.id: cell.source for cell in reference.notebook.cells if cell.id in reference.answers}
        else:
            if submission.refused:
                raise Refused(submission.refused)
            taken = read_answers(submission.path, reference.answers, name=reference.name)
            answers = dict(taken.cells)
            result["notes"] += taken.notes
        record = _judged(job, answers, result)
    except Refused as error:
        result |= {"status": "refused", "reason": str(error)}
        answers = {}
    except Exception as error:  # One submission never stops the others.
        result |= {"status": "needs a person", "reason": f"{type(error).__name__}: {error}"[:500]}
    result |= _marks(job, answers, record)
    return result, _result_path(job)


def _judged(job: _Job, answers: Mapping[str, str], result: dict[str, Any]) -> dict[str, Any]:
    """The checker's record of a run of these answers."""
    place = Path(tempfile.mkdtemp(dir=job.view.parents[1], prefix="run-"))
    place.chmod(0o711)
    socket, notebook = place / "check.sock", place / "graded.ipynb"
    notebook.write_text(dump(splice(job.reference, answers)), encoding="utf-8")
    notebook.chmod(0o644)
    checker = own_checker()
    ids = [one["id"] for one in job.exercises if "hidden" in one]
    # A cell that takes its time and is still within its limit must find the checker listening.
    checker.ask({"open": str(socket), "exercises": ids, "timeout_s": job.limits.cell_s + 10.0})
    try:
        ran = run_notebook(notebook, job.view, socket, limits=job.limits, data=data_folder(), trusted=job.trusted)
    finally:
        closed = checker.ask({"close": str(socket)})
        shutil.rmtree(place, ignore_errors=True)
    result |= {"seconds": round(ran.seconds, 2), "log": ran.log}
    if ran.stopped:
        result |= {"status": "stopped", "reason": ran.stopped}
    if closed["trouble"]:
        result |= {"status": "needs a person", "reason": closed["trouble"][0]}
    return closed["record"]


def _marks(job: _Job, answers: Mapping[str, str], record: Mapping[str, Any]) -> dict[str, Any]:
    """Points and messages by exercise, and the written answers."""
    checked, written = [], []
    for exercise in job.exercises:
        about = {"id": exercise["id"], "title": exercise["title"], "max_points": exercise["points"]}
        answer = answers.get(exercise["id"] + ANSWER, "")
        if "rubric" in exercise:
            said = "\n".join(line for line in answer.split("\n") if line not in STUBS["markdown"]).strip()
            written.append({**about, "answer": said, "rubric": exercise["rubric"]})
            continue
        verdict = record.get(exercise["id"], {"points": 0, "passed": False, "message": "", "attempts": 0})
        why = "it is no Python, or the run ended before its check" if answer.strip() else "there is no answer"
        message = verdict["message"] or f"{exercise['id']}: nothing to check: {why}."
        kept = {key: verdict[key] for key in ("points", "passed", "attempts")}
        checked.append({**about, **kept, "message": message, "answer": answer})
    return {"exercises": checked, "written": written}
