"""Preference RL: rewards from comparisons, questions where the ensemble disagrees, a policy that learns from them."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from rlhf_lab.control.actor_critic import ControlConfig, Learner
from rlhf_lab.control.ensemble import EnsembleConfig, Pair, RewardEnsemble, Segment
from rlhf_lab.control.preferences import PreferenceConfig, PreferenceLearner, by_true_return
from rlhf_lab.control.simulation import Fragment
from rlhf_lab.equations.preference import segment_loss

SMALL = ControlConfig(num_steps=800, num_copies=4, fragment=10, horizon=20, num_epochs=1, minibatches=2)
FEW = PreferenceConfig(num_labels=20, at_once=2, segment=5, control=SMALL, ensemble=EnsembleConfig(updates=3))
TRUE = torch.tensor([1.0, -0.5, 0.0])
"""Rewards of a made-up task are linear in two observations and an action."""


def made_fragment(seed: int, batch: int = 40, steps: int = 10) -> Fragment:
    rng = torch.Generator().manual_seed(seed)
    seen, done = torch.randn(batch, steps + 1, 2, generator=rng), torch.randn(batch, steps, 1, generator=rng)
    rewards = torch.cat([seen[:, :-1], done.clamp(-1, 1)], -1) @ TRUE
    return Fragment(seen, done, rewards, np.zeros((batch, steps, 1)))


def segments(fragment: Fragment) -> list[Segment]:
    parts = zip(fragment.observations[:, :-1], fragment.actions, fragment.rewards, fragment.states, strict=True)
    return [Segment(seen, done, rewards.sum().item(), states) for seen, done, rewards, states in parts]


def made_pairs(seed: int, number: int = 40) -> list[Pair]:
    return list(zip(segments(made_fragment(seed, number)), segments(made_fragment(seed + 1, number)), strict=True))


def taught(config: EnsembleConfig, num_pairs: int, times: int = 1) -> RewardEnsemble:
    ensemble = RewardEnsemble(3, config)
    ensemble.see(made_fragment(0))
    pairs = made_pairs(10, num_pairs)
    ensemble.add(pairs, [float(answer) for answer in by_true_return(pairs) if answer is not None])
    for _ in range(times):
        ensemble.fit()
    return ensemble


def correlation(ensemble: RewardEnsemble) -> float:
    fragment = made_fragment(99)
    return np.corrcoef(ensemble.rewards(fragment).flatten(), fragment.rewards.flatten())[0, 1]


def test_rewards_of_steps_come_out_of_comparisons_of_sums() -> None:
    assert abs(correlation(RewardEnsemble(3, EnsembleConfig()))) < 0.7
    assert correlation(taught(EnsembleConfig(), 300, times=6)) > 0.9


def test_rewards_have_mean_0_and_deviation_1_in_each_member() -> None:
    ensemble = taught(EnsembleConfig(), 50)
    fragment = made_fragment(5, batch=400)
    for _ in range(300):  # So that what was seen before the lesson counts little.
        ensemble.see(fragment)
    each = ensemble._normalized(torch.cat([fragment.observations[:, :-1], fragment.actions.clamp(-1, 1)], -1))
    assert each.mean((1, 2)).tolist() == pytest.approx([0] * 3, abs=0.05)
    assert each.std((1, 2)).tolist() == pytest.approx([1] * 3, abs=0.05)
    assert torch.allclose(ensemble.rewards(fragment), each.mean(0))


def test_a_bootstrap_holds_out_one_in_e_of_the_comparisons() -> None:
    weights = taught(EnsembleConfig(updates=1), 2000)._weights
    assert weights.shape == (3, 2000)
    assert weights.mean(1).tolist() == pytest.approx([1.0] * 3, abs=0.08)
    assert (weights == 0).float().mean(1).tolist() == pytest.approx([1 / math.e] * 3, abs=0.04)
    assert not torch.equal(weights[0], weights[1])


def test_what_a_member_did_not_draw_changes_nothing_in_it() -> None:
    ensembles = [RewardEnsemble(3, EnsembleConfig(updates=5)) for _ in range(2)]
    pairs = made_pairs(10, 30)
    for ensemble, wrong in zip(ensembles, (False, True), strict=True):
        ensemble.add(pairs, [1.0] * 30)
        if wrong:
            ensemble._first_prob = torch.where(ensemble._weights[0] == 0, 0.0, ensemble._first_prob)
        ensemble.fit()
    first, second = (list(ensemble._members.weights) for ensemble in ensembles)
    assert all(torch.equal(one[0], two[0]) for one, two in zip(first, second, strict=True))
    assert not torch.equal(first[0][1], second[0][1])


def test_regularization_follows_the_gap_to_what_is_held_out() -> None:
    over = RewardEnsemble(3, EnsembleConfig(updates=60))
    over.see(made_fragment(0))
    rng = np.random.default_rng(0)
    over.add(made_pairs(10, 40), rng.integers(2, size=40).astype(float).tolist())  # Noise can only be learnt by heart.
    before = over.regularization
    for _ in range(5):
        losses = over.fit()
    assert losses["held_out_loss"] > 1.5 * losses["loss"] and over.regularization > before
    well = taught(EnsembleConfig(updates=1), 400)
    assert well.regularization < 1e-4  # At first nothing is known by heart.


def test_people_are_asked_where_members_disagree() -> None:
    ensemble = taught(EnsembleConfig(), 20, times=2)
    pairs = made_pairs(50, 200)
    opinions = ensemble.disagreement(pairs)
    returns = torch.stack([ensemble._raw(torch.stack([_inputs(one), _inputs(two)])).sum(-1) for one, two in pairs[:3]])
    by_hand = torch.sigmoid(returns[:, :, 0] - returns[:, :, 1]).var(1, correction=0)
    assert torch.allclose(opinions[:3], by_hand, atol=1e-6)
    learner = PreferenceLearner("CartPole-v1", FEW)
    asked = learner.ensemble.disagreement(learner.questions(5))
    others = learner.ensemble.disagreement([pair for _ in range(10) for pair in _any_questions(learner)])
    assert asked.min() > others.median()


def _inputs(segment: Segment) -> torch.Tensor:
    return torch.cat([segment.observations, segment.actions.clamp(-1, 1)], -1)


def _any_questions(learner: PreferenceLearner) -> list[Pair]:
    return [(learner._segment(), learner._segment())]


def test_labels_come_at_first_and_then_ever_more_slowly() -> None:
    config = PreferenceConfig(num_labels=400, control=ControlConfig(num_steps=1000))
    by = [config.labels_by(steps) for steps in (0, 250, 500, 1000, 2000)]
    # A quarter at once, and then as log(1 + steps / 250), which is log 5 at the end.
    assert by == [
        100,
        100 + round(300 * math.log(2) / math.log(5)),
        100 + round(300 * math.log(3) / math.log(5)),
        400,
        400,
    ]


def test_segments_are_pieces_of_what_happened() -> None:
    learner = PreferenceLearner("CartPole-v1", FEW)
    fragment = learner._recent[0]
    (one, two), *_ = learner.questions(3)
    assert one.observations.shape == (5, 4) and two.actions.shape == (5, 2) and one.states.shape == (5, 4)
    assert torch.allclose(one.observations, torch.tensor(one.states, dtype=torch.float32))
    windows = fragment.observations[:, :-1].unfold(1, 5, 1).transpose(2, 3).flatten(0, 1)
    assert any(torch.equal(one.observations, window) for window in windows)


def test_only_what_was_answered_is_learnt() -> None:
    learner = PreferenceLearner("CartPole-v1", FEW)
    pairs = learner.questions(4)
    learner.tell(pairs, [1.0, None, 0.5, None])
    assert len(learner.ensemble) == 2
    learner.tell(pairs, [None] * 4)
    assert len(learner.ensemble) == 2


def test_what_cannot_be_told_is_refused_in_one_sentence_and_nothing_is_learnt() -> None:
    learner = PreferenceLearner("CartPole-v1", FEW)
    with pytest.raises(ValueError, match="nobody has compared anything yet"):
        learner.train(40)
    pairs = learner.questions(2)
    with pytest.raises(ValueError, match="1 answers to 2 pairs"):
        learner.tell(pairs, [1.0])
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], or be None for 'can't tell', not 2"):
        learner.tell(pairs, [1.0, 2.0])
    short = Segment(pairs[0][0].observations[:3], pairs[0][0].actions[:3], 0.0, pairs[0][0].states[:3])
    with pytest.raises(ValueError, match="segments of 5 and 3 steps were compared; both must have 5"):
        learner.tell([(pairs[0][0], short)], [1.0])
    assert len(learner.ensemble) == 0
    for settings, words in (
        ({"segment": 99}, r"segment \(99\) must be between 1 and control.fragment \(50\)"),
        ({"first_share": 0.0}, r"first_share \(0.0\) in \(0, 1\]"),
        ({"candidates": 0}, "candidates must be at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=words):
            PreferenceConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"horizon \(200\) must be a multiple of fragment \(30\)"):
        ControlConfig(fragment=30)
    with pytest.raises(ValueError, match="num_members must be at least 1, not 0"):
        EnsembleConfig(num_members=0)


def test_one_that_was_interrupted_goes_on_to_the_same_end() -> None:
    whole, parts = PreferenceLearner("CartPole-v1", FEW), PreferenceLearner("CartPole-v1", FEW)
    whole.train(400, by_true_return)

    def leaves(pairs: Sequence[Pair]) -> list[float | None]:
        if parts.num_asked > 8:
            raise KeyboardInterrupt
        return by_true_return(pairs)

    with pytest.raises(KeyboardInterrupt):
        parts.train(400, leaves)
    assert 8 < parts.num_asked < 20 and len(parts.ensemble) == parts.num_asked
    parts.train(whole.learner.num_steps - parts.learner.num_steps, by_true_return)
    assert parts.num_asked == whole.num_asked


def test_what_comes_after_a_fragment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner("CartPole-v1", SMALL)
    fragment = learner.collect()
    given: dict[str, torch.Tensor] = {}

    def watched(rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, **settings: float) -> torch.Tensor:
        given.update(rewards=rewards.clone(), values=values, mask=mask)
        return torch.zeros_like(rewards)

    monkeypatch.setattr("rlhf_lab.control.actor_critic.gae", watched)
    with torch.no_grad():
        after = learner.network.values(fragment.observations[:, -1])
    rewards = torch.arange(40.0).view(4, 10)
    learner.learn(fragment, rewards)
    scaled = (rewards - rewards.mean()) / rewards.std(correction=0)
    expected = scaled.clone()
    expected[:, -1] += 0.99 * after
    assert torch.allclose(given["rewards"], expected, atol=1e-3)
    assert bool(given["mask"].all())


def test_a_loss_of_ones_own_is_what_rewards_are_learnt_by() -> None:
    config = PreferenceConfig(segment=5, control=SMALL)

    def learnt(loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        learner = PreferenceLearner("CartPole-v1", config, loss=loss)
        pairs = learner.questions(20)
        learner.tell(pairs, by_true_return(pairs))
        return learner.ensemble.rewards(learner.learner.collect())

    own = learnt(segment_loss)
    assert torch.equal(own, learnt(lambda *returns, **settings: segment_loss(*returns, **settings)))
    assert not torch.allclose(own, learnt(lambda *returns, **settings: -segment_loss(*returns, **settings)), atol=1e-3)
    with pytest.raises(ValueError, match=r"loss \(.*\) returned the shape \(\), not .* for each comparison"):
        learnt(lambda *returns, **settings: segment_loss(*returns, **settings).mean())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mistaken", [False, True])
def test_a_pole_is_balanced_by_comparisons_alone(mistaken: bool) -> None:
    """At most 700 labels, 90 % of the 200 steps that true reward gets; random answers teach nothing."""
    rng = np.random.default_rng(0)

    def random_answers(pairs: Sequence[Pair]) -> list[float | None]:
        return [float(answer) for answer in rng.integers(2, size=len(pairs))]

    config = PreferenceConfig(num_labels=500, control=ControlConfig(num_steps=24_000))
    learner = PreferenceLearner("CartPole-v1", config)
    learner.train(24_000, random_answers if mistaken else by_true_return)
    balanced = learner.learner.play().rewards.sum(1).mean().item()
    assert learner.num_asked <= 700
    assert balanced < 100 if mistaken else balanced >= 180
