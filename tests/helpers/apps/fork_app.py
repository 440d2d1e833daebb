"""Forks this process in every way, and says what a child can do; `test_forks` runs it.

A child that hangs is ended by an alarm.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor


def attempt(work) -> str:
    """Return what a call raises; its value's text where it raises nothing."""
    signal.alarm(30)
    try:
        return f"value {work()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


def in_fork(work):
    """Return what a function returns in a child of os.fork."""
    ours, theirs = os.pipe()
    if not os.fork():
        os.write(theirs, json.dumps(work()).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.wait()
    return json.loads(said or '"the child was ended"')


def rows(uri: str) -> str:
    """Return the number of rows that a new module reads."""
    from lance_lightning import LanceDataModule

    data = LanceDataModule(uri, batch_size=40)
    return attempt(lambda: sum(len(batch["id"]) for batch in data.train_dataloader()))


def new_module(uri: str) -> str:
    """Return what a new module raises."""
    from lance_lightning import LanceDataModule

    return attempt(lambda: LanceDataModule(uri))


class Sent:
    """Sends what a call raises to the parent."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __call__(self, pipe) -> None:
        pipe.send(new_module(self.uri))


def from_process(uri: str) -> str:
    """Return what a child of a multiprocessing.Process says."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=Sent(uri), args=(theirs,))
    process.start()
    process.join()
    return ours.recv()


def from_pool(uri: str) -> str:
    """Return what a child of a multiprocessing.Pool says."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(new_module, (uri,))


def from_executor(uri: str) -> str:
    """Return what a child of a ProcessPoolExecutor says."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(new_module, uri).result()


def main() -> None:
    """Write what each child said as JSON."""
    uri, target = sys.argv[1:]
    warnings.simplefilter("ignore")
    said = {"before Lance": in_fork(lambda: rows(uri))}
    from torch.utils.data import DataLoader

    import lance_lightning  # with Lance, from here on
    from lance_lightning.importing.table import import_table

    data = lance_lightning.LanceDataModule(uri, batch_size=8)
    loader = data.train_dataloader()
    begun = iter(loader)
    next(begun)
    dataset = data.dataset("train")
    of_child = {
        "a new module": lambda: lance_lightning.LanceDataModule(uri),
        "setup": data.setup,
        "a batch of an iterator": lambda: next(begun),
        "a new iterator": lambda: next(iter(loader)),
        "a sample": lambda: dataset[3],
        "samples of an iterable": lambda: next(iter(data.iterable_dataset("train"))),
        "the table": lambda: data.snapshot().open().count_rows(),
        "an import": lambda: import_table(uri, uri + ".again"),
    }
    for name, work in of_child.items():
        said[name] = in_fork(lambda work=work: attempt(work))
    said["a Process"] = from_process(uri)
    said["a Pool"] = from_pool(uri)
    said["an executor"] = from_executor(uri)
    options = {"num_workers": 1, "multiprocessing_context": "fork"}
    theirs = DataLoader(dataset, batch_size=8, **options)
    said["a DataLoader"] = attempt(lambda: next(iter(theirs)))
    said["the parent"] = rows(uri)
    with open(target, "w") as file:
        json.dump(said, file)


if __name__ == "__main__":
    main()
