"""Names of columns as SQL and errors write them."""

from __future__ import annotations


def quoted(*path: str) -> str:
    """Return a column's name, or the path of a struct's field, as SQL has it."""
    return ".".join(f"`{part.replace('`', '``')}`" for part in path)


def sql_name(name: str) -> str:
    """Return a column as errors name it, a field of a struct with dots, in SQL."""
    return quoted(*name.split("."))
