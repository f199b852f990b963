"""What labels teach a reward model: pairs of a better and a worse answer, soft where the labeler was unsure.

- A comparison of strength s on n steps says that the second answer is the better one with probability (s - 1/2) / n.
- A ranking becomes all its pairs, in one `group`: one element of a batch (Ouyang et al. 2022, arXiv:2203.02155, 3.5).
  So do one labeler's ratings of several answers to one prompt; equal ones say nothing.
- An edit is better than its original, a written ideal than the answer that it was written for, and at each turn of a
  chat the chosen reply than the other one.
- A try to break a rule teaches a rule model: `rule_rows`.
"""

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from rlhf_lab.labeling.items import check_kind
from rlhf_lab.labeling.log import unknown_labeler
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.records import Comparison

if TYPE_CHECKING:
    from datasets import Dataset

Label = Mapping[str, Any]
"""A row of `LabelStore.labels()`."""
Messages = Sequence[Mapping[str, str]]
"""A conversation: each message has a `role` and a `content`."""
Pair = tuple[Comparison, Messages]
"""A comparison, and its prompt as messages."""
IMPORTED = "import/"
"""Start of the `interface` of answers that came from a file; a step `{"imported": ...}` has what they cannot say."""


def comparisons_from(
    labels: Iterable[Label],
    *,
    labeler: str | Sequence[str] | None = None,
    kinds: str | Sequence[str] | None = None,
    gold: bool = False,
    axis: str = "overall",
) -> list[Comparison]:
    """Labels as comparisons, in the order of answering, ratings last. Prompts and answers are left as they are.

    "Cannot compare" is left out, and so are pairs that say nothing: equal ratings, and two answers that differ in white
    space at most. A tie has chosen_prob 0.5, its texts in alphabetical order. The confidence of a comparison is its
    strength, 1 to 4, and 1 where the labeler was undecided; other kinds have 0, as it was not asked.

    Args:
        labels: Rows of `LabelStore.labels()`.
        labeler: One or several whose labels count; by default everybody's.
        kinds: One or several of `items.KINDS`; by default all.
        gold: Take labels of gold questions too. They are there to measure labelers, who all get the same ones: left in,
            a few easy pairs would be learnt over and over.
        axis: What ratings are compared on.

    Raises:
        StoreError: An unknown kind, a labeler without labels, or an axis that no rating has.

    Example:
        >>> label = {"item": "i", "kind": "compare", "labeler": "ana", "prompt": "Post", "answers": ["A", "B"]}
        >>> rows = comparisons_from([label | {"gold": None, "value": {"scale": 8, "step": 7}}])
        >>> rows[0].chosen, rows[0].chosen_prob, rows[0].confidence
        ('B', 0.8125, 3)
    """
    pairs = pairs_from(labels, labeler=labeler, kinds=kinds, gold=gold, axis=axis)
    return [comparison for comparison, _ in pairs]


def pairs_from(labels: Iterable[Label], *, axis: str = "overall", **choice: Any) -> list[Pair]:
    """The comparisons of `comparisons_from`, each with its prompt as messages."""
    chosen = selected(labels, **choice)
    pairs = [pair for label in chosen if label["kind"] in _READERS for pair in _READERS[label["kind"]](label)]
    return _in_distinct_groups(pairs + _rated([label for label in chosen if label["kind"] == "rate"], axis))


def comparison_rows(labels: Iterable[Label], **options: Any) -> "Dataset":
    """The comparisons of `comparisons_from` as a dataset, which `train_reward_model` takes."""
    from datasets import Dataset, Features, Value

    types = {str: "string", int: "int64", float: "float64"}
    columns = {field.name: Value(types[field.type]) for field in fields(Comparison)}  # type: ignore[index]
    rows = comparisons_from(labels, **options)
    return Dataset.from_dict({name: [getattr(row, name) for row in rows] for name in columns}, Features(columns))


def rule_rows(labels: Iterable[Label], *, labeler: str | Sequence[str] | None = None) -> "Dataset":
    """What people said of their tries to break a rule (`lab.probe`), as `train_rule_model` takes it.

    "Cannot tell" is left out.

    Args:
        labels: Rows of `LabelStore.labels()`.
        labeler: One or several whose labels count; by default everybody's.

    Returns:
        Rows of `prompt` (as the policy read it), `response`, `rule` (the text), `rule_id` and `violated`, as of
        `rule_labels`, in the order of answering.

    Raises:
        StoreError: A labeler without labels.
    """
    from datasets import Dataset, Features, Value

    told = selected(labels, labeler=labeler, kinds="probe")
    told = [label for label in told if label["value"]["verdict"] != "cannot_tell"]
    texts: dict[str, list[Any]] = {
        "prompt": [label["prompt"] for label in told],
        "response": [label["answers"][0] for label in told],
        **{name: [label["info"][name] for label in told] for name in ("rule", "rule_id")},
    }
    violated = [label["value"]["verdict"] == "broken" for label in told]
    types = Features({**{name: Value("string") for name in texts}, "violated": Value("bool")})
    return Dataset.from_dict({**texts, "violated": violated}, types)


def selected(
    labels: Iterable[Label],
    *,
    labeler: str | Sequence[str] | None = None,
    kinds: str | Sequence[str] | None = None,
    gold: bool = False,
) -> list[Label]:
    """The labels of some labelers and kinds, without gold questions unless they are asked for.

    Raises:
        StoreError: An unknown kind, or a labeler without labels.
    """
    rows = list(labels)
    wanted = None if kinds is None else {check_kind(kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)}
    names = None if labeler is None else {labeler} if isinstance(labeler, str) else set(labeler)
    known = sorted({row["labeler"] for row in rows})
    if missing := sorted((names or set()) - set(known)):
        raise unknown_labeler(missing[0], known)
    return [
        row
        for row in rows
        if (wanted is None or row["kind"] in wanted)
        and (names is None or row["labeler"] in names)
        and (gold or row["gold"] is None)
    ]


def prob_of_second(value: Mapping[str, Any]) -> float | None:
    """Probability that the second answer is the better one, which an answer to a comparison gives; None if it does not.

    Example:
        >>> [prob_of_second({"scale": 8, "step": step}) for step in (1, 4, 8)]
        [0.0625, 0.4375, 0.9375]
        >>> prob_of_second({"choice": "tie"}), prob_of_second({"scale": 9, "step": 5})
        (0.5, 0.5)
    """
    if "step" in value:
        return (value["step"] - 0.5) / value["scale"]
    return 0.5 if value["choice"] == "tie" else None


def chosen_prob(value: Mapping[str, Any]) -> float:
    """How sure a comparison is of the better answer, whichever it is: 0.5 to 1; 0.5 too if it says nothing.

    Example:
        >>> [chosen_prob({"scale": 8, "step": step}) for step in (1, 4, 8)]
        [0.9375, 0.5625, 0.9375]
    """
    if "step" not in value:
        return 0.5
    # Of the two places that mirror each other the upper one: 1 - p may differ from its twin in the last bit.
    return (max(value["step"], value["scale"] + 1 - value["step"]) - 0.5) / value["scale"]


def strength(value: Mapping[str, Any]) -> int:
    """Confidence of a comparison, 1 (barely) to 4 (surely); 1 where undecided, as 0 would say: not asked.

    Example:
        >>> [strength({"scale": 8, "step": step}) for step in (1, 4, 5, 8)]
        [4, 1, 1, 4]
        >>> [strength({"scale": 9, "step": step}) for step in (1, 4, 5, 6)]
        [4, 1, 1, 1]
    """
    if "step" not in value:
        return 1
    return max(1, int(abs(value["step"] - (value["scale"] + 1) / 2) + 0.5))


def imported_from(label: Label) -> Mapping[str, Any]:
    """What the file said beyond the answer; nothing if the answer was given here."""
    if not label.get("interface", "").startswith(IMPORTED):
        return {}
    return next((step["imported"] for step in label["steps"][::-1] if "imported" in step), {})


def conversation_text(messages: Messages) -> str:
    r"""Messages as one text, for models that read texts: a single question as it is, longer ones with who speaks.

    Example:
        >>> conversation_text([{"role": "user", "content": "Why?"}])
        'Why?'
        >>> conversation_text([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes?"}])
        'User: Hi.\n\nAssistant: Yes?\n\nAssistant:'
    """
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    said = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n\n".join([*said, "Assistant:"])


def _pair(label: Label, better: str, worse: str, *, messages: Messages | None = None, **known: Any) -> list[Pair]:
    """One pair, or none if the texts are alike but for white space, or empty."""
    if not better.strip() or not worse.strip() or better.strip() == worse.strip():
        return []
    if known.get("chosen_prob") == 0.5 and worse < better:
        better, worse = worse, better
    prompt = label["prompt"] if messages is None else conversation_text(messages)
    said = messages or label.get("info", {}).get("messages") or [{"role": "user", "content": prompt}]
    return [(Comparison(prompt=prompt, chosen=better, rejected=worse, labeler=label["labeler"], **known), said)]


def _compared(label: Label) -> list[Pair]:
    prob = prob_of_second(label["value"])
    if prob is None:
        return []
    first, second = label["answers"]
    known = {"chosen_prob": chosen_prob(label["value"]), "confidence": strength(label["value"])}
    origin = imported_from(label)
    known |= {name: origin[name] for name in ("chosen_prob", "confidence", "group") if name in origin}
    return _pair(label, *((second, first) if prob > 0.5 else (first, second)), **known)


def _ranked(label: Label) -> list[Pair]:
    """Every pair; the group is the labeler's answer to the item."""
    order = sorted(zip(label["value"]["ranks"], label["answers"], strict=True))
    group, rows = f"{label['item']}/{label['labeler']}", []
    for (rank, better), (other, worse) in itertools.combinations(order, 2):
        rows += _pair(label, better, worse, chosen_prob=0.5 if rank == other else 1.0, group=group)
    return rows


def _rated(labels: Sequence[Label], axis: str) -> list[Pair]:
    """Pairs of one labeler's differently rated answers to one prompt; of an answer rated twice the later rating."""
    axes = {name: None for label in labels for name in label["value"]["axes"]}
    if labels and axis not in axes:
        raise StoreError(f"no rating has the axis {axis!r}; they have {', '.join(axes)}.")
    grades: dict[tuple[str, str], dict[str, int]] = {}
    for label in labels:
        if axis in label["value"]["axes"]:
            mine = grades.setdefault((label["labeler"], label["prompt"]), {})
            mine[label["answers"][0]] = label["value"]["axes"][axis]
    rows = []
    for (labeler, prompt), graded in grades.items():
        digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
        label = {"labeler": labeler, "prompt": prompt}
        order = sorted((-grade, text) for text, grade in graded.items())
        for (grade, better), (other, worse) in itertools.combinations(order, 2):
            if grade != other:
                rows += _pair(label, better, worse, group=f"rated/{digest}/{labeler}")
    return rows


def _edited(label: Label) -> list[Pair]:
    return _pair(label, label["value"]["text"], label["answers"][0])


def _idealized(label: Label) -> list[Pair]:
    return _pair(label, label["value"]["ideal"], label["answers"][0])


def _talked(label: Label) -> list[Pair]:
    """The turns; a step that holds no choice is none."""
    rows = []
    for step in label["steps"]:
        if {"prompt", "replies", "chosen"} <= step.keys():
            replies, chosen = step["replies"], step["chosen"]
            better, worse = replies if chosen in (0, "tie") else replies[::-1]
            prob = 0.5 if chosen == "tie" else 1.0
            rows += _pair(label, better, worse, messages=step["prompt"], chosen_prob=prob)
    return rows


_READERS = {"compare": _compared, "rank": _ranked, "edit": _edited, "thumbs": _idealized, "chat": _talked}


def _in_distinct_groups(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, with a number behind a group that has another labeler, another prompt or the same two answers already.

    That happens where groups come from several files, each with its own "1", "2", "3".
    """
    owners: dict[str, tuple[str, str]] = {}
    seen: dict[str, set[frozenset[str]]] = {}

    def is_free(group: str, row: Comparison) -> bool:
        owner = (row.labeler, row.prompt)
        return owners.setdefault(group, owner) == owner and _texts(row) not in seen.get(group, ())

    distinct = []
    for row, messages in pairs:
        if row.group:
            names = itertools.chain([row.group], (f"{row.group}-{number}" for number in itertools.count(2)))
            group = next(name for name in names if is_free(name, row))
            seen.setdefault(group, set()).add(_texts(row))
            row = replace(row, group=group)
        distinct.append((row, messages))
    return distinct


def _texts(row: Comparison) -> frozenset[str]:
    return frozenset((row.chosen.strip(), row.rejected.strip()))
