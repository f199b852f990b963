"""The synthetic TL;DR world: posts with known facts, and summaries of known quality, without end, from a seed.

A post states up to six facts (who, what, when, complication, feeling, question) at length, among sentences that carry
none. People's summaries say some or all of them briefly, in other words, and are sometimes wrong, padded or incomplete,
so that a policy can write better ones than the references.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from rlhf_lab.data.lexicon import SLOTS, Frame, Lexicon, Value, capitalize, fill, load_lexicon
from rlhf_lab.records import Prompt

POST_WORDS = (40, 90)
"""Fewest and most words of a post."""
LONG_POST_WORDS = (120, 300)
SLOT_PRESENT = {"when": 0.85, "complication": 0.95, "feeling": 0.8, "question": 0.9}
"""How often a post states a fact; who and what it always does."""


@dataclass(frozen=True, kw_only=True)
class WorldPost(Prompt):
    """A post together with what it means."""

    facts: dict[str, Value]
    """Slot to value; what the summary should say."""
    frame: Frame


@dataclass(frozen=True)
class Writer:
    """How somebody writes summaries, or a crowd of which any one may write. Probabilities of each kind of fault."""

    thoroughness: tuple[float, ...]
    """Share of the facts beside the event that they say; one of these is drawn for each summary."""
    wrong_prob: float
    """A fact is replaced by another of the same kind."""
    pad_prob: float
    """A style marker or an empty sentence is added."""


FAITHFUL = Writer((1.0,), 0.0, 0.0)
CAREFUL = Writer((0.3, 0.7, 1.0), 0.0, 0.0)
PERSON = Writer((0.3, 0.6, 0.95), 0.3, 0.3)
"""People differ most in how much they say: some stop soon after the event, some tell it all."""
CASUAL = Writer((0.1, 0.5, 0.95), 0.3, 0.3)
CARELESS = Writer((0.1, 0.5), 0.6, 0.5)


class World:
    """Posts, summaries and raw web text over one lexicon; every draw comes from the `rng` that it is given."""

    def __init__(self, lexicon: Lexicon | None = None) -> None:
        """Use `lexicon` (default: the one that ships)."""
        self.lexicon = lexicon or load_lexicon()

    def posts(
        self, seed: int, split: str, num_posts: int, *, held_out: bool = False, long: bool = False
    ) -> Iterator[WorldPost]:
        """`num_posts` posts of a split; the i-th post is the same however many are asked for.

        Args:
            seed: Seed of the data; another seed gives other posts.
            split: Name of the split; another name gives other posts.
            num_posts: How many.
            held_out: Take the frames that no training split has.
            long: Posts of 120 to 300 words instead of 40 to 90.
        """
        frames = self.lexicon.held_out if held_out else self.lexicon.training
        for index in range(num_posts):
            yield self.post(random.Random(f"{seed}/{split}/{index}"), frames, long=long)

    def post(self, rng: random.Random, frames: tuple[Frame, ...], *, long: bool = False) -> WorldPost:
        """One post about one event."""
        frame = rng.choice(frames)
        facts: dict[str, Value] = {}
        for slot, values in self._values(frame).items():
            if rng.random() < SLOT_PRESENT.get(slot, 1.0):
                facts[slot] = rng.choice(values)
        title = fill(rng.choice(frame.titles), facts["who"].pronoun, facts["who"].summary[0])
        body = self._body(rng, frame, facts, *(LONG_POST_WORDS if long else POST_WORDS))
        return WorldPost(subreddit=frame.subreddit, title=capitalize(title), post=body, facts=facts, frame=frame)

    def _values(self, frame: Frame) -> dict[str, tuple[Value, ...]]:
        values = {"who": frame.people, "when": self.lexicon.when}
        return {slot: values.get(slot) or getattr(frame, slot) for slot in SLOTS}

    def _body(self, rng: random.Random, frame: Frame, facts: dict[str, Value], fewest: int, most: int) -> str:
        """The facts in one of several orders, with sentences that carry none in between."""
        sentences = self._fact_sentences(rng, facts)
        target = rng.randint(fewest, most - 15)
        fillers = {"front": rng.sample(self.lexicon.filler["opener"], 2), "end": list(self.lexicon.filler["closer"])}
        middle = list(frame.context) + list(self.lexicon.filler["middle"])
        rng.shuffle(middle)
        rng.shuffle(fillers["end"])
        if rng.random() < 0.3:
            sentences.insert(0, fillers["front"].pop())
        while _num_words(sentences) < target and middle:
            # Not between an event and the time it is dated by ("This was on Monday.").
            places = [
                i
                for i in range(1, len(sentences) + 1)
                if i == len(sentences) or not sentences[i].startswith("This was")
            ]
            sentences.insert(rng.choice(places), middle.pop())
        if rng.random() < 0.3 and _num_words(sentences) + 8 <= most:
            sentences.append(fillers["end"].pop())
        if len(sentences) > 4 and rng.random() < 0.25:
            cut = rng.randint(2, len(sentences) - 2)
            return _join(sentences[:cut]) + "\n\n" + _join(sentences[cut:])
        return _join(sentences)

    def _fact_sentences(self, rng: random.Random, facts: dict[str, Value]) -> list[str]:
        who = facts["who"]
        said = {slot: fill(rng.choice(value.post), who.pronoun, rng.choice(who.post)) for slot, value in facts.items()}
        event = [f"{capitalize(said['what'])}."]
        if "when" in said:
            event = rng.choice(
                [
                    [f"{capitalize(said['when'])}, {said['what']}."],
                    [f"It happened {said['when']}: {said['what']}."],
                    [f"{capitalize(said['what'])}.", f"This was {said['when']}."],
                    [f"So {said['when']}, {said['what']}."],
                ]
            )
        rest = {
            slot: [_sentence(said[slot])] if slot in said else [] for slot in ("complication", "feeling", "question")
        }
        order = rng.choice(
            [
                [event, rest["complication"], rest["feeling"], rest["question"]],
                [event, rest["complication"], rest["feeling"], rest["question"]],
                [event, rest["feeling"], rest["complication"], rest["question"]],
                [event, rest["complication"], rest["question"], rest["feeling"]],
            ]
        )
        return [sentence for part in order for sentence in part]

    def summary(self, rng: random.Random, post: WorldPost, writer: Writer = PERSON) -> str:
        """A summary of `post` by `writer`."""
        share = rng.choice(writer.thoroughness)
        facts = {slot: value for slot, value in post.facts.items() if slot in ("who", "what") or rng.random() < share}
        if rng.random() < writer.wrong_prob:
            slot = rng.choice([slot for slot in facts if slot != "who"])
            facts[slot] = rng.choice([value for value in self._values(post.frame)[slot] if value != facts[slot]])
        text = self._compose(rng, facts)
        if rng.random() < writer.pad_prob:
            text = self._pad(rng, text)
        return text

    def _compose(self, rng: random.Random, facts: dict[str, Value]) -> str:
        who = facts["who"]
        said = {
            slot: fill(rng.choice(value.summary), who.pronoun, rng.choice(who.summary)) for slot, value in facts.items()
        }
        text = said["what"]
        if "when" in said:
            text = f"{said['when']} {text}" if rng.random() < 0.3 else f"{text} {said['when']}"
        feeling = said.get("feeling")
        if feeling and rng.random() < 0.25:
            text, feeling = f"{feeling} because {text}", None
        if "complication" in said:
            text = capitalize(text) + rng.choice(
                [", and {}", ", but {}", ", and {}", ", but {}", ". {}", ". Now {}"]
            ).format(said["complication"])
        sentences = _as_sentences(text)
        if feeling:
            sentences += f" {feeling}."
        if "question" in said:
            sentences += f" {capitalize(said['question'])}"
        return _tidy(sentences)

    def _pad(self, rng: random.Random, text: str) -> str:
        kind = rng.choice(["sure", "hedge", "polite", "complaint", "empty"])
        if kind == "empty":
            return f"{text} {rng.choice(self.lexicon.filler['middle'])}"
        marker = rng.choice(self.lexicon.markers[kind])
        if kind in ("sure", "hedge") and rng.random() < 0.5:
            return f"{capitalize(marker)}, {_uncapitalize(text)}"
        return f"{text} {capitalize(marker)}."

    def comment(self, rng: random.Random, post: WorldPost) -> str:
        """A stranger's comment: one of the post's sentences quoted, and what the stranger took it to say."""
        who = post.facts["who"]
        value = post.facts[rng.choice([slot for slot in post.facts if slot != "who"])]
        quoted = fill(rng.choice(value.post), who.pronoun, rng.choice(who.post))
        understood = fill(rng.choice(value.summary), who.pronoun, rng.choice(who.summary))
        return _tidy(f"> {_sentence(quoted)}\n{_sentence(understood)}")

    def web_text(self, rng: random.Random, post: WorldPost) -> str:
        """What follows `TL;DR:` on the raw web: sometimes a summary, often a careless, copied or lazy one."""
        kind = rng.random()
        if kind < 0.15:
            return self.summary(rng, post, CASUAL)
        if kind < 0.50:
            return self.summary(rng, post, CARELESS)
        if kind < 0.65:
            sentences = post.post.replace("\n\n", " ").split(". ")
            return ". ".join(sentences[: rng.randint(1, 2)]).rstrip(".") + "."
        if kind < 0.80:
            slot = rng.choice(
                [slot for slot in ("question", "feeling", "complication") if slot in post.facts] or ["what"]
            )
            who = post.facts["who"]
            said = fill(rng.choice(post.facts[slot].summary), who.pronoun, rng.choice(who.summary))
            return _sentence(said)
        return capitalize(rng.choice(self.lexicon.lazy)) + "."


def _num_words(sentences: list[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


def _sentence(text: str) -> str:
    return capitalize(text) if text.endswith("?") else capitalize(text) + "."


def _as_sentences(text: str) -> str:
    """`text` as a sentence, each of its parts capitalized."""
    return ". ".join(capitalize(part) for part in text.split(". ")) + "."


def _tidy(text: str) -> str:
    return text.replace(",,", ",").replace(",.", ".").replace(", .", ".").replace(",?", "?")


def _join(sentences: list[str]) -> str:
    return _tidy(" ".join(sentences))


def _uncapitalize(text: str) -> str:
    return text if text.startswith(("I ", "I'")) else text[:1].lower() + text[1:]
