"""Posts that this project's authors wrote, with four summaries each whose faults are known.

posts = load_authored()
pairs = authored_pairs(posts, num_gold=12)
"""

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lab.data.batching import completion_text
from rlhf_lab.records import Prompt, require_text

KINDS = {
    "faithful": "true, short, with what happened and what is asked",
    "verbose": "true and complete, but too long",
    "invented": "says one thing that the post does not",
    "off_topic": "true, but about a side matter, or without what is asked",
    "copied": "the opening of the post, word for word",
    "confident": "sure of itself, and wrong in the main point",
}
"""Kinds of candidate summaries."""
BETTER = {
    "faithful": {"invented", "off_topic", "copied", "confident"},
    "verbose": {"invented", "off_topic", "confident"},
    "copied": {"confident"},
}
"""Kinds that are better than others, whoever judges. Where neither is listed (faithful, verbose), it is taste."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A summary of known kind."""

    kind: str
    text: str
    mark: str = ""
    """The words of `text` that are invented or wrong; of an off-topic one, what it leaves out."""

    def __post_init__(self) -> None:
        """Refuse an unknown kind, and a mark that is not there."""
        if self.kind not in KINDS:
            raise ValueError(f"a candidate's kind is one of {', '.join(KINDS)}, not {self.kind!r}.")
        require_text(self.text, "a candidate's text")
        if (self.mark != "") != (self.kind in ("invented", "off_topic", "confident")):
            raise ValueError(f"a candidate that is {self.kind} has the mark {self.mark!r}; see README.md of the data.")
        if self.kind in ("invented", "confident") and self.mark not in self.text:
            raise ValueError(f"the mark {self.mark!r} does not occur in {self.text!r}.")


@dataclass(frozen=True, kw_only=True)
class AuthoredPost(Prompt):
    """A post and its candidates, the faithful one first."""

    id: str
    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        """Refuse a post without text, and candidates of one kind or in another order."""
        super().__post_init__()
        kinds = [candidate.kind for candidate in self.candidates]
        if len(set(kinds)) != 4 or kinds[0] != "faithful":
            raise ValueError(f"{self.id} needs a faithful candidate and three of other kinds, not {', '.join(kinds)}.")
        if any(c.kind == "copied" and not self.post.startswith(c.text) for c in self.candidates):
            raise ValueError(f"the copied candidate of {self.id} is not the opening of its post.")


def load_authored(folder: str | Path | None = None) -> list[AuthoredPost]:
    """The authored posts, in the order of their files.

    Args:
        folder: Where the `.jsonl` files are; by default those that ship.

    Raises:
        ValueError: A line is no authored post, or an id comes twice. The line is named.
        FileNotFoundError: The folder has no such files.
    """
    folder = Path(folder or _shipped())
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(f"{folder} has no .jsonl files with authored posts.")
    posts: dict[str, AuthoredPost] = {}
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                post = _post(json.loads(line))
                if post.id in posts:
                    raise ValueError(f"the id {post.id} comes twice.")
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"line {number} of {file}: {error}") from error
            posts[post.id] = post
    return list(posts.values())


def better_kind(first: str, second: str) -> int | None:
    """0 if a candidate of the first kind is better than one of the second, 1 if worse, None if it is taste.

    Example:
        >>> better_kind("invented", "faithful"), better_kind("faithful", "verbose")
        (1, None)
    """
    if second in BETTER.get(first, ()):
        return 0
    return 1 if first in BETTER.get(second, ()) else None


def authored_pairs(
    posts: Iterable[AuthoredPost] | None = None, *, num_gold: int = 0, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows to compare: every two candidates of every post.

    Args:
        posts: By default all that ship.
        num_gold: Posts, drawn at random, that give a gold question each: the faithful candidate and one that is worse.
        seed: Draws them.

    Returns:
        Rows of id, prompt, answers, sources (the kinds), gold, and info with the post's id and `key`: the better answer
        where the kinds decide, otherwise None.
    """
    posts = load_authored() if posts is None else list(posts)
    rng = random.Random(f"{seed}/gold")
    chosen = {post.id: rng.choice(_worse(post)) for post in rng.sample(posts, min(num_gold, len(posts)))}
    rows = []
    for post in posts:
        for pair in itertools.combinations(range(len(post.candidates)), 2):
            first, second = (post.candidates[place] for place in pair)
            key = better_kind(first.kind, second.kind)
            row = {"id": f"{post.id}/{pair[0]}{pair[1]}", "prompt": post.query, "sources": [first.kind, second.kind]}
            row |= {"answers": [completion_text(first.text), completion_text(second.text)]}
            row |= {"gold": key if pair == (0, chosen.get(post.id)) else None, "info": {"post": post.id, "key": key}}
            rows.append(row)
    return rows


def _worse(post: AuthoredPost) -> Sequence[int]:
    kinds = [candidate.kind for candidate in post.candidates]
    return [place for place, kind in enumerate(kinds) if better_kind(kinds[0], kind) == 0]


def _post(row: dict[str, Any]) -> AuthoredPost:
    candidates = tuple(Candidate(**candidate) for candidate in row["candidates"])
    names = ("id", "subreddit", "title", "post")
    return AuthoredPost(**{name: require_text(row[name], name) for name in names}, candidates=candidates)


def _shipped() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "_data" / "authored"
    return installed if installed.is_dir() else package.parent / "data" / "authored"
