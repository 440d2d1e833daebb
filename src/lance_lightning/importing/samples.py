"""Rows of files that hold a sample each: folders of images, WebDataset's tars."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lance_lightning.errors import DataError, SourceError
from lance_lightning.importing.rows import BATCH_BYTES, BATCH_ROWS, Input, parts_after


def image_rows(files: list[Path], root: Path) -> Input:
    """Encoded images, with a class for each folder in ``root``."""
    names = [path.relative_to(root).as_posix() for path in files]
    folders = sorted({name.split("/")[0] for name in names if "/" in name})
    in_root = next((name for name in names if "/" not in name), None)
    if folders and in_root is not None:
        raise SourceError(
            f"{in_root!r} lies beside the folders {', '.join(folders[:5])}, which name "
            "the classes, so it has none; move it into one of them, or away"
        )
    fields = [("image", pa.binary()), ("path", pa.string())]
    if folders:
        fields += [("label", pa.int64()), ("class_name", pa.string())]
    schema = pa.schema(fields)
    labels = {folder: label for label, folder in enumerate(folders)}

    def batches(skip: int) -> Iterator[Any]:
        for some in _up_to_bytes(files[skip:]):
            paths = [path.relative_to(root).as_posix() for path in some]
            columns: dict[str, list[Any]] = {
                "image": [path.read_bytes() for path in some],
                "path": paths,
            }
            if labels:
                columns["class_name"] = [path.split("/")[0] for path in paths]
                columns["label"] = [labels[name] for name in columns["class_name"]]
            yield pa.RecordBatch.from_pydict(columns, schema)

    return Input(files, schema, len(files), batches)


def _up_to_bytes(files: Sequence[Path]) -> Iterator[list[Path]]:
    some: list[Path] = []
    size = 0
    for path in files:
        some.append(path)
        size += path.stat().st_size
        if size >= BATCH_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def tar_rows(files: list[Path]) -> Input:
    """WebDataset's tars: one row per sample, one column per ending."""
    scans = [_samples_in(path) for path in files]
    counts = [count for count, _ in scans]
    endings = sorted(set().union(*(found for _, found in scans)))
    fields = [("__key__", pa.string())]
    fields += [(_column_name(ending), _type_of(ending)) for ending in endings]
    schema = pa.schema(fields)
    columns = {ending: _column_name(ending) for ending in endings}

    def batches(skip: int) -> Iterator[Any]:
        for path, rest in parts_after(files, counts, skip):
            yield from _sample_batches(path, rest, schema, columns, BATCH_BYTES)

    return Input(files, schema, sum(counts), batches)


def _column_name(ending: str) -> str:
    return ending.replace(".", "_")  # Lance takes a dot for a field of a struct


def _type_of(ending: str) -> Any:
    last = ending.rpartition(".")[2]
    if last in ("cls", "cls2", "index", "inx"):
        return pa.int64()
    return pa.string() if last in ("json", "text", "transcript", "txt") else pa.binary()


def _samples_in(path: Path) -> tuple[int, set[str]]:
    """Return how many samples a tar has, and the endings of their files."""
    count, last, endings = 0, None, set()
    for _, key, ending in _members(path):
        count += key != last
        last = key
        endings.add(ending)
    return count, endings


def _sample_batches(
    path: Path, skip: int, schema: Any, columns: Mapping[str, str], num_bytes: int
) -> Iterator[Any]:
    """Give the samples of a tar as batches of about ``num_bytes``.

    Args:
        path: The tar.
        skip: Samples to leave out at the start.
        schema: Of the batches; a column that a sample lacks is null.
        columns: Ending -> column.
        num_bytes: Of the files of a batch.

    Raises:
        DataError: A file does not hold what its ending says.
    """
    rows: list[dict[str, Any]] = []
    size, index, last = 0, -1, None
    for file, key, ending in _members(path):
        if key != last:
            index, last = index + 1, key
            if size >= num_bytes or len(rows) >= BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema)
                rows, size = [], 0
            if index >= skip:
                rows.append({"__key__": key})
        if index >= skip:
            name = columns[ending]
            if name in rows[-1]:
                raise DataError(
                    f"{path} holds two files for the column {name!r} of the sample "
                    f"{key!r}, and a row has one: give each sample another name"
                )
            content = file()
            size += len(content)
            where = f"{key}.{ending} in {path}"
            rows[-1][name] = _value(content, schema.field(name).type, where)
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema)


def _members(path: Path) -> Iterator[tuple[Any, str, str]]:
    """Give of each file a function that reads it, its sample's key and its ending.

    As WebDataset has it, the ending begins at the first dot of the file's name.
    """
    with tarfile.open(path) as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            folder, slash, name = member.name.rpartition("/")
            stem, dot, ending = name.partition(".")
            if not member.isfile() or not (stem and dot and ending):
                continue

            def read(member: tarfile.TarInfo = member) -> bytes:
                file = tar.extractfile(member)
                assert file is not None  # it is a plain file
                return file.read()

            yield read, f"{folder}{slash}{stem}", ending.lower()
        # tarfile takes the end of a file for the end of the tar.
        end: Any = tar.fileobj
        end.seek(tar.offset)
        if end.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise SourceError(
                f"{path} does not end with the zeros that end a tar, so it was cut or "
                "is damaged, and samples are missing; get the file again"
            )


def _value(content: bytes, kind: Any, where: str) -> Any:
    try:
        if pa.types.is_integer(kind):
            return int(content)
        return content.decode() if pa.types.is_string(kind) else content
    except ValueError as error:
        raise DataError(
            f"{where} holds {content[:40]!r}, which is no {kind}, so it does not fit "
            "the column; mend the file, or give it another ending"
        ) from error
