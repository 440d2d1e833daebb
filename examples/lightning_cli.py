"""Train on a Lance dataset with LightningCLI instead of Hydra.

python examples/lightning_cli.py fit --config examples/lightning_cli.yaml
"""


def main() -> None:
    """Run the subcommand that was asked for: fit, validate, test or predict."""
    # Imported here: spawned workers import this file again and need no Lightning.
    from lightning.pytorch.cli import LightningCLI
    from model import DigitClassifier

    from lance_lightning import LanceDataModule

    # A second run writes its config.yaml over that of the first.
    overwrite = {"overwrite": True}
    LightningCLI(DigitClassifier, LanceDataModule, save_config_kwargs=overwrite)


if __name__ == "__main__":  # spawned workers stop here
    main()
