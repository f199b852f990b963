"""Labels as training pairs: values computed by hand, for each kind of answer."""

from typing import Any

import pytest

from rlhf_lab.data.datasets import comparisons_of
from rlhf_lab.labeling.learning import (
    chosen_prob,
    comparison_rows,
    comparisons_from,
    conversation_text,
    prob_of_second,
    strength,
)
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.records import Comparison

Row = dict[str, Any]


def label(kind: str, value: Row, answers: list[str], **known: Any) -> Row:
    """A row as `LabelStore.labels()` gives it."""
    row = {"item": "item", "kind": kind, "labeler": "ana", "prompt": "Post", "answers": answers, "value": value}
    return row | {"gold": None, "info": {}, "steps": [], "interface": "test", "sides": [0, 1]} | known


def compared(value: Row, **known: Any) -> Row:
    return label("compare", value, ["first", "second"], **known)


def only(rows: list[Comparison]) -> Comparison:
    assert len(rows) == 1
    return rows[0]


# 8 steps: P(second) = (s - 1/2) / 8; 9 steps: (s - 1/2) / 9, the fifth being the middle.
STEPS = [
    (8, 1, "first", 0.9375, 4),
    (8, 2, "first", 0.8125, 3),
    (8, 3, "first", 0.6875, 2),
    (8, 4, "first", 0.5625, 1),
    (8, 5, "second", 0.5625, 1),
    (8, 8, "second", 0.9375, 4),
    (9, 1, "first", 17 / 18, 4),
    (9, 4, "first", 11 / 18, 1),
    (9, 6, "second", 11 / 18, 1),
    (9, 8, "second", 15 / 18, 3),
    (9, 9, "second", 17 / 18, 4),
]


@pytest.mark.parametrize(("scale", "step", "chosen", "prob", "confidence"), STEPS)
def test_a_step_says_who_is_better_and_how_surely(
    scale: int, step: int, chosen: str, prob: float, confidence: int
) -> None:
    row = only(comparisons_from([compared({"scale": scale, "step": step})]))
    assert row.chosen == chosen
    assert row.chosen_prob == pytest.approx(prob, abs=1e-12)
    assert row.confidence == confidence
    assert (row.prompt, row.labeler, row.group) == ("Post", "ana", "")


@pytest.mark.parametrize("scale", [8, 9])
def test_steps_that_mirror_each_other_are_equally_sure(scale: int) -> None:
    for step in range(1, scale + 1):
        value, mirrored = {"scale": scale, "step": step}, {"scale": scale, "step": scale + 1 - step}
        assert chosen_prob(value) == chosen_prob(mirrored)
        assert strength(value) == strength(mirrored)
        assert prob_of_second(value) == pytest.approx(1 - (prob_of_second(mirrored) or 0))


@pytest.mark.parametrize("value", [{"scale": 9, "step": 5}, {"choice": "tie"}])
def test_a_tie_is_an_even_chance_whichever_answer_comes_first(value: Row) -> None:
    row = only(comparisons_from([compared(value)]))
    turned = only(comparisons_from([compared(value) | {"answers": ["second", "first"]}]))
    assert (row.chosen_prob, row.confidence) == (0.5, 1)
    assert row == turned


def test_what_cannot_be_compared_is_left_out() -> None:
    assert comparisons_from([compared({"choice": "cannot_compare"})]) == []


def test_a_ranking_gives_all_its_pairs_in_one_group() -> None:
    rows = comparisons_from([label("rank", {"ranks": [2, 1, 2, 4]}, ["A", "B", "C", "D"])])
    assert [(row.chosen, row.rejected, row.chosen_prob) for row in rows] == [
        ("B", "A", 1.0),
        ("B", "C", 1.0),
        ("B", "D", 1.0),
        ("A", "C", 0.5),
        ("A", "D", 1.0),
        ("C", "D", 1.0),
    ]
    assert {row.group for row in rows} == {"item/ana"}
    assert {row.confidence for row in rows} == {0}


def test_two_labelers_of_one_item_are_two_groups() -> None:
    ranked = label("rank", {"ranks": [1, 2, 3]}, ["A", "B", "C"])
    rows = comparisons_from([ranked, ranked | {"labeler": "ben"}])
    assert len({row.group for row in rows}) == 2


def rated(text: str, overall: int, **known: Any) -> Row:
    value = {"axes": {"overall": overall, "accuracy": 8 - overall}, "flags": []}
    return label("rate", value, [text], **{"item": f"item of {text}", **known})


def test_ratings_of_one_prompt_become_pairs() -> None:
    rows = comparisons_from([rated("A", 3), rated("B", 6), rated("C", 3), rated("D", 7)])
    pairs = [(row.chosen, row.rejected) for row in rows]
    assert pairs == [("D", "B"), ("D", "A"), ("D", "C"), ("B", "A"), ("B", "C")]  # A and C are rated alike.
    assert {row.chosen_prob for row in rows} == {1.0}
    assert len({row.group for row in rows}) == 1


def test_ratings_are_compared_on_the_axis_that_is_asked_for() -> None:
    rows = comparisons_from([rated("A", 3), rated("B", 6)], axis="accuracy")
    assert [(row.chosen, row.rejected) for row in rows] == [("A", "B")]
    with pytest.raises(StoreError, match="no rating has the axis 'acuracy'; they have overall, accuracy"):
        comparisons_from([rated("A", 3)], axis="acuracy")


def test_ratings_of_other_people_and_prompts_do_not_mix() -> None:
    assert comparisons_from([rated("A", 3), rated("B", 6, labeler="ben")]) == []
    assert comparisons_from([rated("A", 3), rated("B", 6, prompt="Another post")]) == []


def test_the_later_rating_of_an_answer_counts() -> None:
    rows = comparisons_from([rated("A", 3), rated("B", 6), rated("A", 7, item="the same again")])
    assert [(row.chosen, row.rejected) for row in rows] == [("A", "B")]


def test_an_edit_is_better_than_its_original() -> None:
    row = only(comparisons_from([label("edit", {"text": "My cat left.", "spans": []}, ["My dog left."])]))
    assert (row.chosen, row.rejected, row.chosen_prob) == ("My cat left.", "My dog left.", 1.0)


@pytest.mark.parametrize("text", ["My dog left.", " My dog left.\n", "", "  "])
def test_an_edit_that_leaves_the_words_or_nothing_says_nothing(text: str) -> None:
    assert comparisons_from([label("edit", {"text": text, "spans": []}, ["My dog left."])]) == []


def test_an_ideal_answer_is_better_than_the_one_that_was_shown() -> None:
    shown = [
        label("thumbs", {"thumb": thumb, "ideal": ideal}, ["Bad."])
        for thumb, ideal in [("down", "Good."), ("up", ""), ("down", " ")]
    ]
    row = only(comparisons_from(shown))
    assert (row.chosen, row.rejected) == ("Good.", "Bad.")


def test_a_chat_gives_a_pair_for_each_turn() -> None:
    question = {"role": "user", "content": "Why?"}
    later = [question, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Really?"}]
    steps = [
        {"turn": 0, "prompt": [question], "replies": ["So.", "Because."], "chosen": 0},
        {"task": "ask why"},
        {"turn": 1, "prompt": later, "replies": ["No.", "Yes."], "chosen": 1},
        {"turn": 2, "prompt": [question], "replies": ["b", "a"], "chosen": "tie"},
    ]
    rows = comparisons_from([label("chat", {"rating": 6}, [], steps=steps, prompt="")])
    assert [(row.chosen, row.rejected, row.chosen_prob) for row in rows] == [
        ("So.", "Because.", 1.0),
        ("Yes.", "No.", 1.0),
        ("a", "b", 0.5),
    ]
    assert rows[0].prompt == "Why?"
    assert rows[1].prompt == "User: Why?\n\nAssistant: So.\n\nUser: Really?\n\nAssistant:"
    assert conversation_text(later) == rows[1].prompt


def test_gold_questions_are_left_out_unless_asked_for() -> None:
    rows = [compared({"scale": 8, "step": 1}, gold=0), compared({"scale": 8, "step": 8})]
    assert only(comparisons_from(rows)).chosen == "second"
    assert len(comparisons_from(rows, gold=True)) == 2


def test_labelers_and_kinds_can_be_chosen() -> None:
    ranked = label("rank", {"ranks": [1, 2]}, ["A", "B"], labeler="ben")
    rows = [compared({"scale": 8, "step": 1}), ranked]
    assert only(comparisons_from(rows, labeler="ben")).chosen == "A"
    assert only(comparisons_from(rows, kinds="compare")).chosen == "first"
    assert len(comparisons_from(rows, labeler=["ana", "ben"], kinds=["compare", "rank"])) == 2
    with pytest.raises(StoreError, match="no labeler 'anna'; did you mean ana"):
        comparisons_from(rows, labeler="anna")
    with pytest.raises(StoreError, match=r"a kind is one of compare, .*, not 'ranking'"):
        comparisons_from(rows, kinds=["ranking"])


def test_groups_of_one_name_from_several_files_are_kept_apart() -> None:
    def imported(prompt: str, answers: list[str], labeler: str = "ana") -> Row:
        steps = [{"imported": {"group": "1", "chosen_prob": 1.0}}]
        row = compared({"scale": 9, "step": 1}, steps=steps, interface="import/trl", prompt=prompt, labeler=labeler)
        return row | {"answers": answers}

    rows = comparisons_from(
        [
            imported("P", ["A", "B"]),
            imported("P", ["A", "C"]),
            imported("Q", ["A", "B"]),
            imported("P", ["B", "A"]),
            imported("P", ["A", "D"], "ben"),
        ]
    )
    assert [row.group for row in rows] == ["1", "1", "1-2", "1-3", "1-4"]
    assert {row.chosen_prob for row in rows} == {1.0}


def test_what_a_file_said_does_not_outlive_a_new_answer() -> None:
    steps = [{"imported": {"chosen_prob": 1.0, "confidence": 0}}]
    row = only(comparisons_from([compared({"scale": 8, "step": 7}, steps=steps, interface="widget")]))
    assert (row.chosen_prob, row.confidence) == (0.8125, 3)


def test_texts_pass_unchanged_into_a_dataset_that_a_trainer_takes() -> None:
    odd = compared({"scale": 8, "step": 1}, prompt="  Post\r\n") | {"answers": [" A \u2028", "B\t"]}
    rows = comparison_rows([odd])
    assert rows[0]["prompt"] == "  Post\r\n"
    assert (rows[0]["chosen"], rows[0]["rejected"]) == (" A \u2028", "B\t")
    assert comparisons_of(rows)[0]["chosen_prob"] == 0.9375


def test_no_labels_are_no_rows() -> None:
    rows = comparison_rows([])
    assert len(rows) == 0
    assert rows.column_names == ["prompt", "chosen", "rejected", "labeler", "confidence", "chosen_prob", "group"]
