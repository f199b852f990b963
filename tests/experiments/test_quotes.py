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
    monkeypatch.setitem(quotes.SIZES, "laptop", quotes.Sizes(600, 400, 48, 128, 2))
    rows = where(quotes.rows(Job("quotes", 0, "laptop", tmp_path)), n=1)
    share = {
        (by, coverage): mean(where(rows, by=by, coverage=coverage), "supported")
        for by in ("supported", "random")
        for coverage in (0.5, 0.7, 1.0)
    }
    assert share["supported", 0.7] > share["supported", 1.0] + 0.03
    assert share["supported", 0.5] > share["random", 0.5] + 0.05
    assert abs(share["random", 0.7] - share["random", 1.0]) < 0.06
