"""What is asked of a table: its columns, SQL expressions over them, and filters."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lance_lightning.arrow import quoted
from lance_lightning.checks import quote_names
from lance_lightning.errors import ConfigError, SourceError
from lance_lightning.tables.sql import Names, check_filter_sql, check_sql
from lance_lightning.types import ROW_ID, ROW_OFFSET

Columns = Sequence[str] | Mapping[str, str] | None

# Lance's own columns, which can be asked for by name though no schema lists them.
SYSTEM_COLUMNS = (ROW_ID, "_rowaddr", ROW_OFFSET)
_ONLY_IN_SQL = ("_row_created_at_version", "_row_last_updated_at_version")


def asked_of_lance(
    schema: Any, columns: Columns, with_row_id: bool
) -> list[str] | dict[str, str] | None:
    """Return what to hand to Lance's ``columns=``; see `Snapshot.lance_columns`."""
    if columns is None:
        _refuse_backquotes(schema)
        if not with_row_id:
            return None
    wanted = _expressions(schema, columns)
    if with_row_id:
        wanted.setdefault(ROW_ID, quoted(ROW_ID))
    known = {*schema.names, *SYSTEM_COLUMNS}
    # Lance's take gives a name with a dot back as a struct, its scanner as a column of
    # that name; as an expression it is the same in both. "*" in a list is all columns.
    plain = all(name in known and quoted(name) == sql for name, sql in wanted.items())
    if not plain or "*" in wanted:
        return wanted
    names = list(wanted)
    # Lance plans each name that is asked for, 0.2 ms of them, but not "all".
    return None if names == schema.names else names


def one(sql: str) -> str:
    """Return ``sql`` in brackets.

    Lance reads the first expression of "a, b" or "a > 1; b" and drops the rest
    silently; in brackets it is an error. A line break ends a comment.
    """
    return f"({sql}\n)" if "--" in sql else f"({sql})"


def _expressions(schema: Any, columns: Columns) -> dict[str, str]:
    """Return new name -> Lance expression for every column asked for."""
    if columns is None:
        columns = schema.names
    if isinstance(columns, Mapping):
        pairs = [(k, v) for k, v in columns.items() if v is not None]
    elif isinstance(columns, Sequence) and not isinstance(columns, (str, bytes)):
        pairs = [(name, name) for name in columns]
    else:
        raise ConfigError(
            "columns must be a list of names, or a mapping from new name to a column "
            f"or SQL expression, got {columns!r}; write [{columns!r}] for one column"
        )
    if not pairs:
        raise ConfigError("columns is empty, so no value would be read; name some")
    if not all(isinstance(part, str) and part for pair in pairs for part in pair):
        raise ConfigError(f"columns must hold names and SQL as text, got {columns!r}")
    counts = Counter(name for name, _ in pairs)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(
            f"columns must name a column once; twice: {quote_names(twice)}"
        )
    by_sql, known = isinstance(columns, Mapping), {*schema.names, *SYSTEM_COLUMNS}
    return {
        name: _expression(schema, known, name, asked, by_sql) for name, asked in pairs
    }


def _expression(
    schema: Any, known: set[str], name: str, asked: str, by_sql: bool
) -> str:
    found = quoted(asked) if asked in known else _path(schema, asked)
    if found is None and not by_sql:
        raise SourceError(_unknown_column(schema, asked))
    if name in SYSTEM_COLUMNS and name != asked:
        raise SourceError(
            f"{name!r} is the name of Lance's own column and cannot name {asked!r}; "
            "choose another new name"
        )
    if found is not None and "`" in asked:
        raise SourceError(_backquote(asked, found))
    if found is None:
        doing = f"the expression {asked!r} for {name!r}"
        check_sql(asked, names_of(schema), doing)
    return found or one(asked)


def _refuse_backquotes(schema: Any) -> None:
    for name in schema.names:
        if "`" in name:
            others = [other for other in schema.names if "`" not in other]
            raise SourceError(
                f"{_backquote(name, quoted(name))}, or name the others, "
                f"columns=[{quote_names(others)}]"
            )


def _backquote(name: str, path: str) -> str:
    return (
        f"the column name {name!r} holds a backquote, which Lance cannot read; rename "
        f"the column: dataset.alter_columns({{'path': {path!r}, 'name': 'new_name'}})"
    )


def _path(fields: Any, name: str) -> str | None:
    """Return the quoted path of a column, or of a struct's field, or None."""
    for arrow_field in fields:
        if arrow_field.name == name:
            return quoted(name)
        prefix = f"{arrow_field.name}."
        if pa.types.is_struct(arrow_field.type) and name.startswith(prefix):
            below = _path(arrow_field.type, name[len(prefix) :])
            if below is not None:
                return f"{quoted(arrow_field.name)}.{below}"
    return None


def _unknown_column(schema: Any, name: str) -> str:
    bare = name.strip("`\"'")  # a name in a list is written without quotes
    close = difflib.get_close_matches(bare, schema.names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return (
        f"unknown column {name!r}{hint}; columns there are: "
        f"{quote_names(schema.names)} "
        "(a SQL expression is written as a mapping: {new name: expression})"
    )


# -- filters -------------------------------------------------------------------


def names_of(schema: Any) -> Names:
    """Return what SQL over a table of this schema can name."""
    return Names(schema, (*SYSTEM_COLUMNS, *_ONLY_IN_SQL))


def check_filter_text(sql: Any) -> None:
    """Raise a `ConfigError` unless a filter is text, or None."""
    if sql is not None and not (isinstance(sql, str) and sql.strip()):
        raise ConfigError(
            f"filter must be a SQL expression such as 'label >= 0', got {sql!r}; "
            "leave it out to read every row"
        )


def check_filter(sql: str, schema: Any) -> None:
    """Check what Lance would not find wrong with a filter.

    Raises:
        ConfigError: It is not a string, or is blank.
        SourceError: It would keep all rows or none, or other rows each time.
    """
    check_filter_text(sql)
    check_filter_sql(sql, names_of(schema), f"the filter {sql!r}")
