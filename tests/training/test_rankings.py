"""Rankings as comparisons: all pairs in one group, and no answer twice or left out."""

import pytest

from rlhf_lab.data.datasets import comparisons_of
from rlhf_lab.training.rankings import ranking_rows, rankings_of


def test_a_ranking_becomes_all_its_pairs_in_one_element() -> None:
    rows = ranking_rows(["p", "q"], [[" a", " b", " c"], [" d", " e"]], [[3, 1, 2], [1, 2]])
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        (" b", " c"),
        (" b", " a"),
        (" c", " a"),
        (" d", " e"),
    ]
    first, second = rankings_of(comparisons_of(rows))
    assert (first.prompt, first.answers, len(first.pairs)) == ("p", [" b", " c", " a"], 3)
    assert (second.prompt, second.answers) == ("q", [" d", " e"])


@pytest.mark.parametrize(
    ("answers", "ranks"),
    [
        ([" a", " b", " c"], [1, 1, 2]),
        ([" a", " b", " c"], [1, 2]),
        ([" a", " b"], [1, 3]),
        ([" a", " b", " a "], [1, 2, 3]),
    ],
)
def test_a_repeated_or_missing_answer_is_refused(answers: list[str], ranks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"ranking 0 has a repeated or missing answer: .*each once"):
        ranking_rows(["p"], [answers], [ranks])


def test_each_prompt_needs_a_ranking() -> None:
    with pytest.raises(ValueError, match="there are 1 prompts, 1 groups of answers and 0 rankings"):
        ranking_rows(["p"], [[" a", " b"]], [])
