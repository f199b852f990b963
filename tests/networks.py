"""Networks and tokenizers so small that a test can look at every number of theirs."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rlhf_lab.models import without_dropout

CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": lambda **common: LlamaConfig(**common, intermediate_size=24, num_key_value_heads=2),
    "gpt_neox": lambda **common: GPTNeoXConfig(**common, intermediate_size=24),
    "gpt2": lambda **common: GPT2Config(**common),
}

architectures = pytest.mark.parametrize("architecture", CONFIGS)


def random_network(architecture: str, *, kind: Any = AutoModelForCausalLM, **settings: Any) -> PreTrainedModel:
    """The same weights every time; `settings` of its config say at least the vocabulary's size and its EOS."""
    config = CONFIGS[architecture](
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,  # Large, so that every token changes what follows it.
        bos_token_id=None,
        **settings,
    )
    torch.manual_seed(0)
    return without_dropout(kind.from_config(config))


def bigram_network(logits: Tensor, **settings: Any) -> PreTrainedModel:
    """A Llama whose logits after token t are row t of `logits`, whatever came before.

    Attention and feed-forward add nothing, so the last layer sees the one-hot embedding, scaled by sqrt(vocabulary).
    """
    size = len(logits)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=4,
        rms_norm_eps=1e-12,
        tie_word_embeddings=False,
        bos_token_id=None,
        **settings,
    )
    network = LlamaForCausalLM(config).eval()
    layer = network.model.layers[0]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        network.model.embed_tokens.weight.copy_(torch.eye(size))
        network.lm_head.weight.copy_(logits.T / math.sqrt(size))
    return network


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerBase:
    """One token a word: "<eos>" and "[PAD]" are among `words`, and the third stands for what is unknown."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[2]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="[PAD]")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
