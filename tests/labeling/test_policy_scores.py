"""Scores of sources: a published example, the closed form of two, and a likelihood maximized by other means."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from rlhf_lab.labeling.policy_scores import ELO, PolicyScores, choices_of, policy_scores

EXACT = 1e-9
POINTS = 400 / math.log(10)
TIE = {"choice": "tie"}
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
# Agresti, "Categorical Data Analysis", 2nd edition, section 10.6: games won by the row against the column, 1987.
BASEBALL = (
    (0, 7, 9, 7, 7, 9, 11),
    (6, 0, 7, 5, 11, 9, 9),
    (4, 6, 0, 7, 7, 8, 12),
    (6, 8, 6, 0, 6, 7, 10),
    (6, 2, 6, 7, 0, 7, 12),
    (4, 4, 5, 6, 6, 0, 6),
    (2, 4, 1, 3, 1, 7, 0),
)


def label(winner: str, loser: str, item: str, value: Any = None) -> dict[str, Any]:
    fields = {"item": item, "kind": "compare", "labeler": "ana", "sources": [winner, loser]}
    return fields | {"value": value or {"scale": 8, "step": 1}}


def games(wins: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    """A label of an item of its own for each game; every other one with the winner as the second answer."""
    rows = [pair for pair, count in wins.items() for _ in range(count)]
    return [
        label(winner, loser, str(i)) if i % 2 else label(loser, winner, str(i), {"scale": 9, "step": 9})
        for i, (winner, loser) in enumerate(rows)
    ]


def table(names: tuple[str, ...], wins: tuple[tuple[int, ...], ...]) -> list[dict[str, Any]]:
    return games({(names[i], names[j]): wins[i][j] for i, j in itertools.permutations(range(len(names)), 2)})


def strengths(scores: PolicyScores) -> dict[str, float]:
    return dict(zip(scores.sources, scores.strengths.tolist(), strict=True))


def test_agrestis_baseball_teams_have_their_published_abilities() -> None:
    """Log-odds against Baltimore and their standard errors, as the R package BradleyTerry2 prints them."""
    scores = policy_scores(table(TEAMS, BASEBALL), by_item=False)
    published = {
        "Milwaukee": (1.5814, 0.3433),
        "Detroit": (1.4364, 0.3396),
        "Toronto": (1.2945, 0.3367),
        "New York": (1.2476, 0.3359),
        "Boston": (1.1077, 0.3339),
        "Cleveland": (0.6839, 0.3319),
    }
    assert scores.sources == (*published, "Baltimore")
    for team, (ability, error) in published.items():
        value, low, high = (points / POINTS for points in scores.difference(team, "Baltimore"))
        assert value == pytest.approx(ability, abs=5e-5)
        assert (high - low) / (2 * 1.959964) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(("won", "lost"), [(3, 1), (7, 7), (1, 20)])
def test_of_two_sources_the_odds_are_those_of_their_games(won: int, lost: int) -> None:
    scores = policy_scores(games({("a", "b"): won, ("b", "a"): lost}), by_item=False)
    value, low, high = scores.difference("a", "b")
    assert value == pytest.approx(POINTS * math.log(won / lost), abs=1e-7)
    assert high - low == pytest.approx(2 * 1.959964 * POINTS * math.sqrt(1 / won + 1 / lost), abs=1e-5)
    assert scores.difference("b", "a")[0] == pytest.approx(-value, abs=EXACT)
    assert scores.win_probs[scores.sources.index("a"), scores.sources.index("b")] == pytest.approx(
        won / (won + lost), abs=EXACT
    )


def test_an_elo_scale_has_mean_1000_and_400_points_for_a_factor_10() -> None:
    rows = {row["source"]: row for row in policy_scores(games({("a", "b"): 10, ("b", "a"): 1})).rows()}
    assert rows["a"]["elo"] == pytest.approx(1200, abs=1e-6)
    assert rows["b"]["elo"] == pytest.approx(800, abs=1e-6)
    assert (rows["a"]["wins"], rows["a"]["n"], rows["b"]["wins"]) == (10, 11, 1)
    assert rows["a"]["low"] < 1200 < rows["a"]["high"]
    assert abs(ELO - POINTS) < EXACT


def test_three_sources_with_ties_maximize_the_likelihood() -> None:
    rows = games({("a", "b"): 5, ("b", "a"): 2, ("b", "c"): 4, ("c", "b"): 3, ("a", "c"): 6, ("c", "a"): 1})
    rows += [label("a", "c", "tie 1", TIE), label("b", "c", "tie 2", {"scale": 9, "step": 5})]
    wins = np.array([[0, 5, 6.5], [2, 0, 4.5], [1.5, 3.5, 0]])

    def loss(free: np.ndarray) -> float:
        values = np.concatenate([free, [-free.sum()]])
        return float((wins * np.logaddexp(0, values[None, :] - values[:, None])).sum())

    best = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
    found = policy_scores(rows)
    assert [strengths(found)[name] for name in "abc"] == pytest.approx([*best, -best.sum()], abs=1e-6)
    assert found.wins.tolist() == wins.tolist()
    assert found.win_probs == pytest.approx(1 - found.win_probs.T, abs=EXACT)
    # At the maximum each source has won as often as the scores expect.
    games_played = found.wins + found.wins.T
    assert (games_played * found.win_probs).sum(1) == pytest.approx(found.wins.sum(1), abs=1e-6)


def test_a_ranking_counts_as_its_pairs() -> None:
    ranking = {"item": "1", "kind": "rank", "labeler": "ana", "sources": ["c", "a", "b"], "value": {"ranks": [3, 1, 2]}}
    back = games({("c", "a"): 1, ("b", "a"): 1, ("c", "b"): 1})
    pairs = games({("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 1})
    assert len(choices_of([ranking])) == 3
    assert strengths(policy_scores([ranking, *back])) == pytest.approx(
        strengths(policy_scores([*pairs, *back])), abs=1e-7
    )


def test_what_says_nothing_about_sources_is_left_out() -> None:
    rows = games({("a", "b"): 3, ("b", "a"): 1})
    more = [label("a", "a", "x"), label("", "b", "y"), label("a", "b", "z", {"choice": "cannot_compare"})]
    assert strengths(policy_scores(rows + more)) == pytest.approx(strengths(policy_scores(rows)), abs=EXACT)


def test_by_item_the_labels_of_an_item_count_as_one() -> None:
    """Ten labelers who say the same of an item know as much of other items as one does."""
    rows = games({("a", "b"): 30, ("b", "a"): 12})
    once, often = policy_scores(rows), policy_scores([row | {"labeler": str(i)} for row in rows for i in range(10)])
    naive = policy_scores(rows * 10, by_item=False)
    width = {name: np.ptp(one.difference("a", "b")) for name, one in (("1", once), ("10", often), ("naive", naive))}
    assert width["10"] == pytest.approx(width["1"], rel=0.03)
    assert width["naive"] == pytest.approx(width["1"] / math.sqrt(10), rel=0.03)


def test_the_sandwich_by_hand() -> None:
    """Two sources: the information is the sum of p (1 - p), and the scores are summed within an item."""
    rng = np.random.default_rng(0)
    won = rng.random((20, 3)) < rng.beta(2, 1, size=(20, 1))
    rows = [label(*("ab" if won[i, j] else "ba"), str(i)) for i, j in np.ndindex(20, 3)]
    prob = won.mean()
    variance = ((won - prob).sum(1) ** 2).sum() / (60 * prob * (1 - prob)) ** 2
    variance *= 20 / 19 * 59 / 59
    value, low, high = policy_scores(rows).difference("a", "b")
    assert value == pytest.approx(POINTS * math.log(prob / (1 - prob)), abs=1e-7)
    assert high - low == pytest.approx(2 * 1.959964 * POINTS * math.sqrt(variance), rel=1e-6)


def test_few_items_are_counted_choice_by_choice() -> None:
    rows = [row | {"item": str(i % 9)} for i, row in enumerate(games({("a", "b"): 6, ("b", "a"): 6}))]
    assert policy_scores(rows).covariance == pytest.approx(policy_scores(rows, by_item=False).covariance, abs=EXACT)


def test_scores_find_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = {"base": -1.0, "sft": 0.0, "ppo": 1.0}
    rows = []
    for i in range(3000):
        first, second = rng.choice(list(truth), size=2, replace=False).tolist()
        wins = rng.random() < expit(truth[first] - truth[second])
        rows.append(label(first, second, str(i), {"scale": 8, "step": 3 if wins else 6}))
    scores = policy_scores(rows)
    assert scores.sources == ("ppo", "sft", "base")
    assert scores.strengths == pytest.approx([1.0, 0.0, -1.0], abs=0.12)


@pytest.mark.parametrize(
    ("wins", "says"),
    [
        ({("ppo", "sft"): 3}, r"'ppo' won every choice"),
        ({("a", "b"): 1, ("b", "a"): 1, ("b", "c"): 2}, r"'c' lost every choice"),
        ({("a", "b"): 1, ("b", "a"): 1, ("c", "a"): 2}, r"'c' won every choice"),
        (
            {("a", "b"): 1, ("b", "a"): 1, ("c", "d"): 1, ("d", "c"): 1},
            r"'a', 'b' had no choice against the other sources",
        ),
    ],
)
def test_a_source_without_a_finite_score_is_named(wins: dict[tuple[str, str], int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        policy_scores(games(wins))


def test_a_tie_is_enough_for_a_finite_score() -> None:
    scores = policy_scores([*games({("a", "b"): 3}), label("a", "b", "tie", TIE)])
    assert scores.difference("a", "b")[0] == pytest.approx(POINTS * math.log(3.5 / 0.5), abs=1e-7)


@pytest.mark.parametrize("rows", [[], [label("", "", "1")], [label("a", "", "1")], [label("a", "a", "1")]])
def test_without_sources_there_are_no_scores(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="choices between answers of different sources"):
        policy_scores(rows)


def test_one_tie_has_scores_and_no_warning() -> None:
    assert policy_scores([label("a", "b", "1", TIE)]).strengths == pytest.approx([0.0, 0.0], abs=EXACT)


def test_where_all_choices_are_ties_scores_are_alike_but_not_certain() -> None:
    scores = policy_scores([label("a", "b", str(i), TIE) for i in range(20)])
    value, low, high = scores.difference("a", "b")
    assert value == pytest.approx(0, abs=EXACT)
    assert high - low == pytest.approx(2 * 1.959964 * POINTS * math.sqrt(4 / 20), rel=1e-6)
