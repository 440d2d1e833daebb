"""Kinds of Arrow types."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

# --- types --------------------------------------------------------------------------


def is_bfloat16(arrow_type: pa.DataType) -> bool:
    """Tell whether this is Lance's bfloat16, an extension of two bytes."""
    return getattr(arrow_type, "extension_name", None) == "lance.bfloat16"


def is_text(arrow_type: pa.DataType) -> bool:
    """Tell whether values of this type are `str`."""
    types = pa.types
    return bool(
        types.is_string(arrow_type)
        or types.is_large_string(arrow_type)
        or types.is_string_view(arrow_type)
    )


def is_list(arrow_type: pa.DataType) -> bool:
    """Tell whether values of this type are lists of any length."""
    types = pa.types
    return bool(
        types.is_list(arrow_type)
        or types.is_large_list(arrow_type)
        or types.is_list_view(arrow_type)
        or types.is_large_list_view(arrow_type)
    )


def is_bytes(arrow_type: pa.DataType) -> bool:
    """Tell whether values of this type are `bytes`."""
    types = pa.types
    return bool(
        types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_binary_view(arrow_type)
        or types.is_fixed_size_binary(arrow_type)
    )


def nested_type(storage: pa.DataType, shape: Sequence[int | None]) -> pa.DataType:
    """Return nested lists of the lengths that all rows share.

    Args:
        storage: The type of lists of any length.
        shape: The lengths, from the outermost; None is any.
    """
    if not shape:
        return storage
    inner = nested_type(storage.value_type, shape[1:])
    return pa.list_(inner) if shape[0] is None else pa.list_(inner, shape[0])
