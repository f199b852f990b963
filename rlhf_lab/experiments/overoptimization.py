"""The points of the over-optimization curves: how far a policy went, what its reward model says, and what is true."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from rlhf_lab.data.datasets import column
from rlhf_lab.feedback import LearnedReward, gold_judge, scores_of
from rlhf_lab.generation import generate
from rlhf_lab.models import Policy, RewardModel
from rlhf_lab.runs import Run
from rlhf_lab.training.ppo import PPOConfig

START_SAMPLES = 4
"""Of the supervised policy for each post, to know where a step's scores start."""


def start_scores(
    policy: Policy, reward_model: RewardModel, prompts: Dataset, config: PPOConfig, *, num_steps: int, run: Run
) -> list[dict[str, Any]]:
    """Mean proxy and gold of the supervised policy on the posts of each of PPO's steps: where that step starts.

    Posts differ more than steps do: a curve of plain means shows from step to step mostly which posts were drawn.

    Args:
        policy: The supervised policy.
        reward_model: The proxy.
        prompts: Those that PPO was given.
        config: PPO's settings.
        num_steps: PPO's steps.
        run: PPO's own run, or one of its seed: it draws each step's posts.

    Returns:
        Rows of `step`, `proxy`, `gold`.
    """
    texts = column(prompts, "prompt")
    steps = [run.batch_rows(step, len(texts), config.prompts_per_step) for step in range(num_steps)]
    asked = [texts[row] for rows in steps for row in rows]
    groups = generate(policy, asked, config.sampling, num_candidates=START_SAMPLES, rng=run.rng("start"))
    repeated = [prompt for prompt in asked for _ in range(START_SAMPLES)]
    flat = [text for group in groups for text in group]
    judges = {"proxy": LearnedReward(reward_model), "gold": gold_judge()}
    means = {role: scores_of(by, repeated, flat).view(num_steps, -1).mean(1).tolist() for role, by in judges.items()}
    return [{"step": step, "proxy": means["proxy"][step], "gold": means["gold"][step]} for step in range(num_steps)]


def curve_points(
    best_of: Sequence[Mapping[str, Any]],
    curves: Mapping[str, tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Points (KL, proxy, gold); scores are above the supervised policy's on the same posts, in its standard deviations.

    Args:
        best_of: Rows of `best_of_n_rows`, the first for n = 1.
        curves: Method to the metrics of PPO's steps, and the rows of `start_scores` on the posts of those steps.
        seed: Kept with each point.

    Returns:
        Rows of `method`, `seed`, `kl` [nats], `proxy`, `gold`, and `n` or `step`.
    """
    # Scores that are all alike have no deviation, and stay as they are.
    scale = {role: best_of[0][f"{role}_std"] or 1.0 for role in ("proxy", "gold")}

    def point(
        method: str, kl: float, scores: Mapping[str, Any], start: Mapping[str, Any], **more: int
    ) -> dict[str, Any]:
        gains = {role: (scores[role] - start[role]) / scale[role] for role in scale}
        return {"seed": seed, "method": method, **more, "kl": kl, **gains}

    points = [point("best_of_n", row["kl"], row, best_of[0], n=row["n"]) for row in best_of]
    for method, (history, starts) in curves.items():
        for row, start in zip(history, starts, strict=True):
            scores = {"proxy": row["objective/score"], "gold": row["objective/gold"]}
            points.append(point(method, row["objective/kl"], scores, start, step=row["step"]))
    return points
