"""The words of the embedded world: people, times, feelings and event frames, read from `data/world/`.

A *value* of a slot is a fact that a post can state ("she read my messages"). It has several *forms*: sentences for the
post, where it is said at length, and clauses for a summary, where it is said briefly and in other words.
"""

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLOTS = ("who", "what", "when", "complication", "feeling", "question")
PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
}
_BLANK = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Value:
    """One fact with its forms. Value(slot="when", id="monday", post=("on Monday",), summary=("this Monday",))."""

    slot: str
    id: str
    post: tuple[str, ...]
    summary: tuple[str, ...]
    pronoun: str = ""
    """he or she, for people."""


@dataclass(frozen=True)
class Frame:
    """One kind of event in one subreddit: what can happen, what makes it hard, what the poster asks."""

    id: str
    subreddit: str
    people: tuple[Value, ...]
    titles: tuple[str, ...]
    what: tuple[Value, ...]
    complication: tuple[Value, ...]
    feeling: tuple[Value, ...]
    question: tuple[Value, ...]
    context: tuple[str, ...]


@dataclass(frozen=True)
class Lexicon:
    """Everything the world can say."""

    frames: tuple[Frame, ...]
    when: tuple[Value, ...]
    markers: dict[str, tuple[str, ...]]
    glue: frozenset[str]
    filler: dict[str, tuple[str, ...]]
    lazy: tuple[str, ...]

    @functools.cached_property
    def values(self) -> dict[tuple[str, str], Value]:
        """Every fact by its slot and id."""
        groups = [self.when]
        for frame in self.frames:
            groups += [frame.people, frame.what, frame.complication, frame.feeling, frame.question]
        return {(value.slot, value.id): value for group in groups for value in group}

    @property
    def held_out(self) -> tuple[Frame, ...]:
        """Every tenth frame by id: seen in pretraining, in no training split of the task."""
        return self.frames[4::10]

    @property
    def training(self) -> tuple[Frame, ...]:
        """The frames that are not held out."""
        held_out = {frame.id for frame in self.held_out}
        return tuple(frame for frame in self.frames if frame.id not in held_out)


def world_folder() -> Path:
    """Where the lexicon files lie: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_data" / "world"
    return installed if installed.is_dir() else package.parent / "data" / "world"


@functools.cache
def load_lexicon(folder: Path | None = None) -> Lexicon:
    """The lexicon of `folder` (default: the one that ships), read once.

    Raises:
        ValueError: A file is missing or a frame names an unknown class of people or feeling.
    """
    folder = folder or world_folder()
    paths = sorted(folder.glob("frames_*.toml"))
    if not paths or not (folder / "common.toml").is_file():
        raise ValueError(f"{folder} holds no world: common.toml and at least one frames_*.toml must be there.")
    common = _read_toml(folder / "common.toml")
    people = {
        name: tuple(_value("who", key, entry, pronoun=entry["he"]) for key, entry in members.items())
        for name, members in common["people"].items()
    }
    feelings = {key: _value("feeling", key, entry) for key, entry in common["feeling"].items()}
    documents = [_read_toml(path) for path in paths]
    contexts = {key: lines for document in documents for key, lines in document.get("context", {}).items()}
    frames = [_frame(entry, people, feelings, contexts) for document in documents for entry in document["frame"]]
    return Lexicon(
        frames=tuple(sorted(frames, key=lambda frame: frame.id)),
        when=tuple(_value("when", key, entry) for key, entry in common["when"].items()),
        markers={kind: tuple(texts) for kind, texts in common["marker"].items()},
        glue=frozenset(common["glue"]["words"]),
        filler={kind: tuple(texts) for kind, texts in common["filler"].items()},
        lazy=tuple(common["web"]["lazy"]),
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from error


def _value(slot: str, key: str, entry: dict[str, Any], *, pronoun: str = "") -> Value:
    return Value(slot, key, tuple(entry["post"]), tuple(entry["summary"]), pronoun)


def _frame(
    entry: dict[str, Any],
    people: dict[str, tuple[Value, ...]],
    feelings: dict[str, Value],
    contexts: dict[str, list[str]],
) -> Frame:
    name = entry["id"]
    if entry["who"] not in people:
        raise ValueError(f"frame {name}: who = {entry['who']!r} is not among {', '.join(people)} in common.toml.")
    unknown = [key for key in entry["feelings"] if key not in feelings]
    if unknown:
        raise ValueError(f"frame {name}: the feelings {unknown} are not in common.toml.")
    if entry["subreddit"] not in contexts:
        raise ValueError(f"frame {name}: no file has [context] sentences for {entry['subreddit']!r}.")
    values = {
        slot: tuple(_value(slot, f"{name}/{value['id']}", value) for value in entry[slot])
        for slot in ("what", "complication", "question")
    }
    return Frame(
        id=name,
        subreddit=entry["subreddit"],
        people=people[entry["who"]],
        titles=tuple(entry["titles"]),
        feeling=tuple(feelings[key] for key in entry["feelings"]),
        context=tuple(contexts[entry["subreddit"]]),
        **values,
    )


def fill(form: str, pronoun: str, who: str = "") -> str:
    """`form` with its person and pronouns written out.

    Args:
        form: Text with `{who}`, `{he}`, `{him}`, `{his}`, `{himself}`; a capital inside the braces gives a capital.
        pronoun: he or she.
        who: The person, for forms that name one.

    Example:
        >>> fill("{Who} sold {his} car", "she", "my wife")
        'My wife sold her car'
    """
    return _BLANK.sub(lambda match: _filled(match.group(1), pronoun, who), form)


def _filled(name: str, pronoun: str, who: str) -> str:
    text = who if name.lower() == "who" else PRONOUNS[pronoun][name.lower()]
    return capitalize(text) if name[0].isupper() else text


def capitalize(text: str) -> str:
    """`text` with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]
