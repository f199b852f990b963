"""The lexicon files: every form obeys the rules that keep the world readable and its facts unambiguous."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.data.judge import words_of
from rlhf_lab.data.lexicon import world_folder

FILES = sorted(world_folder().glob("frames_*.toml"))
LENGTHS = {
    ("what", "post"): (12, 24),
    ("what", "summary"): (4, 10),
    ("complication", "post"): (9, 20),
    ("complication", "summary"): (4, 10),
    ("question", "post"): (8, 18),
    ("question", "summary"): (3, 9),
}
COUNTS = {"what": 4, "complication": 4, "question": 3}
_COMMON = set(
    words_of(
        "about after again all and any are back because been before but can could did does don't each even ever "
        "every for from get got had has have her him his how i'd i'm i've into it's its just let like made make "
        "more much must never not now off one only our out over own really should since some still such than that "
        "the their them then there these they this those though too two until very want wants was way were what "
        "when where which while who whom why will with without won't would yet you your"
    )
)
PRONOUN = re.compile(r"\{([Hh]e|him|[Hh]is|himself)\}")


def problems_of(path: Path) -> list[str]:
    """What is wrong with one file of frames, each problem with its place."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    problems = []
    for frame in document["frame"]:
        for slot, count in COUNTS.items():
            if len(frame[slot]) != count:
                problems.append(f"{frame['id']}: {slot} has {len(frame[slot])} values, not {count}")
        for slot, value, kind, form in _forms(frame):
            where = f"{frame['id']}/{value}, {slot} {kind}, {form!r}"
            problems.extend(f"{where}: {problem}" for problem in _form_problems(slot, kind, form))
        problems.extend(_keyword_problems(frame))
        if not 4 <= len(set(frame["feelings"])) <= 5 or len(frame["titles"]) != 3:
            problems.append(f"{frame['id']}: 4 or 5 feelings and 3 titles, please")
    for subreddit, sentences in document.get("context", {}).items():
        if len(set(sentences)) != 8:
            problems.append(f"{subreddit}: 8 context sentences, please")
    return problems


def _forms(frame: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for slot in COUNTS:
        for value in frame[slot]:
            for kind in ("post", "summary"):
                yield from ((slot, value["id"], kind, form) for form in value[kind])


def _form_problems(slot: str, kind: str, form: str) -> Iterator[str]:
    low, high = LENGTHS[slot, kind]
    if not low <= len(form.split()) <= high:
        yield f"{len(form.split())} words, not {low} to {high}"
    if form.count("{who}") != (slot == "what"):
        yield "{who} belongs once in each form of what, and nowhere else"
    rest = PRONOUN.sub("", form.replace("{who}", ""))
    if re.search(r"\b(he|she|him|her|his|hers|himself|herself)\b|[{}]", rest, re.IGNORECASE):
        yield "a pronoun for the person must be written {he}, {him}, {his} or {himself}"
    if re.search(r"[^A-Za-z0-9 ,'?-]", rest):
        yield "only letters, digits, spaces, commas, apostrophes, hyphens and question marks, please"
    if form.endswith("?") != (slot == "question") or form[-1] in ",-":
        yield "a question ends in ?, anything else in a word"


def _keyword_problems(frame: dict[str, Any]) -> Iterator[str]:
    """Values without a keyword: a word in each of their forms, first in none, and in no other value or title.

    People's summaries keep the words that matter, and a fact that keeps one can be looked up in the post.
    """
    forms: dict[tuple[str, str], list[list[str]]] = {}
    for slot, value, _, form in _forms(frame):
        forms.setdefault((slot, value), []).append(words_of(form))
    titles = {word for title in frame["titles"] for word in words_of(title)}
    for key, mine in forms.items():
        others = {word for other, texts in forms.items() if other != key for text in texts for word in text}
        shared = set.intersection(*({word for word in text[1:] if word != text[0]} for text in mine))
        if not {word for word in shared - others - titles - _COMMON if len(word) > 2 and word.isalpha()}:
            yield f"{frame['id']}/{key[1]}, {key[0]}: no keyword is in all of its forms and in those of no other value"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_forms_obey_the_rules(path: Path) -> None:
    assert not problems_of(path)


def test_no_form_begins_another() -> None:
    """A form that is the beginning of another would be read as the other's fact, or cut short by it."""
    forms: dict[str, str] = {}
    clashes = []
    for path in FILES:
        for frame in tomllib.loads(path.read_text(encoding="utf-8"))["frame"]:
            for slot, value, _, form in _forms(frame):
                key = " ".join(re.findall(r"[a-z0-9{}'-]+", form.lower())) + " "
                if key in forms:
                    clashes.append(f"{form!r}: in {forms[key]} and in {frame['id']}/{value}")
                forms[key] = f"{frame['id']}/{value} ({slot})"
    ordered = sorted(forms)
    clashes += [
        f"{first!r} ({forms[first]}) begins {second!r} ({forms[second]})"
        for first, second in itertools.pairwise(ordered)
        if second.startswith(first)
    ]
    assert not clashes, "\n".join(clashes)


def test_identifiers_are_unique() -> None:
    frames = [frame["id"] for path in FILES for frame in tomllib.loads(path.read_text())["frame"]]
    assert len(frames) == len(set(frames))


def test_a_value_without_a_keyword_is_named() -> None:
    frame = tomllib.loads(FILES[0].read_text(encoding="utf-8"))["frame"][0]
    assert not list(_keyword_problems(frame))
    frame["question"][0]["summary"][0] = "What would you say?"
    assert [problem.split(",")[0] for problem in _keyword_problems(frame)] == [
        f"{frame['id']}/{frame['question'][0]['id']}"
    ]


def test_a_bad_form_is_named() -> None:
    assert list(_form_problems("question", "summary", "Should I call {him} out?")) == []
    assert any("words" in problem for problem in _form_problems("complication", "summary", "too short"))
    assert any("pronoun" in problem for problem in _form_problems("question", "summary", "Should I tell her?"))
    assert any("{who}" in problem for problem in _form_problems("what", "summary", "my boss shouted at me"))
    assert any("question ends" in problem for problem in _form_problems("question", "summary", "What do I do"))
