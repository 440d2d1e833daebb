"""Predict the arrival delay of flights; configs/flights.yaml says how.

python examples/make_flights.py
python examples/flights.py data.batch_size=2048 trainer.max_epochs=3
"""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../configs", config_name="flights")
def main(cfg: DictConfig) -> None:
    """Fit, then test, what the config describes."""
    # Imported here: spawned workers import this file again and need no Lightning.
    import lightning as L
    from hydra.utils import instantiate

    L.seed_everything(cfg.seed)
    data = instantiate(cfg.data)
    model = instantiate(cfg.model)
    trainer = instantiate(cfg.trainer)

    trainer.fit(model, datamodule=data, ckpt_path=cfg.ckpt_path)
    (scores,) = trainer.test(model, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        print(
            f"test error: {scores['test_rmse']:.2f} minutes (root mean square); "
            f"of the mean delay: {scores['test_rmse_of_mean']:.2f}"
        )


if __name__ == "__main__":  # spawned workers stop here
    main()
