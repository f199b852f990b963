"""Candidates' log-probs, scores and values: those of reading each text alone, in value and in gradient."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, MambaConfig, MambaForCausalLM, PreTrainedModel

from rlhf_lab import scoring
from rlhf_lab.attention import can_unpad
from rlhf_lab.data.batching import Candidates, TokenBatch
from rlhf_lab.equations.sequence import token_logprobs
from rlhf_lab.scoring import (
    candidate_logprobs,
    candidate_scores,
    candidate_values,
    over_vocabulary,
    target_hidden,
    targets_at_once,
    vocabulary_head,
)
from tests.networks import architectures, random_network, seeded

VOCABULARY = 19
TOKENS = {"vocab_size": VOCABULARY, "eos_token_id": 1, "pad_token_id": 0}
PROMPT_TOKENS = (5, 1, 3)
RESPONSE_TOKENS = ((4, 1, 2), (2, 3, 1), (3, 0, 2))
"""Of each prompt's candidates; 0 is an absent one."""
WRITTEN = sum(map(sum, RESPONSE_TOKENS))

pytestmark = pytest.mark.usefixtures("one_thread")
ways_to_read = pytest.mark.parametrize("shared_prompt", [True, False])


def language_model(architecture: str = "llama") -> PreTrainedModel:
    return random_network(architecture, **TOKENS).train()


def scorer(architecture: str = "llama", *, offset: float = 0.0) -> PreTrainedModel:
    kind = AutoModelForSequenceClassification
    return random_network(architecture, kind=kind, num_labels=1, score_offset=offset, **TOKENS).train()


def some_candidates(*, padding: int = 0) -> Candidates:
    """Prompts and responses of every length, with `padding` where there is nothing."""
    draw = seeded(1)
    prompt_mask = torch.arange(5) >= 5 - torch.tensor(PROMPT_TOKENS)[:, None]
    response_mask = torch.arange(4) < torch.tensor(RESPONSE_TOKENS)[..., None]
    prompt = torch.randint(2, VOCABULARY, prompt_mask.shape, generator=draw)
    responses = torch.randint(2, VOCABULARY, response_mask.shape, generator=draw)
    return Candidates(
        prompt.where(prompt_mask, padding), prompt_mask, responses.where(response_mask, padding), response_mask
    )


def many_candidates() -> Candidates:
    """Enough for buckets of like length."""
    draw = seeded(3)
    prompt_mask = torch.arange(7) >= torch.randint(0, 7, (18, 1), generator=draw)
    response_mask = torch.arange(6) < torch.randint(0, 7, (18, 2, 1), generator=draw)
    prompt = torch.randint(2, VOCABULARY, prompt_mask.shape, generator=draw)
    responses = torch.randint(2, VOCABULARY, response_mask.shape, generator=draw)
    return Candidates(prompt, prompt_mask, responses, response_mask)


def plain_texts(candidates: Candidates) -> list[tuple[int, int, Tensor, int]]:
    """Row, candidate, the text without padding, and where its response starts; for each candidate that is there."""
    texts = []
    for row in range(len(candidates)):
        prompt = candidates.prompt[row][candidates.prompt_mask[row]]
        for index, (response, mask) in enumerate(
            zip(candidates.responses[row], candidates.response_mask[row], strict=True)
        ):
            if mask.any():
                texts.append((row, index, torch.cat([prompt, response[mask]]), len(prompt)))
    return texts


def plain_logprobs(network: PreTrainedModel, candidates: Candidates) -> Tensor:
    """Each text read by itself, by Transformers' own forward."""
    result = torch.zeros(candidates.responses.shape)
    for row, index, text, start in plain_texts(candidates):
        logprobs = network(text[None]).logits[0].log_softmax(-1)
        for place in range(start, len(text)):
            result[row, index, place - start] = logprobs[place - 1, text[place]]
    return result


def plain_scores(network: PreTrainedModel, candidates: Candidates) -> Tensor:
    result = torch.zeros(candidates.responses.shape[:2])
    for row, index, text, _ in plain_texts(candidates):
        result[row, index] = network(text[None]).logits[0, 0]
    return result


def plain_values(network: PreTrainedModel, candidates: Candidates) -> Tensor:
    """The score of the text up to, and without, each response token."""
    result = torch.zeros(candidates.responses.shape)
    for row, index, text, start in plain_texts(candidates):
        for place in range(start, len(text)):
            result[row, index, place - start] = network(text[None, :place]).logits[0, 0]
    return result


def gradients(network: PreTrainedModel, output: Tensor) -> dict[str, Tensor]:
    """Of a sum that weighs every number of `output` differently."""
    network.zero_grad()
    weights = torch.randn(output.shape, generator=seeded(2))
    (output * weights).sum().backward()
    return {name: tensor.grad.clone() for name, tensor in network.named_parameters() if tensor.grad is not None}


def assert_same(network: PreTrainedModel, actual: Tensor, expected: Tensor, *, atol: float = 1e-5) -> None:
    """The same values, and the same gradient of every parameter."""
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)
    actual_gradients, expected_gradients = gradients(network, actual), gradients(network, expected)
    assert actual_gradients.keys() == expected_gradients.keys()
    assert all(gradient.abs().max() > 10 * atol for gradient in expected_gradients.values() if gradient.dim() > 1)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(actual_gradients[name], gradient, atol=atol, rtol=1e-5, msg=lambda m, n=name: n + m)


@architectures
@ways_to_read
def test_logprobs_are_those_of_each_text_read_alone(architecture: str, shared_prompt: bool) -> None:
    network, candidates = language_model(architecture), some_candidates()
    actual = candidate_logprobs(network, candidates, shared_prompt=shared_prompt)
    assert_same(network, actual, plain_logprobs(network, candidates))


@architectures
@ways_to_read
def test_scores_are_those_of_each_text_read_alone(architecture: str, shared_prompt: bool) -> None:
    network, candidates = scorer(architecture), some_candidates()
    actual = candidate_scores(network, candidates, shared_prompt=shared_prompt)
    assert_same(network, actual, plain_scores(network, candidates))


@architectures
@ways_to_read
def test_values_are_the_scores_of_what_precedes_each_token(architecture: str, shared_prompt: bool) -> None:
    network, candidates = scorer(architecture), some_candidates()
    actual = candidate_values(network, candidates, shared_prompt=shared_prompt)
    assert_same(network, actual, plain_values(network, candidates))


@architectures
@ways_to_read
def test_so_it_is_in_buckets_of_like_length(architecture: str, shared_prompt: bool) -> None:
    network, head, candidates = language_model(architecture), scorer(architecture), many_candidates()
    logprobs = candidate_logprobs(network, candidates, shared_prompt=shared_prompt)
    assert_same(network, logprobs, plain_logprobs(network, candidates))
    assert_same(head, candidate_scores(head, candidates, shared_prompt=shared_prompt), plain_scores(head, candidates))
    assert_same(head, candidate_values(head, candidates, shared_prompt=shared_prompt), plain_values(head, candidates))


@architectures
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_states_that_predict_targets_are_those_of_each_text_read_alone(architecture: str, attention: str) -> None:
    network, draw = language_model(architecture), seeded(4)
    network.config._attn_implementation = attention
    mask = torch.arange(9) < torch.randint(1, 10, (17, 1), generator=draw)
    tokens = torch.randint(2, VOCABULARY, mask.shape, generator=draw)
    batch = TokenBatch(tokens.where(mask, 0), mask, mask & (torch.rand(mask.shape, generator=draw) < 0.6))
    expected = [
        network.base_model(text[None, row])[0][0, place - 1]
        for text, row, targets in zip(batch.tokens, mask, batch.loss_mask, strict=True)
        for place in targets.nonzero()[:, 0].tolist()
        if place > 0
    ]
    assert_same(network, target_hidden(network, batch), torch.stack(expected))


def test_temperature_divides_the_logits() -> None:
    network, candidates = language_model(), some_candidates()
    warm = candidate_logprobs(network, candidates, temperature=0.5)
    network.get_output_embeddings().weight.data.mul_(2)
    torch.testing.assert_close(warm, plain_logprobs(network, candidates), atol=1e-5, rtol=0)


@ways_to_read
def test_what_stands_in_padded_places_changes_nothing(shared_prompt: bool) -> None:
    network, head = language_model(), scorer()
    for measure, net in ((candidate_logprobs, network), (candidate_scores, head), (candidate_values, head)):
        one, other = (
            measure(net, some_candidates(padding=token), shared_prompt=shared_prompt) for token in (0, VOCABULARY - 1)
        )
        assert torch.equal(one, other)


@ways_to_read
def test_the_offset_is_taken_off_scores_and_values_but_not_where_there_is_nothing(shared_prompt: bool) -> None:
    plain, centred, candidates = scorer(), scorer(offset=0.75), some_candidates()
    there = candidates.response_mask.any(-1)
    for measure, mask in ((candidate_scores, there), (candidate_values, candidates.response_mask)):
        shift = measure(plain, candidates, shared_prompt=shared_prompt) - measure(
            centred, candidates, shared_prompt=shared_prompt
        )
        torch.testing.assert_close(shift, 0.75 * mask.float())


@architectures
@ways_to_read
def test_absent_candidates_alone_give_zero_and_a_finite_gradient(architecture: str, shared_prompt: bool) -> None:
    candidates = some_candidates()
    nothing = Candidates(
        candidates.prompt,
        candidates.prompt_mask,
        torch.zeros_like(candidates.responses),
        torch.zeros_like(candidates.response_mask),
    )
    network, head = language_model(architecture), scorer(architecture)
    for measure, net in ((candidate_logprobs, network), (candidate_scores, head), (candidate_values, head)):
        output = measure(net, nothing, shared_prompt=shared_prompt)
        assert not output.any()
        assert all(not gradient.any() for gradient in gradients(net, output).values())


def count_inputs(module: nn.Module) -> list[int]:
    """Filled with the number of ids, or of vectors, in each call of `module`."""
    counts: list[int] = []
    is_embedding = isinstance(module, nn.Embedding)
    module.register_forward_hook(
        lambda _, inputs, __: counts.append(inputs[0].numel() if is_embedding else inputs[0][..., 0].numel())
    )
    return counts


@pytest.mark.parametrize(
    ("shared_prompt", "read"),
    [
        (True, [sum(PROMPT_TOKENS) + WRITTEN]),
        (False, [3 * sum(PROMPT_TOKENS) + WRITTEN]),
        (None, [sum(PROMPT_TOKENS) + WRITTEN]),
    ],
)
def test_a_shared_prompt_is_read_once_for_all_its_candidates_and_padding_never(
    shared_prompt: bool | None, read: list[int]
) -> None:
    network = language_model()
    tokens = count_inputs(network.get_input_embeddings())
    candidate_logprobs(network, some_candidates(), shared_prompt=shared_prompt)
    assert tokens == read


def test_a_single_candidate_is_read_in_one_pass() -> None:
    network, candidates = language_model(), some_candidates()
    single = Candidates(
        candidates.prompt, candidates.prompt_mask, candidates.responses[:, :1], candidates.response_mask[:, :1]
    )
    tokens = count_inputs(network.get_input_embeddings())
    candidate_logprobs(network, single)
    assert tokens == [sum(PROMPT_TOKENS) + sum(group[0] for group in RESPONSE_TOKENS)]


@ways_to_read
def test_logits_are_made_for_response_tokens_only(shared_prompt: bool) -> None:
    network = language_model()
    vectors = count_inputs(network.get_output_embeddings())
    candidate_logprobs(network, some_candidates(), shared_prompt=shared_prompt)
    assert vectors == [WRITTEN]


@architectures
def test_many_logits_are_made_in_chunks_and_change_nothing(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, candidates = language_model(architecture), some_candidates()
    monkeypatch.setattr(scoring, "targets_at_once", lambda network: 4)
    vectors, chunks = count_inputs(network.get_output_embeddings()), [4, 4, 4, 4, 2]
    actual = candidate_logprobs(network, candidates, temperature=0.5)
    assert vectors == chunks
    gradients(network, candidate_logprobs(network, candidates, temperature=0.5))
    assert sorted(vectors) == sorted(3 * chunks)  # The backward has made them anew.
    monkeypatch.undo()
    assert_same(network, actual, candidate_logprobs(network, candidates, temperature=0.5))


def test_what_the_backward_of_chunks_keeps_is_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    network, kept = language_model(), list[int]()

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape[-1] if tensor.dim() > 1 else 0)
        return tensor

    hidden, targets = torch.randn(18, network.config.hidden_size, requires_grad=True), torch.zeros(18).long()
    for size, holds_logits in ((18, True), (17, False)):
        monkeypatch.setattr(scoring, "targets_at_once", lambda network, size=size: size)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            over_vocabulary(network, hidden, targets, token_logprobs)
        assert (VOCABULARY in kept) == holds_logits
        kept.clear()


def test_a_chunk_is_128_mb_or_as_large_as_the_weights_that_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    network = language_model()
    assert targets_at_once(network) == 2**25 // VOCABULARY
    monkeypatch.setattr(scoring, "MOST_LOGITS", 3 * VOCABULARY)
    assert targets_at_once(network) == network.config.hidden_size
    network.get_output_embeddings().weight.requires_grad_(False)
    assert targets_at_once(network) == 3
    monkeypatch.setattr(scoring, "MOST_LOGITS", 1)  # Fewer than a single target has.
    assert targets_at_once(network) == 1


def test_under_autocast_the_gradients_of_chunks_are_added_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    network, draw = language_model(), seeded(5)
    weight = network.get_output_embeddings().weight
    hidden = torch.randn(256, network.config.hidden_size, generator=draw)
    targets = torch.randint(VOCABULARY, (256,), generator=draw)

    def gradient(size: int, is_bf16: bool) -> Tensor:
        monkeypatch.setattr(scoring, "targets_at_once", lambda network: size)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            losses = over_vocabulary(network, hidden, targets, token_logprobs)
        return torch.autograd.grad(losses.sum(), weight)[0]

    exact = gradient(256, is_bf16=False)
    whole, chunks = ((gradient(size, is_bf16=True) - exact).norm().item() for size in (256, 1))
    assert 0 < chunks < 1.2 * whole


def test_a_function_that_catches_everything_sees_no_exception_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    network, caught = language_model(), []

    def stubborn(logits: Tensor, tokens: Tensor) -> Tensor:
        try:
            return token_logprobs(logits, tokens)
        except Exception as error:
            caught.append(error)
            raise

    hidden = torch.randn(6, network.config.hidden_size, requires_grad=True)
    monkeypatch.setattr(scoring, "targets_at_once", lambda network: 1)
    over_vocabulary(network, hidden, torch.arange(6), stubborn).sum().backward()
    assert not caught and hidden.grad is not None


def test_chunks_without_a_gradient_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, candidates = language_model(), some_candidates()
    whole = candidate_logprobs(network, candidates)
    monkeypatch.setattr(scoring, "targets_at_once", lambda network: 1)
    vectors = count_inputs(network.get_output_embeddings())
    with torch.no_grad():
        torch.testing.assert_close(candidate_logprobs(network, candidates), whole)
    assert vectors == [1] * WRITTEN


@ways_to_read
def test_gradient_checkpointing_keeps_the_gradient(shared_prompt: bool) -> None:
    network, candidates = language_model(), some_candidates()
    expected = plain_logprobs(network, candidates)
    expected_gradients = gradients(network, expected)
    network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    actual = candidate_logprobs(network, candidates, shared_prompt=shared_prompt)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    for name, gradient in gradients(network, actual).items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-5, rtol=1e-5)


@architectures
def test_all_texts_together_may_be_longer_than_the_context(architecture: str) -> None:
    candidates = some_candidates()
    many = Candidates(
        candidates.prompt,
        candidates.prompt_mask,
        candidates.responses.repeat(1, 6, 1),
        candidates.response_mask.repeat(1, 6, 1),
    )
    network = language_model(architecture)
    assert many.prompt.shape[1] + many.responses[0].numel() > network.config.max_position_embeddings
    shared, repeated = (candidate_logprobs(network, many, shared_prompt=shared) for shared in (True, False))
    assert_same(network, shared, repeated)


def test_a_window_that_holds_the_texts_changes_nothing() -> None:
    network, candidates = language_model(), some_candidates()
    expected = candidate_logprobs(network, candidates, shared_prompt=True)
    network.config.sliding_window = 5 + 4
    assert torch.equal(candidate_logprobs(network, candidates, shared_prompt=True), expected)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("_attn_implementation", "eager"),
        ("alibi", True),
        ("layer_types", ["full_attention", "linear_attention"]),
        ("sliding_window", 5 + 4 - 1),
    ],
)
def test_a_network_that_does_not_leave_attention_to_us_reads_padded_texts(setting: str, value: object) -> None:
    network, candidates = language_model(), some_candidates()
    setattr(network.config, setting, value)
    tokens = count_inputs(network.get_input_embeddings())
    candidate_logprobs(network, candidates)
    assert tokens == [9 * (5 + 4)]
    with pytest.raises(ValueError, match="LlamaForCausalLM cannot share a prompt; leave shared_prompt at None"):
        candidate_logprobs(network, candidates, shared_prompt=True)


def test_a_network_with_a_running_state_reads_padded_texts() -> None:
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    network = MambaForCausalLM(config)
    assert not can_unpad(network, 1)


def test_a_network_that_drops_the_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = language_model()
    for layer in network.base_model.layers:  # type: ignore[union-attr]
        whole = layer.self_attn.forward
        monkeypatch.setattr(layer.self_attn, "forward", lambda *a, layout, whole=whole, **kw: whole(*a, **kw))
    with pytest.raises(RuntimeError, match="was not handed the layout of its texts; load it with eager attention"):
        candidate_logprobs(network, some_candidates())


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_a_network_that_asks_more_of_its_attention_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = language_model()
    for layer in network.base_model.layers:  # type: ignore[union-attr]
        whole = layer.self_attn.forward
        monkeypatch.setattr(layer.self_attn, "forward", lambda *a, whole=whole, **kw: whole(*a, **kw, **{name: 1.0}))
    with pytest.raises(ValueError, match=f"LlamaAttention asks for {name} in its attention; load it with eager"):
        candidate_logprobs(network, some_candidates())


def test_the_last_feed_forward_is_computed_for_what_is_asked() -> None:
    network, candidates = language_model(), some_candidates()
    vectors = count_inputs(network.base_model.layers[-1].mlp.up_proj)  # type: ignore[union-attr, index]
    candidate_logprobs(network, candidates, shared_prompt=False)
    assert vectors == [WRITTEN]


def test_a_network_without_a_vocabulary_head_is_refused() -> None:
    with pytest.raises(ValueError, match="LlamaForSequenceClassification has no language model head"):
        vocabulary_head(scorer())
