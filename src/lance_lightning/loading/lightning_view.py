"""What Lightning looks for on a loader."""

from __future__ import annotations


class SplitRows:
    """The rows of a loader's split: its length is what Lightning asks for.

    Args:
        num_rows: Rows of the split, over all replicas.
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def __len__(self) -> int:
        return self._num_rows


class BatchSizeHolder:
    """Stands where DeepSpeed looks for a loader's batch size.

    Args:
        batch_size: Rows per rank per step.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
