"""Revising: every change is read off the post, what is said can be followed, and contradictions are refused."""

import itertools
import random

import pytest

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.judge import Judge
from rlhf_lab.data.lexicon import capitalize, fill
from rlhf_lab.data.revising import (
    MOST_REMARKS,
    changes,
    improvements,
    refining_demonstrations,
    refining_prompt,
    remark,
    require_feedback,
)
from rlhf_lab.data.world import CARELESS, FAITHFUL, World, WorldPost
from rlhf_lab.feedback import gold_judge


@pytest.fixture(scope="module")
def judge() -> Judge:
    return gold_judge()


def full_post() -> WorldPost:
    """One that states all six facts."""
    return next(post for post in World().posts(0, "revising", 100) if len(post.facts) == 6)


def said(post: WorldPost, slot: str) -> str:
    who = post.facts["who"]
    return fill(post.facts[slot].summary[0], who.pronoun, who.summary[0])


def kinds(judge: Judge, post: WorldPost, text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for change in changes(judge, post.query, completion_text(text), random.Random(0)):
        found.setdefault(change.kind, []).append(change.text)
    return found


def test_each_kind_of_fault_is_found_and_mended(judge: Judge) -> None:
    post = full_post()
    event, feeling = capitalize(said(post, "what")), said(post, "feeling")
    found = kinds(judge, post, f"{event}. {feeling}.")
    assert len(found["missing"]) == 3  # when, complication, question
    assert all(len(judge.judge(post.query, text).covered) == 4 for text in found["missing"])
    other = next(value for value in post.frame.question if value != post.facts["question"])
    wrong = fill(other.summary[0], post.facts["who"].pronoun)
    (mended,) = kinds(judge, post, f"{event}. {capitalize(wrong)}")["wrong"]
    judged = judge.judge(post.query, mended)
    assert ("question", post.facts["question"].id) in judged.covered and not judged.misattributed
    (calm,) = kinds(judge, post, f"{event}. So unfair.")["complaint"]
    assert calm == f" {event}."
    copy = fill(post.facts["complication"].post[0], post.facts["who"].pronoun, post.facts["who"].post[0])
    (own,) = kinds(judge, post, f"{event}. {capitalize(copy)}.")["copied"]
    assert judge.judge(post.query, own).coverage > judge.judge(post.query, f" {event}. {capitalize(copy)}.").coverage


def test_what_the_post_does_not_say_is_taken_out(judge: Judge) -> None:
    post = next(post for post in World().posts(0, "revising", 100) if "when" not in post.facts)
    event = capitalize(said(post, "what"))
    found = kinds(judge, post, f"{event} on Monday.")
    assert found["invented"] == [f" {event}."]


def test_improvements_end_near_the_best_and_each_is_one(judge: Judge) -> None:
    world, grades = World(), []
    for index, post in enumerate(world.posts(1, "revising", 60)):
        rng = random.Random(index)
        text = completion_text(world.summary(rng, post, CARELESS))

        def liking(text: str, query: str = post.query) -> float:
            return judge.judge(query, text).overall

        seen = [text, *(change.text for change in improvements(judge, post.query, text, liking, rng))]
        assert all(liking(better) > liking(worse) for worse, better in itertools.pairwise(seen))
        assert all(text.startswith(" ") and not text.endswith(" ") for text in seen)
        grades.append((liking(seen[0]), liking(seen[-1])))
    before, after = (sum(column) / len(column) for column in zip(*grades, strict=True))
    assert before < 3.5 < 6.9 < after


def test_a_perfect_summary_stays_as_it_is(judge: Judge) -> None:
    post = full_post()
    text = completion_text(World().summary(random.Random(0), post, FAITHFUL))
    best = judge.judge(post.query, text).overall
    assert best == pytest.approx(7.0)
    assert not list(
        improvements(judge, post.query, text, lambda one: judge.judge(post.query, one).overall, random.Random(0))
    )


def test_remarks_can_be_followed_and_never_contradict_themselves(judge: Judge) -> None:
    world = World()
    for index, post in enumerate(world.posts(2, "revising", 60)):
        rng = random.Random(index)
        text = completion_text(world.summary(rng, post, CARELESS))
        made = list(improvements(judge, post.query, text, lambda one: judge.judge(post.query, one).overall, rng))  # noqa: B023
        feedback = "\n".join(remark(change, rng) for change in made)
        assert not made or require_feedback(feedback) == feedback


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the feedback has no text \(''\); say what should change"),
        (" \n", "the feedback has no text"),
        ('Add: I feel sad\nToo long, leave out "I feel sad."', "asks both for and against 'i feel sad'; keep one"),
        ('Not "last night", but: on Monday\nTake out "On Monday", it is made up', "for and against 'on monday'"),
    ],
)
def test_feedback_that_nobody_can_follow_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_feedback(text)
    with pytest.raises(ValueError, match=message):
        refining_prompt("POST: a\n\nTL;DR:", " b", text)


def test_feedback_in_any_words_is_taken() -> None:
    assert require_feedback(" I would say more about the dog.\nAnd less about me. ").startswith("I would")


def test_a_draft_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match="draft must be text"):
        refining_prompt("POST: a\n\nTL;DR:", " ", "Add: b")


def test_refining_examples_are_better_than_their_drafts(judge: Judge) -> None:
    rows = refining_demonstrations(40, judge=judge, seed=3)
    assert rows.to_list() == refining_demonstrations(60, judge=judge, seed=3).select(range(40)).to_list()
    for row in rows:
        query, _, rest = row["prompt"].partition("TL;DR:")
        draft, _, feedback = rest.partition("\n\nFEEDBACK: ")
        query += "TL;DR:"
        assert judge.judge(query, row["completion"]).overall > judge.judge(query, draft).overall
        assert 1 <= len(feedback.removesuffix("\n\nTL;DR:").split("\n")) <= MOST_REMARKS
        assert row["completion"].startswith(" ")
