"""Decoders: they make a value, such as an image, of a row's encoded bytes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.arrow import is_bytes
from lance_lightning.columns.column import (
    ColumnOptions,
    MaskedColumn,
    Target,
    from_numpy,
    null_error,
    refuse_dtype,
    unsupported,
)
from lance_lightning.columns.encoded_files import is_list_of, parts_of_lists
from lance_lightning.columns.fill_values import check_fill
from lance_lightning.errors import DecodeError

IMAGE = "image"
_CHANNELS = 3
_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits per channel


def decode_image(data: bytes) -> np.ndarray:
    """Return an encoded image (PNG, JPEG, WebP, ...) as uint8 of shape (3, H, W), RGB.

    Transparency is dropped and the orientation of EXIF not applied, as with
    torchvision's own decoder.

    Raises:
        ValueError: It has more than 8 bits per channel, which would be cut off.
        OSError: It is no image, or a part of one.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        # Pillow cuts 16-bit colour down to mode RGB; only its raw mode tells.
        if image.mode.startswith(_DEEP) or ";16" in str(image.tile):
            raise ValueError(
                f"it has more than 8 bits a channel (mode {image.mode!r}): give a "
                "function of your own that decodes it"
            )
        # By way of RGBA: Pillow warns of a palette's transparency otherwise.
        palette = image.mode == "P"
        whole = image.convert("RGBA") if palette else image
        pixels = np.asarray(whole.convert("RGB"))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def function_of(decoder: Any) -> Callable[[bytes], Any]:
    """Return the function that a decoder, or its name, means."""
    return decode_image if decoder == IMAGE else decoder


def functions_of(decoders: Any) -> list[tuple[str, Any]]:
    """Return the user's own functions among the decoders, each with a name."""
    if not isinstance(decoders, Mapping):
        named = [("decoders", decoders)]
    else:
        named = [(f"decoders[{name!r}]", found) for name, found in decoders.items()]
    return [(name, found) for name, found in named if callable(found)]


@dataclass(frozen=True, slots=True)
class DecodedBytes(MaskedColumn):
    """A column of bytes behind a decoder.

    Its batch is what was converted at once: values of one shape and dtype are stacked,
    others come as a list.
    """

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return the decoded values, (rows, *shape) or a list, and a mask (rows,)."""
        nulls, target = self.options.nulls, self.options.target
        self.refuse_nulls(array)
        rows = array.to_pylist()
        if nulls.policy == "fill":
            rows = [nulls.value if row is None else row for row in rows]
        values = [
            None if row is None else self.decoded(at, row)
            for at, row in enumerate(rows)
        ]
        return self.with_mask(_joined(values, self._blank(), target), array)

    def decoded(self, at: int, data: bytes) -> Any:
        """Return what the decoder makes of the bytes of row ``at``."""
        try:
            value = function_of(self.options.decoder)(data)
            if value is None:
                raise ValueError("the decoder returned None; return a value, or raise")
            return _as_array(value)
        except Exception as error:
            raise DecodeError(
                f"column {self.name!r}: {len(data)} bytes could not be decoded "
                f"({type(error).__name__}: {error})",
                at,
            ) from error

    def _blank(self) -> Any:
        """Return the value of a null where no neighbour tells its shape."""
        if self.options.decoder != IMAGE:
            return None
        return np.zeros((_CHANNELS, 0, 0), np.uint8)


@dataclass(frozen=True, slots=True)
class DecodedLists(MaskedColumn):
    """A column of lists of bytes behind a decoder: a list of values for each row."""

    def convert(self, array: pa.Array) -> dict[str, Any]:
        """Return a list per row, empty for a null, and a mask of shape (rows,)."""
        target = self.options.target
        self.refuse_nulls(array)  # they are never filled: planning refuses that
        offsets, data = parts_of_lists(array)
        if data.null_count:
            raise null_error(self.name, data.null_count, len(data), inside=True)
        one, values = DecodedBytes(self.name, self.options), data.to_pylist()
        lists = [
            _each([one.decoded(row, value) for value in values[start:stop]], target)
            for row, (start, stop) in enumerate(itertools.pairwise(offsets))
        ]
        return self.with_mask(lists, array)


def _joined(values: Sequence[Any], blank: Any, target: Target) -> Any:
    """Stack values of one shape and dtype; nulls among them are zeros."""
    found = [value for value in values if value is not None]
    if not found and blank is not None:
        found = [blank]
    first = found[0] if found else None
    like = isinstance(first, np.ndarray) and all(
        isinstance(v, np.ndarray) and v.shape == first.shape and v.dtype == first.dtype
        for v in found
    )
    if like and first is not None:
        out = np.zeros((len(values), *first.shape), first.dtype)
        for at, value in enumerate(values):
            if value is not None:
                out[at] = value
        return from_numpy(out, target)
    return _each([blank if value is None else value for value in values], target)


def _each(values: Sequence[Any], target: Target) -> list[Any]:
    """Return values of any shape, arrays as the target's own kind."""
    return [
        from_numpy(np.require(value, requirements=["C", "W"]), target)
        if isinstance(value, np.ndarray)
        else value
        for value in values
    ]


def _as_array(value: Any) -> Any:
    """Return a tensor as an array of the same memory; anything else as it is."""
    if isinstance(value, torch.Tensor) and value.dtype is not torch.bfloat16:
        return value.detach().numpy()
    if isinstance(value, np.ndarray):  # torch has no other byte order
        return value.astype(value.dtype.newbyteorder("="), copy=False)
    return value


def plan_decoded(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> DecodedBytes | None:
    """Plan a column of bytes that has a decoder."""
    if options.decoder is None or not is_bytes(arrow_type):
        return None
    refuse_dtype(name, arrow_type, options)
    if options.nulls.policy == "fill":
        check_fill(name, arrow_type, options.nulls.value)
    return DecodedBytes(name, options)


def plan_decoded_lists(
    name: str, arrow_type: pa.DataType, options: ColumnOptions
) -> DecodedLists | None:
    """Plan a column of lists of bytes that has a decoder."""
    if options.decoder is None or not is_list_of(arrow_type, is_bytes):
        return None
    refuse_dtype(name, arrow_type, options)
    if options.nulls.policy == "fill":
        why = "its nulls cannot be filled: give nulls='mask', or fill them in SQL"
        raise unsupported(name, arrow_type, why)
    return DecodedLists(name, options)
