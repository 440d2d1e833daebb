"""What a module, a loader and a data set show of themselves in a shell or notebook.

Only what is known already is shown: nothing here reads storage, asks another process or
raises, so a repr is safe before ``setup``, after ``teardown`` and in a worker.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lance_lightning.arrow import is_bytes, is_text
from lance_lightning.columns import is_file
from lance_lightning.formats import Format

MAX_COLUMNS = 40  # that are listed one by one
MAX_WIDTH = 60  # characters of an Arrow type

Facts = Mapping[str, str | Mapping[str, str]]


class Shown:
    """A schema that is kept for reprs of this process; no pickle holds it.

    Args:
        schema: The columns that are read; None where they are not known.
    """

    def __init__(self, schema: pa.Schema | None = None) -> None:
        self.schema = schema

    def __reduce__(self) -> tuple[Any, ...]:
        return Shown, ()


def text_of(shown: Any, facts: Callable[[], Facts]) -> str:
    """Return the repr of an object: its class and what is known of it, by lines."""
    return as_text(type(shown).__name__, _known(facts))


def html_of(shown: Any, facts: Callable[[], Facts]) -> str:
    """Return the same for a notebook."""
    return as_html(type(shown).__name__, _known(facts))


def _known(facts: Callable[[], Facts]) -> Facts:
    # Debuggers and tracebacks show objects too that are half made.
    try:
        return facts()
    except Exception as error:
        return {"state": f"cannot be shown ({type(error).__name__})"}


def as_text(name: str, facts: Facts) -> str:
    """Return facts as lines of text under a name."""
    short = [label for label, fact in facts.items() if isinstance(fact, str)]
    width = max(map(len, short), default=0)
    lines = [name]
    for label, fact in facts.items():
        if isinstance(fact, str):
            lines.append(f"  {label:<{width}}  {fact}")
        else:
            inner = max(map(len, fact), default=0)
            lines.append(f"  {label}")
            lines += [f"    {each:<{inner}}  {what}" for each, what in fact.items()]
    return "\n".join(lines)


def as_html(name: str, facts: Facts) -> str:
    """Return facts as a table of HTML; whatever they hold is text."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
        f"<td style='text-align:left'>{_cell(fact)}</td></tr>"
        for label, fact in facts.items()
    )
    return f"<div><b>{html.escape(name)}</b><table>{rows}</table></div>"


def _cell(fact: str | Mapping[str, str]) -> str:
    if isinstance(fact, str):
        return html.escape(fact)
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(each)}</td>"
        f"<td style='text-align:left'>{html.escape(what)}</td></tr>"
        for each, what in fact.items()
    )
    return f"<table>{rows}</table>"


def columns_become(format: Format, schema: pa.Schema) -> dict[str, str]:
    """Return what each column becomes in a batch, B rows of it.

    That is found by converting no rows.

    Args:
        format: The output format.
        schema: The columns that are read.
    """
    # A format of its own: the other's plan may be in use by a thread that reads.
    own, listed = dataclasses.replace(format), pa.schema(list(schema)[:MAX_COLUMNS])
    by_column = format.name not in ("torch_row", "torch_col")
    try:
        read = listed if by_column else schema
        rows = pa.RecordBatch.from_pylist([], schema=read.remove_metadata())
        batch = own.slice(own.convert(rows), 0, 0)
    except Exception:  # such as torch's collate, which has nothing to collate
        batch = None
    found = {}
    for field in listed:
        what = _becomes(own, field, batch)
        stored = _clipped(str(field.type))
        found[field.name] = stored if what in (None, stored) else f"{stored} -> {what}"
    if len(schema) > len(listed):
        found["..."] = f"{len(schema) - len(listed)} more"
    if isinstance(batch, torch.Tensor):
        found["together"] = _of_stack(batch, format.name)
    return found


def _of_stack(batch: torch.Tensor, name: str) -> str:
    width = batch.shape[1] if name == "torch_row" else batch.shape[0]
    shape = f"B, {width}" if name == "torch_row" else f"{width}, B"
    return f"one tensor {_dtype(batch)} ({shape})"


def _becomes(format: Format, field: pa.Field, batch: Any) -> str | None:
    name, decoder = field.name, format.decoder_of(field.name)
    if decoder is not None and (is_bytes(field.type) or is_file(field.type)):
        return f"decoded by {getattr(decoder, '__qualname__', decoder)}"
    if format.name in ("pandas", "polars") and batch is not None:
        return str(batch[name].dtype)
    if format.name == "python_col":
        return "list of Python values"
    if format.name not in ("torch", "numpy") or batch is None:
        return None
    return _value(batch, name, field.type)


def _value(batch: Mapping[str, Any], name: str, arrow_type: pa.DataType) -> str:
    value = batch[name]
    suffixes = ("_mask", "_lengths", "_offsets")
    beside = [suffix for suffix in suffixes if name + suffix in batch]
    also = "".join(f", {name + each}" for each in beside)
    if isinstance(value, Mapping):
        fields = {each.name: each.type for each in arrow_type}
        inner = ", ".join(
            f"{each}: {_value(value, each, fields.get(each, arrow_type))}"
            for each in value
        )
        return f"dict of {inner}{also}"
    if isinstance(value, torch.Tensor | np.ndarray):
        nested = getattr(value, "is_nested", False)
        dims = ["B", "*"] if nested else [str(size) for size in value.shape]
        dims[0] = "N" if "_offsets" in beside else "B"
        if "_lengths" in beside:
            dims[1] = "longest"
        shape = ", ".join(dims) + ("," if len(dims) == 1 else "")
        kind = "nested " if nested else ""
        return f"{kind}{_dtype(value)} ({shape}){also}"
    if is_text(arrow_type):
        return f"list of str{also}"
    if is_bytes(arrow_type) or is_file(arrow_type):
        return f"list of bytes{also}"
    return f"list of one value a row{also}"


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 3] + "..."


def columns_shown(columns: Any, shown: Shown, format: Format) -> Facts:
    """Return the columns and what they become; their names where no more is known.

    Args:
        columns: Names, or a mapping from new name to expression; None is all.
        shown: Their schema, if it is known.
        format: The output format.
    """
    if shown.schema is not None:
        found: Any = columns_become(format, shown.schema)
    else:
        found = "all" if columns is None else ", ".join(map(str, columns))
    return {"format": f"{format.name}, B rows a batch", "columns": found}


def splits_shown(splits: Any, names: Iterable[str], sizes: Mapping[str, int]) -> str:
    """Return the splits with their rows, where these are known, and how they are made.

    Args:
        splits: The spec; None where each split has a source of its own.
        names: The splits.
        sizes: The rows of those that are built.
    """
    rows = ", ".join(
        f"{name} {sizes[name]:,} rows" if name in sizes else name for name in names
    )
    return rows if splits is None else f"{rows}; {splits!r}"


def batches_shown(loaders: Mapping[str, Iterable[Any]]) -> Facts:
    """Return the batches of an epoch of each stage, from its loaders."""
    found = {
        stage: ", ".join(
            f"{len(loader)} of {loader.batch_size} rows per rank" for loader in each
        )
        for stage, each in loaders.items()
    }
    found = {stage: text for stage, text in found.items() if text}
    return {"batches of an epoch": found} if found else {}
