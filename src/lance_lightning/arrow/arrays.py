"""Small operations on arrays and batches that pyarrow lacks."""

from __future__ import annotations

import pyarrow as pa

from lance_lightning.types import Array


def take_rows(array: pa.Array, rows: Array) -> pa.Array:
    """Return rows of an array; Arrow has no take for extension types."""
    if isinstance(array, pa.ExtensionArray):
        return array.type.wrap_array(array.storage.take(pa.array(rows)))
    return array.take(pa.array(rows))


def copied(array: pa.Array) -> pa.Array:
    """Return an array in memory of its own."""
    return pa.concat_arrays([array, array.slice(len(array))])


def batch_of(arrays: list[pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    """Return arrays as a batch, by their own types: a dictionary's may be wider."""
    for at, array in enumerate(arrays):
        if array.type != schema.field(at).type:
            schema = schema.set(at, schema.field(at).with_type(array.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def concatenated(chunks: list[pa.Array]) -> pa.Array:
    """Return chunks end to end."""
    if len(chunks) == 1:
        return chunks[0]
    try:
        return pa.concat_arrays(chunks)
    except pa.ArrowInvalid:
        if not pa.types.is_dictionary(chunks[0].type):
            raise
        # Together they have more values than their narrow index can count.
        return pa.concat_arrays([with_wide_index(chunk) for chunk in chunks])


def with_wide_index(array: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return a dictionary array with an int32 index."""
    indices = array.indices.cast(pa.int32())
    return pa.DictionaryArray.from_arrays(indices, array.dictionary)


def empty_array(type_: pa.DataType) -> pa.Array:
    """Return no values of a type; ``pa.array`` knows no extension types."""
    if isinstance(type_, pa.BaseExtensionType):
        return type_.wrap_array(pa.array([], type=type_.storage_type))
    return pa.array([], type=type_)
