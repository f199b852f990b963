"""Times the grading of copies of a solved notebook, against how long their cells take in it.

What is not cells is the grader's own: the sandbox, pytest, the start of a kernel, the checker, and the files.

Example: .venv/bin/python -m benchmarks.grading --notebook 04_ppo --copies 30 --jobs 2
"""

import argparse
import re
import shutil
import tempfile
import time
from pathlib import Path

from rlhf_lab.course.grading import Grading, grade

_CELLS = re.compile(r"^cells: ([\d.]+) s$", re.MULTILINE)


def main() -> None:
    """Print the seconds of the grading, those of the cells, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--solutions", default="solutions")
    parser.add_argument("--notebook", default="04_ppo")
    parser.add_argument("--copies", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        submissions, out = Path(folder, "handed_in"), Path(folder, "grades")
        for number in range(args.copies):
            target = submissions / f"student_{number:02d}" / f"{args.notebook}.ipynb"
            target.parent.mkdir(parents=True)
            shutil.copy(Path(args.solutions, target.name), target)
        config = Grading(submissions=str(submissions), out=str(out), solutions=args.solutions, jobs=args.jobs)
        start = time.perf_counter()
        results = grade(config)
        seconds = time.perf_counter() - start
    cells = [float(_CELLS.findall(result["log"])[-1]) for result in results]
    assert all(one["passed"] for result in results for one in result["exercises"])
    share = seconds * args.jobs / sum(cells)
    print(f"{args.copies} copies of {args.notebook}, {args.jobs} jobs: {seconds:.0f} s")  # noqa: T201
    print(f"their cells take {sum(cells):.0f} s, shared by the jobs {sum(cells) / args.jobs:.0f} s: ratio {share:.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
