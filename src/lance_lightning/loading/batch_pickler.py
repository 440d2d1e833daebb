"""Pickles of batches whose tensors and arrays are left outside of them."""

from __future__ import annotations

import io
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.multiprocessing
from torch.nn import Parameter

from lance_lightning.types import Array

PROTOCOL = 5  # the first with values outside of the pickle


class BatchPickler(ForkingPickler):
    """Pickles a batch, but not the bytes of its tensors, arrays and Arrow columns.

    What torch cannot send between processes is refused as torch refuses it.

    Args:
        stream: Where the pickle is written.
        values: Where the bytes are collected, without a copy. Unpickling needs them as
            ``buffers``, each of its size.
    """

    def __init__(self, stream: io.BytesIO, values: list[Array]) -> None:
        super().__init__(stream, PROTOCOL, True, self._collect)
        self._values = values

    def _collect(self, value: pickle.PickleBuffer) -> None:
        self._values.append(np.frombuffer(value.raw(), np.uint8))

    def reducer_override(self, value: Any) -> Any:
        """Return how a value is rebuilt; for most kinds what pickle knows itself."""
        if isinstance(value, torch.Tensor):
            return _reduced_tensor(value)
        if isinstance(value, torch.UntypedStorage) and value.device.type == "cpu":
            # Of tensors of other layouts and classes.
            data = torch.empty(0, dtype=torch.uint8).set_(value)
            return _storage, (_outside(data),)
        if isinstance(value, pa.RecordBatch) and _knows_its_types(value.schema):
            return _record_batch, (pickle.PickleBuffer(_stream(value)),)
        if isinstance(value, pa.Table) and _knows_its_types(value.schema):
            return _table, (pickle.PickleBuffer(_stream(value)),)
        return NotImplemented


def _outside(data: torch.Tensor) -> pickle.PickleBuffer:
    memory: Any = data.numpy()  # a buffer, which its type does not say
    return pickle.PickleBuffer(memory)


def _reduced_tensor(tensor: torch.Tensor) -> Any:
    """Return how a tensor is rebuilt: from the bytes between its first and last value.

    Raises:
        ValueError: It is not a leaf and requires grad.
    """
    if type(tensor) not in (torch.Tensor, Parameter):
        return NotImplemented
    if tensor.requires_grad and not tensor.is_leaf:
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} requires grad, and autograd does "
            "not cross processes: return tensor.detach(), or compute under "
            "torch.no_grad()"
        )
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_nested or tensor.is_quantized:
        return NotImplemented
    data = tensor.detach().resolve_conj().resolve_neg()
    if data.numel() and _span(data) > data.numel():
        data = data.clone(memory_format=torch.contiguous_format)  # a view with gaps
    flat = data.as_strided((_span(data),), (1,)).view(torch.uint8)
    return _tensor, (
        _outside(flat),
        data.dtype,
        tuple(data.shape),
        data.stride(),
        tensor.requires_grad,
        type(tensor) is Parameter,
    )


def _span(tensor: torch.Tensor) -> int:
    """Return how many values there are from a tensor's first to its last."""
    if not tensor.numel():
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in steps)


def _tensor(
    data: Any,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    is_parameter: bool,
) -> torch.Tensor:
    flat = torch.empty(0, dtype=dtype)
    if len(data):  # torch cannot view no bytes as another dtype
        flat = torch.from_numpy(np.frombuffer(data, np.uint8)).view(dtype)
    tensor = flat.as_strided(shape, stride)
    if is_parameter:
        return Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


def _storage(data: Any) -> torch.UntypedStorage:
    return torch.from_numpy(np.frombuffer(data, np.uint8)).untyped_storage()


def _stream(rows: pa.RecordBatch | pa.Table) -> pa.Buffer:
    """Return rows as an Arrow stream: pickle takes all that they are a slice of."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    return sink.getvalue()


def _record_batch(data: Any) -> pa.RecordBatch:
    return pa.ipc.open_stream(pa.py_buffer(data)).read_next_batch()


def _table(data: Any) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(data)).read_all()


def _knows_its_types(schema: pa.Schema) -> bool:
    """Return whether Arrow's own format has all types: not those written in Python."""
    return not any(map(_is_written_in_python, schema.types))


def _is_written_in_python(type_: pa.DataType) -> bool:
    if isinstance(type_, pa.ExtensionType):
        return True
    if isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
    if pa.types.is_dictionary(type_):
        return _is_written_in_python(type_.value_type)
    inner = (type_.field(at).type for at in range(type_.num_fields))
    return any(map(_is_written_in_python, inner))
