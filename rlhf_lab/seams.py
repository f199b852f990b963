"""Seams: where a stage takes an equation as an argument, so that an exercise's own runs in the real trainer.

The package's own equation runs as it is. Any other function is looked at on every call, so that what is wrong with its
result is said in one sentence, where it came from, and not by a trainer that fails later.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Equation = Callable[..., Any]


def checked(seam: str, equation: Any, own: Equation, shape_of: Callable[..., tuple[int, ...]], each: str) -> Equation:
    """`equation`, with its results checked at every call, unless it is the package's own.

    It is given copies, so that a function that writes into its arguments spoils nothing.

    Args:
        seam: The argument that it came by, for messages.
        equation: A function of the same arguments as `own`.
        own: The package's equation.
        shape_of: The shape that a result must have, from the positional arguments.
        each: What the result has one number for, for messages.

    Raises:
        ValueError: `equation` is no function. When called: it raised; its result is no tensor (no array, where it is
            given arrays), has another shape, is not floating point, or is not finite; or a gradient is wanted and it
            gives none, or one that is not finite.

    Example:
        >>> half = checked("loss", lambda x: 0.5 * x, torch.square, lambda x: x.shape, "token")
        >>> half(torch.ones(2))
        tensor([0.5000, 0.5000])
        >>> checked("loss", torch.mean, torch.square, lambda x: x.shape, "token")(torch.ones(2))
        Traceback (most recent call last):
        ...
        ValueError: loss (mean) returned the shape (), not (2,): it must give one number for each token.
    """
    if equation is own:
        return own
    if not callable(equation):
        raise ValueError(f"{seam} must be a function such as {own.__name__}, not {equation!r:.60}.")
    name = f"{seam} ({getattr(equation, '__name__', type(equation).__name__)})"

    def call(*args: Any, **settings: Any) -> Any:
        copies = [_copied(arg) for arg in args]
        try:
            result = equation(*copies, **settings)
        except Exception as error:
            raise ValueError(f"{name} raised {type(error).__name__}: {error}.") from error
        _check_values(name, result, type(args[0]), tuple(shape_of(*args)), each)
        _check_gradients(name, result, copies)
        return result

    return call


def _copied(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return arg.clone()
    return arg.copy() if isinstance(arg, np.ndarray) else arg


def _check_values(name: str, result: Any, kind: type, shape: tuple[int, ...], each: str) -> None:
    wanted = f"it must give one number for each {each}"
    kind = np.ndarray if issubclass(kind, np.ndarray) else Tensor
    if not isinstance(result, kind):
        what = "array" if kind is np.ndarray else "tensor"
        raise ValueError(f"{name} returned {type(result).__name__}, no {what} of the shape {shape}: {wanted}.")
    if tuple(result.shape) != shape:
        raise ValueError(f"{name} returned the shape {tuple(result.shape)}, not {shape}: {wanted}.")
    numbers = torch.as_tensor(result)
    if not numbers.is_floating_point():
        raise ValueError(f"{name} returned {str(numbers.dtype).removeprefix('torch.')}, not floating-point numbers.")
    if place := _not_finite(numbers):
        raise ValueError(f"{name} returned {numbers[place].item()} at {list(place)}; every number must be finite.")


def _check_gradients(name: str, result: Any, args: list[Any]) -> None:
    trained = [(index, arg) for index, arg in enumerate(args) if isinstance(arg, Tensor) and arg.requires_grad]
    if trained and not result.requires_grad:
        raise ValueError(
            f"{name} returned numbers without a gradient, from which nothing is learnt; "
            f"compute them with PyTorch from its arguments, without detach(), item() or no_grad()."
        )
    for index, arg in trained:
        arg.register_hook(functools.partial(_check_gradient, name, index))


def _check_gradient(name: str, index: int, gradient: Tensor) -> None:
    """Weights would become NaN, though the loss is finite."""
    if place := _not_finite(gradient):
        raise ValueError(
            f"{name} has a gradient of {gradient[place].item()} at {list(place)} of its argument {index + 1}, though "
            f"its value is finite; look for a root or a logarithm of 0, or an infinity that is masked away too late."
        )


def _not_finite(numbers: Tensor) -> tuple[int, ...]:
    """Where the first number that is not finite stands; () if there is none."""
    bad = ~torch.isfinite(numbers)
    return tuple(bad.nonzero()[0].tolist()) if bool(bad.any()) else ()
