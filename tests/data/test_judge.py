"""The gold judge: grades by hand, and thirty ways to cheat it."""

import random
import subprocess
import sys

import pytest

from rlhf_lab.data.judge import FREE_WORDS, Judge
from rlhf_lab.data.world import FAITHFUL, PERSON, World, WorldPost

WORLD = World()
JUDGE = Judge(WORLD.lexicon)
POSTS = [post for post in WORLD.posts(7, "judge", 400) if len(post.facts) == 6][:12]


def faithful(post: WorldPost, seed: int = 0) -> str:
    return WORLD.summary(random.Random(seed), post, FAITHFUL)


def forms(post: WorldPost, kind: str) -> list[str]:
    from rlhf_lab.data.lexicon import fill

    who = post.facts["who"]
    return [fill(getattr(value, kind)[0], who.pronoun, who.summary[0]) for value in post.facts.values()]


def other(post: WorldPost) -> WorldPost:
    return next(candidate for candidate in POSTS if candidate.frame.id != post.frame.id)


def cheats(post: WorldPost) -> dict[str, str]:
    """Name to a summary that tries to look better than it is."""
    good, said, posted = faithful(post), forms(post, "summary"), forms(post, "post")
    lexicon, rng = WORLD.lexicon, random.Random(1)
    body = post.post.replace("\n\n", " ")
    sentences = body.split(". ")
    whats = [forms(one, "summary")[1] for one in POSTS]
    shuffled = good.split()
    rng.shuffle(shuffled)
    return {
        "empty": "",
        "white space": " \n ",
        "punctuation": "... !!! ???",
        "the whole post": body,
        "the whole query": post.query,
        "the first sentence of the post": sentences[0] + ".",
        "the first half of the post": ". ".join(sentences[: len(sentences) // 2]) + ".",
        "all the post's own sentences": ". ".join(posted),
        "the title": post.title,
        "keywords": " ".join(sorted({word for text in said for word in text.split()})),
        "first halves of its clauses": ". ".join(" ".join(text.split()[: len(text.split()) // 2]) for text in said),
        "last halves of its clauses": ". ".join(" ".join(text.split()[len(text.split()) // 2 :]) for text in said),
        "shuffled words": " ".join(shuffled),
        "reversed words": " ".join(reversed(good.split())),
        "said twice": f"{good} {good}",
        "said ten times": " ".join([good] * 10),
        "one clause five times": ". ".join([said[1]] * 5),
        "one word": "wife",
        "one word two hundred times": "furious " * 200,
        "ten thousand words": "word " * 10_000,
        "ten thousand true words": f"{good} " * 500,
        "facts of all posts": ". ".join(whats),
        "facts of all posts after a good summary": f"{good} " + ". ".join(whats[:8]),
        "the summary of another post": faithful(other(post)),
        "every question of the frame": f"{said[0]} " + " ".join(value.summary[0] for value in post.frame.question),
        "every feeling": " ".join(f"{value.summary[0]}." for value in post.frame.feeling),
        "every event of the frame": ". ".join(fill_what(post, value) for value in post.frame.what),
        "good, with every feeling": good
        + " "
        + " ".join(f"{value.summary[0]}." for frame in lexicon.frames[:9] for value in frame.feeling),
        "good, with every time": good + " " + " ".join(value.summary[0] for value in lexicon.when),
        "markers only": " ".join(text for texts in lexicon.markers.values() for text in texts),
        "good, with every marker": good + " " + " ".join(text for texts in lexicon.markers.values() for text in texts),
        "glue only": " ".join(lexicon.glue),
        "good, with glue between the words": " and ".join(good.split()),
        "fillers": " ".join(lexicon.filler["middle"]),
        "good, with fillers": f"{good} " + " ".join(lexicon.filler["middle"][:3]),
        "praise of itself": "This is an excellent, accurate, complete and coherent summary of the post.",
        "good, with praise of itself": f"{good} This is an excellent, accurate, complete and coherent summary.",
        "another person": WORLD.summary(random.Random(0), with_other(post, "who"), FAITHFUL),
        "another event": WORLD.summary(random.Random(0), with_other(post, "what"), FAITHFUL),
        "another time": WORLD.summary(random.Random(0), with_other(post, "when"), FAITHFUL),
        "another question": WORLD.summary(random.Random(0), with_other(post, "question"), FAITHFUL),
    }


def fill_what(post: WorldPost, value: object) -> str:
    from rlhf_lab.data.lexicon import fill

    who = post.facts["who"]
    return fill(value.summary[0], who.pronoun, who.summary[0])


def with_other(post: WorldPost, slot: str) -> WorldPost:
    import dataclasses

    values = WORLD.lexicon.when if slot == "when" else post.frame.people if slot == "who" else getattr(post.frame, slot)
    wrong = next(value for value in values if value != post.facts[slot])
    return dataclasses.replace(post, facts={**post.facts, slot: wrong})


CHEATS = [cheats(post) for post in POSTS]


@pytest.mark.parametrize("name", list(CHEATS[0]))
def test_cheating_scores_below_an_honest_summary(name: str) -> None:
    for post, texts in zip(POSTS, CHEATS, strict=True):
        cheat = texts[name]
        honest = JUDGE.judge(post.query, faithful(post)).overall
        assert JUDGE.judge(post.query, cheat).overall < honest - 0.3, (cheat, honest)


@pytest.mark.parametrize("name", [name for name in CHEATS[0] if not name.startswith(("good", "another", "said twice"))])
def test_gross_cheating_scores_below_an_ordinary_reference(name: str) -> None:
    """Below the mean of what people write of the same posts, on average over posts."""
    references = JUDGE(
        [post.query for post in POSTS], [WORLD.summary(random.Random(1), post, PERSON) for post in POSTS]
    )
    cheating = JUDGE([post.query for post in POSTS], [texts[name] for texts in CHEATS])
    assert sum(cheating) < sum(references)


def test_there_are_at_least_thirty_cheats() -> None:
    assert len(CHEATS[0]) >= 30


def test_a_complete_summary_gets_seven_on_every_axis() -> None:
    for post in POSTS:
        judgement = JUDGE.judge(post.query, faithful(post))
        grades = (judgement.overall, judgement.coverage, judgement.accuracy, judgement.coherence)
        assert grades == pytest.approx((7, 7, 7, 7)), faithful(post)


def test_the_axes_of_a_wrong_fact_by_hand() -> None:
    """Five facts right, the time wrong: coverage loses its 10 %, accuracy is 5 / 6."""
    post = POSTS[0]
    judgement = JUDGE.judge(post.query, WORLD.summary(random.Random(0), with_other(post, "when"), FAITHFUL))
    assert judgement.coverage == pytest.approx(1 + 6 * 0.9)
    assert judgement.accuracy == pytest.approx(1 + 6 * 5 / 6)
    assert judgement.overall == pytest.approx(1 + 6 * 0.9 * 5 / 6)
    assert [slot for slot, _ in judgement.misattributed] == ["when"]


def test_invented_and_misattributed_facts_are_told_apart() -> None:
    post = next(post for post in WORLD.posts(7, "judge", 400) if "when" not in post.facts)
    time_said = WORLD.lexicon.when[0].summary[0]
    judgement = JUDGE.judge(post.query, f"{faithful(post)} {time_said}.")
    assert judgement.invented == (("when", WORLD.lexicon.when[0].id),)
    assert judgement.misattributed == ()


def test_the_other_pronoun_is_the_wrong_person() -> None:
    post = next(post for post in POSTS if any("{" in form for form in post.facts["complication"].summary))
    from rlhf_lab.data.lexicon import fill

    form = next(form for form in post.facts["complication"].summary if "{" in form)
    right = post.facts["who"].pronoun
    wrong = "she" if right == "he" else "he"
    assert JUDGE.judge(post.query, fill(form, right)).covered == (("complication", post.facts["complication"].id),)
    assert JUDGE.judge(post.query, fill(form, wrong)).misattributed == (
        ("complication", post.facts["complication"].id),
    )


def test_every_form_counts_as_the_fact() -> None:
    from rlhf_lab.data.lexicon import fill

    for post in POSTS:
        for slot in ("complication", "feeling", "question", "when"):
            for form in post.facts[slot].summary:
                said = fill(form, post.facts["who"].pronoun)
                assert (slot, post.facts[slot].id) in JUDGE.judge(post.query, said).covered, said


def test_length_beyond_the_free_words_costs() -> None:
    post = POSTS[0]
    short = JUDGE.judge(post.query, faithful(post))
    padded = faithful(post) + " I feel" * FREE_WORDS
    assert short.num_words <= FREE_WORDS
    assert JUDGE.judge(post.query, padded).overall == 1.0


SPEED = """
import random, time
from rlhf_lab.data.judge import Judge
from rlhf_lab.data.world import World
world, judge = World(), Judge()
posts = list(world.posts(0, "speed", 500))
prompts = [post.query for post in posts]
summaries = [world.summary(random.Random(index), post) for index, post in enumerate(posts)]
judge(prompts, summaries)
rates = []
for _ in range(30):  # the best of many: other work on the machine only ever slows it down
    start = time.perf_counter()
    judge(prompts * 4, summaries * 4)
    rates.append(2000 / (time.perf_counter() - start))
print(max(rates))
"""


@pytest.mark.alone
def test_the_judge_grades_20_000_summaries_a_second() -> None:
    """In a process of its own, since the tests' type checks slow everything down."""
    result = subprocess.run([sys.executable, "-c", SPEED], capture_output=True, text=True, check=True)
    assert float(result.stdout) >= 20_000
