"""Lightning callbacks of the data module."""

from lance_lightning.callbacks.batch_size import LogBatchSize
from lance_lightning.callbacks.prediction import PredictedRows

__all__ = ["LogBatchSize", "PredictedRows"]
