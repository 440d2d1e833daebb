"""Train on a Lance dataset; every part is chosen on the command line.

python examples/train.py --help
"""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
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
    split = "test" if "test" in data.split_names else "val"
    evaluate = trainer.test if split == "test" else trainer.validate
    (scores,) = evaluate(model, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        print(f"{split} accuracy: {scores[f'{split}_accuracy']:.4f}")


if __name__ == "__main__":  # spawned workers stop here
    main()
