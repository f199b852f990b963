"""What labels of single answers teach: ratings and thumbs as numbers, edits as demonstrations, comments as feedback.

train_rating_model(policy, rating_rows(store.labels()))
train_rating_model(policy, thumb_rows(store.labels()), loss="cross_entropy")
sft(policy, edit_rows(store.labels()))

Gold questions are left out, as in `learning`.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lab.labeling.learning import Label, selected
from rlhf_lab.labeling.schema import StoreError

if TYPE_CHECKING:
    from datasets import Dataset


def rating_rows(
    labels: Iterable[Label], *, labeler: str | Sequence[str] | None = None, axis: str = "overall"
) -> "Dataset":
    """What people rated, as `train_rating_model` takes it: `prompt`, `response`, `rating` (1 to 7) and `labeler`.

    Args:
        labels: Rows of `LabelStore.labels()`.
        labeler: One or several whose labels count; by default everybody's.
        axis: What was rated.

    Raises:
        StoreError: No ratings, a labeler without labels, or an axis that no rating has.
    """
    said = _said(labels, "rate", labeler)
    axes = dict.fromkeys(name for label in said for name in label["value"]["axes"])
    if axis not in axes:
        raise StoreError(f"no rating has the axis {axis!r}; they have {', '.join(axes)}.")
    said = [label for label in said if axis in label["value"]["axes"]]
    return _rows(said, {"response": _answer, "rating": lambda label: float(label["value"]["axes"][axis])})


def thumb_rows(labels: Iterable[Label], *, labeler: str | Sequence[str] | None = None) -> "Dataset":
    """Thumbs as `train_rating_model` takes them with `loss="cross_entropy"`: a `rating` of 1 is up, of 0 down.

    Raises:
        StoreError: No thumbs, or a labeler without labels.
    """
    said = _said(labels, "thumbs", labeler)
    return _rows(said, {"response": _answer, "rating": lambda label: float(label["value"]["thumb"] == "up")})


def edit_rows(labels: Iterable[Label], *, labeler: str | Sequence[str] | None = None) -> "Dataset":
    """Edited answers as demonstrations, which `sft` takes: `prompt`, `completion` and `labeler`.

    An answer that its editor left as it is counts as one, too; one that was struck out whole does not.

    Raises:
        StoreError: No edits, or a labeler without labels.
    """
    said = [label for label in _said(labels, "edit", labeler) if label["value"]["text"].strip()]
    return _rows(said, {"completion": lambda label: label["value"]["text"]})


def comment_rows(labels: Iterable[Label], *, labeler: str | Sequence[str] | None = None) -> "Dataset":
    """What people wrote beside ratings and thumbs: `prompt`, `response`, `feedback` and `labeler`.

    Raises:
        StoreError: No comments, or a labeler without labels.
    """
    said = [label for label in selected(labels, labeler=labeler, kinds=("rate", "thumbs")) if label["comment"].strip()]
    if not said:
        raise StoreError("there are no comments among the labels; people write them beside ratings and thumbs.")
    return _rows(said, {"response": _answer, "feedback": lambda label: label["comment"]})


def _said(labels: Iterable[Label], kind: str, labeler: str | Sequence[str] | None) -> list[Label]:
    said = selected(labels, labeler=labeler, kinds=kind)
    if not said:
        raise StoreError(f"there are no labels of the kind {kind} to learn from; ask for some first.")
    return said


def _answer(label: Label) -> str:
    return label["answers"][0]


def _rows(said: Sequence[Label], columns: dict[str, Any]) -> "Dataset":
    from datasets import Dataset

    made: dict[str, list[Any]] = {"prompt": [label["prompt"] for label in said]}
    made |= {name: [read(label) for label in said] for name, read in columns.items()}
    return Dataset.from_dict(made | {"labeler": [label["labeler"] for label in said]})
