"""Times that Python, pandas or polars cannot hold are errors, not other times."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from lance_lightning.errors import DataError
from lance_lightning.formats.format import Format

YEAR_10000 = 253_402_300_800  # seconds
DAY = 86_400
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def batch_of(kind, *numbers):
    """Return a batch whose column ``t`` holds 0 and these numbers as times."""
    width = {32: pa.int32(), 64: pa.int64()}[kind.bit_width]
    return pa.record_batch({"t": pa.array([0, None, *numbers], width).view(kind)})


def made(name, batch):
    form = Format(name, nulls="error")
    form.check(batch.schema)
    return form.slice(form.convert(batch), 0, batch.num_rows)


LOST = [
    *((pa.timestamp(u), YEAR_10000 * n, "python_col") for u, n in UNITS.items()),
    *((pa.timestamp(u, "UTC"), YEAR_10000 * n, "python_col") for u, n in UNITS.items()),
    (pa.timestamp("s"), -62_135_596_801, "python_col"),
    (pa.timestamp("s"), 2**62, "python_col"),
    (pa.date32(), 2_932_897, "python_col"),
    (pa.date32(), -719_163, "python_col"),
    (pa.date32(), 2_932_897, "pandas"),
    (pa.date64(), 2**62, "python_col"),
    (pa.date64(), 2**62, "pandas"),
    (pa.duration("s"), 2**62, "python_col"),
    (pa.duration("ms"), -(2**62), "python_col"),
    *((pa.time32("s"), number, "python_col") for number in (-1, DAY)),
    *((pa.time32("s"), number, "pandas") for number in (-1, DAY)),
    *((pa.time64("us"), number, "polars") for number in (-1, DAY * 10**6)),
    (pa.time64("ns"), 1, "python_col"),
    (pa.time64("ns"), 1, "pandas"),
    (pa.timestamp("s"), 2**62, "polars"),
    (pa.duration("s"), 2**62, "polars"),
    (pa.timestamp("us"), -(2**63), "pandas"),
]
# Nanoseconds end in the year 2262.
LOST = [case for case in LOST if getattr(case[0], "unit", "") != "ns" or case[1] == 1]
ZONED = [pa.timestamp("ns", "Asia/Tokyo"), pa.timestamp("ns", "America/Lima")]
LOST += [
    *((kind, sign * (2**63 - 1), "python_col") for kind in ZONED for sign in (1, -1)),
    *((kind, sign * (2**63 - 1), "pandas") for kind in ZONED for sign in (1, -1)),
    *((pa.date64(), number, "python_col") for number in (-1, 1, DAY * 1000 - 1)),
    *((pa.date64(), number, "pandas") for number in (-1, 1, DAY * 1000 - 1)),
]


@pytest.mark.parametrize(("kind", "number", "form"), LOST)
def test_a_time_that_would_be_lost_is_an_error_that_names_it(kind, number, form):
    if form in ("pandas", "polars"):
        pytest.importorskip(form)
    with pytest.raises(DataError, match=f"column 't' holds {number} as .*'arrow'"):
        made(form, batch_of(kind, number))
    for kept in ("arrow", "numpy"):
        found = Format(kept, nulls={"fill": 0} if kept == "numpy" else "error")
        rows = batch_of(kind, number)
        window = found.convert(rows)
        values = found.slice(window, 0, 3)["t"]
        last = values[2] if kept == "numpy" else values.view(_whole(kind))[2].as_py()
        assert int(np.asarray(last).astype(np.int64)) == number


def _whole(kind):
    return pa.int32() if kind.bit_width == 32 else pa.int64()


@pytest.mark.parametrize(
    ("kind", "number", "value"),
    [
        (
            pa.timestamp("s"),
            YEAR_10000 - 1,
            datetime.datetime(9999, 12, 31, 23, 59, 59),
        ),
        (pa.timestamp("us"), -62_135_596_800 * 10**6, datetime.datetime.min),
        (pa.date32(), 2_932_896, datetime.date.max),
        (pa.date32(), -719_162, datetime.date.min),
        (pa.date64(), 2_932_896 * DAY * 1000, datetime.date.max),
        (pa.date64(), -719_162 * DAY * 1000, datetime.date.min),
        (pa.time32("s"), DAY - 1, datetime.time(23, 59, 59)),
        (pa.time64("ns"), 1000, datetime.time(0, 0, 0, 1)),
        (pa.duration("s"), 999_999_999 * DAY, datetime.timedelta(999_999_999)),
        (pa.duration("us"), 2**62, datetime.timedelta(microseconds=2**62)),
    ],
)
def test_the_last_time_that_python_has_is_taken(kind, number, value):
    assert made("python_col", batch_of(kind, number))["t"] == [
        made("python_col", batch_of(kind, 0))["t"][0],
        None,
        value,
    ]


def test_pandas_keeps_times_far_beyond_pythons():
    pytest.importorskip("pandas")
    for unit in UNITS:
        for kind in (pa.timestamp(unit), pa.timestamp(unit, "UTC"), pa.duration(unit)):
            for number in (2**62, -(2**63) + 1):
                series = made("pandas", batch_of(kind, number))["t"]
                assert series.astype("int64")[2] == number


def test_a_time_inside_lists_structs_and_maps_is_found():
    far = batch_of(pa.timestamp("s"), YEAR_10000)["t"]
    near = batch_of(pa.timestamp("s"), 1)["t"]
    for form in ("python_col", "pandas", "torch"):
        if form == "pandas":
            pytest.importorskip("pandas")
        for lost, times in ((True, far), (False, near)):
            struct = pa.StructArray.from_arrays([times], ["t"])
            lists = pa.ListArray.from_arrays([0, 1, 3], struct)
            keys = pa.array(["a", "b", "c"])
            maps = pa.MapArray.from_arrays([0, 1, 3], keys, times)
            for column in (lists, maps, maps.slice(1)):
                batch = pa.record_batch({"t": column})
                policy = "mask" if form == "torch" else "error"
                found = Format(form, nulls=policy)
                window = found.convert(batch)
                if lost:
                    with pytest.raises(DataError, match=f"{YEAR_10000} as timestamp"):
                        found.slice(window, 0, batch.num_rows)
                else:
                    found.slice(window, 0, batch.num_rows)
            if form != "pandas":  # there Arrow converts what the slice leaves out
                first = pa.record_batch({"t": maps.slice(0, 1)})
                found.slice(found.convert(first), 0, 1)


def test_rows_for_a_sample_transform_hold_no_other_time():
    form = Format("arrow")
    window = form.convert(batch_of(pa.time32("s"), DAY))
    with pytest.raises(DataError, match="holds 86400 as time32"):
        form.rows(window, 0, 3)
    assert form.rows(window, 0, 1) == [{"t": datetime.time(0)}]
