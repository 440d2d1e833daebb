"""The command ``lance-lightning``."""

from lance_lightning.cli.command import main

__all__ = ["main"]
