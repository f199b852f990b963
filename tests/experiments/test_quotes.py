"""Abstaining gains where a reward model decides, and nothing where chance does: one seed, of fewer texts."""

from pathlib import Path

import pytest

from rlhf_lab.experiments.systems import quotes
from rlhf_lab.experiments.systems.sections import Job, mean, where


def test_pairs_are_all_that_differ_in_worth() -> None:
    pairs = quotes._pairs(["post", "other"], [["a", "b", "c"], ["d", "e"]], [[1.0, 0.0, 1.0], [2.0, 2.0]])
    assert [(row["prompt"], row["chosen"], row["rejected"], row["group"]) for row in pairs] == [
        ("post", "a", "b", "0"),
        ("post", "c", "b", "0"),
    ]


@pytest.mark.slow
def test_abstaining_raises_the_supported_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quotes.SIZES, "laptop", quotes.Sizes(500, 120, 96, 4))
    rows = quotes.rows(Job("quotes", 0, "laptop", tmp_path))
    answered = {
        by: {coverage: mean(where(rows, by=by, n=4, coverage=coverage), "supported") for coverage in (0.5, 0.7, 1.0)}
        for by in ("both", "random")
    }
    single = mean(where(rows, by="both", n=1, coverage=1.0), "supported")
    assert answered["both"][1.0] > single
    assert answered["both"][0.7] > answered["both"][1.0] + 0.02
    assert answered["both"][0.5] > answered["random"][0.5] + 0.04
