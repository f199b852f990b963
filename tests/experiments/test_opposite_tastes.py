"""What labels are worth: 200 labels teach one person's taste, and opposite tastes teach opposite orders."""

import json
from pathlib import Path

import numpy as np
import pytest

from rlhf_lab.experiments.opposite_tastes import TastesConfig, answers, kendall_tau, opposite_tastes, shared_places
from rlhf_lab.labeling.store import LabelStore

pytestmark = pytest.mark.usefixtures("one_thread")


def test_tau_counts_pairs_in_the_same_order() -> None:
    one = np.array([[1.0, 2.0, 3.0]])
    assert kendall_tau(one, one) == 1.0
    assert kendall_tau(one, -one) == -1.0
    assert kendall_tau(one, np.array([[1.0, 1.0, 2.0]])) == pytest.approx(2 / 3)  # Of the three pairs one is a tie.


def test_places_are_shares_of_each_row() -> None:
    one, other = np.array([[3.0, 2.0, 1.0]] * 2), np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert shared_places(one, other).tolist() == [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]


def test_answers_differ_and_posts_do_not_repeat() -> None:
    taught, held_out = answers("taught", 0, 50), answers("held out", 0, 50)
    assert all(len(set(row["answers"])) == 2 for row in taught + held_out)
    assert not {row["prompt"] for row in taught} & {row["prompt"] for row in held_out}


@pytest.mark.parametrize(("known", "said"), [({"num_seeds": 1}, "2 or more"), ({"num_answers": 1}, "nothing to rank")])
def test_settings_that_cannot_be_meant_are_refused(known: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TastesConfig(**known)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_labels_teach_tastes_and_opposite_tastes_teach_opposite_orders(tmp_path: Path) -> None:
    results = opposite_tastes(TastesConfig(out=str(tmp_path)))
    assert len(results["one_person"]) == 3
    for row in results["one_person"]:
        assert row["low"] > 0.6  # The whole 95 % interval, on the person's own answers to 1000 other pairs.
        assert row["before"] < 0.6
    for row in results["crowds"]:
        assert row["opposite"] < -0.2 < 0.3 < row["same"]
        assert row["own"] > 0.65
        assert row["other"] < 0.45
    labels = LabelStore(tmp_path / "person-0.sqlite").labels()
    assert len(labels) == 200
    assert {label["labeler_kind"] for label in labels} == {"simulated"}
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (tmp_path / "opposite_tastes.png").stat().st_size > 20_000
