"""No secret is written into hyperparameters, logs or checkpoints."""

from __future__ import annotations

import pickle

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lance_lightning import (
    ConfigError,
    LanceDataModule,
    LanceDBSource,
    LanceSource,
    SeparateSources,
    SequentialSplit,
)
from tests.helpers.hyperparameters import SECRET, saved

pytestmark = pytest.mark.usefixtures("shared_cache")


# -- secrets ------------------------------------------------------------------


def files_that_hold(secret: str, folder) -> list[str]:
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("kind", ["lance", "lancedb", "separate"])
def test_a_secret_option_is_written_nowhere(
    table, tmp_path, monkeypatch, caplog, capsys, kind
):
    monkeypatch.setenv("LANCE_LIGHTNING_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    options = {"aws_secret_access_key": SECRET}
    source = {
        "lance": lambda: LanceSource(table, storage_options=options),
        "lancedb": lambda: LanceDBSource(
            table.rpartition("/")[0], "table", storage_options=options
        ),
        "separate": lambda: SeparateSources(
            train=LanceSource(table, storage_options=options)
        ),
    }[kind]()
    splits = {} if kind == "separate" else {"splits": SequentialSplit(fixed=["train"])}
    data = LanceDataModule(source, **splits)
    with caplog.at_level("DEBUG"):
        path = saved(
            data,
            tmp_path,
            enable_checkpointing=True,
            callbacks=[ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1)],
            logger=CSVLogger(tmp_path / "logs"),
            log_every_n_steps=1,
        )
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2
    assert len(list(tmp_path.rglob("hparams.yaml"))) == 1
    if kind != "separate":
        assert list((tmp_path / "cache").rglob("*.json"))
    assert files_that_hold(SECRET, tmp_path) == []
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capsys.readouterr())
    shown = [
        repr(source),
        str(data),
        repr(data),
        str(data.hparams),
        repr(data.plan("train")),
    ]
    shown += [repr(data.snapshot("train")), str(data.hparams_initial)]
    assert SECRET not in "".join(shown)
    # The environment holds it, so a pickle need not.
    pickled = pickle.dumps(data)
    assert SECRET.encode() not in pickled
    assert pickle.loads(pickled).snapshot("train") == data.snapshot("train")
    assert pickle.loads(pickled)._config.sources == data._config.sources

    with pytest.raises(ConfigError, match="a secret") as caught:
        LanceDataModule.load_from_checkpoint(path)
    assert "aws_secret_access_key" in str(caught.value)
    assert LanceDataModule.load_from_checkpoint(path, source=source).hparams == (
        data.hparams
    )


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://user:{SECRET}@bucket/table.lance",
        f"az://container/table.lance?sig={SECRET}",
    ],
)
def test_a_password_in_a_uri_is_kept_by_no_hyperparameter(uri, tmp_path):
    shown = uri.replace(f"user:{SECRET}@", "").partition("?")[0]
    sources = [uri, LanceSource(uri), SeparateSources(train=uri)]
    for source in sources:
        data = LanceDataModule(source)
        torch.save(dict(data.hparams), tmp_path / "hparams.pt")
        texts = [str(data), repr(data), str(data.hparams), str(data.hparams_initial)]
        assert all(SECRET not in text for text in texts)
        assert shown in str(data.hparams)
        assert files_that_hold(SECRET, tmp_path) == []
        with pytest.raises(ConfigError, match="a checkpoint cannot hold source") as e:
            LanceDataModule(**torch.load(tmp_path / "hparams.pt", weights_only=True))
        assert SECRET not in str(e.value)
