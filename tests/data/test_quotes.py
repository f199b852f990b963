"""Summaries with quotes: their syntax, and when a quote supports a summary."""

import random

import pytest
from datasets import Dataset

from rlhf_lab.data.datasets import load_tldr
from rlhf_lab.data.lexicon import fill
from rlhf_lab.data.quotes import judge_quote, quoting_demonstrations, sentences_of, split_quote, with_quote
from rlhf_lab.data.world import FAITHFUL, World, WorldPost
from rlhf_lab.feedback import gold_judge

WORLD = World()
POSTS = list(WORLD.posts(0, "quotes", 40))


def _sentence_with(post: WorldPost, slot: str) -> str:
    """The sentence of the post that states the fact of a slot."""
    who, judge = post.facts["who"], gold_judge()
    found = [sentence for sentence in sentences_of(post.query) if slot in judge.facts(sentence)]
    assert len(found) == 1, (slot, who.id)
    return found[0]


def test_sentences_are_all_of_the_post_and_nothing_else() -> None:
    for post in POSTS:
        assert " ".join(sentences_of(post.query)) == post.post.replace("\n\n", " ")


def test_a_quote_is_read_back_as_it_was_written() -> None:
    assert split_quote(with_quote(" We broke up. ", "So it ended.")) == ("We broke up.", "So it ended.")
    assert split_quote(" We broke up. %<So it ended") == ("We broke up.", "")
    assert split_quote(" We broke up. %<So it ended.>% And more.") == ("We broke up.", "")
    assert split_quote(" We broke up.") == ("We broke up.", "")


def test_every_fact_of_a_faithful_summary_is_supported_by_its_own_sentence() -> None:
    judge = gold_judge()
    for post in POSTS:
        summary = WORLD.summary(random.Random(0), post, FAITHFUL)
        for slot in set(post.facts) - {"who"}:
            judged = judge_quote(judge, post.query, with_quote(summary, _sentence_with(post, slot)))
            assert judged.supported and (slot, post.facts[slot].id) in judged.supporting


def test_a_quote_that_says_nothing_of_the_summary_or_is_not_the_posts_does_not_support_it() -> None:
    judge = gold_judge()
    post = next(post for post in POSTS if "question" in post.facts)
    what = post.facts["what"]
    summary = fill(what.summary[0], post.facts["who"].pronoun, post.facts["who"].summary[0]) + "."
    event = _sentence_with(post, "what")
    assert judge_quote(judge, post.query, with_quote(summary, event)).supported
    elsewhere = judge_quote(judge, post.query, with_quote(summary, _sentence_with(post, "question")))
    assert elsewhere.verbatim and not elsewhere.supported
    for changed in (event[:-1], event.lower(), "", "This is not there."):
        judged = judge_quote(judge, post.query, with_quote(summary, changed))
        assert not judged.verbatim and not judged.supported


def test_a_summary_that_is_wrong_elsewhere_is_not_supported() -> None:
    judge, post = gold_judge(), POSTS[0]
    summary, event = WORLD.summary(random.Random(0), post, FAITHFUL), _sentence_with(POSTS[0], "what")
    other = next(value for value in post.frame.question if value != post.facts.get("question"))
    wrong = f"{summary} {fill(other.summary[0], post.facts['who'].pronoun)}"
    judged = judge_quote(judge, post.query, with_quote(wrong, event))
    assert judged.supporting and not judged.supported


def test_demonstrations_quote_what_supports_most_of_them_and_leave_out_what_is_wrong() -> None:
    judge, demonstrations = gold_judge(), load_tldr(scale="tiny").demonstrations.select(range(100))
    quoting = quoting_demonstrations(demonstrations, judge)
    # About a third of people's summaries state a wrong fact.
    assert 0.5 < len(quoting) / len(demonstrations) < 0.85
    for row in quoting.to_list():
        judged = judge_quote(judge, row["prompt"], row["completion"])
        others = [with_quote(split_quote(row["completion"])[0], text) for text in sentences_of(row["prompt"])]
        most = max(len(judge_quote(judge, row["prompt"], other).supporting) for other in others)
        assert judged.supported and len(judged.supporting) == most


def test_demonstrations_of_another_world_are_refused() -> None:
    rows = Dataset.from_list([{"prompt": "POST: Nothing that it knows.\n\nTL;DR:", "completion": " Nothing."}])
    with pytest.raises(ValueError, match="none of the 1 demonstrations is supported"):
        quoting_demonstrations(rows, gold_judge())
