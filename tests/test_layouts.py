"""Texts without padding: every token stands where it should, sees whom it should, and gets its gradient once."""

import pytest
import torch
from torch import Tensor

from rlhf_lab.layouts import BUCKETS, ENOUGH_ROWS, Grid, Layout, numbered, put, take
from tests.networks import seeded

pytestmark = pytest.mark.usefixtures("one_thread")


def masks(rows: int, width: int, *, left: bool, shortest: int = 0) -> Tensor:
    lengths = torch.randint(shortest, width + 1, (rows,), generator=seeded(rows))
    place = torch.arange(width)
    return place >= width - lengths[:, None] if left else place < lengths[:, None]


def test_tokens_are_numbered_in_their_order_and_moved_to_the_left() -> None:
    mask = torch.tensor([[False, True, True], [False, False, False], [True, False, True]])
    assert numbered(mask, first=5).tolist() == [[5, 6], [-1, -1], [7, 8]]


@pytest.mark.parametrize("rows", [1, 5, ENOUGH_ROWS, 37])
def test_spread_and_collected_again_tokens_are_the_same(rows: int) -> None:
    mask = masks(rows, 9, left=True, shortest=1)
    layout = Layout.of(mask)
    assert len(layout.queries.shapes) == (BUCKETS if rows >= ENOUGH_ROWS else 1)
    tokens = torch.randn(2, int(mask.sum()), 3, generator=seeded(1))
    buckets = layout.queries.spread(tokens)
    collected = layout.queries.collect([bucket.transpose(1, 2) for bucket in buckets])
    assert torch.equal(collected.transpose(0, 1), tokens)
    widths = [width for _, width in layout.queries.shapes]
    assert widths == sorted(widths, reverse=True) and widths[0] == mask.sum(1).max()


@pytest.mark.parametrize(("batch", "candidates"), [(1, 1), (3, 3), (7, 4), (20, 2)])
def test_a_response_sees_its_prompt_and_itself_up_to_where_it_is(batch: int, candidates: int) -> None:
    prompt_mask = masks(batch, 6, left=True, shortest=1)
    response_mask = masks(batch * candidates, 5, left=False).view(batch, candidates, 5)
    response_mask[0, 0, 0] = True
    layout = Layout.branching(prompt_mask, response_mask)
    owners = [(row, None) for row in range(batch) for _ in range(int(prompt_mask[row].sum()))]
    owners += [
        (row, k) for row in range(batch) for k in range(candidates) for _ in range(int(response_mask[row, k].sum()))
    ]
    total = len(owners)
    numbers = torch.arange(total, dtype=torch.float32)[None, :, None]
    pairs = zip(layout.queries.spread(numbers), layout.keys.spread(numbers), layout.sees, strict=True)
    seen: dict[int, set[int]] = {}
    offset, where = 0, {slot: token for token, slot in enumerate(layout.queries.places[0][:, 0].tolist())}
    for queries, keys, sees in pairs:
        rows, _, width, _ = queries.shape
        for row in range(rows):
            for place in range(width):
                slot = offset + row * width + place
                if slot in where:
                    causal = torch.arange(keys.shape[2]) <= place
                    visible = causal if sees is None else sees[row, 0, place]
                    seen[where[slot]] = {int(key) for key in keys[row, 0, visible, 0]}
        offset += rows * width
    assert len(seen) == total
    for token, (row, k) in enumerate(owners):
        expected = {
            other for other, owner in enumerate(owners) if other <= token and owner[0] == row and owner[1] in (None, k)
        }
        assert seen[token] == expected


def test_the_gradient_of_a_token_is_the_sum_over_its_copies() -> None:
    prompt_mask, response_mask = masks(4, 5, left=True, shortest=1), torch.ones(4, 3, 2, dtype=torch.bool)
    keys = Layout.branching(prompt_mask, response_mask).keys
    tokens = torch.randn(2, int(prompt_mask.sum()) + 24, 3, generator=seeded(1), requires_grad=True)
    weights = [torch.randn(bucket.shape, generator=seeded(2)) for bucket in keys.spread(tokens)]
    slots = torch.cat([part.flatten() for part in keys.places]).sort().values
    sizes = [rows * width for rows, width in keys.shapes]
    held = torch.zeros(sum(sizes), dtype=torch.bool).index_fill(0, slots, True).split(sizes)
    for weight, mask, shape in zip(weights, held, keys.shapes, strict=True):
        weight *= mask.view(shape)[:, None, :, None]  # Nobody looks at padding, so it has no gradient.
    sum((bucket * weight).sum() for bucket, weight in zip(keys.spread(tokens), weights, strict=True)).backward()
    expected = torch.zeros(tokens.shape[1], 2, 3)
    flat = torch.cat([weight.transpose(1, 2).flatten(0, 1) for weight in weights])
    for slot in slots.tolist():
        expected[keys.source[slot]] += flat[slot]
    assert tokens.grad is not None
    torch.testing.assert_close(tokens.grad.transpose(0, 1), expected)


def test_taking_and_putting_have_the_gradients_of_indexing() -> None:
    values, places = (
        torch.randn(6, 2, generator=seeded(), dtype=torch.float64, requires_grad=True),
        torch.tensor([4, 1]),
    )
    assert torch.autograd.gradcheck(lambda x: take(x, places), values)
    assert torch.autograd.gradcheck(lambda x: put(x[:2], places, 5), values)
    assert torch.equal(put(take(values, places), places, 6)[places], values[places])


def test_a_grid_without_padding_is_the_rows_themselves() -> None:
    grid = Grid.of([torch.arange(6).view(2, 3)], [(6, 1)])
    assert grid.source.tolist() == list(range(6))
