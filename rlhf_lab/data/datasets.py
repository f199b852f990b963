"""The same rows from the embedded world, from a local file, or from the Hub.

Rows have TRL's columns: `prompt`, `completion`; `prompt`, `chosen`, `rejected`. Completions start with a space.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.world import World
from rlhf_lab.records import QUERY_TEMPLATE, Comparison, Demonstration, Prompt, check_scale, require_text

WORLD_SIZES = {
    "tiny": {"demonstrations": 256, "prompts": 256, "validation": 64},
    "laptop": {"demonstrations": 4000, "prompts": 8000, "validation": 512},
    "gpu": {"demonstrations": 100_000, "prompts": 100_000, "validation": 2000},
}
"""Posts of each split of the embedded world."""
_FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_OPENAI = "openai/summarize_from_feedback"


@dataclass(frozen=True)
class TLDR:
    """Posts and the summaries that people wrote of them, in splits that share no post."""

    name: str
    demonstrations: Dataset
    """For supervised fine-tuning: `prompt`, `completion`."""
    prompts: Dataset
    """For comparisons and reinforcement learning: `prompt`, and the reference as `completion`."""
    validation: Dataset
    """For evaluation: `prompt`, `completion`."""
    held_out: Dataset | None = None
    """The world's validation on frames that no other split has."""


def load_tldr(source: str = "world", *, scale: str = "laptop", seed: int = 0, long: bool = False) -> TLDR:
    """The TL;DR task.

    Args:
        source: `world`; a JSONL, CSV or Parquet file; or a dataset's id on the Hub, such as `trl-lib/tldr`. Rows hold
            `subreddit`, `title`, `post`, `summary`, or `prompt` with `completion` (or `label`, or `summary`).
        scale: tiny, laptop or gpu: how many posts the world gives.
        seed: Draws the world's posts, or the split of a file that has none.
        long: World's posts of 120 to 300 words.

    Raises:
        ValueError: Unknown scale, a file that is missing or empty, a missing column, an empty post, no network.

    Example:
        >>> load_tldr(scale="tiny").validation[0]["prompt"].endswith("TL;DR:")
        True
    """
    check_scale(scale)
    if source == "world":
        return _world(WORLD_SIZES[scale], seed, long)
    splits = _read(source)
    if "validation" in splits or "valid" in splits:
        validation = splits.get("validation", splits.get("valid"))
        return _real(source, splits["train"], validation)  # type: ignore[arg-type]
    rows = splits["train"].shuffle(seed=seed)
    num_validation = max(1, min(512, len(rows) // 10))
    if len(rows) < 2:
        raise ValueError(f"{source} has {len(rows)} row(s); training and validation need at least 2.")
    return _real(source, rows.select(range(num_validation, len(rows))), rows.select(range(num_validation)))


def _world(sizes: dict[str, int], seed: int, long: bool) -> TLDR:
    world = World()

    def rows(split: str, num_posts: int, *, held_out: bool = False) -> Dataset:
        def generate() -> Iterable[dict[str, str]]:
            for index, post in enumerate(world.posts(seed, split, num_posts, held_out=held_out, long=long)):
                summary = world.summary(random.Random(f"{seed}/{split}/{index}/summary"), post)
                yield {"prompt": post.query, "completion": completion_text(summary), "subreddit": post.subreddit}

        return Dataset.from_list(list(generate()))

    return TLDR(
        name="world",
        demonstrations=rows("demonstrations", sizes["demonstrations"]),
        prompts=rows("prompts", sizes["prompts"]),
        validation=rows("validation", sizes["validation"]),
        held_out=rows("held out", sizes["validation"], held_out=True),
    )


def pretraining_texts(num_texts: int, *, seed: int = 0) -> list[str]:
    """Raw web text of the world: posts of all frames, followed by what strangers write after `TL;DR:`."""
    world = World()
    frames = world.lexicon.frames
    texts = []
    for index in range(num_texts):
        rng = random.Random(f"{seed}/pretraining/{index}")
        post = world.post(rng, frames)
        texts.append(post.query + completion_text(world.web_text(rng, post)))
    return texts


def _real(name: str, train: Dataset, validation: Dataset) -> TLDR:
    train, validation = demonstrations_of(train, source=name), demonstrations_of(validation, source=name)
    return TLDR(name=name, demonstrations=train, prompts=train, validation=validation)


def load_comparisons(source: str, *, split: str = "train") -> Dataset:
    """Comparisons as `prompt`, `chosen`, `rejected`, from a file or the Hub.

    Args:
        source: A file, or an id such as `trl-lib/tldr-preference`, `CarperAI/openai_summarize_comparisons` or
            `openai/summarize_from_feedback` (read from the Hub's Parquet conversion: its own loader is a script).
        split: Which split, where the source has several.

    Raises:
        ValueError: A file that is missing or empty, a missing column, a choice that is not 0 or 1, no network.
    """
    splits = _read(source)
    if split not in splits:
        raise ValueError(f"{source} has no split {split!r}; it has {', '.join(splits)}.")
    return comparisons_of(splits[split], source=source)


def _read(source: str) -> dict[str, Dataset]:
    path = Path(source)
    if path.suffix in _FORMATS:
        if not path.is_file():
            raise ValueError(f"the file {source} does not exist; check the path.")
        return {"train": _local(path)}
    try:
        if source == _OPENAI:
            pattern = f"hf://datasets/{_OPENAI}@refs/convert/parquet/comparisons/{{}}/*.parquet"
            files = {split: pattern.format(split) for split in ("train", "validation")}
            return dict(load_dataset("parquet", data_files=files))  # type: ignore[arg-type]
        return dict(load_dataset(source))  # type: ignore[arg-type]
    except Exception as error:  # the Hub's client has a dozen errors for "not reached"
        raise ValueError(
            f"{source!r} is neither 'world', nor a file ({', '.join(_FORMATS)}), nor could it be loaded from the Hub "
            f"({type(error).__name__}); check the id and the network, or give a local file."
        ) from error


def _local(path: Path) -> Dataset:
    if path.stat().st_size == 0:
        raise ValueError(f"the file {path} is empty; give at least one row.")
    try:
        return load_dataset(_FORMATS[path.suffix], data_files=str(path), split="train")  # type: ignore[return-value]
    except Exception as error:
        raise ValueError(f"{path} could not be read as {path.suffix[1:].upper()} ({type(error).__name__}).") from error


def _as_dataset(rows: Dataset | Sequence[Any]) -> Dataset:
    """A dataset as it is; a list of records or of dicts as one."""
    if isinstance(rows, Dataset):
        return rows
    return Dataset.from_list([row if isinstance(row, dict) else row.to_dict() for row in rows])


def column(rows: Dataset, name: str, source: str = "the dataset") -> list[Any]:
    """A column's values.

    Raises:
        ValueError: There is no such column, or no rows.
    """
    if name not in rows.column_names:
        raise ValueError(f"{source} has no column {name!r}; it has {', '.join(rows.column_names) or 'none'}.")
    if len(rows) == 0:
        raise ValueError(f"{source} is empty; give at least one row.")
    return list(rows[name])


def demonstrations_of(rows: Dataset | Sequence[Any], source: str = "the dataset") -> Dataset:
    """Rows as `prompt` and `completion`, checked; other columns stay.

    Raises:
        ValueError: A missing column, no rows, an empty post or summary (the row is named).
    """
    rows = _as_dataset(rows)
    names = rows.column_names
    if "prompt" not in names:
        _require(rows, ("subreddit", "title", "post", "summary"), source)
        return _mapped(rows, source, _from_post)
    target = next((name for name in ("completion", "label", "summary") if name in names), "completion")
    column(rows, target, source)
    return _mapped(rows, source, lambda row: _checked_demonstration(row["prompt"], row[target]))


def _from_post(row: Mapping[str, Any]) -> dict[str, str]:
    require_text(row["post"], "post")
    query = QUERY_TEMPLATE.format(**{name: row[name] for name in ("subreddit", "title", "post")})
    return _checked_demonstration(query, row["summary"])


def _checked_demonstration(prompt: Any, completion: Any) -> dict[str, str]:
    require_text(completion, "summary")
    return Demonstration(prompt=prompt, completion=completion_text(completion)).to_dict()


def comparisons_of(rows: Dataset | Sequence[Any], source: str = "the dataset") -> Dataset:
    """Rows as `prompt`, `chosen` and `rejected`, checked; OpenAI's schema is turned into this one.

    Raises:
        ValueError: A missing column, no rows, an empty text, identical answers (the row is named).
    """
    rows = _as_dataset(rows)
    if {"info", "summaries", "choice"} <= set(rows.column_names):
        return _mapped(rows, source, _from_openai, keep=False)
    _require(rows, ("prompt", "chosen", "rejected"), source)

    def checked(row: Mapping[str, Any]) -> dict[str, Any]:
        known = {name: row[name] for name in ("prompt", "labeler", "confidence") if name in row}
        for name in ("chosen", "rejected"):
            known[name] = completion_text(require_text(row[name], name))
        return Comparison(**known).to_dict()

    return _mapped(rows, source, checked)


def _from_openai(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["choice"] not in (0, 1):
        raise ValueError(f"choice must be 0 or 1, not {row['choice']!r}.")
    info = row["info"]
    texts = [completion_text(require_text(summary["text"], "summary")) for summary in row["summaries"]]
    # The 9-point scale: 1 to 4 favor the first, 5 is undecided, 6 to 9 the second.
    confidence = (row.get("extra") or {}).get("confidence")
    if confidence is not None and confidence not in range(1, 10):
        raise ValueError(f"confidence must be 1 to 9, not {confidence!r}.")
    post = Prompt(
        subreddit=info["subreddit"] or "", title=info["title"] or "", post=info["post"] or info["article"] or ""
    )
    return Comparison(
        prompt=post.query,
        chosen=texts[row["choice"]],
        rejected=texts[1 - row["choice"]],
        labeler=row.get("worker") or "",
        confidence=abs(confidence - 5) if confidence is not None else 0,
    ).to_dict()


def _mapped(
    rows: Dataset, source: str, change: Callable[[Mapping[str, Any]], dict[str, Any]], *, keep: bool = True
) -> Dataset:
    def numbered(row: Mapping[str, Any], index: int) -> dict[str, Any]:
        try:
            return change(row)
        except ValueError as error:
            raise ValueError(f"row {index} of {source}: {error}") from error

    # No fingerprint: the rows are small, and a cache would hide edits of the code.
    columns = None if keep else rows.column_names
    return rows.map(numbered, with_indices=True, remove_columns=columns, load_from_cache_file=False)


def _require(rows: Dataset, names: Sequence[str], source: str) -> None:
    for name in names:
        column(rows, name, source)


def prompts_of(prompts: Dataset | Sequence[Any]) -> list[str]:
    """The texts of `prompts`: a dataset's `prompt` column, records, or texts as they are.

    Raises:
        ValueError: No prompts, no such column, or an empty prompt.
    """
    if isinstance(prompts, Dataset):
        texts = column(prompts, "prompt", "the prompts")
    else:
        texts = [prompt.query if isinstance(prompt, Prompt) else prompt for prompt in prompts]
    if not texts:
        raise ValueError("there are no prompts; give at least one.")
    return [require_text(text, "prompt") for text in texts]
