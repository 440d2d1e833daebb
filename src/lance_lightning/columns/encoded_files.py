"""Encoded files in a table, as Hugging Face's `datasets` stores them: bytes and a path.

Such a struct counts as its bytes. The path is a note of where they came from.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lance_lightning.arrow import is_bytes, is_list, is_text, nested_type
from lance_lightning.errors import DataError


def is_file(arrow_type: pa.DataType) -> bool:
    """Tell whether values are a struct of bytes and path, and of nothing else."""
    if not pa.types.is_struct(arrow_type) or arrow_type.num_fields != 2:
        return False
    kinds = {field.name: field.type for field in arrow_type}
    if set(kinds) != {"bytes", "path"}:
        return False
    return is_bytes(kinds["bytes"]) and is_text(kinds["path"])


def is_list_of(arrow_type: pa.DataType, is_value: object) -> bool:
    """Tell whether values are lists of what ``is_value`` recognises."""
    fixed = pa.types.is_fixed_size_list(arrow_type)
    if not (fixed or is_list(arrow_type)):
        return False
    return bool(callable(is_value) and is_value(arrow_type.value_type))


def bytes_of_file(name: str, array: pa.Array) -> pa.Array:
    """Return the bytes of files; null where neither bytes nor path are.

    Raises:
        DataError: A file that is only a path.
    """
    kind = array.type
    # Unlike ``field``, these know of the struct's own nulls.
    found = dict(zip((field.name for field in kind), array.flatten(), strict=True))
    missing = pc.and_(found["bytes"].is_null(), found["path"].is_valid())
    if pc.any(missing).as_py():
        path = found["path"].filter(missing)[0].as_py()
        raise DataError(
            f"column {name!r} has the path {path!r} in the place of a file's bytes, "
            "and a path is not read: write the bytes into the table. Of a Hugging Face "
            "dataset, dataset.save_to_disk(folder) and then lance-lightning import "
            "folder target.lance do"
        )
    return found["bytes"]


def with_bytes_of_files(name: str, array: pa.Array) -> pa.Array:
    """Return a column with the bytes of files in their place, in structs too."""
    if is_file(array.type):
        return bytes_of_file(name, array)
    if not pa.types.is_struct(array.type) or not array.type.num_fields:
        return array
    parts, fields = [], []
    for field, part in zip(array.type, array.flatten(), strict=True):
        parts.append(with_bytes_of_files(f"{name}.{field.name}", part))
        fields.append(pa.field(field.name, parts[-1].type))
    mask = array.is_null() if array.null_count else None
    return pa.StructArray.from_arrays(parts, fields=fields, mask=mask)


def bytes_of_files(name: str, array: pa.Array) -> pa.Array:
    """Return lists of files as lists of their bytes; see `bytes_of_file`."""
    offsets, values = parts_of_lists(array)
    found = bytes_of_file(name, values)
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), found, mask=mask)


def parts_of_lists(array: pa.Array) -> tuple[list[int], pa.Array]:
    """Return where each row's values begin, and the last end, among all values."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    offsets = [0, *lengths.cumsum().tolist()]
    return offsets, array.flatten()  # without what is under nulls


def with_shape(name: str, array: pa.Array, shape: Sequence[int | None]) -> pa.Array:
    """Return arrays stored as nested lists as lists of the lengths they should have.

    Raises:
        DataError: A row has another shape.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    try:
        return array.cast(nested_type(array.type, shape))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"column {name!r} is said to hold arrays of shape {tuple(shape)}, and a "
            f"row has another ({error}): write the table anew from what made it"
        ) from error
