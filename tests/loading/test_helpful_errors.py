"""Errors of values and of the user's functions name every column, and the row."""

from __future__ import annotations

import re

import lance
import numpy as np
import pyarrow as pa
import pytest

from lance_lightning import (
    DataError,
    LanceDataModule,
    LanceSource,
    Sequential,
    Shuffle,
    TransformError,
)

ROWS = 12


def some(values, *nulls):
    return [None if at in nulls else value for at, value in enumerate(values)]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    ids = range(ROWS)
    points = pa.array(
        [{"x": None if i in (5, 6) else i, "y": i} for i in ids],
        pa.struct([("x", pa.int64()), ("y", pa.int64())]),
    )
    table = pa.table(
        {
            "id": ids,
            "Age": some(ids, 1, 2),
            "unit price": some(ids, 3),
            "point": points,
            "word": some(map(str, ids), 7),
            "tokens": pa.array([[1, None]] * ROWS),
            "pair": pa.FixedSizeListArray.from_arrays(
                pa.array(some(range(2 * ROWS), 18)), 2
            ),
        }
    )
    path = str(tmp_path_factory.mktemp("nulls") / "t.lance")
    lance.write_dataset(table, path)
    return path


def error_of(source, **options) -> str:
    data = LanceDataModule(source, batch_size=5, sampler=Sequential(), **options)
    with pytest.raises(DataError) as caught:
        list(data.train_dataloader())
    return str(caught.value)


def remedy_of(said: str) -> str:
    found = re.search(r"LanceSource\(uri, filter=\.\.\.\), with filter='(.*)'$", said)
    assert found, said
    return found.group(1)


def test_all_columns_with_nulls_are_named_in_one_error(uri):
    said = error_of(uri)
    for named in (
        "column 'Age' has 2 nulls among the 12",
        "column 'unit price' has 1 nulls",
        "column 'point.x' has 2 nulls",
        "column 'word' has 1 nulls",
        "column 'tokens' has 12 nulls inside lists among the 24",
        "column 'pair' has 1 nulls inside lists",
        "nulls={'Age': {'fill': value}, 'unit price': {'fill': value}, 'point': ",
        "'word': 'mask'",
    ):
        assert named in said
    assert "'id'" not in said
    # No filter looks into lists.
    assert "tokens" not in remedy_of(said)
    assert "pair" not in remedy_of(said)


@pytest.mark.parametrize(
    "columns",
    [
        ["id", "Age", "unit price", "point", "word"],
        {"id": "id", "a": "Age", "b": "unit price", "c": "point", "d": "word"},
        {"id": "id", "twice": "`Age` * 2", "z": "`unit price` + id", "w": "word"},
    ],
    ids=["names", "new names", "expressions"],
)
def test_the_filter_that_an_error_names_works_as_it_stands(uri, columns):
    sql = remedy_of(error_of(uri, columns=columns))
    data = LanceDataModule(LanceSource(uri, filter=sql), columns=columns, batch_size=5)
    ids = np.concatenate([batch["id"] for batch in data.train_dataloader()])
    expected = {1, 2, 3, 7} if "point" not in str(columns) else {1, 2, 3, 5, 6, 7}
    assert {*ids.tolist()} == {*range(ROWS)} - expected


@pytest.mark.parametrize("output_format", ["numpy", "python", "pandas", "torch_row"])
def test_every_format_names_all_columns_with_nulls(uri, output_format):
    columns = ["Age", "unit price"]
    said = error_of(uri, columns=columns, output_format=output_format)
    assert "column 'Age' has 2 nulls" in said
    assert "column 'unit price' has 1 nulls" in said
    assert remedy_of(said) == "`Age` is not null and `unit price` is not null"


@pytest.mark.parametrize("output_format", ["torch", "numpy", "python"])
def test_the_filter_for_a_struct_names_its_fields(uri, output_format):
    options = {"columns": ["id", "point"], "output_format": output_format}
    said = error_of(uri, **options)
    assert "column 'point.x' has 2 nulls among the 12" in said
    sql = remedy_of(said)
    data = LanceDataModule(LanceSource(uri, filter=sql), batch_size=5, **options)
    ids = [int(each) for batch in data.train_dataloader() for each in batch["id"]]
    assert {*ids} == {*range(ROWS)} - {5, 6}


def test_policies_by_column_are_kept_when_others_have_nulls(uri):
    columns = ["Age", "unit price", "word"]
    said = error_of(uri, columns=columns, nulls={"Age": {"fill": 0}})
    assert "Age" not in said
    assert remedy_of(said) == "`unit price` is not null and `word` is not null"


def fails_on_seven(row):
    if int(row["id"]) == 7:
        raise ValueError("seven")
    return row


def fails_on_a_batch_with_seven(value):
    ids = [int(row["id"]) for row in value] if isinstance(value, list) else value["id"]
    if 7 in [int(each) for each in ids]:
        raise ValueError("seven")
    return value


def doubled(batch):
    return pa.concat_batches([batch, batch])


def message_of(uri, **options) -> str:
    data = LanceDataModule(uri, columns=["id"], batch_size=5, **options)
    with pytest.raises(TransformError, match="seven") as caught:
        list(data.train_dataloader())
    return str(caught.value)


def row_ids(uri):
    return lance.dataset(uri).to_table(columns=[], with_row_id=True)["_rowid"]


@pytest.mark.parametrize("sampler", [Sequential(), Shuffle()])
def test_a_failing_sample_transform_names_its_own_row(uri, sampler):
    said = message_of(uri, sampler=sampler, sample_transform=fails_on_seven)
    (own,) = row_ids(uri).to_pylist()[7:8]
    assert "row offsets [7])" in said
    assert said.endswith(f"row ids [{own}]")


@pytest.mark.slow
def test_a_failing_sample_transform_names_its_own_row_from_a_worker(uri):
    said = message_of(
        uri, sampler=Sequential(), sample_transform=fails_on_seven, num_workers=1
    )
    (own,) = row_ids(uri).to_pylist()[7:8]
    assert f"row offsets [7]); row ids [{own}]" in said


def test_a_row_that_an_arrow_transform_made_is_counted_in_its_batch(uri):
    said = message_of(
        uri,
        sampler=Sequential(),
        arrow_transform=doubled,
        sample_transform=fails_on_seven,
    )
    assert "sample_transform of row 2 that arrow_transform returned" in said
    assert "row offsets [5, 6, 7, 8, 9]" in said


@pytest.mark.parametrize("name", ["transform", "collate_fn"])
def test_what_fails_on_a_batch_names_the_batchs_rows(uri, name):
    function = {name: fails_on_a_batch_with_seven}
    said = message_of(uri, sampler=Sequential(), **function)
    assert "batch 1, rank 0, row offsets [5, 6, 7, 8, 9]" in said
    assert said.endswith(f"row ids {row_ids(uri).to_pylist()[5:10]}")


def decode(data: bytes) -> np.ndarray:
    if data == b"7":
        raise ValueError("seven")
    return np.zeros(2)


def test_bytes_that_cannot_be_decoded_name_their_row_wherever_it_is_read(tmp_path):
    uri = str(tmp_path / "t.lance")
    words = [str(i).encode() for i in range(ROWS)]
    lance.write_dataset(pa.table({"id": range(ROWS), "data": words}), uri)
    (own,) = row_ids(uri).to_pylist()[7:8]
    data = LanceDataModule(uri, decoders={"data": decode}, sampler=Shuffle())
    with pytest.raises(DataError, match=rf"row ids \[{own}\]"):
        list(data.train_dataloader())
    with pytest.raises(DataError, match=rf"row ids \[{own}\]"):
        data.dataset().__getitems__([9, 1, 7, 3])
