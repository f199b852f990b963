"""What people preferred, as batch elements: a prompt, its distinct answers, and the label of each pair of them.

Shared by the stages that learn from comparisons. They differ in what a score is: a reward model's head, or in DPO how
much likelier the policy makes an answer than its reference does.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_lab.data.batching import Candidates, encode_candidates
from rlhf_lab.data.datasets import column
from rlhf_lab.equations.preference import bradley_terry_loss, pairwise_loss
from rlhf_lab.runs import Run


@dataclass(frozen=True)
class LabeledCandidates(Candidates):
    """Prompts with K answers each, and the label of each pair: `is_pair[0, 2, 1]` says that 2 was chosen over 1."""

    chosen_prob: Float[Tensor, "batch candidates candidates"]
    """How sure it is that the chosen answer (down) is better than the rejected one (across); read at pairs only."""
    is_pair: Bool[Tensor, "batch candidates candidates"]

    def smoothed(self, epsilon: float) -> "LabeledCandidates":
        """The same pairs, a share `epsilon` of their labels taken to be wrong: (1 - epsilon) q + epsilon (1 - q)."""
        return replace(self, chosen_prob=self.chosen_prob.lerp(1 - self.chosen_prob, epsilon))


@dataclass(frozen=True)
class Ranking:
    """A batch element: a prompt, its distinct answers, and (chosen, rejected, chosen_prob) of each labeled pair."""

    prompt: str
    answers: list[str]
    pairs: list[tuple[int, int, float]]


def ranking_rows(prompts: Sequence[str], answers: Sequence[Sequence[str]], ranks: Sequence[Sequence[int]]) -> Dataset:
    """Rankings as comparisons: all K (K - 1) / 2 pairs of a prompt's answers, in one group.

    Args:
        prompts: What was answered.
        answers: The K answers of each, which may be 2 of one prompt and 9 of another.
        ranks: Their places, 1 the best, as `Population.rank` gives them.

    Raises:
        ValueError: A ranking with an answer that is repeated or missing, or not as many rankings as prompts.

    Example:
        >>> rows = ranking_rows(["Post"], [[" A", " B", " C"]], [[2, 3, 1]])
        >>> list(zip(rows["chosen"], rows["rejected"]))
        [(' C', ' A'), (' C', ' B'), (' A', ' B')]
    """
    if not len(prompts) == len(answers) == len(ranks):
        raise ValueError(
            f"each prompt needs its answers and their ranks; there are {len(prompts)} prompts, {len(answers)} groups "
            f"of answers and {len(ranks)} rankings."
        )
    rows = []
    for index, (prompt, texts, places) in enumerate(zip(prompts, answers, ranks, strict=True)):
        if sorted(places) != list(range(1, len(texts) + 1)) or len({text.strip() for text in texts}) < len(texts):
            raise ValueError(
                f"ranking {index} has a repeated or missing answer: it gives {len(texts)} answers "
                f"({len({text.strip() for text in texts})} of them distinct) the ranks {list(places)}; give distinct "
                f"answers the ranks 1 to {len(texts)}, each once."
            )
        best_first = [text for _, text in sorted(zip(places, texts, strict=True))]
        pairs = itertools.combinations(best_first, 2)
        rows += [{"prompt": prompt, "chosen": a, "rejected": b, "group": f"ranking {index}"} for a, b in pairs]
    return Dataset.from_list(rows)


def rankings_of(comparisons: Dataset) -> list[Ranking]:
    """An element for each group and for each row without one, in the order in which they first appear."""
    texts = zip(*(column(comparisons, name) for name in ("prompt", "chosen", "rejected")), strict=True)
    probs, groups = column(comparisons, "chosen_prob"), column(comparisons, "group")
    elements: dict[str | int, Ranking] = {}
    for index, ((prompt, chosen, rejected), prob, group) in enumerate(zip(texts, probs, groups, strict=True)):
        element = elements.setdefault(group or index, Ranking(prompt, [], []))
        if prompt != element.prompt:
            raise ValueError(
                f"row {index} of the dataset: group {group!r} has rows of two prompts ({element.prompt!r:.60} and "
                f"{prompt!r:.60}); a group is a ranking of one prompt's answers: give each prompt a group of its own."
            )
        answers = element.answers
        answers += [text for text in (chosen, rejected) if text not in answers]
        pair = (answers.index(chosen), answers.index(rejected))
        if any(set(pair) == {*known[:2]} for known in element.pairs):
            raise ValueError(
                f"row {index} of the dataset: group {group!r} compares the same two answers twice ({chosen!r:.60} and "
                f"{rejected!r:.60}); a ranking has each pair once: drop one of the rows, or give each labeler a group."
            )
        element.pairs.append((*pair, prob))
    return list(elements.values())


def encode_rankings(
    tokenizer: PreTrainedTokenizerBase, rankings: Sequence[Ranking], *, max_prompt_tokens: int, max_response_tokens: int
) -> LabeledCandidates:
    """The rankings' answers as tokens, each once, with the labels of their pairs."""
    candidates = encode_candidates(
        tokenizer,
        [ranking.prompt for ranking in rankings],
        [ranking.answers for ranking in rankings],
        max_prompt_tokens=max_prompt_tokens,
        max_response_tokens=max_response_tokens,
    )
    count = candidates.responses.shape[1]
    chosen_prob = torch.ones(len(rankings), count, count)
    is_pair = torch.zeros(len(rankings), count, count, dtype=torch.bool)
    for row, ranking in enumerate(rankings):
        for chosen, rejected, prob in ranking.pairs:
            chosen_prob[row, chosen, rejected] = prob
            is_pair[row, chosen, rejected] = True
    return LabeledCandidates(**vars(candidates), chosen_prob=chosen_prob, is_pair=is_pair)


def element_losses(
    pair_loss: Callable[..., Tensor], scores: Float[Tensor, "batch candidates"], part: LabeledCandidates
) -> Float[Tensor, " batch"]:
    """Loss of each element, the mean over its pairs.

    Args:
        pair_loss: The loss of a pair, from `(chosen_scores, rejected_scores)`; a soft label weighs both choices.
        scores: What is compared: a reward, or what plays its part.
        part: The labels.
    """
    if pair_loss is bradley_terry_loss:
        return pairwise_loss(scores, part.chosen_prob, part.is_pair)
    # Only what was compared: a plain label may be read without the loss of the choice that nobody made.
    row, chosen, rejected = part.is_pair.nonzero(as_tuple=True)
    better, worse, prob = scores[row, chosen], scores[row, rejected], part.chosen_prob[part.is_pair]
    losses = prob * pair_loss(better, worse)
    is_soft = prob < 1
    if bool(is_soft.any()):
        reversed_losses = pair_loss(worse[is_soft], better[is_soft])
        losses = losses.index_add(0, is_soft.nonzero()[:, 0], (1 - prob[is_soft]) * reversed_losses)
    return losses.new_zeros(len(scores)).index_add(0, row, losses) / part.is_pair.sum((1, 2)).clamp(min=1)


def agreement(
    run: Run, scores: Float[Tensor, "batch candidates"], batch: LabeledCandidates, stage: str
) -> dict[str, float]:
    """Accuracy and mean margin over the pairs of all processes that are no ties; NaN if there are none."""
    is_decided = batch.is_pair & (batch.chosen_prob > 0.5)
    margins = (scores.unsqueeze(2) - scores.unsqueeze(1))[is_decided]
    # Sums, because processes whose largest groups differ have scores of different shapes.
    sums = torch.stack([(margins > 0).float().sum(), margins.sum(), is_decided.float().sum()])
    right, total, count = run.accelerator.reduce(sums, reduction="sum")  # type: ignore[misc]
    return {f"{stage}/accuracy": (right / count).item(), f"{stage}/margin": (total / count).item()}
