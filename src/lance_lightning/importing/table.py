"""Make a Lance dataset of files of another format, resumable, never half a table.

All is written to a hidden folder beside the target, a fragment at a time, and renamed
at the end. A journal there names the fragments that are done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from filelock import FileLock, Timeout
from lance.fragment import FragmentMetadata, write_fragments

from lance_lightning.checks import check_int
from lance_lightning.errors import ConfigError, LanceLightningError, SourceError
from lance_lightning.forks import refuse_fork
from lance_lightning.importing.detect import open_input
from lance_lightning.importing.rows import UNREADABLE, Input

ROWS_PER_FILE = 1024 * 1024
BYTES_PER_FILE = 1024**3  # of Arrow data: what a killed import has to write again
JOURNAL_VERSION = 1

Progress = Callable[[int, "int | None"], None]


def import_table(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    kind: str | None = None,
    rows_per_file: int = ROWS_PER_FILE,
    progress: Progress | None = None,
) -> int:
    """Write the rows of ``source`` to a new Lance dataset and return their number.

    A call that was killed continues after its last fragment when it is repeated, unless
    a file of the source has changed since; it then begins anew.

    Args:
        source: A file or folder.
        target: The dataset's folder, which must not exist.
        kind: The format of the source, one of `lance_lightning.importing.FORMATS`;
            guessed from the names of its files when it is None.
        rows_per_file: The most rows of a fragment; it has less where these would be
            more than 1 GiB.
        progress: Called with the number of rows so far, and of all where it is known.

    Raises:
        ConfigError: An argument cannot work, or the target is there.
        DataError: A value is not of its column's type.
        SourceError: The source is not there, or cannot be read.
    """
    refuse_fork()
    rows_per_file = check_int("rows_per_file", rows_per_file, 1)
    path = _free(target)
    found = open_input(Path(source).expanduser(), kind)
    work = path.with_name(f".{path.name}.importing")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"no folder can be made for {str(path)!r} ({error}), so nothing is "
            "imported; choose a target in a folder that you may write to"
        ) from error
    try:
        with FileLock(work / "lock", timeout=0):
            rows = _fill(work, found, rows_per_file, progress or (lambda *_: None))
            (work / "table.lance").rename(path)
            _sync(path.parent)
            shutil.rmtree(work)
    except Timeout as error:
        raise ConfigError(
            f"another import to {str(path)!r} is under way: wait for it, or end it"
        ) from error
    return rows


def _free(target: str | os.PathLike[str]) -> Path:
    if "://" in os.fspath(target):
        raise ConfigError(
            f"the target must be a folder on this machine, got {os.fspath(target)!r}: "
            "import to one and copy it, a Lance dataset is a folder of files"
        )
    path = Path(target).expanduser().absolute()
    if path.suffix != ".lance":
        raise ConfigError(
            "the target must end in .lance, since LanceDB takes no other folder for a "
            f"table, got {os.fspath(target)!r}"
        )
    if path.exists():
        raise ConfigError(
            f"{str(path)!r} is there already, and an import makes a new table: remove "
            "it, or choose another name"
        )
    return path


def _fill(work: Path, found: Input, rows_per_file: int, progress: Progress) -> int:
    """Write all rows to the table in ``work`` and return their number."""
    dotted = [name for name in found.schema.names if "." in name]
    if dotted:
        raise SourceError(
            f"Lance takes a dot for a field of a struct, so it cannot store the "
            f"columns {', '.join(map(repr, dotted))}; rename them in the source"
        )
    table, journal = work / "table.lance", work / "journal.jsonl"
    fragments = _resumed(table, journal, _header(found))
    done = int(sum(fragment.physical_rows for fragment in fragments))
    progress(done, found.num_rows)
    for part in _parts(_readable(found, done), rows_per_file):
        counted = _counted(part, done, lambda rows: progress(rows, found.num_rows))
        written = _write(table, found.schema, counted, rows_per_file)
        _add(journal, [json.dumps(each.to_json()) for each in written])
        fragments += written
        done += sum(fragment.physical_rows for fragment in written)
    operation = lance.LanceOperation.Overwrite(found.schema, fragments)
    lance.LanceDataset.commit(str(table), operation)
    for folder, _, names in os.walk(table, topdown=False):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))
    return done


def _readable(found: Input, skip: int) -> Iterator[Any]:
    """Give batches; what a damaged file raises becomes a SourceError."""
    try:
        yield from found.batches(skip)
    except (*UNREADABLE, ValueError) as error:
        if isinstance(error, LanceLightningError):
            raise
        raise SourceError(
            f"a batch of the source cannot be read ({error}); what came before is kept "
            "and is not written again when the import is repeated: if a file is "
            "damaged, get it again"
        ) from error


def _header(found: Input) -> str:
    """Return a line that is another one when the source is."""
    digest = hashlib.sha256(found.schema.to_string().encode())
    for path in found.files:
        stat = path.stat()
        entry = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
        digest.update(repr(entry).encode())
    return json.dumps({"version": JOURNAL_VERSION, "source": digest.hexdigest()})


def _resumed(table: Path, journal: Path, header: str) -> list[Any]:
    """Return the fragments that are done; remove what else there is."""
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    lines = [line.strip() for line in lines if line.endswith("\n")]  # a torn one
    if not lines or lines[0] != header:
        shutil.rmtree(table, ignore_errors=True)
        journal.unlink(missing_ok=True)
        _add(journal, [header])
        return []
    for folder in ("_transactions", "_versions"):  # killed before the rename
        shutil.rmtree(table / folder, ignore_errors=True)
    fragments = [FragmentMetadata.from_json(line) for line in lines[1:]]
    known = {file.path for fragment in fragments for file in fragment.files}
    for path in (table / "data").glob("*"):
        if path.name not in known:
            path.unlink()
    return fragments


def _parts(batches: Iterator[Any], max_rows: int) -> Iterator[Iterator[Any]]:
    """Cut a stream of batches into the rows of one fragment each."""
    rest = next(batches, None)

    def part() -> Iterator[Any]:
        nonlocal rest
        rows = size = 0
        while rest is not None and rows < max_rows and size < BYTES_PER_FILE:
            batch = rest.slice(0, max_rows - rows)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            yield batch
            rest = rest.slice(batch.num_rows)
            if not rest.num_rows:
                rest = next(batches, None)

    while rest is not None:
        yield part()


def _counted(
    part: Iterator[Any], rows: int, say: Callable[[int], None]
) -> Iterator[Any]:
    for batch in part:
        rows += batch.num_rows
        say(rows)
        yield batch


def _write(
    table: Path, schema: Any, batches: Iterator[Any], max_rows: int
) -> list[Any]:
    """Write one fragment, and bring it to the disk.

    Raises:
        SourceError: A batch cannot be read, or Lance cannot store it.
    """
    raised: list[Exception] = []

    def kept() -> Iterator[Any]:
        # Through Lance the exception would come out as text.
        try:
            for batch in batches:
                # Into new memory: Lance stops the process where values from a file
                # are at an address that does not suit their type.
                yield pa.concat_batches([batch, batch.slice(0, 0)])
        except Exception as error:
            raised.append(error)
            raise

    reader = pa.RecordBatchReader.from_batches(schema, kept())
    try:
        written: list[Any] = write_fragments(
            reader,
            str(table),
            schema=schema,
            mode="create",
            max_rows_per_file=max_rows,
        )
    except (OSError, ValueError, pa.ArrowException) as error:
        cause = raised[0] if raised else error
        if isinstance(cause, LanceLightningError):
            raise cause from None
        raise SourceError(
            f"Lance cannot store a batch of the source ({cause}); what came before is "
            "kept and is not written again when the import is repeated; change the "
            "column's name or type in the source, or make room on the disk"
        ) from cause
    for fragment in written:
        for file in fragment.files:
            _sync(table / "data" / file.path)
    _sync(table / "data")
    return written


def _add(journal: Path, lines: list[str]) -> None:
    with journal.open("a") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
