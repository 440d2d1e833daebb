"""Reads with workers of a forkserver that has loaded a module; `test_forks` runs it."""

from __future__ import annotations

import multiprocessing
import sys


def main() -> None:
    """Print the ids that workers read, or the error."""
    uri, preloaded = sys.argv[1:]
    multiprocessing.set_forkserver_preload([preloaded])
    from lance_lightning import ConfigError, LanceDataModule

    data = LanceDataModule(
        uri,
        batch_size=40,
        num_workers=1,
        dataloader_kwargs={"multiprocessing_context": "forkserver"},
    )
    loader = data.train_dataloader()
    try:
        print(sum(len(batch["id"]) for batch in loader), "rows")
    except ConfigError as error:
        print(str(error).replace("\n", " "))
    loader.close()


if __name__ == "__main__":
    main()
