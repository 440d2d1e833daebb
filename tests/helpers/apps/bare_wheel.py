"""Tries the wheel where nothing but its own dependencies is installed.

`make test-wheel` runs it, in an environment of its own and from a copy of the
repository whose src/ is gone. It is a plain script, as there is no pytest in that
environment.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 200
DISTRIBUTION = "lance-lightning"
# Where a module of an extra has another name than its package.
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}
FORMATS_OF_EXTRAS = ("pandas", "polars")
MODEL = """
import torch
import lightning


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def loss(self, batch):
        return torch.nn.functional.cross_entropy(
            self.layer(batch["image"]), batch["label"]
        )

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


model = Model()
"""


# -- what is tried, in this order ----------------------------------------------


def nothing_else_is_installed():
    """None of the extras' packages, and no test tool."""
    for name in packages_of_extras() | {"pytest", "ruff", "mypy"}:
        module = MODULES.get(name, name.replace("-", "_"))
        assert importlib.util.find_spec(module) is None, f"{name} is installed"


def no_source_file_can_be_imported():
    """There is no src/ beside this file, and Python looks for modules nowhere else."""
    folder = Path(__file__).resolve().parent
    assert not (folder.parents[2] / "src").exists()
    folders = (sys.base_prefix, sys.prefix, folder)
    for entry in sys.path:
        assert any(is_within(entry, folder) for folder in folders), entry
    for package in ("lance_lightning", "hydra_plugins.lance_lightning"):
        place = importlib.util.find_spec(package).origin
        assert is_within(place, sys.prefix), place


def is_within(path, folder):
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def packages_of_extras():
    """Return the packages that an extra brings and the wheel itself does not need."""
    needed, extras = set(), set()
    for text in importlib.metadata.requires(DISTRIBUTION):
        name = re.match(r"[\w.-]+", text).group()
        (extras if "extra ==" in text else needed).add(name)
    return extras - needed


def the_command_runs():
    for start in (["lance-lightning"], [sys.executable, "-m", "lance_lightning"]):
        assert "import" in run([*start, "--help"])
        version = importlib.metadata.version(DISTRIBUTION)
        assert run([*start, "--version"]) == f"lance-lightning {version}\n"


def files_are_imported():
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as parquet

    table = pa.table({"id": range(ROWS), "name": [f"n{i}" for i in range(ROWS)]})
    csv.write_csv(table, "rows.csv")
    parquet.write_table(table, "rows.parquet")
    lines = (json.dumps(row) for row in table.to_pylist())
    Path("rows.jsonl").write_text("\n".join(lines))
    Path("images/cat").mkdir(parents=True)
    Path("images/cat/0.png").write_bytes(b"no matter what")
    for source in ("rows.csv", "rows.parquet", "rows.jsonl"):
        target = f"{source}.lance"
        run(["lance-lightning", "import", source, target])
        found = epoch(target, columns=["id", "name"])
        assert sorted(found) == list(range(ROWS)), source
    run(["lance-lightning", "import", "images", "images.lance"])


def the_program_of_the_readme_trains():
    """It is read from the wheel's metadata, with a model and a table before it."""
    import lance
    import numpy as np
    import pyarrow as pa

    pixels = np.random.default_rng(0).random(ROWS * 64, np.float32)
    images = pa.FixedSizeListArray.from_arrays(pixels, 64)
    table = pa.table({"image": images, "label": np.arange(ROWS) % 10})
    lance.write_dataset(table, "data/digits.lance")
    readme = importlib.metadata.metadata(DISTRIBUTION).get_payload()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (program,) = (block for block in blocks if "L.Trainer" in block)
    Path("program.py").write_text(MODEL + program)
    said = run([sys.executable, "program.py"])
    assert "`Trainer.fit` stopped" in said, said


def every_output_format_gives_rows_or_names_its_extra():
    from lance_lightning import ConfigError
    from lance_lightning.types import OUTPUT_FORMATS

    table = numbers()
    for output_format in OUTPUT_FORMATS:
        if output_format in FORMATS_OF_EXTRAS:
            with refused(ConfigError, f"lance-lightning[{output_format}]"):
                epoch(table, output_format=output_format)
        else:
            found = epoch(table, output_format=output_format)
            assert sorted(found) == list(range(ROWS)), output_format


def spawned_workers_give_rows():
    for output_format in ("torch", "arrow", "python"):
        found = epoch(numbers(), output_format=output_format, num_workers=1)
        assert sorted(found) == list(range(ROWS)), output_format


def other_extras_are_named():
    import pyarrow as pa

    from lance_lightning import ArrowSource, ConfigError, DataError

    png = ArrowSource(pa.table({"id": [0], "image": [b"PNG"]}))
    with refused(ConfigError, "lance-lightning[images]"):
        epoch(png, decoders="image")
    when = ArrowSource(pa.table({"id": [0], "at": pa.array([1], pa.timestamp("ns"))}))
    with refused(DataError, "lance-lightning[pandas]"):
        epoch(when, output_format="python_col", columns=["id", "at"])
    Path("saved").mkdir()
    Path("saved/state.json").write_text("{}")
    command = ["lance-lightning", "import", "saved", "saved.lance"]
    assert "lance-lightning[datasets]" in run(command, status=1)


def bfloat16_is_read():
    """As a table has it that was written elsewhere: its type is in the metadata."""
    import pyarrow as pa
    import torch

    from lance_lightning import ArrowSource, LanceDataModule

    values = torch.arange(ROWS, dtype=torch.bfloat16)
    bits = values.view(torch.int16).numpy().tobytes()
    stored = pa.Array.from_buffers(pa.binary(2), ROWS, [None, pa.py_buffer(bits)])
    named = {"ARROW:extension:name": "lance.bfloat16", "ARROW:extension:metadata": ""}
    schema = pa.schema([pa.field("x", pa.binary(2), metadata=named)])
    source = ArrowSource(pa.table([stored], schema=schema))
    for num_workers in (0, 1):
        data = LanceDataModule(
            source, batch_size=ROWS, sampler=in_order(), num_workers=num_workers
        )
        (batch,) = data.train_dataloader()
        assert batch["x"].dtype == torch.bfloat16
        assert torch.equal(batch["x"], values)
        data.teardown()


def splits_are_built_and_databases_read():
    import lancedb

    import lance_lightning as ll

    lancedb.connect("db").create_table("rows", numbers().table)
    source = ll.LanceDBSource("db", "rows")
    for splits in (
        ll.RandomSplit({"train": 0.5, "val": 0.5}),
        ll.HashSplit({"train": 1, "val": 1}, ["id"]),
        ll.SequentialSplit({"train": 0.5, "val": 0.5}),
        ll.CalculatedSplit("cast(id as bigint) % 2", ["train", "val"]),
    ):
        data = ll.LanceDataModule(source, splits=splits)
        data.prepare_data()
        data.setup("fit")
        loaders = data.train_dataloader(), data.val_dataloader()
        found = [i for loader in loaders for i in ids(loader)]
        assert sorted(found) == list(range(ROWS)), splits
        data.teardown()


def hydra_knows_the_groups():
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    Path("conf").mkdir()
    Path("conf/train.yaml").write_text("defaults: [{data: lance}, _self_]\n")
    with initialize_config_dir(os.path.abspath("conf"), version_base="1.3"):
        chosen = ["data/splits=random", "data.splits.ratios={train: 0.8, val: 0.2}"]
        cfg = compose("train", [*chosen, "data.source.uri=rows.csv.lance"])
    assert type(instantiate(cfg.data)).__name__ == "LanceDataModule"


# -- helpers -------------------------------------------------------------------


def numbers():
    import pyarrow as pa

    from lance_lightning import ArrowSource

    floats = pa.array([i / 2 for i in range(ROWS)], pa.float64())
    return ArrowSource(
        pa.table({"id": pa.array(range(ROWS), pa.float64()), "x": floats})
    )


def in_order():
    from lance_lightning import Sequential

    return Sequential()


def epoch(source, **options):
    """Return the ids of an epoch's rows."""
    from lance_lightning import LanceDataModule

    data = LanceDataModule(source, batch_size=32, **options)
    found = ids(data.train_dataloader())
    data.teardown()
    return found


def ids(batches):
    return [int(i) for batch in batches for i in ids_of(batch)]


def ids_of(batch):
    """Return the first column, or the one named id, of a batch of any format."""
    import pyarrow as pa
    import torch

    if isinstance(batch, torch.Tensor):  # of torch_row (rows, 2), or torch_col
        rows = batch if batch.shape[1] == 2 else batch.T
        return rows[:, 0].tolist()
    if isinstance(batch, pa.RecordBatch):
        return batch.column("id").to_pylist()
    return list(batch["id"])


class refused:
    """Holds that its block raises an error whose message holds a text."""

    def __init__(self, error, text):
        self.error, self.text = error, text

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        assert kind is not None, f"no error that names {self.text}"
        return issubclass(kind, self.error) and self.text in str(error)


def run(command, status=0):
    """Run a program of this environment, and return what it said."""
    folder = os.path.dirname(sys.executable)
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": os.pathsep.join([folder, os.environ["PATH"]])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


CHECKS = (
    nothing_else_is_installed,
    no_source_file_can_be_imported,
    the_command_runs,
    files_are_imported,
    the_program_of_the_readme_trains,
    every_output_format_gives_rows_or_names_its_extra,
    spawned_workers_give_rows,
    other_extras_are_named,
    bfloat16_is_read,
    splits_are_built_and_databases_read,
    hydra_knows_the_groups,
)


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["LANCE_LIGHTNING_CACHE_DIR"] = os.path.join(folder, "cache")
        for check in CHECKS:
            start = time.monotonic()
            check()
            name = check.__name__.replace("_", " ")
            print(f"ok {name} ({time.monotonic() - start:.1f} s)", flush=True)
        os.chdir("/")


if __name__ == "__main__":  # spawned workers import this file again
    main()
