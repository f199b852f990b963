"""How a summary of the world's posts can be made better, one change at a time, and how people would say so.

A change is read off the post as the gold judge reads it: a fact that is missing, wrong, made up or copied, a style
marker, a sentence too many. An editor makes the changes; somebody who gives written feedback says them, in the words of
`data/world/feedback.toml`; a refiner learns to make them when it is told.

Reference: Scheurer et al. 2023, "Training Language Models with Language Feedback at Scale", arXiv:2303.16755.
"""

import functools
import itertools
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from datasets import Dataset

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.judge import Clause, Judge, words_of
from rlhf_lab.data.lexicon import Lexicon, capitalize, fill, world_folder
from rlhf_lab.data.world import CARELESS, CASUAL, World
from rlhf_lab.records import require_text

MOST_REMARKS = 2
"""In one person's feedback on one summary."""
_FEEDBACK, _SUFFIX = "\n\nFEEDBACK: ", "\n\nTL;DR:"
_SENTENCES = re.compile(r"(?<=[.!?])\s+")
_JOINT = re.compile(r"(?:,?\s+(?:and|but|because)|\.\s+Now)?[\s,]*$")
_BLANK = re.compile(r"\\{(\w+)\\}")


@dataclass(frozen=True)
class Change:
    """One way to make a summary better.

    Change(kind="missing", text=" My cat left me. I'm sad.", said="", wanted="I'm sad")
    """

    kind: str
    """missing, wrong, invented, copied, long, or the kind of a style marker."""
    text: str
    """The summary after it."""
    said: str
    """What goes."""
    wanted: str
    """What comes."""


def changes(judge: Judge, prompt: str, summary: str, rng: random.Random) -> Iterator[Change]:
    """Every single change that a careful reader may think of; not all of them make the summary better.

    Args:
        judge: Reads the post and the summary.
        prompt: The post.
        summary: A completion.
        rng: Draws the words of what is said anew.
    """
    facts = judge.facts(prompt)
    post, clauses = _Said(judge.lexicon, facts, rng), list(judge.clauses(summary))
    yield from filter(None, (_of_clause(summary, clause, start, end, facts, post) for clause, start, end in clauses))
    told = {slot for clause, _, _ in clauses for slot, _ in clause.facts}
    for slot in [slot for slot in facts if slot not in (*told, "who")]:  # Who it is comes with the event.
        wanted = post.form(slot)
        yield Change("missing", _with(summary, slot, wanted, clauses), "", wanted)
    sentences = _SENTENCES.split(summary.strip())
    for place, said in enumerate(sentences if len(sentences) > 1 else []):
        yield Change("long", completion_text(" ".join(sentences[:place] + sentences[place + 1 :])), said, "")


def _of_clause(
    summary: str, clause: Clause, start: int, end: int, facts: Mapping[str, str], post: "_Said"
) -> Change | None:
    """What is to change of a clause; None if it may stay."""
    said, wrong = summary[start:end], [slot for slot, value in clause.facts if facts.get(slot) != value]
    if clause.marker:
        return Change(clause.marker, _cut(summary, start, end), said, "")
    if any(slot not in facts for slot in wrong):
        return Change("invented", _cut(summary, start, end), said, "")
    if not wrong and not clause.copied:
        return None
    wanted = post.form(clause.facts[-1][0])
    text = _replaced(summary, start, end, wanted)
    # How to say it in other words is left to the one who is told.
    return Change("wrong", text, said, wanted) if wrong else Change("copied", text, said, "")


def improvements(
    judge: Judge, prompt: str, summary: str, liking: Callable[[str], float], rng: random.Random
) -> Iterator[Change]:
    """The change that somebody likes best, then the best one of its result, until none makes it better.

    Args:
        liking: How much they like a summary of this post.
    """
    while True:
        best = max(changes(judge, prompt, summary, rng), key=lambda one: liking(one.text), default=None)
        if best is None or liking(best.text) <= liking(summary) + 1e-9:
            return
        yield best
        summary = best.text


def remark(change: Change, rng: random.Random) -> str:
    """The change in the words of somebody who wants it.

    Example:
        >>> remark(Change("sure", " My cat left.", "for sure", ""), random.Random(0))
        'Do not insist: "for sure"'
    """
    return rng.choice(_remarks()[change.kind]).format(said=change.said, wanted=change.wanted)


@functools.cache
def _remarks() -> Mapping[str, tuple[str, ...]]:
    path = world_folder() / "feedback.toml"
    return {kind: tuple(texts) for kind, texts in tomllib.loads(path.read_text(encoding="utf-8"))["remarks"].items()}


@functools.cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    texts = itertools.chain(*_remarks().values())
    return tuple(re.compile(_BLANK.sub(r"(?P<\1>.+)", re.escape(text))) for text in texts)


def require_feedback(text: str) -> str:
    r"""Written feedback, if it can be followed.

    Raises:
        ValueError: It is empty, or one of its lines asks for what another one asks against.

    Example:
        >>> require_feedback('Add: I feel sad\nToo long, leave out "I feel sad."')
        Traceback (most recent call last):
        ...
        ValueError: the feedback asks both for and against 'i feel sad'; keep one of its lines.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the feedback has no text ({text!r:.40}); say what should change, or leave the row out.")
    told: dict[str, set[str]] = {"wanted": set(), "said": set()}
    for line, pattern in itertools.product(text.split("\n"), _patterns()):
        found = pattern.fullmatch(line.strip())
        for name, words in found.groupdict().items() if found else ():
            told[name].add(" ".join(words_of(words)))
    if both := sorted(told["wanted"] & told["said"]):
        raise ValueError(f"the feedback asks both for and against {both[0]!r}; keep one of its lines.")
    return text.strip()


def refining_prompt(prompt: str, draft: str, feedback: str) -> str:
    r"""What a refiner reads: the post, a draft, and what somebody said of it.

    Raises:
        ValueError: A text is empty, or the feedback contradicts itself.

    Example:
        >>> refining_prompt("POST: My cat left.\n\nTL;DR:", " Cats.", "Add: she left")
        'POST: My cat left.\n\nTL;DR: Cats.\n\nFEEDBACK: Add: she left\n\nTL;DR:'
    """
    draft = completion_text(require_text(draft, "draft"))
    return f"{require_text(prompt, 'prompt')}{draft}{_FEEDBACK}{require_feedback(feedback)}{_SUFFIX}"


def refining_demonstrations(num_rows: int, *, judge: Judge, seed: int = 0) -> Dataset:
    """How feedback is followed, as the world writes it: careless drafts, remarks, and what becomes of the drafts.

    It stands in for what a large pretrained model can do when it is told; nobody's time is in it.

    Returns:
        Rows of `prompt` (of `refining_prompt`) and `completion`.
    """
    world, rows = World(judge.lexicon), []
    for index in itertools.count():
        if len(rows) == num_rows:
            return Dataset.from_list(rows)
        rng = random.Random(f"{seed}/refining/{index}")
        post = world.post(rng, world.lexicon.training)
        draft = completion_text(world.summary(rng, post, rng.choice([CASUAL, CARELESS])))

        def liking(text: str, query: str = post.query) -> float:
            return judge.judge(query, text).overall

        made = list(itertools.islice(improvements(judge, post.query, draft, liking, rng), rng.randint(1, MOST_REMARKS)))
        if made:
            feedback = "\n".join(remark(change, rng) for change in made)
            asked = refining_prompt(post.query, draft, feedback)
            rows.append({"prompt": asked, "completion": completion_text(made[-1].text)})
    raise AssertionError("itertools.count ended.")


class _Said:
    """A post's facts in a summary's words."""

    def __init__(self, lexicon: Lexicon, facts: Mapping[str, str], rng: random.Random) -> None:
        self.values = {slot: lexicon.values[slot, value] for slot, value in facts.items()}
        self.rng = rng

    def form(self, slot: str) -> str:
        """A fact as a clause; who it is comes with the event."""
        who = self.values.get("who")
        pronoun, name = (who.pronoun, self.rng.choice(who.summary)) if who else ("he", "somebody")
        return fill(self.rng.choice(self.values[slot].summary), pronoun, name)


def _replaced(text: str, start: int, end: int, wanted: str) -> str:
    """`wanted` in the place of a clause, with the capital and the question mark that stand there."""
    wanted = capitalize(wanted) if text[start].isupper() else wanted
    return text[:start] + (wanted.rstrip("?") if text[end : end + 1] == "?" else wanted) + text[end:]


def _cut(text: str, start: int, end: int) -> str:
    """The text without a clause, and without the word that joined it."""
    before = _JOINT.sub("", text[:start])
    after = text[end:].lstrip(" ,") if before.strip() else re.sub(r"^\W*(?:and |but |because )?", "", text[end:])
    if not before.strip():
        return completion_text(capitalize(after))
    if before.endswith((".", "?", "!")):
        return f"{before} {capitalize(after.lstrip(' ,.?!'))}".rstrip()
    return before + after if after[:1] in ".?!" else f"{before} {after}"


def _with(text: str, slot: str, wanted: str, clauses: Sequence[tuple[Clause, int, int]]) -> str:
    """The text with a fact more: an event in front, a time behind it, then what made it hard, the rest at the end."""
    sentence = capitalize(wanted) if wanted.endswith("?") else f"{capitalize(wanted)}."
    events = [end for clause, _, end in clauses if dict(clause.facts).keys() & {"what"}]
    if slot == "what":
        return completion_text(f"{sentence} {text.strip()}")
    if slot == "when" and events:
        return f"{text[: events[0]]} {wanted}{text[events[0] :]}"
    stop = re.search(r"[.!?]", text[events[0] :]) if slot == "complication" and events else None
    at = events[0] + stop.end() if stop else len(text)
    return f"{text[:at].rstrip()} {sentence}{text[at:]}"
