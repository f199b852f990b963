"""The same rows from the embedded world, from a local file, or from the Hub.

Rows have TRL's columns: `prompt`, `completion`; `prompt`, `chosen`, `rejected`. Completions start with a space.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, load_dataset
from datasets.fingerprint import generate_random_fingerprint
from pyarrow import parquet

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.world import World
from rlhf_lab.records import (
    Comparison,
    Demonstration,
    Prompt,
    check_scale,
    require_chosen_prob,
    require_group,
    require_text,
)

WORLD_SIZES = {
    "tiny": {"demonstrations": 256, "prompts": 256, "validation": 64},
    "laptop": {"demonstrations": 4000, "prompts": 8000, "validation": 512},
    "gpu": {"demonstrations": 100_000, "prompts": 100_000, "validation": 2000},
}
"""Posts of each split of the embedded world."""
_TYPES: dict[Any, str] = {str: "string", int: "int64", float: "float64"}
_FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_alike = partial(get_close_matches, n=1, cutoff=0.7)  # `promt` is like `prompt`, `post` is not.
_OPENAI = "openai/summarize_from_feedback"
_POSTS = ("subreddit", "title", "post", "summary")
_DEMONSTRATIONS = (("prompt", "completion"), ("prompt", "label"), ("prompt", "summary"), _POSTS)
_COMPARISONS = (("prompt", "chosen", "rejected"), ("info", "summaries", "choice"))


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
    train = demonstrations_of(_split(splits, "train", source), source)
    validation = splits.get("validation", splits.get("valid"))
    if validation is not None:
        validation = demonstrations_of(validation, f"{source} (validation)")
    elif len(train) < 2:
        raise ValueError(f"{source} has {len(train)} row(s); training and validation need at least 2.")
    else:
        rows = train.shuffle(seed=seed)
        num_validation = max(1, min(512, len(rows) // 10))
        train, validation = rows.select(range(num_validation, len(rows))), rows.select(range(num_validation))
    return TLDR(name=source, demonstrations=train, prompts=train, validation=validation)


def _world(sizes: dict[str, int], seed: int, long: bool) -> TLDR:
    world = World()

    def rows(split: str, num_posts: int, *, held_out: bool = False) -> Dataset:
        made = []
        for index, post in enumerate(world.posts(seed, split, num_posts, held_out=held_out, long=long)):
            summary = world.summary(random.Random(f"{seed}/{split}/{index}/summary"), post)
            made.append({"prompt": post.query, "completion": completion_text(summary), "subreddit": post.subreddit})
        return Dataset.from_list(made)

    splits = {split: rows(split, num_posts) for split, num_posts in sizes.items()}
    return TLDR(name="world", **splits, held_out=rows("held out", sizes["validation"], held_out=True))


def pretraining_texts(num_texts: int, *, seed: int = 0) -> list[str]:
    """Raw web text of the world: posts of all frames, followed by what strangers write after `TL;DR:`."""
    world = World()
    texts = []
    for index in range(num_texts):
        rng = random.Random(f"{seed}/pretraining/{index}")
        post = world.post(rng, world.lexicon.frames)
        texts.append(post.query + completion_text(world.web_text(rng, post)))
    return texts


def load_comparisons(source: str, *, split: str = "train") -> Dataset:
    """Comparisons as `prompt`, `chosen`, `rejected`, from a file or the Hub.

    The further fields of `Comparison` are read where the source has them.

    Args:
        source: A file, or an id such as `trl-lib/tldr-preference`, `CarperAI/openai_summarize_comparisons` or
            `openai/summarize_from_feedback` (read from the Hub's Parquet conversion: its own loader is a script).
        split: Which split, where the source has several.

    Raises:
        ValueError: `world`, a file that is missing or empty, a missing column, a wrong row (it is named), no network.
    """
    if source == "world":
        raise ValueError("the world's comparisons are not stored: simulated_labels(policy, prompts) makes them.")
    return comparisons_of(_split(_read(source), split, source), source=source)


def _split(splits: Mapping[str, Dataset], name: str, source: str) -> Dataset:
    if name not in splits:
        raise ValueError(f"{source} has no split {name!r}; it has {', '.join(splits)}.")
    return splits[name]


def _read(source: str) -> dict[str, Dataset]:
    path = Path(source)
    if path.suffix.lower() in _FORMATS:
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
    kind = _FORMATS[path.suffix.lower()]
    try:
        if _has_rows(path, kind):
            return load_dataset(kind, data_files=str(path), split="train")  # type: ignore[return-value]
    except Exception as error:
        raise ValueError(f"{path} could not be read as {path.suffix[1:].upper()} ({type(error).__name__}).") from error
    raise ValueError(f"the file {path} has no rows or is empty; give at least one row.")


def _has_rows(path: Path, kind: str) -> bool:
    """Whether a file has more than blank lines, a CSV's header or JSON's empty brackets."""
    if kind == "parquet":
        return path.stat().st_size > 0 and parquet.read_metadata(path).num_rows > 0
    with path.open("rb") as file:
        lines = list(islice(filter(bytes.strip, file), 2))
    start = b"".join(b"".join(lines)[:100].split())
    return len(lines) == 2 if kind == "csv" else start not in (b"", b"[]", b"{}")


def _as_dataset(rows: Dataset | Sequence[Any], source: str) -> Dataset:
    """A dataset as it is; a list of records or of dicts as one."""
    if len(rows) == 0:
        raise ValueError(f"{source} is empty; give at least one row.")
    if isinstance(rows, Dataset):
        return rows
    return Dataset.from_list([row if isinstance(row, dict) else row.to_dict() for row in rows])


def column(rows: Dataset, name: str, source: str = "the dataset") -> list[Any]:
    """A column's values.

    Raises:
        ValueError: There is no such column, or no rows.
    """
    _require([name], _as_dataset(rows, source).column_names, f"{source} has no column")
    return list(rows[name])


def _require(wanted: Sequence[str], names: Iterable[str], complaint: str) -> None:
    for name in wanted:
        if name not in names:
            hint = "".join(f"; did you mean {other}?" for other in _alike(name, names)) or "."
            raise ValueError(f"{complaint} {name!r}; it has {', '.join(names) or 'none'}{hint}")


def _schema(rows: Dataset, schemas: Sequence[Sequence[str]], source: str) -> Sequence[str]:
    """The schema that the rows have, or the ValueError about the one that is most like theirs."""
    names = rows.column_names

    def likeness(schema: Sequence[str]) -> float:
        return sum(1.0 if name in names else 0.9 * len(_alike(name, names)) for name in schema) / len(schema)

    schema = max(schemas, key=likeness)
    _require(schema, names, f"{source} has no column")
    return schema


def demonstrations_of(rows: Dataset | Sequence[Any], source: str = "the dataset") -> Dataset:
    """Rows as `prompt` and `completion`, checked; other columns stay. A null title or subreddit is an empty one.

    Raises:
        ValueError: A missing column, no rows, an empty post or summary (the row is named).
    """
    rows = _as_dataset(rows, source)
    schema = _schema(rows, _DEMONSTRATIONS, source)

    def demonstration(row: Mapping[str, Any]) -> Demonstration:
        prompt = _query(row) if schema == _POSTS else require_text(row["prompt"], "prompt")
        return Demonstration(prompt=prompt, completion=completion_text(require_text(row[schema[-1]], "summary")))

    return _mapped(rows, source, demonstration, Demonstration)


def _query(post: Mapping[str, Any]) -> str:
    known = {name: "" if post.get(name) is None else str(post[name]) for name in ("subreddit", "title")}
    return Prompt(**known, post=require_text(post["post"], "post")).query


def comparisons_of(rows: Dataset | Sequence[Any], source: str = "the dataset") -> Dataset:
    """Rows with the fields of `Comparison`, checked; OpenAI's schema is turned into this one.

    A null labeler is "", a null confidence 0: not asked. A null chosen_prob is 1, a plain label; a null group is "", a
    pair that stands alone. OpenAI's 9 points (1 to 4 favor the first summary, 6 to 9 the second) are folded onto the
    chosen side. 5, undecided, goes with either choice and becomes 1, barely: 0 would say that nobody was asked.

    Raises:
        ValueError: A missing column, no rows, or a row that says nothing or contradicts itself (it is named).
    """
    rows = _as_dataset(rows, source)
    is_openai = "info" in _schema(rows, _COMPARISONS, source)
    return _mapped(rows, source, _from_openai if is_openai else _comparison, Comparison, keep=not is_openai)


def _comparison(row: Mapping[str, Any]) -> Comparison:
    prompt = require_text(row["prompt"], "prompt")
    answers = {name: completion_text(require_text(row[name], name)) for name in ("chosen", "rejected")}
    labeler = "" if row.get("labeler") is None else str(row["labeler"])
    confidence = row.get("confidence") or 0
    confidence = int(confidence) if confidence in range(5) else confidence  # A CSV column with gaps holds 4.0.
    prob = require_chosen_prob(1.0 if row.get("chosen_prob") is None else row["chosen_prob"])
    group = "" if row.get("group") is None else row["group"]
    if type(group) in (int, float) and group % 1 == 0:
        group = str(int(group))  # A CSV's groups 1, 2, 3 are numbers, and 1.0, 2.0, 3.0 if the column has gaps.
    known = {"labeler": labeler, "confidence": confidence, "chosen_prob": prob, "group": require_group(group)}
    return Comparison(prompt=prompt, **answers, **known)


def _from_openai(row: Mapping[str, Any]) -> Comparison:
    info, summaries, choice = row["info"] or {}, row["summaries"] or [], row["choice"]
    if choice not in (0, 1):
        raise ValueError(f"choice must be 0 or 1, not {choice!r}.")
    if len(summaries) != 2:
        raise ValueError(f"a choice needs two summaries, not {len(summaries)}; mend or remove the row.")
    texts = [require_text((summary or {}).get("text"), "summary") for summary in summaries]
    article = info.get("article")  # News have no subreddit.
    _require([] if article else ["subreddit", "title", "post"], info, "info has no field")
    prompt = _query({**info, "post": info.get("post") or article})
    confidence = _folded((row.get("extra") or {}).get("confidence"))
    known = {"prompt": prompt, "labeler": row.get("worker"), "confidence": confidence}
    return _comparison({**known, "chosen": texts[choice], "rejected": texts[1 - choice]})


def _folded(confidence: Any) -> int:
    if confidence not in (None, *range(1, 10)):
        raise ValueError(f"confidence must be 1 to 9, not {confidence!r}.")
    return 0 if confidence is None else max(1, abs(int(confidence) - 5))


def _mapped(rows: Dataset, source: str, change: Callable[..., Any], record: type, *, keep: bool = True) -> Dataset:
    def numbered(row: Mapping[str, Any], index: int) -> dict[str, Any]:
        try:
            return change(row).to_dict()
        except ValueError as error:
            raise ValueError(f"row {index} of {source}: {error}") from error

    types = {field.name: Value(_TYPES[field.type]) for field in fields(record)}
    features, removed = Features({**rows.features, **types} if keep else types), None if keep else rows.column_names
    # A fingerprint of its own: to hash functions that type checks wrap is slow, and a cache would hide edits of them.
    options: dict[str, Any] = {"keep_in_memory": True, "new_fingerprint": generate_random_fingerprint()}
    return rows.map(numbered, with_indices=True, features=features, remove_columns=removed, **options)


def prompts_of(prompts: Dataset | Sequence[Any]) -> list[str]:
    """The texts of `prompts`: a dataset's `prompt` column, records, or texts as they are.

    Raises:
        ValueError: No prompts, no such column, or an empty prompt.
    """
    if len(prompts) == 0:
        raise ValueError("there are no prompts; give at least one.")
    if isinstance(prompts, Dataset):
        prompts = column(prompts, "prompt", "the prompts")
    return [require_text(prompt.query if isinstance(prompt, Prompt) else prompt, "prompt") for prompt in prompts]
