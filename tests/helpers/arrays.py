"""One Arrow column, converted."""

import pyarrow as pa

from lance_lightning.columns.column import ColumnOptions, Nulls
from lance_lightning.columns.converted import (
    convert_columns,
    slice_columns,
)
from lance_lightning.columns.planning import plan_columns

# An Arrow `bool` packs eight rows in a byte, so nine rows and odd offsets matter.
ROWS = 21


def convert(array, **options):
    """Convert one column of the name "x"; a batch of all rows."""
    options = ColumnOptions(**{"target": "torch", **options})
    field = pa.field("x", array.type)
    columns = plan_columns([field], lambda _: options)
    return slice_columns(convert_columns(columns, [array]), 0, len(array))


MASK = Nulls("mask")
