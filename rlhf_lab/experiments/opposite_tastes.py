"""What labels are worth: a reward model learns one person's taste from 200 labels, and two crowds teach two orders.

python -m rlhf_lab.experiments.opposite_tastes --out runs/tastes

Every label goes through a label store, as a real one would: simulated people are asked, answer, and their labels become
comparisons. The stores are kept, so the same command, run again, asks nobody twice.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro
from datasets import Dataset
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from rlhf_lab.data.batching import completion_text
from rlhf_lab.data.judge import words_of
from rlhf_lab.data.world import World
from rlhf_lab.evaluation import rate, wins
from rlhf_lab.feedback import LearnedReward, Population, Reward, population
from rlhf_lab.labeling.learning import comparison_rows
from rlhf_lab.labeling.people import simulated_people
from rlhf_lab.labeling.store import LabelStore
from rlhf_lab.models import load_base, new_reward_model
from rlhf_lab.plots import STYLE
from rlhf_lab.records import write_json
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import OptimizerConfig
from rlhf_lab.training.reward_model import RewardModelConfig, train_reward_model

CROWDS = ("brief", "thorough")
"""Values of the two crowds: they agree on no more pairs than a coin would."""
NUM_HEADS = 5
"""Reward models with a random head, for the accuracy before training."""
TRAINING = RewardModelConfig(
    num_epochs=2.0,
    batch_size=8,
    max_prompt_tokens=192,
    max_response_tokens=64,
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_fraction=0.05),
)


@dataclass(frozen=True, kw_only=True)
class TastesConfig:
    """Teach reward models the taste of one person, and of two crowds with opposite tastes."""

    out: str = "runs/tastes"
    """Folder of the stores, the numbers (results.json) and the figure (opposite_tastes.png)."""
    num_seeds: int = 3
    """Persons, and crowds of each taste; at least 2, as crowds of one taste are compared with each other too."""
    num_labels: int = 200
    """Labels by the one person."""
    crowd_labels: int = 250
    """Labels by each crowd of 20, one for each item."""
    held_out: int = 1000
    """Pairs that the person did not label, to measure the accuracy on."""
    num_posts: int = 150
    """Held-out posts whose answers the crowds' models rank."""
    num_answers: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.num_seeds < 2:
            raise ValueError(f"num_seeds must be 2 or more, to compare crowds of one taste, not {self.num_seeds}.")
        for name in ("num_labels", "crowd_labels", "held_out", "num_posts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}.")
        if self.num_answers < 2:
            raise ValueError(f"num_answers must be 2 or more, as there is nothing to rank, not {self.num_answers}.")


def opposite_tastes(config: TastesConfig | None = None) -> dict[str, Any]:
    """Run both parts, draw the figure and write the numbers, which are returned.

    Returns:
        `one_person`: a row a seed of the reward model's `accuracy` (with `low`, `high`, `n`) on the person's answers to
        other pairs; of `before`, that of models with a random head (the mean of several: a single one may be far from
        a half, as it may happen to like long summaries or short ones); of `longer`, how often they chose the longer
        one; of `taste`, the accuracy on what they like, noise apart, and `steadiness`, how often they choose that.
        `crowds`: a row a seed of `opposite`, Kendall's tau between the orders of the two crowds' models, and `same`, of
        two models whose crowds share their values; how often a model orders two answers as its `own` crowd likes them
        on average and as the `other` crowd does, and how often the two `crowds` like the same one.
        `places`: what share of the answers at each place by one model (down) is at each place by another (across).
    """
    config = config or TastesConfig()
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    people = [one_person(config, seed) for seed in range(config.num_seeds)]
    crowds, places = two_crowds(config)
    results = {"one_person": people, "crowds": crowds, "places": {key: grid.tolist() for key, grid in places.items()}}
    figure = plot_places(places, crowds)
    figure.savefig(folder / "opposite_tastes.png", dpi=160)
    plt.close(figure)
    write_json(folder / "results.json", results)
    return results


def answers(split: str, seed: int, num_posts: int, num_answers: int = 2) -> list[dict[str, Any]]:
    """Posts of the world, each with different summaries by as many people: rows of `prompt` and `answers`."""
    world, rows = World(), []
    for index, post in enumerate(world.posts(seed, f"tastes/{split}", num_posts)):
        rng, texts = random.Random(f"{seed}/tastes/{split}/{index}"), []
        while len(texts) < num_answers:
            text = completion_text(world.summary(rng, post))
            texts += [text] * (text not in texts)
        rows.append({"prompt": post.query, "answers": texts})
    return rows


def labels_of(path: Path, rows: Sequence[Mapping[str, Any]], people: Population, *, seed: int) -> Dataset:
    """Comparisons of the rows' answers by the people, through the store at `path`; each row is compared once."""
    store = LabelStore(path)
    store.add_items(rows)
    simulated_people(store, "compare", people, seed=seed)
    comparisons = comparison_rows(store.labels())
    store.close()
    return comparisons


def one_person(config: TastesConfig, seed: int) -> dict[str, Any]:
    """Accuracy of a reward model that learnt from one person, on the person's answers to pairs of other posts."""
    people = population(num_labelers=1, seed=seed)
    rows = answers("taught", seed, config.num_labels)
    taught = labels_of(Path(config.out) / f"person-{seed}.sqlite", rows, people, seed=seed)
    base = load_base("small")
    untaught = [new_reward_model(base, generator=Run(seed=seed + head).rng("head")) for head in range(NUM_HEADS)]
    model = train_reward_model(base, taught, TRAINING, run=Run(seed=seed))
    others = answers("held out", seed, config.held_out)
    held_out = people.compare([row["prompt"] for row in others], [tuple(row["answers"]) for row in others], seed=seed)
    prompts, chosen, rejected = (list(held_out[name]) for name in ("prompt", "chosen", "rejected"))
    right = _wins(LearnedReward(model), prompts, chosen, rejected)
    likes = np.subtract(*(people.utilities(prompts, texts)[0] for texts in (chosen, rejected)))
    longer = [[float(len(words_of(text))) for text in texts] for texts in (chosen, rejected)]
    return {
        "seed": seed,
        "before": float(np.mean([_wins(LearnedReward(head), prompts, chosen, rejected) for head in untaught])),
        "accuracy": float(right.mean()),
        **{name: value for name, value in rate(right).to_dict().items() if name != "mean"},
        "longer": float(wins(*longer).mean()),
        "taste": float(np.where(likes > 0, right, 1.0 - right)[likes != 0].mean()),
        "steadiness": float((likes > 0)[likes != 0].mean()),
    }


def _wins(reward: Reward, prompts: Sequence[str], chosen: Sequence[str], rejected: Sequence[str]) -> np.ndarray:
    return wins(reward(prompts, chosen), reward(prompts, rejected))


def two_crowds(config: TastesConfig) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """How two crowds' models order the same answers; the rows and the places of `opposite_tastes`."""
    rows = answers("ranked", 0, config.num_posts, config.num_answers)
    prompts = [row["prompt"] for row in rows for _ in row["answers"]]
    texts = [text for row in rows for text in row["answers"]]
    shape, base, seeds = (len(rows), config.num_answers), load_base("small"), range(config.num_seeds)
    scores: dict[tuple[str, int], np.ndarray] = {}
    liked: dict[tuple[str, int], np.ndarray] = {}
    for values, seed in itertools.product(CROWDS, seeds):
        people = population(values, seed=seed)
        asked = answers("crowd", seed, config.crowd_labels)
        comparisons = labels_of(Path(config.out) / f"{values}-{seed}.sqlite", asked, people, seed=seed)
        model = train_reward_model(base, comparisons, TRAINING, run=Run(seed=seed))
        scores[values, seed] = np.array(LearnedReward(model)(prompts, texts)).reshape(shape)
        liked[values, seed] = people.utilities(prompts, texts).mean(axis=0).reshape(shape)
    found, places = [], {"same": np.zeros((shape[1],) * 2), "opposite": np.zeros((shape[1],) * 2)}
    for seed in seeds:
        keys = [(values, seed) for values in CROWDS]
        same = [(key, (key[0], (seed + 1) % config.num_seeds)) for key in keys]
        pairs = {"same": same, "opposite": [(keys[0], keys[1])]}
        row: dict[str, Any] = {"seed": seed}
        for name, both in pairs.items():
            row[name] = float(np.mean([kendall_tau(scores[one], scores[other]) for one, other in both]))
            shared = [shared_places(scores[one], scores[other]) for one, other in both]
            places[name] += np.mean(shared, axis=0) / config.num_seeds
        row["own"] = _in_order([(scores[key], liked[key]) for key in keys])
        row["other"] = _in_order([(scores[key], liked[other]) for key, other in zip(keys, keys[::-1], strict=True)])
        row["crowds"] = _in_order([(liked[keys[0]], liked[keys[1]])])
        found.append(row)
    return found, places


def _in_order(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """How often two answers stand in the same order by both scores."""
    return 0.5 + 0.5 * float(np.mean([kendall_tau(*pair) for pair in pairs]))


def kendall_tau(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over rows of Kendall's tau-a: the share of pairs in the same order, minus that in the other.

    Example:
        >>> kendall_tau(np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 3.0, 2.0]]))  # Two pairs of three alike.
        0.3333333333333333
    """
    signs = [np.sign(values[:, :, None] - values[:, None, :]) for values in (one, other)]
    count = one.shape[1] * (one.shape[1] - 1)
    return float((signs[0] * signs[1]).sum(axis=(1, 2)).mean() / count)


def shared_places(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of answers that are at place i by the first scores and at place j by the second; each row sums to 1.

    Example:
        >>> shared_places(np.array([[3.0, 2.0]]), np.array([[0.0, 1.0]]))
        array([[0., 1.],
               [1., 0.]])
    """
    first, second = ((-values).argsort(axis=1).argsort(axis=1) for values in (one, other))
    grid = np.zeros((one.shape[1], one.shape[1]))
    np.add.at(grid, (first.ravel(), second.ravel()), 1.0)
    return grid / len(one)


def plot_places(places: Mapping[str, np.ndarray], crowds: Sequence[Mapping[str, Any]]) -> Figure:
    """Share of the answers at each place by one model that another puts at each place; a row sums to 100 %.

    Args:
        places: `same` and `opposite`, for models whose crowds share their values or not.
        crowds: A row a seed with their Kendall's tau.
    """
    titles = {"same": "two crowds of one taste", "opposite": f"a {CROWDS[0]} crowd and a {CROWDS[1]} one"}
    names = {
        "same": ("one model", "the other model"),
        "opposite": (f"the {CROWDS[0]} crowd's model", f"the {CROWDS[1]} crowd's model"),
    }
    highest, ticks = 100 * max(grid.max() for grid in places.values()), range(len(places["same"]))
    style: dict[Any, Any] = {**STYLE, "axes.grid": False}
    with matplotlib.rc_context(style):
        figure, panels = plt.subplots(1, 2, figsize=(7.4, 4.6), layout="constrained")
        for axes, (name, grid) in zip(panels, places.items(), strict=True):
            axes.imshow(100 * grid, cmap="Blues", vmin=0, vmax=highest)
            for row, column in itertools.product(ticks, ticks):
                share = 100 * grid[row, column]
                color = "white" if share > 0.6 * highest else "black"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=color)
            taus = [found[name] for found in crowds]
            spread = f" ({min(taus):.2f} to {max(taus):.2f})" if len(taus) > 1 else ""
            axes.set_title(f"{titles[name]}\n$\\tau$ = {np.mean(taus):.2f}{spread}", fontsize=10, fontweight="normal")
            axes.set_xticks(ticks, [_ordinal(place + 1) for place in ticks])
            axes.set_yticks(ticks, [_ordinal(place + 1) for place in ticks])
            axes.set_ylabel(f"place by {names[name][0]}")
            axes.set_xlabel(f"place by {names[name][1]}")
        figure.supxlabel("of each row's answers, the share at each of the other model's places [%]", fontsize=9)
        title = "Opposite tastes teach opposite orders of the same summaries"
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def _ordinal(place: int) -> str:
    return f"{place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(place, 'th') }"


def main(argv: Sequence[str] | None = None) -> None:
    """Run it, and say what came out."""
    config = tyro.cli(TastesConfig, args=argv)
    results = opposite_tastes(config)
    for row in results["one_person"]:
        shown = {name: round(value, 3) for name, value in row.items()}
        print(f"one person, {config.num_labels} labels: {shown}")  # noqa: T201
    for row in results["crowds"]:
        print(f"two crowds, {config.crowd_labels} labels each: { {k: round(v, 3) for k, v in row.items()} }")  # noqa: T201
    print(f"Figure: {Path(config.out) / 'opposite_tastes.png'}")  # noqa: T201


if __name__ == "__main__":
    main()
