"""Both readers think the same of the same tokens, whoever has ended in between."""

import pytest
import torch
from torch import Tensor

from rlhf_lab.decoding import PaddedReader, SharedReader, reader_of
from tests.networks import architectures, random_network, seeded

TOKENS = {"vocab_size": 11, "eos_token_id": 1, "pad_token_id": 0}
LENGTHS = (5, 1, 3, 4)

pytestmark = pytest.mark.usefixtures("one_thread")


def prompts() -> tuple[Tensor, Tensor]:
    mask = torch.arange(5) >= 5 - torch.tensor(LENGTHS)[:, None]
    return torch.randint(2, 11, mask.shape, generator=seeded(1)), mask


@torch.no_grad()
def thoughts(kind: type, architecture: str, num_candidates: int, ends: dict[int, list[int]]) -> list[Tensor]:
    """After the prompts and after each of 6 tokens; `ends` says who is left after which step."""
    reader = kind(random_network(architecture, **TOKENS), *prompts(), num_candidates, 6)
    tokens = torch.randint(2, 11, (6, len(LENGTHS) * num_candidates), generator=seeded(2))
    rows, result = torch.arange(tokens.shape[1]), [reader.start()]
    for step, column in enumerate(tokens):
        result.append(reader.read(column[rows]))
        if step in ends:
            going = torch.isin(rows, torch.tensor(ends[step]))
            rows = rows[going]
            reader.keep(going)
    return result


@architectures
@pytest.mark.parametrize("num_candidates", [1, 3])
def test_both_readers_agree(architecture: str, num_candidates: int) -> None:
    # A prompt that nobody continues is forgotten in the middle and at the end.
    ends = {1: [0, 2, 3], 3: [2]} if num_candidates == 1 else {0: [0, 1, 2, 6, 8, 9, 11], 2: [1, 6, 8], 4: [8]}
    shared, padded = (thoughts(kind, architecture, num_candidates, ends) for kind in (SharedReader, PaddedReader))
    for one, other in zip(shared, padded, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert len(shared[-1]) == 1


@architectures
def test_the_reader_is_the_one_that_the_network_allows(architecture: str) -> None:
    network = random_network(architecture, **TOKENS)
    assert isinstance(reader_of(network, *prompts(), num_candidates=2, limit=3), SharedReader)
    network.config._attn_implementation = "eager"
    assert isinstance(reader_of(network, *prompts(), num_candidates=2, limit=3), PaddedReader)
