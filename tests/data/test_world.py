"""The embedded world: what it says, what it means, and that the two agree."""

import random
import re
import statistics

import pytest

from rlhf_lab.data.judge import Judge, words_of
from rlhf_lab.data.lexicon import fill, load_lexicon
from rlhf_lab.data.world import CARELESS, CASUAL, FAITHFUL, PERSON, World, Writer


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def test_lexicon_is_as_large_as_the_course_needs(world: World) -> None:
    frames = world.lexicon.frames
    assert len(frames) >= 60
    subreddits = [frame.subreddit for frame in frames]
    assert len(set(subreddits)) >= 12
    couples = sum("relationship" in name or "dating" in name for name in subreddits)
    assert 0.4 < couples / len(frames) < 0.6
    forms = [form for frame in frames for value in (*frame.what, *frame.complication) for form in value.post]
    assert len({word for form in forms for word in words_of(form)}) >= 2000


def test_posts_state_exactly_their_facts(world: World, judge: Judge) -> None:
    posts = [*world.posts(0, "a", 1500), *world.posts(0, "b", 300, held_out=True), *world.posts(0, "c", 100, long=True)]
    for post in posts:
        assert judge.facts(post.query) == {slot: value.id for slot, value in post.facts.items()}, post.post


def test_posts_have_the_promised_length(world: World) -> None:
    lengths = [len(post.post.split()) for post in world.posts(0, "a", 500)]
    assert min(lengths) >= 40
    assert max(lengths) <= 90
    long = [len(post.post.split()) for post in world.posts(0, "a", 200, long=True)]
    assert min(long) >= 100
    assert max(long) <= 300


def test_faithful_summaries_are_perfect_and_people_are_not(world: World, judge: Judge) -> None:
    posts = list(world.posts(0, "a", 500))
    grades = {}
    for name, writer in (("faithful", FAITHFUL), ("person", PERSON), ("careless", CARELESS)):
        texts = [world.summary(random.Random(index), post, writer) for index, post in enumerate(posts)]
        grades[name] = judge([post.query for post in posts], texts)
    assert min(grades["faithful"]) > 6.5
    assert 4.0 < statistics.mean(grades["person"]) < 6.0
    assert statistics.mean(grades["careless"]) < statistics.mean(grades["person"]) - 0.8


def shares_told(world: World, judge: Judge, writer: Writer) -> list[float]:
    shares = []
    for index, post in enumerate(world.posts(0, "a", 600)):
        judgement = judge.judge(post.query, world.summary(random.Random(index), post, writer))
        shares.append(judgement.num_facts / len(post.facts))
    return shares


def test_people_differ_in_how_much_they_say(world: World, judge: Judge) -> None:
    casual, person = (shares_told(world, judge, writer) for writer in (CASUAL, PERSON))
    assert statistics.mean(share < 0.5 for share in casual) > 0.2
    assert statistics.mean(share > 0.9 for share in casual) > 0.2
    # Whoever is asked for a summary tells more, but not everything either.
    assert statistics.mean(share < 0.6 for share in person) > 0.2
    assert statistics.mean(share > 0.9 for share in person) > 0.3
    assert statistics.mean(casual) < statistics.mean(person) - 0.05


def test_summaries_say_it_in_other_words(world: World) -> None:
    """A faithful summary shares few runs of four words with its post."""
    shared = []
    for index, post in enumerate(world.posts(0, "a", 300)):
        summary = words_of(world.summary(random.Random(index), post, FAITHFUL))
        text = " ".join(words_of(post.post))
        runs = [" ".join(summary[start : start + 4]) for start in range(len(summary) - 3)]
        shared.append(sum(run in text for run in runs) / max(1, len(runs)))
    assert statistics.mean(shared) < 0.15


def test_texts_are_clean(world: World) -> None:
    for index, post in enumerate(world.posts(0, "a", 500)):
        for text in (
            post.title,
            post.post,
            world.summary(random.Random(index), post),
            world.web_text(random.Random(index), post),
        ):
            assert not re.search(r"[{}]|  |,,|,\.|\.\.|\?\.| [.,?]", text), text
            assert text[0].isupper() or text[0].isdigit(), text


def test_comments_say_what_they_quote_in_other_words(world: World, judge: Judge) -> None:
    for index, post in enumerate(world.posts(0, "a", 300)):
        quoted, understood = world.comment(random.Random(index), post).removeprefix("> ").split("\n")
        assert quoted != understood
        assert judge.facts(quoted) == judge.facts(understood) != {}


def test_the_same_seed_gives_the_same_posts(world: World) -> None:
    first, again = list(world.posts(3, "a", 20)), list(world.posts(3, "a", 5))
    assert first[:5] == again
    assert [post.post for post in world.posts(4, "a", 5)] != [post.post for post in again]


def test_held_out_frames_are_in_no_training_split(world: World) -> None:
    held_out = {frame.id for frame in world.lexicon.held_out}
    assert len(held_out) >= 6
    assert not held_out & {post.frame.id for post in world.posts(0, "a", 2000)}
    assert {post.frame.id for post in world.posts(0, "a", 200, held_out=True)} == held_out


def test_pronouns_and_capitals_are_written_out() -> None:
    assert fill("{He} lost {his} keys and hurt {himself}", "she") == "She lost her keys and hurt herself"
    assert fill("I told {him} about {who}", "he", "my boss") == "I told him about my boss"


def test_a_lexicon_with_a_broken_file_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="holds no world"):
        load_lexicon(tmp_path)
    (tmp_path / "common.toml").write_text("[people")
    (tmp_path / "frames_x.toml").write_text("")
    with pytest.raises(ValueError, match="not valid TOML"):
        load_lexicon(tmp_path)
