"""Comparisons in the schema of openai/summarize_from_feedback (Stiennon et al. 2020, arXiv:2009.01325).

The summaries stand in the order in which they were shown. The strength speaks of that order, 1 to 9: 1 is surely the
first, 5 undecided, 9 surely the second. The eight steps of `compare` are those beside the middle. What a labeler wrote
of each summary before comparing them, the naive interpretation, is its `note`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_lab.labeling.intake import Arrival
from rlhf_lab.labeling.items import Item
from rlhf_lab.labeling.learning import Label, imported_from, selected
from rlhf_lab.labeling.schema import StoreError
from rlhf_lab.records import Prompt, require_text

_TEXT = "string"
TYPES = {
    "info": dict.fromkeys(("id", "post", "title", "subreddit", "site", "article"), _TEXT),
    "summaries": [dict.fromkeys(("text", "policy", "note"), _TEXT)],
    "choice": "int32",
    "worker": _TEXT,
    "batch": _TEXT,
    "split": _TEXT,
    "extra": {"confidence": "int32"},
}
"""Of the columns."""


def rows(labels: Sequence[Label], **options: Any) -> list[dict[str, Any]]:
    """A row for each comparison.

    Raises:
        StoreError: A prompt that is no post, which the schema cannot hold.
    """
    return [
        _openai_row(label)
        for label in selected(labels, **options)
        if label["kind"] == "compare" and label["value"] != {"choice": "cannot_compare"}
    ]


def _openai_row(label: Label) -> dict[str, Any]:
    sides, info, origin = label["sides"], label["info"], imported_from(label)
    known = origin.get("openai", {})
    confidence = _nine_points(label["value"], is_turned=list(sides) == [1, 0])
    choice = known.get("choice", 0) if confidence == 5 else int(confidence > 5)
    if confidence != 5 and origin.get("confidence") == 0:
        confidence = None
    steps = label["steps"][::-1]
    said = next((step["interpretation"] for step in steps if "interpretation" in step), ["", ""])
    notes = dict(zip(label["answers"], said, strict=True)) | known.get("notes", {})
    post = info.get("post")
    return {
        "info": {"id": post if isinstance(post, str) else label["item"], **_post_of(label)},
        "summaries": [
            {"text": text, "policy": label["sources"][side], "note": notes[text]}
            for side, text in ((side, label["answers"][side]) for side in sides)
        ],
        "choice": choice,
        "worker": label["labeler"],
        "batch": known.get("batch", ""),
        "split": known.get("split", "train"),
        "extra": {"confidence": confidence},
    }


def _nine_points(value: Mapping[str, Any], *, is_turned: bool) -> int:
    """A comparison on the scale of nine: the eight steps are those beside its middle."""
    if "step" not in value:
        return 5
    step = value["step"] + (value["scale"] == 8 and value["step"] > 4)
    return 10 - step if is_turned else step


def _post_of(label: Label) -> dict[str, Any]:
    """The fields of a post; of a news article those that it has."""
    head, found, rest = label["prompt"].partition("\n\nTITLE: ")
    title, found_post, post = rest.partition("\n\nPOST: ")
    subreddit, post = head.removeprefix("SUBREDDIT: r/"), post.removesuffix("\n\nTL;DR:")
    site, names = label["info"].get("site"), ("post", "article")
    if not found or not found_post or not post.strip():
        raise StoreError(_NO_POST.format(item=label["item"]))
    if Prompt(subreddit=subreddit, title=title, post=post).query != label["prompt"]:
        raise StoreError(_NO_POST.format(item=label["item"]))
    text, other = names[::-1] if label["info"].get("is_article") else names
    return {"title": title, "subreddit": subreddit, "site": site, text: post, other: None}


_NO_POST = "the prompt of item {item} is no TL;DR post, and OpenAI's schema knows no other prompts; export as trl."


def read(row: Mapping[str, Any], labeler: str) -> Arrival:
    """The label that a row is.

    Raises:
        StoreError: The row cannot be one, or contradicts itself.
    """
    info, summaries, choice = row["info"], row["summaries"], row["choice"]
    confidence = (row.get("extra") or {}).get("confidence")
    _check_openai(info, summaries, choice, confidence)
    is_article = not info.get("post")
    names = {name: str(info.get(name) or "") for name in ("subreddit", "title")}
    prompt = Prompt(**names, post=require_text(info["article"] if is_article else info["post"], "post")).query
    beside = {"post": info.get("id"), "site": info.get("site"), "is_article": is_article or None}
    item = Item(
        prompt=prompt,
        answers=tuple(require_text(summary["text"], "summary") for summary in summaries),
        sources=tuple(str(summary.get("policy") or "") for summary in summaries),
        info={name: value for name, value in beside.items() if value is not None},
    )
    value = {"scale": 9, "step": int(confidence) if confidence else 9 if choice else 1}
    said: dict[str, Any] = {
        "choice": int(choice),
        "batch": row.get("batch") or "",
        "split": row.get("split") or "train",
    }
    said["notes"] = {summary["text"]: summary["note"] for summary in summaries if summary.get("note")}
    unsaid = {} if confidence else {"chosen_prob": 1.0, "confidence": 0}
    origin = {"openai": said, **unsaid}
    return Arrival(labeler=labeler, item=item, value=value, origin=origin, is_shown_order=True)


def _check_openai(info: Any, summaries: Any, choice: Any, confidence: Any) -> None:
    if not isinstance(info, Mapping) or not (info.get("post") or info.get("article")):
        raise StoreError("info has neither a post nor an article; mend or remove the row.")
    if not isinstance(summaries, list) or len(summaries) != 2:
        raise StoreError("a choice needs two summaries; mend or remove the row.")
    if choice not in (0, 1):
        raise StoreError(f"choice is 0 or 1, not {choice!r:.40}.")
    if confidence not in (None, *range(1, 10)):
        raise StoreError(f"confidence is 1 to 9 or null, not {confidence!r:.40}.")
    if confidence and confidence != 5 and (confidence > 5) != choice:
        raise StoreError(
            f"choice {choice} prefers the {('first', 'second')[choice]} summary, confidence {confidence} the other; "
            "mend or remove the row."
        )
