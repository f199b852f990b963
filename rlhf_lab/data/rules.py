"""Rules for summaries, in words and as checks: what a rule model learns to see, and what is true.

The rules lie in `data/world/rules.toml`, for an instructor to edit. A check reads a summary as the gold judge does.
"""

import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lab.data.judge import Judge, Judgement, words_of
from rlhf_lab.data.lexicon import world_folder


@dataclass(frozen=True)
class Reading:
    """A summary as the checks see it."""

    words: list[str]
    post_words: list[str]
    facts: dict[str, str]
    """Of the post."""
    judgement: Judgement


def _says_nothing_else(reading: Reading, wanted: bool) -> bool:
    return not wanted or not (reading.judgement.invented or reading.judgement.misattributed)


def _says(reading: Reading, slot: str) -> bool:
    # Right or wrong: whether it is true is another rule's matter.
    told = reading.judgement
    return slot not in reading.facts or slot in dict((*told.covered, *told.misattributed, *told.invented))


def _has_at_most(reading: Reading, most: int) -> bool:
    return len(reading.words) <= most


def _has_no_marker(reading: Reading, kind: str) -> bool:
    return kind not in reading.judgement.markers


def _has_no_phrase(reading: Reading, phrases: Sequence[str]) -> bool:
    text = f" {' '.join(reading.words)} "
    return not any(f" {' '.join(words_of(phrase))} " in text for phrase in phrases)


def _has_no_run(reading: Reading, length: int) -> bool:
    runs = {tuple(reading.words[at : at + length]) for at in range(len(reading.words) - length + 1)}
    post = reading.post_words
    return not any(tuple(post[at : at + length]) in runs for at in range(len(post) - length + 1))


CHECKS: dict[str, Callable[[Reading, Any], bool]] = {
    "true_to_post": _says_nothing_else,
    "says": _says,
    "at_most": _has_at_most,
    "no_marker": _has_no_marker,
    "no_phrase": _has_no_phrase,
    "no_run": _has_no_run,
}
"""By the name that a rule's `check` has in the file; True where the rule is kept."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Something that a summary must not do. Rule(id="brief", text="Use no more than 20 words.", check={"at_most": 20}).

    Example:
        >>> Rule(id="brief", text=" ", check={"at_most": 20})
        Traceback (most recent call last):
        ...
        ValueError: the rule 'brief' has no text; say in plain words what it asks, since the rule model reads only that.
    """

    id: str
    text: str
    """In plain words; all that the rule model reads of it."""
    check: Mapping[str, Any]
    """The truth: a name of `CHECKS`, and its value."""
    starts: tuple[str, ...] = ()
    """First words of a summary that tempt to break it."""
    titles: tuple[str, ...] = ()
    """Titles that do."""

    def __post_init__(self) -> None:
        """Refuse a rule that says nothing, or that nobody can check."""
        if not self.text.strip():
            raise ValueError(
                f"the rule {self.id!r} has no text; say in plain words what it asks, since the rule model reads only "
                f"that."
            )
        if len(self.check) != 1 or not set(self.check) <= set(CHECKS):
            raise ValueError(
                f"the rule {self.id!r} has the check {dict(self.check)}; give one of {', '.join(CHECKS)}, with its "
                f"value."
            )

    def is_broken(self, prompt: str, summary: str) -> bool:
        """Whether `summary`, as one of `prompt`, breaks it."""
        ((name, value),) = self.check.items()
        return not CHECKS[name](_read(prompt, summary), value)


@functools.lru_cache(maxsize=4096)
def _read(prompt: str, summary: str) -> Reading:
    judge = _judge()
    post = prompt.partition("\n\nPOST: ")[2].removesuffix("TL;DR:")
    return Reading(words_of(summary), words_of(post), judge.facts(prompt), judge.judge(prompt, summary))


@functools.cache
def _judge() -> Judge:
    return Judge()


def load_rules(path: str | Path | None = None) -> tuple[Rule, ...]:
    """The rules of a file, by default of the one that ships.

    Raises:
        ValueError: It is no TOML, it has no rule, a rule has no text or no check that is known, or two have one id.
    """
    path = Path(path or world_folder() / "rules.toml")
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("rule", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} could not be read as rules: {error}.") from error
    rules = tuple(_rule(entry, path) for entry in entries)
    ids = [rule.id for rule in rules]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{path} must hold rules, each with an id of its own; it has {', '.join(ids) or 'none'}.")
    return rules


def _rule(entry: dict[str, Any], path: Path) -> Rule:
    known = ("id", "text", "check", "starts", "titles")
    if unknown := [name for name in entry if name not in known]:
        raise ValueError(f"{path}: a rule has no {', '.join(unknown)}; it has {', '.join(known)}.")
    return Rule(
        id=str(entry.get("id", "")),
        text=entry.get("text", ""),
        check=entry.get("check", {}),
        starts=tuple(entry.get("starts", ())),
        titles=tuple(entry.get("titles", ())),
    )
