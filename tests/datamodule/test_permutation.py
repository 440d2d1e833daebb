"""The data module hands out LanceDB's own permutation of a split."""

from __future__ import annotations

import lance

from lance_lightning import LanceDataModule, RandomSplit
from tests.helpers.tables import make_table, write_table


def test_permutation_of_the_module_has_the_rows_of_the_loader(tmp_path):
    uri = write_table(tmp_path / "t.lance", 103, 30)
    shares = RandomSplit({"train": 0.7, "val": 0.3})
    data = LanceDataModule(uri, splits=shares, batch_size=8)
    data.setup()
    lance.write_dataset(make_table(10, start=1000), uri, mode="append")
    for split, loader in (
        ("train", data.train_dataloader()),
        ("val", data.val_dataloader()),
    ):
        permutation = data.permutation(split)
        rows = permutation.with_format("arrow").iter(16)
        found = [i for batch in rows for i in batch["id"].to_pylist()]
        assert len(found) == len(permutation)
        assert sorted(found) == sorted(
            i for batch in loader for i in batch["id"].tolist()
        )
