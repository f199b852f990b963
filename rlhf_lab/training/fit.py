"""The one optimizer step that every stage takes: accumulate, clip, schedule, check. Knows no algorithm."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from rlhf_lab.attention import recomputing
from rlhf_lab.data.batching import Rows
from rlhf_lab.runs import Run

Batch = TypeVar("Batch", bound=Rows)
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_PARTIAL = StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False)
"""For loading; the names are checked by us, since PyTorch asks for frozen weights too where there are processes."""
_KINDS = {
    "adamw": "AdamW",
    "adamw_8bit": "AdamW8bit",
    "adamw_paged": "PagedAdamW",
    "adamw_8bit_paged": "PagedAdamW8bit",
}
"""Optimizers, by the names of their classes; all but the first are of bitsandbytes."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule; eps 1e-5 as in Huang et al. 2024, arXiv:2403.17031, detail 9."""

    learning_rate: float = 3e-6
    schedule: str = "cosine"
    """constant, linear or cosine, down to `final_fraction` of the learning rate."""
    warmup_fraction: float = 0.0
    """Share of the updates in which the rate rises from 0."""
    final_fraction: float = 0.0
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    adam_eps: float = 1e-5
    kind: str = "adamw"
    """adamw; adamw_8bit (moments of 8 bits, Dettmers et al. 2022, arXiv:2110.02861); adamw_paged (moments go to the
    CPU's memory where the GPU's is full); adamw_8bit_paged."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.schedule not in ("constant", "linear", "cosine"):
            raise ValueError(f"schedule {self.schedule!r} is unknown; choose constant, linear or cosine.")
        if self.kind not in _KINDS:
            raise ValueError(f"the optimizer {self.kind!r} is unknown; choose one of {', '.join(_KINDS)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}.")

    def rate(self, fraction: float) -> float:
        """Learning rate after `fraction` of the updates.

        Example:
            >>> OptimizerConfig(learning_rate=1.0, schedule="linear").rate(0.25)
            0.75
        """
        if fraction < self.warmup_fraction:
            return self.learning_rate * fraction / self.warmup_fraction
        rest = (fraction - self.warmup_fraction) / max(1e-9, 1.0 - self.warmup_fraction)
        left = {"constant": 1.0, "linear": 1.0 - rest, "cosine": 0.5 + 0.5 * math.cos(math.pi * rest)}[self.schedule]
        return self.learning_rate * (self.final_fraction + (1.0 - self.final_fraction) * left)


def new_optimizer(config: OptimizerConfig, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, by PyTorch or by bitsandbytes.

    Raises:
        ValueError: bitsandbytes is needed and not installed.
    """
    settings: dict[str, Any] = {"lr": config.learning_rate, "eps": config.adam_eps, "weight_decay": config.weight_decay}
    if config.kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)
    try:
        from bitsandbytes import optim  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError(
            f"the optimizer {config.kind} needs bitsandbytes; install it with: pip install 'rlhf-lab[large]'."
        ) from error
    return getattr(optim, _KINDS[config.kind])(parameters, **settings)


@dataclass(frozen=True)
class Term(Generic[Batch]):
    """A summand of an update's loss: the mean over the counted elements of a batch."""

    batch: Batch
    loss: Callable[[Batch, float], Tensor]
    """(rows, denominator) to the sum of the rows' terms over the denominator."""
    counted: Bool[Tensor, "..."]


class _Applied(nn.Module):
    """Runs any function of the network as its forward, so that DDP and FSDP see every use of the parameters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # Accelerate asks for what FSDP shards one by one.
        self._no_split_modules = getattr(network, "_no_split_modules", None)

    def forward(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self.network, *args, **kwargs)


class Fit:
    """A network, its optimizer and the processes that train it together."""

    def __init__(
        self, run: Run, network: nn.Module, config: OptimizerConfig, *, num_updates: int, recompute: bool = False
    ) -> None:
        """Prepare `network` on the run's device.

        Args:
            run: Processes, device and precision.
            network: What learns; a model of Transformers.
            config: Of the optimizer.
            num_updates: Length of the schedule.
            recompute: Layers keep their inputs only, and compute the rest again in the backward.
        """
        self.run, self.config, self.num_updates, self.recompute = run, config, num_updates, recompute
        self.network = network.to(run.device)  # type: ignore[arg-type]
        self.updates = 0
        optimizer = new_optimizer(config, [weight for weight in network.parameters() if weight.requires_grad])
        # What `trained` fills again: everything but the weights.
        blank = {id(tensor): nn.Parameter(torch.empty_like(tensor, device="meta")) for tensor in network.parameters()}
        self._blank = copy.deepcopy(network, blank) if run.accelerator.is_fsdp2 else None
        self._applied, self._optimizer = run.accelerator.prepare(_Applied(self.network), optimizer)

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`function(network, *args, **kwargs)`, with gradients that reach all processes."""
        return self._applied(function, *args, **kwargs)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Within, every process holds all weights, so that it may read on its own, as often as it needs.

        Sampling takes as many forwards as its longest response, and processes that share their weights would have to
        wait for each other at every one. Without sharding it changes nothing.
        """
        modules: list[nn.Module] = list(self._applied.modules())
        sharded = [module for module in modules if isinstance(module, FSDPModule)]
        for module in sharded:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in sharded:
                module.reshard()
                # The root's are needed again at once, by the backward.
                module.set_reshard_after_forward(module is not self._applied, recurse=False)

    def count(self, counted: Bool[Tensor, "..."]) -> float:
        """Elements counted over all processes, as the denominator of this process's loss.

        Gradients are averaged over processes, so each divides by its share of the global count; sums of the parts are
        then the mean over the global batch, whatever the number of processes or micro-batches.
        """
        accelerator = self.run.accelerator
        total = accelerator.reduce(counted.sum().to(self.run.device), reduction="sum").item()  # type: ignore[union-attr]
        return max(total, 1) / accelerator.num_processes

    def step(
        self,
        batch: Batch,
        loss: Callable[[Batch, float], Tensor],
        *,
        counted: Bool[Tensor, "..."],
        micro_batch_size: int | None = None,
    ) -> float:
        """One update on `batch`; returns its loss, the mean over all processes' counted elements.

        Args:
            batch: This process's rows.
            loss: (rows, denominator) to the sum of the rows' terms over the denominator.
            counted: Mask of what the mean is over, for the whole batch.
            micro_batch_size: Rows in memory at once; the update is the same for any value.

        Raises:
            ValueError: The loss is NaN or infinite; the weights are as they were before the step.
        """
        return self.step_on([Term(batch, loss, counted)], micro_batch_size=micro_batch_size)[0]

    def step_on(self, terms: Sequence[Term[Any]], *, micro_batch_size: int | None = None) -> list[float]:
        """One update on a sum of losses, each the mean over a batch of its own; returns them. Otherwise as `step`."""
        parts = []
        for index, (term, count) in enumerate([(term, self.count(term.counted)) for term in terms]):
            pieces = term.batch.split(micro_batch_size) if micro_batch_size else [term.batch]
            parts += [(index, part, count) for part in pieces]
        totals = torch.zeros(len(terms), device=self.run.device)
        # Not for good: while a text is written, such layers would refuse the memory of what was read.
        with recomputing(self.network) if self.recompute else contextlib.nullcontext():  # type: ignore[arg-type]
            for index, part, count in parts[:-1]:
                with self.run.accelerator.no_sync(self._applied):
                    totals[index] += self._backward(terms[index].loss(part, count))
            index, part, count = parts[-1]
            totals[index] += self._backward(terms[index].loss(part, count))
        values = self.run.accelerator.reduce(totals, reduction="mean").tolist()  # type: ignore[union-attr]
        if not all(map(math.isfinite, values)):
            self._optimizer.zero_grad(set_to_none=True)
            raise ValueError(
                f"the loss became {sum(values)} at update {self.updates}; lower learning_rate "
                f"(now {self.learning_rate:.3g}) or look for infinite rewards."
            )
        self._update()
        return values

    def _backward(self, loss: Tensor) -> Tensor:
        self.run.accelerator.backward(loss)
        return loss.detach()

    @property
    def learning_rate(self) -> float:
        """Rate of the next update."""
        return self.config.rate(self.updates / max(self.num_updates, 1))

    def _update(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.run.accelerator.clip_grad_norm_(self._applied.parameters(), self.config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What is trained, optimizer moments and the number of updates, whole, whatever the number of processes."""
        weights, moments = get_state_dict(self._applied, self._optimizer.optimizer, options=_WHOLE)
        return {"network": weights, "optimizer": moments, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`'s values, of any number of processes.

        Raises:
            KeyError: They are of another network.
        """
        self._check_names(set(state["network"]))
        set_state_dict(
            self._applied,
            self._optimizer.optimizer,
            model_state_dict=state["network"],
            optim_state_dict=state["optimizer"],
            options=_PARTIAL,
        )
        self.updates = state["updates"]

    def _check_names(self, names: set[str]) -> None:
        """Every weight that is trained, and none that the network has not; frozen ones are not kept."""
        wrapper = "_checkpoint_wrapped_module."  # FSDP's own, around what it recomputes.
        known = {f"network.{name}".replace(wrapper, "") for name in self.network.state_dict()}
        trained = {name for name, weight in self.network.named_parameters() if weight.requires_grad}
        missing = {f"network.{name}".replace(wrapper, "") for name in trained} - names
        if wrong := sorted(missing | (names - known)):
            raise KeyError(wrong[0])

    def trained(self) -> nn.Module:
        """The network, on its own again: whole, and in this process."""
        if self._blank is None:
            return self.network
        weights = self.network.state_dict()
        weights = {
            name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in weights.items()
        }
        self._blank.load_state_dict(weights, assign=True)
        self._blank.tie_weights()  # type: ignore[operator]
        return self._blank


class Frozen:
    """A network that is only read, called as `Fit` is."""

    def __init__(self, network: nn.Module) -> None:
        """Leave `network` where it is."""
        self.network = network

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`function(network, *args, **kwargs)`."""
        return function(self.network, *args, **kwargs)

    def whole(self) -> contextlib.nullcontext[None]:
        """It always is."""
        return contextlib.nullcontext()
