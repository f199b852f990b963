"""The systems' command: what is asked for is known, and each seed is measured once."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.experiments.results_page import read_table
from rlhf_lab.experiments.systems import command
from rlhf_lab.experiments.systems.command import SystemsConfig, run_systems
from rlhf_lab.experiments.systems.sections import SYSTEMS, Job, section


def test_a_system_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="no system rsl is known; choose among"):
        SystemsConfig(only=("rsl",))
    with pytest.raises(ValueError, match=r"num_seeds \(0\) and jobs \(1\) must be at least 1"):
        SystemsConfig(num_seeds=0)


def test_each_seed_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    class Made:
        @staticmethod
        def rows(job: Job) -> list[dict[str, Any]]:
            measured.append(job.seed)
            return [{"value": job.seed / 4, "scale": job.scale}]

    monkeypatch.setattr(command, "module_of", lambda system: Made)
    monkeypatch.setattr(command, "write_page", lambda tables, page: page)
    monkeypatch.setattr(command, "SYSTEMS", ("made",))
    settings = {"only": ("made",), "scale": "tiny", "out": str(tmp_path / "runs"), "tables": str(tmp_path / "tables")}
    run_systems(SystemsConfig(num_seeds=2, **settings))
    run_systems(SystemsConfig(num_seeds=3, **settings))
    assert measured == [0, 1, 2]
    table = tmp_path / "tables" / "made.csv"
    assert table.read_text().startswith("# rlhf-lab systems --only made --scale tiny --num-seeds 3\n")
    assert read_table(table)[1] == {"seed": 1, "value": 0.25, "scale": "tiny"}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_runs_at_the_smallest_scale(system: str, tmp_path: Path) -> None:

    settings = {"only": (system,), "scale": "tiny", "out": str(tmp_path / "runs"), "tables": str(tmp_path / "tables")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "write_page", lambda tables, page: page)
        run_systems(SystemsConfig(num_seeds=1, **settings))
    rows = read_table(tmp_path / "tables" / f"{system}.csv")
    text = section(system, rows, tmp_path / "figures", "rlhf-lab systems")
    assert text.startswith("## ") and list((tmp_path / "figures").glob("*.png"))
