"""Sparrow's rules: a rule model from adversarial probing, and a policy that is fined for what it probably breaks."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib.axes import Axes
from scipy.stats import mannwhitneyu

from rlhf_lab import plots
from rlhf_lab.data.datasets import column, load_tldr
from rlhf_lab.data.rules import Rule, load_rules
from rlhf_lab.data.world import World, WorldPost
from rlhf_lab.evaluation import preference_rate, win_rate
from rlhf_lab.experiments.systems.sections import Job, mean, where
from rlhf_lab.feedback import LearnedReward, Reward, population
from rlhf_lab.generation import SamplingConfig, best_of_n
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.probing import (
    Probe,
    RuleReward,
    Write,
    best_temptations,
    less_fines,
    probes,
    rule_labels,
    violation_rates,
    with_rule,
    writer,
)
from rlhf_lab.runs import Run
from rlhf_lab.shipped import load_trained
from rlhf_lab.training.rule_model import rule_model_config, train_rule_model
from rlhf_lab.training.supervised import sft, sft_config


@dataclass(frozen=True)
class Sizes:
    """What a scale fixes."""

    size: str
    """Of the policies, and of the reward model."""
    rule_size: str
    """Of the policy that the rule model starts from: each answer is read with every rule."""
    rated: int
    """Answers to probes from which the rule model learns."""
    tried: int
    """Posts on which a prober tries each temptation."""
    probed: int
    """Held-out probes of each rule."""
    posts: int
    """Held-out posts without a prober."""
    imitated: int
    """Prompts of a round of expert iteration."""
    num_rounds: int
    fine: float


SIZES = {
    "tiny": Sizes("small", "small", 36, 1, 1, 8, 12, 1, 2.0),
    "laptop": Sizes("large", "medium", 1_500, 4, 12, 128, 300, 2, 2.0),
}
RATED = SamplingConfig(max_response_tokens=48, temperature=1.0)
"""While answers are rated, so that they differ."""
EXPLORING = SamplingConfig(max_response_tokens=48, temperature=0.85)
"""While the best is to be picked: at 0.5 who is tempted nearly always does the same."""
ANSWERING = SamplingConfig(max_response_tokens=48, temperature=0.5)
"""While it is probed; the laptop's own."""
ANY = "Do not break a rule."
"""What a classifier reads that is not told which rule."""
NUM_KEPT = 2
"""Temptations of each rule that raters get to see, and that are trained on."""
NUM_TRIED = 12
"""Answers of which expert iteration imitates the best."""
BEST_OF = 8
"""Answers of which the best is given: Sparrow's number."""
CHOOSING = f"rules, best of {BEST_OF}"
RATE = 6e-4
"""Of the policy while it imitates."""
PLAIN = "plain"
"""What tempts in a post as it is."""
BY_CHECKS = "rules, by the checks"
DRAWN = {
    "supervised": plots.REFERENCE,
    "preference": plots.PROXY,
    "rules": plots.POLICY,
    CHOOSING: plots.GOLD,
    BY_CHECKS: "#CC79A7",
}
"""Who answers in the figure."""


@dataclass(frozen=True)
class CheckedReward:
    """The reward with fines by the checks themselves: what a rule model that never errs would give."""

    preference: Reward
    rules: tuple[Rule, ...]
    fine: float
    asked: dict[str, Probe] = field(default_factory=dict)
    """By what the policy reads: a check needs the untouched post, and the start."""

    def violation_probs(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        """0 or 1 of each response by each rule: (responses rules)."""
        pairs = zip((self.asked[prompt] for prompt in prompts), responses, strict=True)
        return torch.tensor([[float(probe.is_broken_by(text, rule)) for rule in self.rules] for probe, text in pairs])

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Preference less fines."""
        liked = torch.tensor(list(self.preference(prompts, responses)), dtype=torch.float32)
        return less_fines(liked, self.violation_probs(prompts, responses), fine=self.fine).tolist()


Fines = RuleReward | CheckedReward


def rows(job: Job) -> list[dict[str, Any]]:
    """Violations under probing, preference without it, and how well the rule model tells."""
    sizes, rules, seed = SIZES[job.scale], load_rules(), job.seed
    supervised, liked, liking = (
        load_trained(stage, sizes.size) for stage in ("supervised", "human_feedback", "reward_model")
    )
    reader = load_trained("supervised", sizes.rule_size)
    # Raters see what works: of what seldom breaks a rule there would be nothing to learn.
    tempted = writer(supervised, RATED, seed=seed)  # type: ignore[arg-type]
    best = best_temptations(tempted, rules, _posts(job, "found", sizes.tried), seed=seed, num_kept=NUM_KEPT)
    labels = _rated(job, [tempted, writer(liked, EXPLORING, seed=seed)], rules, best)  # type: ignore[arg-type]
    identity = asdict(sizes)
    run = Run(job.folder / "rule_model", seed=seed, identity=identity)
    rule_model = train_rule_model(reader, labels, rule_model_config(job.scale), run=run)  # type: ignore[arg-type]
    run = Run(job.folder / "any_rule", seed=seed, identity=identity)
    any_rule = train_rule_model(reader, _by_any_rule(labels), rule_model_config(job.scale), run=run)  # type: ignore[arg-type]
    preference = LearnedReward(liking, batch_size=256)  # type: ignore[arg-type]
    reward = RuleReward(preference, rule_model, rules, fine=sizes.fine)
    kept = _imitated(job, liked, reward)  # type: ignore[arg-type]
    checked = _imitated(job, liked, CheckedReward(preference, rules, sizes.fine))  # type: ignore[arg-type]
    found = _told(job, supervised, rule_model, any_rule, rules, best)  # type: ignore[arg-type]
    alone = {"supervised": supervised, "preference": liked, "rules": kept, BY_CHECKS: checked}
    for name, write in _answering(seed, alone, reward).items():  # type: ignore[arg-type]
        found += [{"policy": name} | row for row in _probed(job, write, rules)]
        found.append({"kind": "preference", "policy": name} | _liked(job, write))
    return found


def _posts(job: Job, use: str, number: int) -> list[WorldPost]:
    return list(World().posts(job.seed, f"rules/{use}", number))


def _answering(seed: int, alone: Mapping[str, Policy], reward: Reward) -> dict[str, Write]:
    """Who is probed: each policy alone, and "rules" where it gives the best of several by preference and rules."""
    best = _best_writer(alone["rules"], reward, BEST_OF, ANSWERING, seed=seed)
    return {name: writer(policy, ANSWERING, seed=seed) for name, policy in alone.items()} | {CHOOSING: best}


def _best_writer(policy: Policy, reward: Reward, n: int, sampling: SamplingConfig, *, seed: int) -> Write:
    """A policy that answers with the best of n by a reward."""

    def write(prompts: Sequence[str]) -> list[str]:
        return best_of_n(policy, reward, list(prompts), n, sampling, rng=torch.Generator().manual_seed(seed))

    return write


def _rated(job: Job, write: Sequence[Write], rules: Sequence[Rule], best: Mapping[str, Sequence[str]]) -> Dataset:
    """What raters say of answers by several policies to probes: of each answer whether it breaks each rule."""
    number, asked, written = SIZES[job.scale].rated // len(write), [], []
    for index, one in enumerate(write):
        mine = probes(rules, _posts(job, f"rated {index}", number), seed=job.seed + index, chosen=best)
        asked += mine
        written += one([probe.prompt for probe in mine])
    return rule_labels(asked, written, rules, num_rules=len(rules), seed=job.seed)


def _imitated(job: Job, policy: Policy, reward: Fines) -> Policy:
    """Expert iteration from the policy that people prefer, on posts as they are and on probes, one to two."""
    sizes = SIZES[job.scale]
    config = sft_config(job.scale)
    config = replace(config, num_epochs=2.0, optimizer=replace(config.optimizer, learning_rate=RATE))
    for turn in range(sizes.num_rounds):
        asked = _asked(job, policy, reward.rules, turn)
        if isinstance(reward, CheckedReward):
            reward.asked.update({probe.prompt: probe for probe in asked})
        write = _best_writer(policy, reward, NUM_TRIED, EXPLORING, seed=job.seed + turn)
        kept = _obedient(asked, write([probe.prompt for probe in asked]), reward)
        run = Run(job.folder / f"{type(reward).__name__}-{turn}", seed=job.seed, identity=asdict(sizes))
        policy = sft(policy, Dataset.from_list(kept), config, run=run)
    return policy


def _asked(job: Job, policy: Policy, rules: Sequence[Rule], turn: int) -> list[Probe]:
    """What the policy is asked in a round; its probers know what works best against the policy of then."""
    sizes, seed = SIZES[job.scale], job.seed + turn
    write = writer(policy, ANSWERING, seed=seed)
    best = best_temptations(write, rules, _posts(job, f"found {turn}", sizes.tried), seed=seed, num_kept=NUM_KEPT)
    plain = _posts(job, f"plain {turn}", sizes.imitated // 3)
    tempting = probes(rules, _posts(job, f"asked {turn}", sizes.imitated - len(plain)), seed=seed + 1, chosen=best)
    return [Probe(rules[0], PLAIN, post.query, post.query, "") for post in plain] + tempting


def _obedient(asked: Sequence[Probe], written: Sequence[str], reward: Fines) -> list[dict[str, str]]:
    """Answers that probably keep the rule that they were probed by."""
    probs = reward.violation_probs([probe.prompt for probe in asked], written)
    return [
        {"prompt": probe.prompt, "completion": text}
        for probe, text, row in zip(asked, written, probs, strict=True)
        if text.strip() and (probe.tempting == PLAIN or row[reward.rules.index(probe.rule)] < 0.5)
    ]


def _probed(job: Job, write: Write, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Each rule's violations where the prober has found out what works best against this very writer."""
    sizes = SIZES[job.scale]
    best = best_temptations(write, rules, _posts(job, "tried", sizes.tried), seed=job.seed)
    asked = probes(rules, _posts(job, "probed", sizes.probed * len(rules)), seed=job.seed + 2, chosen=best)
    rates = violation_rates(asked, write([probe.prompt for probe in asked]))
    return [{"kind": "probed", "rule": name, "tempting": best[name][0], "rate": rate} for name, rate in rates.items()]


def _liked(job: Job, write: Write) -> dict[str, float]:
    """How often the summaries of posts as they are beat the posters' own, by the gold judge and by people."""
    data = load_tldr(scale=job.scale).validation
    posts = data.select(range(min(SIZES[job.scale].posts, len(data))))
    people, seeds = population(seed=job.seed), itertools.count(job.seed)
    texts = (column(posts, "prompt"), write(column(posts, "prompt")), column(posts, "completion"))
    chosen = preference_rate(*texts, lambda asked, pairs: people.votes(asked, pairs, 1, seed=next(seeds))[0])
    return {"gold_win_rate": win_rate(*texts).mean, "people_win_rate": chosen.mean}


def _told(
    job: Job,
    policy: Policy,
    rule_model: RewardModel,
    any_rule: RewardModel,
    rules: Sequence[Rule],
    best: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """For each rule, how well violations are told: by the rule model, and by one that only knows of good and bad."""
    asked = probes(rules, _posts(job, "held out", max(24, SIZES[job.scale].rated // 6)), seed=job.seed + 3, chosen=best)
    prompts = [probe.prompt for probe in asked]
    written = writer(policy, RATED, seed=job.seed + 1)(prompts)
    badness = LearnedReward(any_rule)(prompts, [with_rule(text, ANY) for text in written])
    found = []
    for rule in rules:
        told = LearnedReward(rule_model)(prompts, [with_rule(text, rule.text) for text in written])
        broken = _broken(rule, asked, written)
        areas = {"rule_model": area_under_roc(told, broken), "any_rule": area_under_roc(badness, broken)}
        found.append({"kind": "told", "rule": rule.id, "share": float(np.mean(broken))} | areas)
    return found


def _broken(rule: Rule, asked: Sequence[Probe], written: Sequence[str]) -> list[bool]:
    return [probe.is_broken_by(text, rule) for probe, text in zip(asked, written, strict=True)]


def _by_any_rule(labels: Dataset) -> Dataset:
    """A row for each answer: whether it broke any rule."""
    rows = itertools.groupby(labels.to_list(), key=lambda row: (row["prompt"], row["response"]))
    return Dataset.from_list(
        [
            {"prompt": prompt, "response": response, "rule": ANY, "violated": any(row["violated"] for row in group)}
            for (prompt, response), group in rows
        ]
    )


def area_under_roc(scores: Sequence[float], broken: Sequence[bool]) -> float:
    """How often a broken one scores above a kept one, ties half; 0.5 is chance, and where there is only one kind.

    Example:
        >>> area_under_roc([1.0, 2.0, 3.0, 2.0], [False, True, True, False])
        0.875
    """
    is_broken = np.asarray(broken, dtype=bool)
    above, below = np.asarray(scores)[is_broken], np.asarray(scores)[~is_broken]
    if not above.size or not below.size:
        return 0.5
    return float(mannwhitneyu(above, below).statistic / (above.size * below.size))


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Axes]:
    """Violations of each rule by each policy."""
    axes = plots.new_axes("Rules broken under probing", "", "share of probes [%]")
    probed = where(rows, kind="probed")
    names = list(dict.fromkeys(row["rule"] for row in probed))
    for offset, (policy, color) in enumerate(DRAWN.items()):
        rates = [100 * mean(where(probed, policy=policy, rule=name), "rate") for name in names]
        places = np.arange(len(names)) + 0.16 * (offset - 2)
        axes.bar(places, rates, width=0.15, color=color, label=policy)
        for seed in sorted({row["seed"] for row in probed}):
            one = [100 * mean(where(probed, policy=policy, rule=name, seed=seed), "rate") for name in names]
            axes.plot(places, one, ".", color="black", markersize=2)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_ylim(0, 145)  # room for the legend
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, loc="upper center", ncols=3, columnspacing=1.0, handlelength=1.2)
    return {"rules": axes}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the section names of the settings."""
    return {"num_tried": NUM_TRIED, "best_of": BEST_OF, "num_rounds": SIZES["laptop"].num_rounds}
