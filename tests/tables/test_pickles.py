"""A pinned table's pickle is small and holds no credentials."""

from __future__ import annotations

import copy
import pickle

import lance
import pyarrow as pa
import pytest

from lance_lightning.errors import SourceError
from lance_lightning.sources.database import LanceDBSource
from lance_lightning.sources.lance import LanceSource
from tests.helpers.ten_rows import SECRET, printed, read_elsewhere, table


def test_pickle_is_small_whatever_the_table(tmp_path, cache):
    wide = pa.table({f"column_{i}": [1] for i in range(2000)})
    place = tmp_path / "wide.lance"
    dataset = lance.write_dataset(wide, str(place))
    for _ in range(5):
        dataset.insert(wide)
    snapshot = LanceSource(place).resolve(cache)
    assert len(snapshot.schema) == 2000
    assert len(pickle.dumps(snapshot)) < 4096
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot
    assert copy.deepcopy(snapshot) == snapshot


def test_credentials_of_the_environment_are_not_pickled(uri, cache, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = {"aws_secret_access_key": SECRET, "aws_region": "here"}
    snapshot = LanceSource(uri, storage_options=options).resolve(cache)
    pickled = pickle.dumps(snapshot)
    assert SECRET.encode() not in pickled
    assert pickle.loads(pickled).storage_options == options
    assert pickle.loads(pickled) == snapshot


def test_missing_credentials_name_the_environment_variable(uri, cache, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = {"aws_secret_access_key": SECRET}
    snapshot = LanceSource(uri, storage_options=options).resolve(cache)
    pickled = pickle.dumps(snapshot)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    elsewhere = pickle.loads(pickled)
    with pytest.raises(
        SourceError, match=r"set the environment.*AWS_SECRET_ACCESS_KEY"
    ):
        elsewhere.open()


def test_object_store_is_read_by_a_worker(cache, tmp_path, monkeypatch):
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        address = "http://{}:{}".format(*moto.get_host_and_port())
        boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key=SECRET,
        ).create_bucket(Bucket="bucket")
        options = {
            "aws_access_key_id": "key",
            "aws_secret_access_key": SECRET,
            "aws_endpoint": address,
            "aws_region": "us-east-1",
            "allow_http": True,
        }
        text = {key: str(value).lower() for key, value in options.items()}
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        place = "s3://bucket/t.lance"
        lance.write_dataset(table(), place, storage_options=text)
        snapshot = LanceSource(place, storage_options=options).resolve(cache)
        assert SECRET.encode() not in pickle.dumps(snapshot)
        assert read_elsewhere(snapshot, tmp_path) == str(list(range(10)))

        database = LanceDBSource("s3://bucket", "t", storage_options=options)
        pytest.importorskip("lancedb")
        found = database.resolve(cache)
        assert found.identity == snapshot.identity
        assert read_elsewhere(found, tmp_path) == str(list(range(10)))

        missing = LanceSource("s3://bucket/no.lance", storage_options=options)
        with pytest.raises(SourceError, match=r"s3://bucket/no.lance") as caught:
            missing.resolve(cache)
        assert SECRET not in printed(caught)
    finally:
        moto.stop()
