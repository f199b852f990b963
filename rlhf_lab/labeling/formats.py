"""The rows that labels become in each format of `exchange`, and the labels that such rows are.

TRL's columns know pairs, so a ranking comes back as its pairs, of one group. What a row says and an answer cannot (a
choice without a strength, a group) is kept beside the answer, and is there when it is exported or learnt from.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf_lab.labeling import openai_format
from rlhf_lab.labeling.intake import Arrival
from rlhf_lab.labeling.items import Item, spans_of
from rlhf_lab.labeling.learning import (
    Label,
    Messages,
    chosen_prob,
    comparisons_from,
    conversation_text,
    pairs_from,
    selected,
    strength,
)
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.records import Comparison, require_text

if TYPE_CHECKING:
    from datasets import Features

Row = Mapping[str, Any]
_BESIDE = ("chosen_prob", "confidence", "group", "labeler")
_TEXT, _NUMBER = "string", "int64"
_MESSAGES = [{"role": _TEXT, "content": _TEXT}]
_EXTRA = {"chosen_prob": "float64", "confidence": _NUMBER, "group": _TEXT, "labeler": _TEXT}


@dataclass(frozen=True, kw_only=True)
class Format:
    """How labels are written as rows, and rows read as labels."""

    columns: tuple[str, ...]
    """Those that a row needs."""
    types: Mapping[str, Any]
    holds: str
    """Which labels, in words."""
    rows: Callable[..., list[dict[str, Any]]]
    read: Callable[[Row, str], Arrival]
    is_flat: bool = True

    def features(self) -> "Features":
        """The columns' types; a column of nulls would have none."""
        from datasets import Features

        return Features({name: _feature(kind) for name, kind in self.types.items()})


def _feature(kind: Any) -> Any:
    from datasets import List, Value

    if isinstance(kind, list):
        return List(_feature(kind[0]))
    if isinstance(kind, dict):
        return {name: _feature(inner) for name, inner in kind.items()}
    return Value(kind)


def labeler_id(value: Any, default: str) -> str:
    """A labeler's id as the file has it, or the default where it has none."""
    name = "" if value is None else str(value)
    if "\0" in name:
        raise StoreError(f"a labeler's id is a word or a name, not {name!r}.")
    return name if name.strip() else default


# TRL: preference


def _pairs(labels: Sequence[Label], **options: Any) -> list[dict[str, Any]]:
    names = ("prompt", "chosen", "rejected", *_BESIDE)
    return [{name: getattr(row, name) for name in names} for row in comparisons_from(labels, **options)]


def _read_pair(row: Row, labeler: str, info: dict[str, Any] | None = None) -> Arrival:
    pair = Comparison(
        **{name: require_text(row[name], name) for name in ("prompt", "chosen", "rejected")},
        confidence=_number(row, "confidence", 0),
        chosen_prob=_number(row, "chosen_prob", 1.0),
        group="" if row.get("group") is None else str(row["group"]),
    )
    value, origin = _said(pair)
    item = Item(prompt=pair.prompt, answers=(pair.chosen, pair.rejected), info=info or {})
    return Arrival(labeler=labeler, item=item, value=value, origin=origin)


def _number(row: Row, name: str, default: Any) -> Any:
    value = row.get(name)
    if value is None or value == "":
        return default
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{name} is a number, not {value!r:.40}; mend it, or leave it empty.") from error
    if isinstance(default, int) and not number.is_integer():
        raise StoreError(f"{name} is a whole number, not {value!r:.40}; mend it, or leave it empty.")
    return type(default)(number)


def _said(pair: Comparison) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer that says most nearly what the pair says, its chosen text first, and what it leaves unsaid."""
    steps = [{"scale": scale, "step": step} for scale in (8, 9) for step in range(1, 5)]
    exact = [step for step in steps if (chosen_prob(step), strength(step)) == (pair.chosen_prob, pair.confidence)]
    if pair.chosen_prob == 0.5:
        value: dict[str, Any] = {"choice": "tie"}
    elif exact:
        value = exact[0]
    elif pair.confidence:
        value = {"scale": 9, "step": 5 - pair.confidence}
    else:
        value = min(steps[4:], key=lambda step: abs(chosen_prob(step) - pair.chosen_prob))
    known = {"chosen_prob": chosen_prob(value), "confidence": strength(value), "group": ""}
    return value, {name: getattr(pair, name) for name in known if getattr(pair, name) != known[name]}


# TRL: conversational


def _conversations(labels: Sequence[Label], **options: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": [{name: message[name] for name in ("role", "content")} for message in messages],
            **{name: [{"role": "assistant", "content": getattr(pair, name)}] for name in ("chosen", "rejected")},
            **{name: getattr(pair, name) for name in _BESIDE},
        }
        for pair, messages in pairs_from(labels, **options)
    ]


def _read_conversation(row: Row, labeler: str) -> Arrival:
    prompt = _messages(row, "prompt")
    texts = {}
    for name in ("chosen", "rejected"):
        answer = _messages(row, name)
        if len(answer) != 1 or answer[0]["role"] != "assistant":
            raise StoreError(f"{name} is one message of the assistant's, not {len(answer)}; put the others in prompt.")
        texts[name] = answer[0]["content"]
    is_question = len(prompt) == 1 and prompt[0]["role"] == "user"
    info = {} if is_question else {"messages": prompt}
    return _read_pair({**row, "prompt": conversation_text(prompt), **texts}, labeler, info)


def _messages(row: Row, name: str) -> Messages:
    messages = row[name]
    is_right = isinstance(messages, list) and all(
        isinstance(message, Mapping)
        and isinstance(message.get("role"), str)
        and isinstance(message.get("content"), str)
        for message in messages
    )
    if not is_right or not messages:
        raise StoreError(
            f'{name} is a list of {{"role", "content"}}, not {messages!r:.60}; texts alone are format trl.'
        )
    return [{key: message[key] for key in ("role", "content")} for message in messages]


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(isinstance(message.get(name), str) for name in ("role", "content"))


# TRL: unpaired preference


def _thumbs(labels: Sequence[Label], **options: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": label["prompt"],
            "completion": label["answers"][0],
            "label": label["value"]["thumb"] == "up",
            "ideal": label["value"]["ideal"],
            "labeler": label["labeler"],
        }
        for label in selected(labels, **options)
        if label["kind"] == "thumbs"
    ]


def _read_thumb(row: Row, labeler: str) -> Arrival:
    label = {"true": True, "1": True, "false": False, "0": False}.get(str(row["label"]).lower())
    if label is None:
        raise StoreError(f"label is true (thumbs up) or false, not {row['label']!r:.40}.")
    prompt, completion = (require_text(row[name], name) for name in ("prompt", "completion"))
    item = Item(prompt=prompt, answers=(completion,), kind="thumbs")
    value = {"thumb": "up" if label else "down", "ideal": row.get("ideal") or ""}
    return Arrival(labeler=labeler, item=item, value=value)


# Edits, in columns of our own


def _edits(labels: Sequence[Label], **options: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": label["prompt"],
            "completion": label["answers"][0],
            "edited": label["value"]["text"],
            "labeler": label["labeler"],
        }
        for label in selected(labels, **options)
        if label["kind"] == "edit"
    ]


def _read_edit(row: Row, labeler: str) -> Arrival:
    prompt, completion, edited = (require_text(row[name], name) for name in ("prompt", "completion", "edited"))
    item = Item(prompt=prompt, answers=(completion,), kind="edit")
    return Arrival(labeler=labeler, item=item, value={"text": edited, "spans": spans_of(item, edited)})


FORMATS = {
    "trl": Format(
        columns=("prompt", "chosen", "rejected"),
        types=dict.fromkeys(("prompt", "chosen", "rejected"), _TEXT) | _EXTRA,
        holds="all kinds that give pairs",
        rows=_pairs,
        read=_read_pair,
    ),
    "trl-conversational": Format(
        columns=("prompt", "chosen", "rejected"),
        types=dict.fromkeys(("prompt", "chosen", "rejected"), _MESSAGES) | _EXTRA,
        holds="all kinds that give pairs",
        rows=_conversations,
        read=_read_conversation,
        is_flat=False,
    ),
    "trl-unpaired": Format(
        columns=("prompt", "completion", "label"),
        types={"prompt": _TEXT, "completion": _TEXT, "label": "bool", "ideal": _TEXT, "labeler": _TEXT},
        holds="thumbs",
        rows=_thumbs,
        read=_read_thumb,
    ),
    "edits": Format(
        columns=("prompt", "completion", "edited"),
        types=dict.fromkeys(("prompt", "completion", "edited", "labeler"), _TEXT),
        holds="edits",
        rows=_edits,
        read=_read_edit,
    ),
    "openai": Format(
        columns=("info", "summaries", "choice"),
        types=openai_format.TYPES,
        holds="comparisons",
        rows=openai_format.rows,
        read=openai_format.read,
        is_flat=False,
    ),
}
"""Ways of writing labels down."""
