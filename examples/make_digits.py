"""Write scikit-learn's bundled digits to a Lance dataset; a second run is free."""

import sys
from typing import Any

import lance
import numpy as np
import pyarrow as pa


def digits() -> Any:
    """Return the table: `image` of 64 values in 0-16, `label` and `id`."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = pa.array(bunch.data.astype(np.float32).ravel())
    return pa.table(
        {
            "image": pa.FixedSizeListArray.from_arrays(images, bunch.data.shape[1]),
            "label": pa.array(bunch.target.astype(np.int64)),
            "id": pa.array(np.arange(len(bunch.target))),
        }
    )


def rows_at(uri: str) -> int | None:
    """Return how many rows the dataset at ``uri`` has, None when there is none."""
    try:
        return int(lance.dataset(uri).count_rows())
    except ValueError:  # what Lance raises where it finds no dataset
        return None


def write_once(table: Any, uri: str) -> None:
    """Write the table to ``uri`` unless it is there."""
    found = rows_at(uri)
    if found == table.num_rows:
        print(f"{uri} is there: {found} rows")
        return
    lance.write_dataset(table, uri, mode="create" if found is None else "overwrite")
    print(f"wrote {uri}: {table.num_rows} rows")


def main(uri: str = "data/digits.lance") -> None:
    """Write the dataset to ``uri`` unless it is there."""
    write_once(digits(), uri)


if __name__ == "__main__":
    main(*sys.argv[1:])
