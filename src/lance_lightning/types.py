"""Names that every file shares."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray[Any, Any]
Ints = NDArray[np.int64]

OutputFormat = Literal[
    "arrow",
    "numpy",
    "pandas",
    "polars",
    "python",
    "python_col",
    "torch",
    "torch_col",
    "torch_row",
]
OUTPUT_FORMATS: tuple[str, ...] = get_args(OutputFormat)

Stage = Literal["train", "val", "test", "predict"]
STAGES: tuple[Stage, ...] = get_args(Stage)

ROW_ID = "_rowid"  # Lance's own name for a row's id
ROW_OFFSET = "_rowoffset"  # Lance's own name for a row's place in the scan
TOO_LARGE = 2**63  # rows are counted in 64 bits, as Arrow and torch count them
