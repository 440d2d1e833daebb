"""Train on a Lance dataset without Hydra."""


def main() -> None:
    """Fit, then test, the classifier of model.py on the digits."""
    # Imported here: spawned workers import this file again and need no Lightning.
    import lightning as L
    from model import DigitClassifier

    from lance_lightning import BlockShuffle, LanceDataModule, LanceSource, RandomSplit

    L.seed_everything(0)
    data = LanceDataModule(
        source=LanceSource("data/digits.lance"),  # or a plain path or URL
        splits=RandomSplit({"train": 0.8, "val": 0.1, "test": 0.1}, seed=0),
        columns=["image", "label"],
        sampler=BlockShuffle(),
        output_format="torch",
        batch_size=64,
        num_workers=0,
        seed=0,
    )
    model = DigitClassifier()
    trainer = L.Trainer(max_epochs=20, accelerator="cpu", logger=False)
    trainer.fit(model, datamodule=data)
    (scores,) = trainer.test(model, datamodule=data, verbose=False)
    print(f"test accuracy: {scores['test_accuracy']:.4f}")


if __name__ == "__main__":  # spawned workers stop here
    main()
