"""The class of the lesson on asking: what its labels show is what the lesson says of them."""

from pathlib import Path

import pytest

from rlhf_lab.data.authored import authored_pairs, load_authored
from rlhf_lab.labeling import agreement
from rlhf_lab.labeling.classroom import small_class
from rlhf_lab.labeling.figures import agreement_matrix
from rlhf_lab.labeling.people import simulated_people
from rlhf_lab.labeling.store import LabelStore


@pytest.mark.slow
def test_noise_and_taste_look_alike_until_the_answer_is_known(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", overlap=6, gold_rate=0.2)
    store.add_items(authored_pairs(load_authored()[:16], num_gold=16))
    simulated_people(store, "compare", small_class(), temperature=1.0)
    labels = store.labels()
    shares = agreement_matrix(agreement.choices(labels))
    many = ["ana", "ben", "cleo", "dev"]
    assert shares.loc[many, many].min(axis=None) > 0.7
    for name in ("eva", "finn"):
        assert shares.loc[name].max() < 0.7
    gold = agreement.agreement_with_gold([label for label in labels if label["gold"] is not None])
    assert all(gold[name].value > 0.85 for name in (*many, "eva"))
    assert gold["finn"].value < 0.65


def test_it_is_the_same_each_time() -> None:
    assert small_class().labelers == small_class().labelers
