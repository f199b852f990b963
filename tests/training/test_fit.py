"""The optimizer step: the same update for any split of the batch; nothing is lost when the loss is not finite."""

import copy

import pytest
import torch
from torch import Tensor, nn

from rlhf_lab.data.batching import TokenBatch
from rlhf_lab.runs import Run
from rlhf_lab.training.fit import Fit, OptimizerConfig


def batch(rows: int = 6) -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(rows, 5, generator=generator) < 0.7
    return TokenBatch(torch.randint(9, (rows, 5), generator=generator), mask, mask)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 1))


def loss_of(fit: Fit):
    def loss(part: TokenBatch, count: float) -> Tensor:
        values = fit(lambda net, tokens: net(tokens).squeeze(-1), part.tokens)
        return ((values - 1) ** 2)[part.mask].sum() / count

    return loss


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4, 100])
def test_micro_batches_give_the_same_update(micro_batch_size: int) -> None:
    results = []
    for size in (None, micro_batch_size):
        fit = Fit(Run(), network(), OptimizerConfig(learning_rate=0.1), num_updates=3)
        values = [fit.step(batch(), loss_of(fit), counted=batch().mask, micro_batch_size=size) for _ in range(3)]
        results.append((values, [parameter.detach().clone() for parameter in fit.network.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_loss_is_the_mean_over_counted_elements() -> None:
    fit = Fit(Run(), network(), OptimizerConfig(learning_rate=0.1), num_updates=1)
    rows = batch()
    expected = ((fit.network(rows.tokens).squeeze(-1) - 1) ** 2)[rows.mask].mean().item()
    assert fit.step(rows, loss_of(fit), counted=rows.mask) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused_and_changes_nothing(bad: float) -> None:
    fit = Fit(Run(), network(), OptimizerConfig(learning_rate=0.1), num_updates=1)
    before = copy.deepcopy(fit.network.state_dict())
    with pytest.raises(ValueError, match=r"the loss became (nan|inf) at update 0; lower learning_rate"):
        fit.step(batch(), lambda part, count: loss_of(fit)(part, count) * bad, counted=batch().mask)
    for name, tensor in fit.network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_schedules_by_hand() -> None:
    cosine = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.2)
    assert [round(cosine.rate(x), 6) for x in (0.0, 0.1, 0.2, 0.6, 1.0)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    linear = OptimizerConfig(learning_rate=1.0, schedule="linear", final_fraction=0.1)
    assert [round(linear.rate(x), 6) for x in (0.0, 0.5, 1.0)] == [1.0, 0.55, 0.1]


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="schedule 'cosin' is unknown"):
        OptimizerConfig(schedule="cosin")
    with pytest.raises(ValueError, match=r"learning_rate must be above 0, not 0\.0"):
        OptimizerConfig(learning_rate=0.0)
