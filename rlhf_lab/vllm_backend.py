"""vLLM as who writes the responses: paged memory and continuous batches, for the same texts.

vLLM is given no chance to draw: each of its logits becomes certain at the token that `generation.choose` chooses. So
the same numbers give the same text as with Transformers, up to rounding, and however the rows are split.

The engine runs in this process, beside the networks that train, and takes over the policy's weights before a rollout.

Reference: Kwon et al. 2023, arXiv:2309.06180.
"""

# pyright: reportMissingImports=false
# vLLM asks for other versions than the development environment has, so no tool sees it there.

import contextlib
import copy
import functools
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from rlhf_lab.adapters import merged_weights
from rlhf_lab.generation import Request, Rollout, choose

_ENVIRONMENT = {
    # The weights are handed over as they are in memory: nothing may lie between the engine and this process.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # The older of its runners takes the newer's place, since `_processor` is written for it.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    # On a CPU the engine would nail the threads of this process to cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_PROGRESS = functools.partial(tqdm, leave=False)
_ROOM = 1e9
"""Bytes that the engine takes besides weights and cache, roughly."""


class VLLMBackend:
    """A `generation.Backend`: an engine in each process, made when it is first asked."""

    queues = True

    def __init__(self, *, cache_gb: float = 4.0, max_sequences: int = 256, eager: bool = False) -> None:
        """Say what the engine may take.

        Args:
            cache_gb: Memory of keys and values [GB], beside a copy of the weights.
            max_sequences: Responses written at once; the others wait.
            eager: Without compiling and without CUDA graphs: a faster start, and slower writing.

        Raises:
            ValueError: Not above 0, or vLLM is not installed.
        """
        if not cache_gb > 0 or max_sequences < 1:
            raise ValueError(f"cache_gb ({cache_gb}) and max_sequences ({max_sequences}) must be above 0.")
        if importlib.util.find_spec("vllm") is None:
            raise ValueError("vLLM is not installed; install it with: pip install 'rlhf-lab[vllm]'.")
        self.cache_gb, self.max_sequences, self.eager = cache_gb, max_sequences, eager
        self._engine: Any = None
        self._shapes: dict[str, torch.Size] = {}
        self._limit = 0

    def memory(self, network: PreTrainedModel, mixed_precision: str) -> float:
        """What the engine takes on each process: weights in the precision that they run in, and the cache [bytes]."""
        size = network.dtype.itemsize if mixed_precision == "no" else torch.bfloat16.itemsize
        return size * network.num_parameters() + self.cache_gb * 1e9 + _ROOM

    def follow(self, network: PreTrainedModel) -> None:
        """Take over the weights that `network` has now, its adapters merged.

        Raises:
            ValueError: vLLM cannot run such a network here.
        """
        if self._engine is None or self._shapes != _shapes(network):
            self._engine = None  # The memory of one is needed for the next.
            self._engine, self._shapes = self._started(network), _shapes(network)
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(network)})
        self._engine.reset_prefix_cache()

    @torch.no_grad()
    def sample(self, network: PreTrainedModel, request: Request) -> Rollout:
        """What the weights that were last followed answer.

        Raises:
            ValueError: A prompt and its response are longer than the engine's memory or the network allow, or vLLM
                fails.
            RuntimeError: No network was followed yet.
        """
        if self._engine is None:
            raise RuntimeError("the engine has no weights; call follow(network) before sample.")
        if (length := int(request.prompt_mask.sum(-1).max()) + request.config.max_response_tokens) > self._limit:
            raise ValueError(
                f"a prompt with its response takes up to {length} tokens, and the engine holds {self._limit}; "
                f"shorten them, or raise cache_gb (now {self.cache_gb})."
            )
        asked = [row[mask].tolist() for row, mask in zip(request.prompt, request.prompt_mask, strict=True)]
        prompts = [{"prompt_token_ids": tokens} for tokens in asked for _ in range(request.uniforms.shape[1])]
        settings = [_settings(row, request) for row in request.uniforms.flatten(0, 1).cpu()]
        return _rollout(request, self._written(network, prompts, settings))

    def _written(self, network: PreTrainedModel, prompts: list[Any], settings: list[Any]) -> list[Any]:
        engine, self._engine = self._engine, None  # Cut off, it would answer the rest of these prompts next time.
        try:
            with torch.autocast(network.device.type, enabled=False):
                show = _PROGRESS if len(prompts) > self.max_sequences else False
                answers = engine.generate(prompts, settings, use_tqdm=show)
        except Exception as error:  # Whatever its kernels raise.
            raise _refusal("write with", network, error) from error
        self._engine = engine
        return [answer.outputs[0] for answer in answers]

    def _started(self, network: PreTrainedModel) -> Any:
        # What they say is heeded when vLLM is first imported.
        os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
        self._limit = self._longest(network)
        threads = torch.get_num_threads()
        try:
            from vllm import LLM

            asked = self._asked_of_engine(network)
            # It seeds PyTorch, and its networks are of the precision that they run in.
            with (
                tempfile.TemporaryDirectory() as folder,
                torch.random.fork_rng(),
                torch.autocast(network.device.type, enabled=False),
                _lent(type(network.base_model)),
            ):
                config = copy.deepcopy(network.config)
                config.architectures = config.architectures or [type(network).__name__]  # A saved one's says it.
                config.save_pretrained(folder)
                return LLM(model=folder, **asked)
        except Exception as error:  # vLLM has its own errors, pydantic's and PyTorch's.
            raise _refusal("run", network, error) from error
        finally:
            torch.set_num_threads(threads)

    def _asked_of_engine(self, network: PreTrainedModel) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "dtype": _dtype(network),
            "max_model_len": self._limit,
            "max_num_seqs": self.max_sequences,
            "kv_cache_memory_bytes": int(self.cache_gb * 1e9),
            "enable_prefix_caching": True,
            "enforce_eager": self.eager,
            "logits_processors": [_processor()],
            "async_scheduling": False,  # `_processor` counts the tokens that are written.
            "disable_log_stats": True,
        }
        if network.device.type == "cuda":
            total = torch.cuda.get_device_properties(network.device).total_memory
            precision = "no" if _dtype(network) == network.dtype else "bf16"
            asked["gpu_memory_utilization"] = min(0.95, self.memory(network, precision) / total)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            asked["distributed_executor_backend"] = "external_launcher"
        return asked

    def _longest(self, network: PreTrainedModel) -> int:
        """Tokens of a prompt with its response."""
        config = network.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        bytes_per_token = 2 * config.num_hidden_layers * heads * size * _dtype(network).itemsize
        # Memory is given out in blocks, so not every last token of it can be had.
        return min(config.max_position_embeddings, int(0.9 * self.cache_gb * 1e9 / bytes_per_token))


_LENT: dict[type, tuple[Any, Any]] = {}
"""Classes of Transformers, and how vLLM makes and calls its networks of them."""


@contextlib.contextmanager
def _lent(kind: Any) -> Iterator[None]:
    """Within, vLLM may change a class of Transformers, as it does where it has no network of its own: GPT-NeoX, say.

    Afterwards the class is what it was, but for the networks that vLLM made of it. Ours would fail otherwise.
    """
    own = kind.__init__, kind.__call__
    if kind in _LENT:
        kind.__init__, kind.__call__ = _LENT[kind]
    try:
        yield
    finally:
        theirs = kind.__init__, kind.__call__
        if theirs != own:
            _LENT[kind] = theirs

            def call(network: nn.Module, *args: Any, **settings: Any) -> Any:
                is_theirs = "do_not_compile" in vars(network)  # What their way to make one leaves there.
                return (theirs[1] if is_theirs else nn.Module.__call__)(network, *args, **settings)

            kind.__init__, kind.__call__ = own[0], call


def _refusal(what: str, network: PreTrainedModel, error: Exception) -> ValueError:
    return ValueError(
        f"vLLM cannot {what} this {type(network).__name__} here ({type(error).__name__}: {error}); take the "
        f"transformers backend."
    )


def _shapes(network: PreTrainedModel) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in network.named_parameters()}


def _dtype(network: PreTrainedModel) -> torch.dtype:
    """In which the network runs just now."""
    kind = network.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else network.dtype


def _settings(uniforms: Float[Tensor, " max_response"], request: Request) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0.0,
        max_tokens=request.config.max_response_tokens,
        stop_token_ids=[request.eos_token_id],
        ignore_eos=True,  # What the network's config calls so; the tokenizer's counts.
        detokenize=False,
        extra_args={"uniforms": uniforms.tolist(), "config": request.config},
    )


@functools.cache
def _processor() -> type:
    """The class of what makes logits certain; within a function, since vLLM may not be installed."""
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates

    class Chosen(LogitsProcessor):
        def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
            self._asked: dict[int, tuple[dict[str, Any], list[int]]] = {}

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            process_dict_updates(self._asked, batch_update, lambda params, _, written: (params.extra_args, written))

        def apply(self, logits: Tensor) -> Tensor:
            rows = sorted(self._asked)
            if not rows:  # The engine tries its network out before anyone asks.
                return logits
            asked = [self._asked[row] for row in rows]
            numbers = torch.tensor([settings["uniforms"][len(written)] for settings, written in asked])
            # All requests in the engine are of one call of `sample`, and of its settings.
            token = choose(logits[rows].float(), numbers.to(logits.device), asked[0][0]["config"])
            logits[rows] = -torch.inf
            logits[rows, token] = 0.0
            return logits

    return Chosen


def _rollout(request: Request, written: list[Any]) -> Rollout:
    tokens = pad_sequence([torch.tensor(one.token_ids) for one in written], batch_first=True)
    lengths = torch.tensor([len(one.token_ids) for one in written])
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    shape, device = request.uniforms.shape[:2], request.prompt.device
    return Rollout(
        prompt=request.prompt,
        prompt_mask=request.prompt_mask,
        responses=tokens.view(*shape, -1).to(device),
        response_mask=mask.view(*shape, -1).to(device),
        finished=torch.tensor([one.finish_reason == "stop" for one in written]).view(shape).to(device),
    )
