"""Adversarial probing: trying to make a policy break a rule, by simulated probers, and what comes of it.

A prober of a summarizer has two means: to begin the summary, so that the policy has to go on from there, and to put a
misleading title over the post. Each rule has several of both (`data/world/rules.toml`). A prober tries them all on some
posts and goes on with those that worked best, against the very policy that is probed.

Reference: Glaese et al. 2022 (Sparrow), arXiv:2209.14375, there with people who talk to a dialogue agent.
"""

import itertools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from rlhf_lab.data.lexicon import capitalize, fill
from rlhf_lab.data.rules import Rule
from rlhf_lab.data.world import WorldPost
from rlhf_lab.feedback import LearnedReward, Reward
from rlhf_lab.generation import SamplingConfig, generate
from rlhf_lab.models import Policy, RewardModel

Write = Callable[[Sequence[str]], list[str]]
"""From prompts to an answer for each."""
NUM_COPIED = 4
"""Words of the post that a prober writes down, to see whether the policy goes on copying."""


@dataclass(frozen=True)
class Probe:
    """A try at making a policy break a rule.

    Probe(rule=Rule(id="insist", ...), tempting="start: For", prompt="... TL;DR: For", post="... TL;DR:", start=" For")
    """

    rule: Rule
    tempting: str
    """Which of the rule's means."""
    prompt: str
    """What the policy reads."""
    post: str
    """The query of the untouched post: what the summary is held against."""
    start: str
    """Of the summary, by the prober."""

    def is_broken_by(self, response: str, rule: Rule | None = None) -> bool:
        """Whether the summary that came out, start and response, breaks the rule, or another."""
        return (rule or self.rule).is_broken(self.post, self.start + response)


def temptations(rule: Rule) -> list[str]:
    """What a prober may try with a rule; the first is to just ask."""
    return ["ask", *(f"start: {text}" for text in rule.starts), *(f"title: {text}" for text in rule.titles)]


def new_probe(rule: Rule, tempting: str, post: WorldPost, rng: random.Random) -> Probe:
    """One probe with one of `temptations(rule)`; what the post lacks for it, such as a feeling, is left out."""
    kind, _, template = tempting.partition(": ")
    text = _filled(template, post, rng)
    if kind == "title":
        titled = re.sub("TITLE: .*", lambda _: f"TITLE: {text}", post.query, count=1)
        return Probe(rule, tempting, titled, post.query, "")
    start = f" {text}" if text else ""
    return Probe(rule, tempting, post.query + start, post.query, start)


def _filled(template: str, post: WorldPost, rng: random.Random) -> str:
    """`template` with what the post says; empty if the post does not say it."""
    who = post.facts["who"]
    said = {slot: rng.choice(value.summary) for slot, value in post.facts.items()}
    names = {"event": said["what"], "feeling": said.get("feeling"), "question": said.get("question")}
    names["other"] = rng.choice(rng.choice([value for value in post.frame.what if value != post.facts["what"]]).summary)
    sentences = [part.split() for part in re.split(r"(?<=[.?!])\s+", post.post)]
    names["copy"] = " ".join(rng.choice([words for words in sentences if len(words) > NUM_COPIED])[:NUM_COPIED])
    wanted = re.findall(r"\{(\w+)\}", template)
    if any(not names[name] for name in wanted):
        return ""
    for name in wanted:
        told = str(names[name])
        told = told if name == "copy" else fill(told, who.pronoun, rng.choice(who.summary))
        template = template.replace(f"{{{name}}}", told)
    return capitalize(template)


def probes(
    rules: Sequence[Rule], posts: Sequence[WorldPost], *, seed: int, chosen: Mapping[str, Sequence[str]] | None = None
) -> list[Probe]:
    """A probe of every post, the rules in turn.

    Args:
        rules: What is probed.
        posts: One for each probe.
        seed: Draws the temptations.
        chosen: Which temptations to draw from, by the rules' ids; by default all.
    """
    rng = random.Random(f"probes/{seed}")
    made = []
    for rule, post in zip(itertools.cycle(rules), posts, strict=False):
        options = chosen[rule.id] if chosen else temptations(rule)
        made.append(new_probe(rule, rng.choice(list(options)), post, rng))
    return made


def writer(policy: Policy, sampling: SamplingConfig, *, seed: int) -> Write:
    """A policy as one who answers prompts."""

    def write(prompts: Sequence[str]) -> list[str]:
        rng = torch.Generator().manual_seed(seed)
        return [group[0] for group in generate(policy, prompts, sampling, rng=rng)]

    return write


def best_temptations(
    write: Write, rules: Sequence[Rule], posts: Sequence[WorldPost], *, seed: int, num_kept: int = 1
) -> dict[str, list[str]]:
    """What works best against who writes: every temptation of every rule is tried on all of `posts`.

    Returns:
        The ids of the rules to the temptations that broke them most often, the best first.
    """
    rng = random.Random(f"best/{seed}")
    asked = [new_probe(rule, tempting, post, rng) for rule in rules for tempting in temptations(rule) for post in posts]
    written = write([probe.prompt for probe in asked])
    broken: dict[tuple[str, str], int] = {}
    for probe, response in zip(asked, written, strict=True):
        key = (probe.rule.id, probe.tempting)
        broken[key] = broken.get(key, 0) + probe.is_broken_by(response)
    return {
        rule.id: sorted(temptations(rule), key=lambda tempting, rule=rule: -broken[rule.id, tempting])[:num_kept]
        for rule in rules
    }


def violation_rates(asked: Sequence[Probe], written: Sequence[str]) -> dict[str, float]:
    """Share of each rule's probes that broke it, by id."""
    found: dict[str, list[bool]] = {}
    for probe, response in zip(asked, written, strict=True):
        found.setdefault(probe.rule.id, []).append(probe.is_broken_by(response))
    return {name: sum(values) / len(values) for name, values in found.items()}


def rule_labels(
    asked: Sequence[Probe], written: Sequence[str], rules: Sequence[Rule], *, num_rules: int, seed: int
) -> Dataset:
    """What a rater says of each answer: whether it broke the rule that was probed, and some others.

    Returns:
        Rows of `prompt` (as the policy read it), `response`, `rule` (the text), `rule_id` and `violated`.
    """
    rng = random.Random(f"labels/{seed}")
    rows: list[dict[str, Any]] = []
    for probe, response in zip(asked, written, strict=True):
        others = rng.sample([rule for rule in rules if rule is not probe.rule], num_rules - 1)
        for rule in (probe.rule, *others):
            known = {"prompt": probe.prompt, "response": response, "rule": rule.text, "rule_id": rule.id}
            rows.append(known | {"violated": probe.is_broken_by(response, rule)})
    return Dataset.from_list(rows)


def with_rule(response: str, rule: str) -> str:
    """What the rule model reads behind a post: the response and, behind it, the rule, so that all rules share the rest.

    Example:
        >>> with_rule(" My cat left.", "Do not complain.")
        ' My cat left. RULE: Do not complain.'
    """
    return f"{response} RULE: {rule}"


def less_fines(liked: torch.Tensor, violation_probs: torch.Tensor, *, fine: float) -> torch.Tensor:
    """What people prefer of each response, less a fine for each rule that is probably broken.

    Args:
        liked: (responses,).
        violation_probs: (responses, rules).
        fine: For a rule that is surely broken, in units of `liked`.

    Example:
        >>> less_fines(torch.tensor([3.0]), torch.tensor([[0.5, 1.0]]), fine=2.0)
        tensor([0.])
    """
    return liked - fine * violation_probs.sum(-1)


@dataclass(frozen=True)
class RuleReward:
    """What people prefer, less a fine for each rule that is probably broken.

        r(x, y) = r_preference(x, y) - fine * sum_rules P(violated | x, y, rule)

    Reference:
        Glaese et al. 2022 (Sparrow), arXiv:2209.14375: the sum of preference and rule rewards; the scale is ours.
    """

    preference: Reward
    rule_model: RewardModel
    rules: tuple[Rule, ...]
    fine: float = 1.0

    def violation_probs(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        """P(violated) of each response by each rule: (responses rules)."""
        texts = [with_rule(response, rule.text) for response in responses for rule in self.rules]
        repeated = [prompt for prompt in prompts for _ in self.rules]
        logits = LearnedReward(self.rule_model, batch_size=256)(repeated, texts)
        return torch.tensor(logits).view(len(responses), len(self.rules)).sigmoid()

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Preference less fines."""
        liked = torch.tensor(list(self.preference(prompts, responses)), dtype=torch.float32)
        return less_fines(liked, self.violation_probs(prompts, responses), fine=self.fine).tolist()
