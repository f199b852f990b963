"""Values as bytes and back: how inputs reach the student's function and how its outputs reach the judge.

A message is a JSON header and the raw bytes of its arrays. A header says an array's type and shape, so nothing is
unpickled and no array format is parsed. Whoever reads may be lied to: each limit is checked before memory is taken.
"""

import json
import math
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MAGIC = b"RLHF1"
MAX_HEADER = 256 * 1024
MAX_PAYLOAD = 32 * 2**20
DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
_FRAME = struct.Struct("!5sII")


class WireError(ValueError):
    """A message that is not one."""


def pack(value: Any) -> bytes:
    """A value as a message.

    Args:
        value: Tensors, NumPy arrays, texts, numbers, None, and lists, tuples or dicts (with texts as keys) of them.

    Raises:
        WireError: There is something else in it, or it is too large.

    Example:
        >>> unpack(pack({"scores": np.array([1.0, 2.0]), "of": ("a", None)}))
        {'scores': array([1., 2.]), 'of': ['a', None]}
    """
    blobs: list[bytes] = []
    try:
        header = json.dumps(_lowered(value, blobs)).encode()
    except RecursionError as error:
        raise WireError("the value is nested too deeply.") from error
    payload = b"".join(blobs)
    if len(header) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
        raise WireError(f"the value is too large to be checked ({(len(header) + len(payload)) / 2**20:.0f} MiB).")
    return _FRAME.pack(MAGIC, len(header), len(payload)) + header + payload


def unpack(message: bytes) -> Any:
    """The value of a message; tuples come back as lists.

    Raises:
        WireError: It is not a message.
    """
    if len(message) < _FRAME.size:
        raise WireError("the message is cut short.")
    header, payload = _lengths(message[: _FRAME.size])
    body = message[_FRAME.size :]
    if len(body) != header + payload:
        raise WireError("the message has another length than it says.")
    return _parsed(body[:header], body[header:])


def send(connection: socket.socket, value: Any) -> None:
    """Send a value as a message.

    Raises:
        WireError: As in `pack`.
        OSError: The other side is gone, or does not read.
    """
    connection.sendall(pack(value))


def receive(connection: socket.socket, timeout_s: float, max_bytes: int = MAX_PAYLOAD) -> Any:
    """The value that the other side sends.

    Args:
        timeout_s: For the whole message, so that slow drops do not hold the reader.
        max_bytes: Of its arrays, and of what stands before them.

    Raises:
        WireError: It is not a message, or not whole in time.
        OSError: The connection broke.
    """
    deadline = time.monotonic() + timeout_s
    header, payload = _lengths(_exactly(connection, _FRAME.size, deadline))
    if max(header, payload) > max_bytes:
        raise WireError("the message says that it is too large.")
    return _parsed(_exactly(connection, header, deadline), _exactly(connection, payload, deadline))


def _lengths(start: bytes) -> tuple[int, int]:
    magic, header, payload = _FRAME.unpack(start)
    if magic != MAGIC:
        raise WireError("the message does not start as one.")
    if header > MAX_HEADER or payload > MAX_PAYLOAD:
        raise WireError("the message says that it is too large.")
    return header, payload


def _exactly(connection: socket.socket, number: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < number:
        left = deadline - time.monotonic()
        if left <= 0:
            raise WireError("the message did not come in time.")
        connection.settimeout(left)
        try:
            part = connection.recv(min(number - len(parts), 2**20))
        except TimeoutError as error:
            raise WireError("the message did not come in time.") from error
        if not part:
            raise WireError("the connection ended.")
        parts += part
    return bytes(parts)


def _parsed(header: bytes, payload: bytes) -> Any:
    try:
        value, end = _raised(json.loads(header), payload, 0)
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError, OverflowError) as error:
        raise WireError(f"the message cannot be read ({type(error).__name__}).") from error
    if end != len(payload):
        raise WireError("the message has bytes that belong to nothing.")
    return value


def _lowered(value: Any, blobs: list[bytes]) -> Any:
    """JSON in which each array stands as its type and shape; every container is tagged, so that no text can pose."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "U":
            return _lowered(value.tolist(), blobs)
        return _array(value, "array", blobs)
    if (torch := sys.modules.get("torch")) is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().resolve_conj().resolve_neg()
        # NumPy has no bfloat16; single precision holds each of its values.
        return _array((value.float() if value.dtype == torch.bfloat16 else value).numpy(), "tensor", blobs)
    return _container(value, blobs)


def _container(value: Any, blobs: list[bytes]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise WireError("a dict's keys must be texts.")
        return {"dict": {key: _lowered(entry, blobs) for key, entry in value.items()}}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return {"list": [_lowered(entry, blobs) for entry in value]}
    raise WireError(f"a {type(value).__name__} cannot be checked; give tensors, numbers, texts, or lists of them.")


def _number(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise WireError("a whole number is too large to be checked.")
    return value


def _array(array: np.ndarray, kind: str, blobs: list[bytes]) -> dict[str, Any]:
    if array.dtype.name not in DTYPES:
        known = ", ".join(DTYPES)
        raise WireError(f"a {kind}'s type cannot be checked when it is {array.dtype}; give one of {known}.")
    blobs.append(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).tobytes())
    return {kind: [array.dtype.name, list(array.shape)]}


def _raised(node: Any, payload: bytes, start: int) -> tuple[Any, int]:
    """The value of a header's node, and where the bytes that follow its own begin."""
    if node is None or isinstance(node, bool | str | int | float):
        return _number(node), start
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError("not a node")
    [(kind, inner)] = node.items()
    if kind == "list" and isinstance(inner, list):
        entries = []
        for entry in inner:
            raised, start = _raised(entry, payload, start)
            entries.append(raised)
        return entries, start
    if kind == "dict" and isinstance(inner, dict):
        mapping = {}
        for key, entry in inner.items():
            mapping[key], start = _raised(entry, payload, start)
        return mapping, start
    if kind in ("array", "tensor"):
        return _array_of(kind, inner, payload, start)
    raise ValueError("not a node")


def _array_of(kind: str, inner: Any, payload: bytes, start: int) -> tuple[Any, int]:
    name, shape = inner
    if name not in DTYPES or not isinstance(shape, list) or len(shape) > 8:
        raise ValueError("not an array")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape):
        raise ValueError("not a shape")
    dtype = np.dtype(name)
    end = start + math.prod(shape) * dtype.itemsize
    if end > len(payload):
        raise ValueError("too few bytes")
    array = np.frombuffer(payload[start:end], dtype=dtype).reshape(shape).copy()
    if kind == "array":
        return array, end
    import torch  # Here, because the grader reads messages too, and does without.

    return torch.from_numpy(array), end
