"""What a field says of Lance's blobs."""

from __future__ import annotations

import pyarrow as pa

from lance_lightning.errors import DataError

BLOB_KEY = b"lance-encoding:blob"  # Lance's own mark in a field's metadata


def is_blob(field: pa.Field) -> bool:
    """Tell whether a field is a blob that was not read: only where its bytes are."""
    if pa.types.is_large_binary(field.type):
        return False
    marked = (field.metadata or {}).get(BLOB_KEY) == b"true"
    return marked or getattr(field.type, "extension_name", "") == "lance.blob.v2"


def refuse_blob(field: pa.Field) -> None:
    """Raise a `DataError` where ``field`` is, or holds, a blob that was not read."""
    path = _blob_in(field, "")
    if path == field.name:
        raise DataError(
            f"column {path!r} is a blob, and a server gives no more of it than where "
            "its bytes lie: leave it out with columns=[...]"
        )
    if path is not None:
        raise DataError(
            f"column {field.name!r} holds the blob {path!r}, whose bytes are not read "
            f"along with it: name what you need as columns of their own, "
            f"columns=[{path!r}, ...]"
        )


def _blob_in(field: pa.Field, parent: str) -> str | None:
    """Return the path of the first blob that was not read; None where there is none."""
    if is_blob(field):
        return f"{parent}{field.name}"
    found = None
    if pa.types.is_struct(field.type):
        below = (_blob_in(part, f"{parent}{field.name}.") for part in field.type)
        found = next((path for path in below if path is not None), None)
    return found


def bytes_of_blobs(schema: pa.Schema) -> pa.Schema:
    """Return the schema with the bytes of its blobs in their place."""
    fields = [
        pa.field(f.name, pa.large_binary(), f.nullable, f.metadata) if is_blob(f) else f
        for f in schema
    ]
    return pa.schema(fields, schema.metadata)
