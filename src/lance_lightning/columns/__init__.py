"""One Arrow column becomes tensors, arrays or Python values."""

from lance_lightning.columns.column import (
    CAST_DTYPES,
    RAGGED_POLICIES,
    Column,
    ColumnOptions,
    NullCount,
    Nulls,
    Padding,
    as_numpy,
    count_nulls,
    nulls_error,
    refuse_nanoseconds,
    unsupported,
)
from lance_lightning.columns.converted import (
    convert_columns,
    rows_of_columns,
    slice_columns,
)
from lance_lightning.columns.decoders import IMAGE, functions_of
from lance_lightning.columns.dtypes import RowShape, row_shape_of
from lance_lightning.columns.encoded_files import (
    is_file,
    is_list_of,
    with_bytes_of_files,
)
from lance_lightning.columns.features import (
    class_names,
    features_of_columns,
    is_other_file,
)
from lance_lightning.columns.fill_values import check_fill
from lance_lightning.columns.numbers import NumberColumn
from lance_lightning.columns.planning import Unwrapped, plan_columns, plan_field
from lance_lightning.columns.times import Library, refuse_times

__all__ = [
    "CAST_DTYPES",
    "IMAGE",
    "RAGGED_POLICIES",
    "Column",
    "ColumnOptions",
    "Library",
    "NullCount",
    "Nulls",
    "NumberColumn",
    "Padding",
    "RowShape",
    "Unwrapped",
    "as_numpy",
    "check_fill",
    "class_names",
    "convert_columns",
    "count_nulls",
    "features_of_columns",
    "functions_of",
    "is_file",
    "is_list_of",
    "is_other_file",
    "nulls_error",
    "plan_columns",
    "plan_field",
    "refuse_nanoseconds",
    "refuse_times",
    "row_shape_of",
    "rows_of_columns",
    "slice_columns",
    "unsupported",
    "with_bytes_of_files",
]
