"""What `lance-lightning import` reads: the format of files, told from their names.

Each reader gives rows in an order that depends only on the files, so that a killed
import can continue after any row.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lance_lightning.checks import check_one_of
from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.importing.huggingface import huggingface_rows
from lance_lightning.importing.rows import UNREADABLE, Input
from lance_lightning.importing.samples import image_rows, tar_rows
from lance_lightning.importing.tabular import arrow_rows, dataset_rows

_EXTENSIONS = {
    "arrow": (".arrow", ".feather", ".ipc"),
    "csv": (".csv", ".csv.bz2", ".csv.gz", ".csv.zst"),
    "images": (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
    "json": (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".ndjson"),
    "parquet": (".parquet", ".pq"),
    "webdataset": (".tar", ".tar.bz2", ".tar.gz", ".tgz"),
}
FORMATS = tuple(sorted([*_EXTENSIONS, "huggingface"]))


def open_input(source: Path, kind: str | None = None) -> Input:
    """Return the rows of a file or a folder.

    Args:
        source: The file or folder.
        kind: One of `FORMATS`; guessed from names when it is None.

    Raises:
        ConfigError: The format is unknown, or cannot be guessed.
        SourceError: There is no such file, or it is of another format.
    """
    if kind is not None:
        check_one_of("format", kind, FORMATS)
    if not source.exists():
        raise SourceError(
            f"nothing at {str(source)!r}, so there is nothing to import; check the path"
        )
    kind = kind or guess_format(source)
    if kind == "huggingface":
        return huggingface_rows(source)
    files = _files(source, kind)
    root = source if source.is_dir() else source.parent
    try:
        if kind == "arrow":
            return arrow_rows(files)
        if kind == "images":
            return image_rows(files, root)
        if kind == "webdataset":
            return tar_rows(files)
        return dataset_rows(files, root, kind)
    except UNREADABLE as error:
        raise SourceError(
            f"{str(source)!r} cannot be read as {kind} ({error}); if it is of another "
            f"format, name it with --format: {', '.join(FORMATS)}"
        ) from error


def guess_format(source: Path) -> str:
    """Return the format that the names of the files tell.

    Raises:
        ConfigError: They tell none, or several.
    """
    if any((source / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return "huggingface"
    found = Counter(filter(None, map(_format_of, _visible(source))))
    # Beside images and tables there are lists of files, licences and the like.
    kinds = [kind for kind in found if kind not in ("csv", "json")] or list(found)
    if len(kinds) == 1:
        return kinds[0]
    told = ", ".join(f"{count} of {kind}" for kind, count in sorted(found.items()))
    raise ConfigError(
        f"the format of {str(source)!r} cannot be told from the names of its files "
        f"({told or 'no known ending'}): name it with --format: {', '.join(FORMATS)}"
    )


def _format_of(path: Path) -> str | None:
    name = path.name.lower()
    kinds = (kind for kind, ends in _EXTENSIONS.items() if name.endswith(ends))
    return next(kinds, None)


def _visible(source: Path) -> list[Path]:
    """Return the files under a folder, sorted, or the file itself."""
    if source.is_file():
        return [source]
    paths = (path for path in sorted(source.rglob("*")) if path.is_file())
    hidden = (".", "_")
    return [
        path
        for path in paths
        if not any(part.startswith(hidden) for part in path.relative_to(source).parts)
    ]


def _files(source: Path, kind: str) -> list[Path]:
    files = _visible(source)
    if source.is_dir():
        files = [path for path in files if _format_of(path) == kind]
    if not files:
        raise SourceError(
            f"no file of format {kind} in {str(source)!r}; their names end in "
            f"{', '.join(_EXTENSIONS[kind])}"
        )
    return files
