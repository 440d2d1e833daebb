"""`LanceDataModule`: arguments, Lightning's hooks, checkpoint."""

from lance_lightning.datamodule.module import LanceDataModule

__all__ = ["LanceDataModule"]
