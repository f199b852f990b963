"""Sampling: the tokens that reading everything anew would give, with the probabilities that the network gives."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_lab.data.batching import encode_prompts
from rlhf_lab.experiments.pretraining import train_tokenizer
from rlhf_lab.generation import Request, Rollout, SamplingConfig, best_of_n, choose, generate, sample
from rlhf_lab.models import Policy, new_policy
from tests.networks import architectures, bigram_network, random_network, seeded

VOCABULARY, EOS = 11, 3
TOKENS = {"vocab_size": VOCABULARY, "eos_token_id": EOS, "pad_token_id": 0}
PROMPTS = ([4, 9, 5, 7, 8], [6], [10, 2, 9], [5, 5])
GREEDY = SamplingConfig(temperature=0.0, max_response_tokens=12)

pytestmark = pytest.mark.usefixtures("one_thread")


def counting_network() -> PreTrainedModel:
    """After t comes t + 1; after the last token, token 0."""
    return bigram_network(20 * torch.eye(VOCABULARY).roll(1, dims=1), eos_token_id=EOS)


def padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    rows = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    masks = [[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts]
    return torch.tensor(rows), torch.tensor(masks)


def uniforms_for(prompts: Sequence[Any], config: SamplingConfig, num_candidates: int = 1) -> Tensor:
    return torch.rand(len(prompts), num_candidates, config.max_response_tokens, generator=seeded(5))


def write(
    network: PreTrainedModel, prompts: Sequence[Sequence[int]], config: SamplingConfig, uniforms: Tensor
) -> Rollout:
    prompt, mask = padded(prompts)
    request = Request(prompt=prompt, prompt_mask=mask, eos_token_id=EOS, config=config, uniforms=uniforms)
    return sample(network, request)


def written(rollout: Rollout) -> list[list[list[int]]]:
    """The tokens of each response, without padding."""
    return [
        [tokens[mask].tolist() for tokens, mask in zip(group, masks, strict=True)]
        for group, masks in zip(rollout.responses, rollout.response_mask, strict=True)
    ]


def written_without_cache(
    network: PreTrainedModel, prompt: Sequence[int], config: SamplingConfig, uniforms: Tensor
) -> list[int]:
    """One response, the whole text read anew for each token, with no padding and no cache."""
    response: list[int] = []
    for uniform in uniforms:
        logits = network(torch.tensor([[*prompt, *response]]), use_cache=False).logits[:, -1]
        response.append(int(choose(logits, uniform[None], config)))
        if response[-1] == EOS:
            break
    return response


def frequencies(logits: Tensor, config: SamplingConfig, *, draws: int = 20_000) -> Tensor:
    """How often `choose` takes each token when its uniforms are spread evenly; exact to 1 / draws a token."""
    uniforms = (torch.arange(draws) + 0.5) / draws
    tokens = choose(logits.expand(draws, -1), uniforms, config)
    return torch.bincount(tokens, minlength=len(logits)) / draws


@architectures
@pytest.mark.parametrize("config", [SamplingConfig(temperature=1.0, max_response_tokens=12), GREEDY])
def test_the_cache_gives_the_tokens_of_reading_everything_anew(architecture: str, config: SamplingConfig) -> None:
    network, uniforms = random_network(architecture, **TOKENS).eval(), uniforms_for(PROMPTS, config, 3)
    rollout = write(network, PROMPTS, config, uniforms)
    expected = [
        [written_without_cache(network, prompt, config, numbers) for numbers in group]
        for prompt, group in zip(PROMPTS, uniforms, strict=True)
    ]
    assert written(rollout) == expected
    assert rollout.finished.tolist() == [[response[-1] == EOS for response in group] for group in expected]
    if config.temperature > 0:
        assert len({len(response) for group in expected for response in group}) > 3
        assert 0 < rollout.finished.sum() < rollout.finished.numel()


def test_greedy_counts_to_eos_or_to_the_limit() -> None:
    config = SamplingConfig(temperature=0.0, max_response_tokens=4)
    rollout = write(counting_network(), [[0], [5, 1], [9, 9, 4], [2]], config, torch.zeros(4, 1, 4))
    assert written(rollout) == [[[1, 2, 3]], [[2, 3]], [[5, 6, 7, 8]], [[3]]]
    assert rollout.finished.tolist() == [[True], [True], [False], [True]]
    assert rollout.responses[1].tolist() == [[2, 3, 0, 0]]
    assert rollout.response_mask[1].tolist() == [[True, True, False, False]]


def test_eos_at_the_very_limit_counts_as_finished() -> None:
    config = SamplingConfig(temperature=0.0, max_response_tokens=3)
    rollout = write(counting_network(), [[0], [10]], config, torch.zeros(2, 1, 3))
    assert written(rollout) == [[[1, 2, 3]], [[0, 1, 2]]]
    assert rollout.finished.tolist() == [[True], [False]]


def test_writing_ends_when_every_response_has() -> None:
    rollout = write(counting_network(), [[1], [2]], GREEDY, torch.zeros(2, 1, 12))
    assert rollout.responses.tolist() == [[[2, 3]], [[3, 0]]]


def test_a_rollout_keeps_its_prompts() -> None:
    prompt, mask = padded(PROMPTS)
    rollout = write(counting_network(), PROMPTS, GREEDY, torch.zeros(4, 2, 12))
    assert torch.equal(rollout.prompt, prompt) and torch.equal(rollout.prompt_mask, mask)


@architectures
def test_a_batch_split_in_two_gives_the_same_tokens(architecture: str) -> None:
    config = SamplingConfig(temperature=1.0, max_response_tokens=12)
    network, uniforms = random_network(architecture, **TOKENS).eval(), uniforms_for(PROMPTS, config, 2)
    whole = written(write(network, PROMPTS, config, uniforms))
    parts = [written(write(network, PROMPTS[rows], config, uniforms[rows])) for rows in (slice(1), slice(1, None))]
    assert whole == parts[0] + parts[1]
    assert whole != written(write(network, PROMPTS, config, uniforms.flip(0)))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_inverting_the_distribution_gives_softmax_frequencies(temperature: float) -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, -math.inf, 0.0, 1.1])
    expected = torch.softmax(logits / temperature, dim=-1)
    actual = frequencies(logits, SamplingConfig(temperature=temperature))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_random_texts_have_the_frequencies_of_their_transitions() -> None:
    probs = torch.softmax(torch.randn(VOCABULARY, VOCABULARY, generator=seeded()), dim=-1)
    probs[:, EOS] = 0
    probs /= probs.sum(-1, keepdim=True)
    config, draws = SamplingConfig(temperature=1.0, max_response_tokens=2), 50_000
    network = bigram_network(probs.log().clamp_min(-50), eos_token_id=EOS)
    rollout = write(network, [[7]], config, uniforms_for([7], config, draws))
    pairs = rollout.responses[0, :, 0] * VOCABULARY + rollout.responses[0, :, 1]
    actual = torch.bincount(pairs, minlength=VOCABULARY**2).view(VOCABULARY, VOCABULARY) / draws
    expected = probs[7][:, None] * probs
    # Five standard errors; the number is fixed by the seed, so this is no coin toss.
    assert bool(((actual - expected).abs() <= 5 * (expected * (1 - expected) / draws).sqrt() + 1e-9).all())


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_temperature_zero_takes_the_likeliest_and_a_low_one_nearly_so(uniform: float) -> None:
    logits = torch.tensor([[0.3, 2.0, -1.0, 1.9]])
    for temperature in (0.0, 1e-3):
        assert choose(logits, torch.tensor([uniform]), SamplingConfig(temperature=temperature)).tolist() == [1]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.1, [3]), (0.45, [3, 1]), (0.65, [3, 1]), (0.75, [3, 1, 0]), (0.95, [3, 1, 0, 4]), (1.0, [3, 1, 0, 4])],
)
def test_top_p_keeps_the_fewest_tokens_that_together_reach_it(top_p: float, kept: list[int]) -> None:
    probs = torch.tensor([0.2, 0.3, 0.0, 0.4, 0.1])
    expected = torch.zeros(5)
    expected[kept] = probs[kept] / probs[kept].sum()
    actual = frequencies(probs.log(), SamplingConfig(temperature=1.0, top_p=top_p))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_top_p_counts_probability_after_the_temperature() -> None:
    """At 2, the probabilities 0.64 and 0.36 become 4/7 and 3/7, so 0.6 needs both."""
    logits = torch.tensor([0.64, 0.36]).log()
    assert frequencies(logits, SamplingConfig(temperature=1.0, top_p=0.6)).tolist() == [1, 0]
    actual = frequencies(logits, SamplingConfig(temperature=2.0, top_p=0.6))
    torch.testing.assert_close(actual, torch.tensor([4 / 7, 3 / 7]), atol=1e-4, rtol=0)


def test_a_token_without_probability_is_never_taken() -> None:
    logits = torch.full((4096, 300), -math.inf)
    logits[:, 1:-1] = torch.randn(4096, 298, generator=seeded())
    for top_p in (1.0, 0.9):
        config = SamplingConfig(temperature=1.0, top_p=top_p)
        for uniform in (0.0, 1 - 2**-24):
            tokens = choose(logits, torch.full((4096,), uniform), config)
            assert bool((logits.gather(1, tokens[:, None]) > -math.inf).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_response_tokens": 0}, "max_response_tokens must be at least 1, not 0"),
        ({"temperature": -0.1}, r"temperature must be 0 or more, not -0\.1"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], not 0\.0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], not 1\.1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings)


TEXTS = ["My cat left the house.", "A dog!", "We were both in the wrong, my boss and I.", "Rent is due", "No."]
SHORT = SamplingConfig(temperature=1.0, max_response_tokens=8)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return new_policy("small", train_tokenizer(TEXTS, 300))


def test_generated_texts_do_not_depend_on_the_batch_size(policy: Policy) -> None:
    whole = generate(policy, TEXTS, SHORT, num_candidates=2, rng=seeded(1))
    assert [len(group) for group in whole] == [2] * len(TEXTS)
    for batch_size in (1, 4, 6):
        assert generate(policy, TEXTS, SHORT, num_candidates=2, rng=seeded(1), batch_size=batch_size) == whole


def test_generated_texts_stand_in_the_order_of_their_prompts(policy: Policy) -> None:
    greedy = SamplingConfig(temperature=0.0, max_response_tokens=8)
    together = generate(policy, TEXTS, greedy)
    assert together == [generate(policy, [text], greedy)[0] for text in TEXTS]
    assert len({group[0] for group in together}) > 1


def test_generated_texts_are_the_decoded_samples(policy: Policy) -> None:
    prompt, mask = encode_prompts(policy.tokenizer, TEXTS[:1], max_prompt_tokens=99)
    eos = policy.tokenizer.eos_token_id
    uniforms = torch.rand(1, 3, SHORT.max_response_tokens, generator=seeded(2))
    request = Request(prompt=prompt, prompt_mask=mask, eos_token_id=eos, config=SHORT, uniforms=uniforms)
    rollout = sample(policy.network, request)
    expected = [policy.tokenizer.decode([token for token in tokens if token != eos]) for tokens in written(rollout)[0]]
    assert generate(policy, TEXTS[:1], SHORT, num_candidates=3, rng=seeded(2)) == [expected]


def test_the_generator_alone_decides_the_texts(policy: Policy) -> None:
    default = generate(policy, TEXTS, SHORT)
    assert generate(policy, TEXTS, SHORT, rng=seeded(0)) == default
    assert generate(policy, TEXTS, SHORT, rng=seeded(1)) != default


def letters(text: str) -> float:
    return float(sum(letter.isalpha() for letter in text))


@pytest.mark.parametrize("sign", [1, -1])
def test_best_of_n_takes_the_text_with_the_highest_score(policy: Policy, sign: int) -> None:
    groups = generate(policy, TEXTS, SHORT, num_candidates=6, rng=seeded(3))
    asked: list[tuple[list[str], list[str]]] = []

    def score(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        asked.append((list(prompts), list(responses)))
        return [sign * letters(text) for text in responses]

    best = best_of_n(policy, score, TEXTS, 6, SHORT, rng=seeded(3))
    assert best == [max(group, key=lambda text: sign * letters(text)) for group in groups]
    assert best != [group[0] for group in groups]
    assert asked == [([text for text in TEXTS for _ in range(6)], [text for group in groups for text in group])]


def test_best_of_n_may_score_by_the_prompt(policy: Policy) -> None:
    """The scores of one prompt's texts decide about that prompt only."""
    groups = generate(policy, TEXTS, SHORT, num_candidates=3, rng=seeded(4))
    wanted = {prompt: group[index % 3] for index, (prompt, group) in enumerate(zip(TEXTS, groups, strict=True))}

    def is_wanted(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [float(wanted[prompt] == text) for prompt, text in zip(prompts, responses, strict=True)]

    assert best_of_n(policy, is_wanted, TEXTS, 3, SHORT, rng=seeded(4)) == list(wanted.values())
