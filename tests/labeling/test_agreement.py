"""Agreement: against published examples, against the libraries called directly, and counted by hand."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import krippendorff
import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from rlhf_lab.labeling.agreement import (
    Estimate,
    agreement_with,
    agreement_with_gold,
    alpha,
    checked,
    choices,
    cohens_kappas,
    fleiss,
    majority_of_k,
    mean_over_items,
    pairwise_agreement,
    ratings,
    right_answer,
    share,
    strengths,
    thumbs,
)

EXACT = 1e-9
TO_3_DIGITS = 5e-4
# Fleiss 1971, table 1: the diagnoses of 30 patients by six psychiatrists each, as categories 1 to 5.
DIAGNOSES = (
    "444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445 "
    "333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"
)
# Krippendorff 2011, section C: four observers, twelve units, "." where one did not answer.
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def label(labeler: str = "ana", item: str = "1", value: Any = None, **fields: Any) -> dict[str, Any]:
    """A label row; `value` is a step of eight, a list of ranks, or what the store has."""
    kind = "rank" if isinstance(value, list) else fields.pop("kind", "compare")
    value = (
        {"ranks": value}
        if isinstance(value, list)
        else {"scale": 8, "step": value}
        if isinstance(value, int)
        else value
    )
    num = len(value["ranks"]) if kind == "rank" else 2
    row = {"item": item, "labeler": labeler, "kind": kind, "value": value, "prompt": f"post {item}", "gold": None}
    return row | {"answers": [f"answer {i}" for i in range(num)], "info": {}} | fields


def votes(*rows: str) -> list[dict[str, Any]]:
    """A row for each item, a letter for each labeler: 0 and 1, t for a tie, "." for none."""
    said = {"0": 2, "1": 7, "t": {"choice": "tie"}}
    return [
        label(f"labeler {column}", f"item {row}", said[letter])
        for row, letters in enumerate(rows)
        for column, letter in enumerate(letters)
        if letter != "."
    ]


def rated(rows: Sequence[str]) -> list[dict[str, Any]]:
    return [
        label(f"labeler {column}", f"item {row}", {"axes": {"overall": int(letter)}, "flags": []}, kind="rate")
        for row, letters in enumerate(rows)
        for column, letter in enumerate(letters)
        if letter != "."
    ]


# Published examples


def test_fleiss_diagnoses_have_kappa_0_430() -> None:
    found = fleiss(ratings(rated(DIAGNOSES.split())))
    assert found.value == pytest.approx(0.430, abs=TO_3_DIGITS)
    assert found.n == 30
    counts = [[row.count(category) for category in "12345"] for row in DIAGNOSES.split()]
    assert found.value == pytest.approx(fleiss_kappa(counts), abs=EXACT)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_example_has_his_alphas(level: str, published: float) -> None:
    found = alpha(ratings(rated(["".join(unit) for unit in zip(*OBSERVERS, strict=True)])), level)
    assert found.value == pytest.approx(published, abs=TO_3_DIGITS)
    assert found.n == 11, "unit 12 has one observer"
    data = [[math.nan if letter == "." else int(letter) for letter in row] for row in OBSERVERS]
    settings: Any = {"level_of_measurement": level}
    assert found.value == pytest.approx(krippendorff.alpha(data, **settings), abs=EXACT)


def test_the_textbook_table_of_two_raters_has_kappa_0_4() -> None:
    """20 and 15 on the diagonal, 5 and 10 beside it: 0.7 observed and 0.5 by chance, so (0.7 - 0.5) / 0.5."""
    rows = ["00"] * 20 + ["01"] * 5 + ["10"] * 10 + ["11"] * 15
    found = cohens_kappas(choices(votes(*rows)))[("labeler 0", "labeler 1")]
    assert found.value == pytest.approx(0.4, abs=EXACT)
    direct: Any = cohens_kappa([[20, 5], [10, 15]])
    assert (found.low, found.high) == pytest.approx((direct.kappa_low, direct.kappa_upp), abs=EXACT)
    assert found.n == 50


@pytest.mark.parametrize(("weights", "power"), [("linear", 1), ("quadratic", 2)])
def test_weighted_kappa_forgives_near_misses(weights: str, power: int) -> None:
    pairs = [(1, 1), (1, 2), (8, 7), (5, 8), (3, 3), (6, 2)]
    labels = [label(name, str(i), step) for i, pair in enumerate(pairs) for name, step in zip("ab", pair, strict=True)]
    felt = strengths(labels).to_numpy()
    distance = np.abs(felt[:, 0] - felt[:, 1]) ** power
    by_chance = np.mean([abs(one - other) ** power for one in felt[:, 0] for other in felt[:, 1]])
    found = cohens_kappas(strengths(labels), weights=weights)[("a", "b")]
    assert found.value == pytest.approx(1 - distance.mean() / by_chance, abs=EXACT)
    assert found.value > cohens_kappas(strengths(labels))[("a", "b")].value


# Tables


def test_steps_of_eight_and_nine_become_the_same_strengths() -> None:
    eight = [strengths([label(value=step)]).iloc[0, 0] for step in range(1, 9)]
    nine = [strengths([label(value={"scale": 9, "step": step})]).iloc[0, 0] for step in range(1, 10)]
    assert eight == [-4, -3, -2, -1, 1, 2, 3, 4]
    assert nine == [-4, -3, -2, -1, 0, 1, 2, 3, 4]


def test_a_choice_is_the_side_of_the_scale_and_the_middle_a_tie() -> None:
    tie = {"choice": "tie"}
    labels = [
        label("a", "1", 4),
        label("a", "2", 5),
        label("b", "1", {"scale": 9, "step": 5}),
        label("b", "2", tie),
        label("c", "1", {"choice": "cannot_compare"}),
    ]
    table = choices(labels)
    assert table.loc[("1", "0>1")].tolist() == [0, 0.5]
    assert table.loc[("2", "0>1")].tolist() == [1, 0.5]
    assert list(table.columns) == ["a", "b"], "to say that nothing can be compared is no choice"
    assert list(choices(labels, with_ties=False).columns) == ["a"]


def test_a_ranking_is_all_its_pairs() -> None:
    table = choices([label("a", "x:1", [2, 1, 2]), label("b", "x:1", [1, 2, 3])])
    assert table["a"].to_dict() == {("x:1", "0>1"): 1, ("x:1", "0>2"): 0.5, ("x:1", "1>2"): 0}
    assert table["b"].tolist() == [0, 0, 0]


def test_other_kinds_have_tables_of_their_own() -> None:
    up, down = ({"thumb": thumb, "ideal": ""} for thumb in ("up", "down"))
    rows = [
        label("a", "1", up, kind="thumbs"),
        label("b", "1", down, kind="thumbs"),
        *rated(["34"]),
        label("a", "2", 1),
    ]
    assert thumbs(rows).iloc[0].tolist() == [1, 0]
    assert ratings(rows).iloc[0].tolist() == [3, 4]
    assert ratings(rows, "coherence").empty
    assert choices(rows).shape == (1, 1)


# Agreement of labelers with each other


def test_pairwise_agreement_counts_pairs_of_labels() -> None:
    """Of item 0 one pair of three agrees, of item 1 the only pair does, of item 2 there is no pair."""
    labels = votes("001", "11.", "0..")
    found = pairwise_agreement(choices(labels))
    assert (found.value, found.n) == (0.5, 2)
    sums, counts = np.array([1 / 3 * 6, 2.0]), np.array([6.0, 2.0])
    direct = stats.bootstrap(
        (sums, counts),
        lambda top, bottom, axis: top.sum(axis) / bottom.sum(axis),
        n_resamples=1000,
        batch=100,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((direct.low, direct.high), abs=EXACT)
    assert pairwise_agreement(choices(labels), "labeler 2").value == 0
    assert pairwise_agreement(choices(labels), "labeler 0").value == pytest.approx(2 / 3, abs=EXACT)


def test_ties_agree_with_ties_only() -> None:
    assert pairwise_agreement(choices(votes("tt"))).value == 1
    assert pairwise_agreement(choices(votes("t0"))).value == 0


def test_the_interval_is_about_items_however_many_labels_each_has() -> None:
    """Six labelers who all split as two did know nothing more about other items."""
    rng = np.random.default_rng(1)
    same = [bool(rng.random() < 0.7) for _ in range(40)]
    two = pairwise_agreement(choices(votes(*("00" if is_same else "01" for is_same in same))))
    six = pairwise_agreement(choices(votes(*("000000" if is_same else "000111" for is_same in same))))
    assert two.high - two.low > 0.2
    assert six.high - six.low == pytest.approx(0.6 * (two.high - two.low), rel=0.05), "of a pair in 3 + 3, 0.4 agree"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Items agree at rates of their own, 0.6 on average; each is asked ten times."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        rates = rng.choice([0.3, 0.9], size=60)
        sums, items = rng.binomial(10, rates).astype(float), [str(i) for i in range(60)]
        found = mean_over_items(sums, np.full(60, 10.0), items, seed=seed)
        hits += found.low <= 0.6 <= found.high
    assert 180 <= hits <= 198


def test_where_all_items_say_the_same_the_interval_keeps_a_width() -> None:
    found = pairwise_agreement(choices(votes("00", "11", "00")))
    assert (found.low, found.high) == pytest.approx(proportion_confint(3, 3, method="wilson"), abs=EXACT)
    ranking = pairwise_agreement(choices([label("a", "1", [1, 2, 3, 4]), label("b", "1", [1, 2, 4, 3])]))
    assert (ranking.value, ranking.n) == (pytest.approx(5 / 6, abs=EXACT), 1), "the pairs of one ranking are one item"
    assert ranking.high - ranking.low > 0.6


def test_fleiss_takes_the_rows_with_the_most_frequent_number_of_labels() -> None:
    found = fleiss(choices(votes("000", "001", "111", "01.", "0..")))
    assert found.n == 3
    assert found.value == pytest.approx(fleiss_kappa([[3, 0], [2, 1], [0, 3]]), abs=EXACT)
    as_frequent = fleiss(choices(votes("000", "001", "01.", "11.")))
    assert as_frequent.value == pytest.approx(fleiss_kappa([[3, 0], [2, 1]]), abs=EXACT), "then the larger number"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ((), "there are none"),
        (("0", "1"), "there is one labeler"),
        (("0.", ".1"), "no two labelers"),
    ],
)
def test_without_overlap_nothing_is_known_and_the_reason_is_said(rows: tuple[str, ...], reason: str) -> None:
    table = choices(votes(*rows))
    for found in (pairwise_agreement(table), fleiss(table), alpha(table), *cohens_kappas(table).values()):
        assert not found.is_known
        assert math.isnan(found.low)
    for found in (pairwise_agreement(table), fleiss(table), alpha(table)):
        assert reason in found.reason


def test_without_variation_there_is_agreement_but_nothing_beyond_chance() -> None:
    table = choices(votes("tt", "tt", "1."))
    assert pairwise_agreement(table).value == 1
    for found in (fleiss(table), alpha(table), cohens_kappas(table)[("labeler 0", "labeler 1")]):
        assert not found.is_known
        assert "the same" in found.reason


def test_kappa_of_two_who_never_differ_has_no_interval() -> None:
    found = cohens_kappas(choices(votes("00", "11", "11", "00", "00")))[("labeler 0", "labeler 1")]
    assert found.value == pytest.approx(1.0, abs=EXACT)
    assert math.isnan(found.low)
    assert found.reason


# Agreement with what is right, or with a judge


def test_agreement_with_gold_is_wilsons() -> None:
    labels = [label("a", str(i), 1 if i < 7 else 8, gold=0) for i in range(10)]
    labels += [label("b", "0", {"choice": "tie"}, gold=0), label("c", "other", 1)]
    found = agreement_with_gold(labels)
    assert (found["a"].value, found["a"].n) == (0.7, 10)
    assert (found["a"].low, found["a"].high) == pytest.approx(proportion_confint(7, 10, method="wilson"), abs=EXACT)
    assert found["b"].value == 0, "a tie is not right"
    assert not found["c"].is_known
    assert "right answer" in found["c"].reason


def test_the_key_of_the_authors_counts_where_there_is_no_gold() -> None:
    assert right_answer(label(value=1, info={"key": 1})) == 1
    assert right_answer(label(value=1, info={"key": 1}, gold=0)) == 0
    assert right_answer(label(value=1, info={"key": None})) is None
    assert all(right_answer(label(value=1, info={"key": key})) is None for key in ("b", 1.0, 2, [0]))
    assert agreement_with_gold([label(value=8, info={"key": 1})])["ana"].value == 1


def test_of_a_ranking_the_pairs_with_the_right_answer_count() -> None:
    assert agreement_with_gold([label(value=[2, 1, 3], gold=0)])["ana"] == share(1, 2)


def test_a_judge_may_give_an_index_or_scores_or_nothing() -> None:
    labels = [label("a", "1", 1), label("a", "2", 8), label("a", "3", 8), label("b", "4", [3, 1, 2])]
    opinions: dict[str, Any] = {"post 1": 0, "post 2": [0.3, 0.1], "post 3": None, "post 4": np.array([1.0, 3.0, 1.0])}
    found = agreement_with(labels, lambda prompt, answers: opinions[prompt])
    assert (found["a"].value, found["a"].n) == (0.5, 2)
    assert (found["b"].value, found["b"].n) == (1.0, 2), "0 and 2 have the same score"


def test_a_judge_is_asked_once_for_each_item() -> None:
    asked = []

    def judge(prompt: str, answers: Sequence[str]) -> int:
        asked.append((prompt, list(answers)))
        return 0

    agreement_with(votes("01", "11"), judge)
    assert asked == [("post item 0", ["answer 0", "answer 1"]), ("post item 1", ["answer 0", "answer 1"])]


@pytest.mark.parametrize("said", [2, -1, [0.1], [0.1, math.nan], [0.1, math.inf], 0.5, "first", [[0.1, 0.2]]])
def test_what_is_no_judgement_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match=r"a judge says the index of the best of 2 answers"):
        checked(votes("01"), lambda prompt, answers: said)


# Majorities


def _majorities(k: int, says: str, right: Callable[[str], str]) -> float:
    """Mean over all ways to draw k labelers, and one more for whom the majority is right or not."""
    draws = itertools.permutations(says, k + 1)
    return float(np.mean([max("01", key=order[:k].count) == right(order[k]) for order in draws]))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_majorities_are_exact_over_all_draws(k: int) -> None:
    rows = ["0010111", "1111110", "0000000"]
    found = majority_of_k(votes(*rows), k)
    assert found.value == pytest.approx(np.mean([_majorities(k, row, lambda other: other) for row in rows]), abs=EXACT)
    assert found.n == 3
    golden = [row | {"gold": 1} for row in votes(*rows)]
    expected = np.mean([_majorities(k, row, lambda other: "1") for row in rows])
    assert majority_of_k(golden, k, against="gold").value == pytest.approx(expected, abs=EXACT)
    assert majority_of_k(votes(*rows), k, against=lambda prompt, answers: 1).value == pytest.approx(expected, abs=EXACT)


def test_a_majority_helps_where_labelers_are_right_more_often_than_not() -> None:
    rng = np.random.default_rng(0)
    rows = ["".join(str(int(rng.random() < 0.7)) for _ in range(30)) for _ in range(100)]
    curve = {k: majority_of_k([row | {"gold": 1} for row in votes(*rows)], k, against="gold") for k in (1, 3, 5)}
    assert curve[1].value == pytest.approx(0.7, abs=0.03)
    assert curve[3].value == pytest.approx(0.7**3 + 3 * 0.7**2 * 0.3, abs=0.04)
    assert curve[5].value > curve[3].value > curve[1].value


def test_majorities_leave_out_ties_and_what_too_few_chose() -> None:
    labels = votes("0001", "0t11", "01..")
    assert majority_of_k(labels, 3).n == 1
    assert majority_of_k(labels, 1).n == 3
    assert majority_of_k(labels, 1, min_labelers=4).n == 1
    assert "4 labelers" in majority_of_k(votes("000"), 3).reason
    assert not majority_of_k([], 1).is_known
    assert not majority_of_k(votes("000"), 3, against="gold").is_known


@pytest.mark.parametrize("k", [0, 2, -1])
def test_a_majority_is_of_an_odd_number(k: int) -> None:
    with pytest.raises(ValueError, match="odd number"):
        majority_of_k(votes("000"), k)


# Estimates


def test_a_share_stays_between_0_and_1_and_of_nothing_is_unknown() -> None:
    for n in range(1, 60):
        assert share(0, n).low == 0
        assert share(n, n).high == 1
    assert not share(0, 0).is_known
    assert share(0, 0, reason="none were asked").reason == "none were asked"


def test_an_estimate_as_numbers() -> None:
    numbers = Estimate(0.5, 0.4, 0.6, 10).to_dict()
    assert math.isnan(numbers.pop("p_value"))
    assert numbers == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10.0}
