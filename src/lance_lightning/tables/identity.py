"""What tells one state of one table from any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lance_lightning.errors import SourceError


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells one state of one table from any other, wherever it is.

    Args:
        version: Lance's version number.
        schema: A digest of the schema, in hex.
        fragments: A digest, in hex, of the fragments' metadata: data files, whose
            names are random, and deletion files. Of an in-memory table, its content.
    """

    version: int
    schema: str
    fragments: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python for a checkpoint."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Identity:
        """Return the identity that `to_dict` wrote."""
        return cls(**{name: state[name] for name in cls.__slots__})


def hex_digest(*parts: bytes | str) -> str:
    """Return the SHA-256 of the parts, each told from its neighbours, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def identity_of(dataset: Any) -> Identity:
    """Return the identity of an open Lance dataset."""
    return Identity(
        version=dataset.version,
        schema=schema_digest(dataset.schema),
        fragments=_fragments_digest(dataset),
    )


def _fragments_digest(dataset: Any) -> str:
    digest = hashlib.sha256()
    for fragment in dataset.get_fragments():
        metadata = _without_place(fragment.metadata.to_json())
        canonical = json.dumps(metadata, sort_keys=True, separators=(",", ":"))
        digest.update(canonical.encode() + b"\n")
    return digest.hexdigest()


def _without_place(metadata: Any) -> Any:
    """Drop ``base_id``: clones and branches name where a file is with it."""
    if isinstance(metadata, dict):
        return {k: _without_place(v) for k, v in metadata.items() if k != "base_id"}
    if isinstance(metadata, list):
        return [_without_place(value) for value in metadata]
    return metadata


def schema_digest(schema: Any) -> str:
    """Return a digest, in hex, of a ``pyarrow.Schema`` with its metadata."""
    described = [[_field_key(field) for field in schema], _metadata_key(schema)]
    return hex_digest(json.dumps(described, sort_keys=True, separators=(",", ":")))


def _metadata_key(holder: Any) -> dict[str, str]:
    pairs = (holder.metadata or {}).items()
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in pairs}


def _field_key(arrow_field: Any) -> list[Any]:
    """Describe a field alike whether or not its extension type is registered."""
    kind, metadata = arrow_field.type, _metadata_key(arrow_field)
    if isinstance(kind, pa.BaseExtensionType):
        metadata |= _extension_metadata(kind)
        kind = kind.storage_type
    children = _children(kind)
    name = str(kind) if not children else type(kind).__name__
    size = getattr(kind, "list_size", None)
    below = [_field_key(child) for child in children]
    return [arrow_field.name, name, size, arrow_field.nullable, metadata, below]


def _children(kind: Any) -> list[Any]:
    if pa.types.is_struct(kind):
        return [kind.field(i) for i in range(kind.num_fields)]
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    return [kind.value_field] if hasattr(kind, "value_field") else []


def _extension_metadata(kind: Any) -> dict[str, str]:
    """Return what an unregistered type has as metadata of its field."""
    if isinstance(kind, pa.ExtensionType):  # defined in Python
        parameters = kind.__arrow_ext_serialize__().decode("latin-1")
    else:  # Arrow's own, registered in every process
        parameters = str(getattr(kind, "shape", ""))
    return {
        "ARROW:extension:name": kind.extension_name,
        "ARROW:extension:metadata": parameters,
    }


def content_digest(table: Any) -> str:
    """Return a digest, in hex, of a ``pyarrow.Table``'s schema and values.

    How the table is cut into chunks changes nothing, nor do the bytes that are
    under a null: what a process leaves there is chance.

    Raises:
        SourceError: A column is of a type that Lance does not store.
    """
    parts = [schema_digest(table.schema), str(table.num_rows)]
    for name, column in zip(table.column_names, table.columns, strict=True):
        streams: dict[str, Any] = {}
        for chunk in column.chunks:
            if len(chunk):
                for path, data in _streams(chunk, name):
                    streams.setdefault(path, hashlib.sha256()).update(data)
        parts += [f"{path}={streams[path].hexdigest()}" for path in streams]
    return hex_digest(*parts)


def _streams(array: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield streams of bytes that do not depend on chunks, offsets or nulls' bytes."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    yield f"{path}?", _bytes(array.is_valid())
    array = array.drop_null() if array.null_count else array
    kind = array.type
    if pa.types.is_struct(kind):
        for i, child in enumerate(array.flatten()):
            yield from _streams(child, f"{path}.{i}")
    elif pa.types.is_map(kind):
        yield f"{path}#", _lengths(array.offsets)
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        yield from _streams(array.keys[first:last], f"{path}.key")
        yield from _streams(array.items[first:last], f"{path}.value")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield f"{path}#", _lengths(array.offsets)
        yield from _streams(array.flatten(), f"{path}[]")
    elif pa.types.is_fixed_size_list(kind):
        yield from _streams(array.flatten(), f"{path}[]")
    elif pa.types.is_boolean(kind):
        yield path, _bytes(array)
    elif not pa.types.is_null(kind):
        yield from _leaf_streams(array, path)


def _leaf_streams(array: Any, path: str) -> Iterator[tuple[str, Any]]:
    kind, start = array.type, array.offset
    try:
        width = kind.bit_width // 8
    except ValueError:
        width = 0
    if width:
        values = array.buffers()[1]
        yield path, values[start * width : (start + len(array)) * width]
        return
    wide = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    if not (wide or pa.types.is_string(kind) or pa.types.is_binary(kind)):
        raise SourceError(
            f"column {path!r} is of type {kind}, which Lance does not store; cast or "
            "drop the column"
        )
    _, offsets, values = array.buffers()
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
    ends = ends[start : start + len(array) + 1]
    yield f"{path}#", np.diff(ends).astype(np.int64)
    if values is not None:
        yield path, values[int(ends[0]) : int(ends[-1])]


def _lengths(offsets: Any) -> Any:
    return np.diff(offsets.to_numpy()).astype(np.int64)


def _bytes(booleans: Any) -> Any:
    return booleans.to_numpy(zero_copy_only=False)
