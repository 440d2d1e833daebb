"""The command `lance-lightning`, as ``python -m lance_lightning``."""

import sys

from lance_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
