"""What pyarrow lacks: kinds of types, fixed-width layouts, rows out of order."""

from lance_lightning.arrow.arrays import (
    batch_of,
    concatenated,
    copied,
    empty_array,
    take_rows,
    with_wide_index,
)
from lance_lightning.arrow.blob_fields import (
    BLOB_KEY,
    bytes_of_blobs,
    is_blob,
    refuse_blob,
)
from lance_lightning.arrow.extension_types import register_extension_types
from lance_lightning.arrow.fixed_width import FixedWidth
from lance_lightning.arrow.kinds import (
    is_bfloat16,
    is_bytes,
    is_list,
    is_text,
    nested_type,
)
from lance_lightning.arrow.sql_names import quoted, sql_name
from lance_lightning.arrow.unordered import UnorderedRows, in_order

__all__ = [
    "BLOB_KEY",
    "FixedWidth",
    "UnorderedRows",
    "batch_of",
    "bytes_of_blobs",
    "concatenated",
    "copied",
    "empty_array",
    "in_order",
    "is_bfloat16",
    "is_blob",
    "is_bytes",
    "is_list",
    "is_text",
    "nested_type",
    "quoted",
    "refuse_blob",
    "register_extension_types",
    "sql_name",
    "take_rows",
    "with_wide_index",
]
