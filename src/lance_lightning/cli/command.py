"""The command `lance-lightning`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tqdm import tqdm

from lance_lightning import __version__
from lance_lightning.errors import LanceLightningError
from lance_lightning.importing import (
    BYTES_PER_FILE,
    FORMATS,
    ROWS_PER_FILE,
    import_table,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: What was typed after the command's name; None takes ``sys.argv``.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        with tqdm(unit=" rows", unit_scale=True, disable=None, leave=False) as bar:

            def progress(rows: int, total: int | None) -> None:
                bar.total = total
                bar.update(rows - bar.n)

            rows = import_table(
                given.source,
                given.target,
                kind=given.format,
                rows_per_file=given.rows_per_file,
                progress=progress,
            )
    except LanceLightningError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command resumes where it was\n")
        sys.stderr.flush()
        # Lance's threads still ask for rows, and a Python that ends under them aborts.
        os._exit(130)
    tqdm.write(f"{given.target}: {rows} rows")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lance-lightning")
    version = f"%(prog)s {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "import",
        help="make a Lance dataset of files of another format",
        description=(
            "Make a Lance dataset of files of another format. The target is there when "
            "it is whole; a command that was stopped resumes when it is repeated."
        ),
    )
    command.add_argument("source", metavar="SOURCE", help="a file or a folder")
    command.add_argument("target", metavar="TARGET.lance", help="a new folder")
    command.add_argument(
        "--format",
        choices=FORMATS,
        help="of the source; told from the names of its files when left out",
    )
    command.add_argument(
        "--rows-per-file",
        type=int,
        default=ROWS_PER_FILE,
        metavar="N",
        help=(
            "the most rows of a data file, which holds at most about "
            f"{BYTES_PER_FILE // 1024**3} GiB in any case (default: %(default)s)"
        ),
    )
    return parser
