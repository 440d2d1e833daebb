"""SQL as Lance reads it: its tokens, names in backquotes, and its silent traps.

In Lance's dialect double quotes are text, as in MySQL; standard SQL has names in them.
A column in double quotes is then a word that is the same for every row, so that a
filter passes all rows, or none, without an error.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from lance_lightning.arrow import quoted
from lance_lightning.checks import quote_names
from lance_lightning.errors import SourceError
from lance_lightning.tables.sql_tokens import Token, tokens

_WORDS = ("name", "quoted", "double")
_COMPARED = {"=", "==", "!=", "<>", "<", ">", "<=", ">="}
_COMPARED |= {"like", "ilike", "in", "between", "is"}
_CHANGING = re.compile(
    r"\b(?:random|rand|uuid|now|today)\s*\(|\bcurrent_(?:date|time(?:stamp)?)\b",
    re.IGNORECASE,
)


# -- the columns of a table ----------------------------------------------------


class Names:
    """What a table's SQL can name: columns and fields of structs, in any case.

    Args:
        fields: The schema.
        system: Names of Lance's own columns.
    """

    def __init__(self, fields: Any, system: Collection[str] = ()) -> None:
        self.columns = [*(field.name for field in fields)]
        self._known = {*self.columns, *system}
        self._folded: dict[str, list[str]] = {}
        for name in self._known:
            self._folded.setdefault(name.lower(), []).append(name)
        self._paths: dict[str, list[tuple[str, ...]]] = {}
        for path in _paths(fields, ()):
            for dotted in {".".join(path), path[-1]}:
                self._paths.setdefault(dotted.lower(), []).append(path)

    def meant(self, name: str) -> list[str]:
        """Return what a dotted path, or a field's own name, can mean, quoted.

        Case is disregarded, unless one path has exactly this one.
        """
        found = self._paths.get(name.lower(), [])
        exact = [path for path in found if name in (".".join(path), path[-1])]
        return [quoted(*path) for path in exact or found]

    def close(self, name: str) -> list[str]:
        """Return the quoted column that a wrong name may have meant, if any."""
        close = difflib.get_close_matches(name, self.columns, n=1)
        return self.meant(name) or [quoted(found) for found in close]

    def folded(self, name: str) -> list[str]:
        """Return the columns that have this name but for case."""
        return sorted(self._folded.get(name.lower(), []))

    def has(self, token: Token) -> bool:
        """Tell whether a token names a column, or one of Lance's own."""
        if token.kind == "quoted":
            return token.value in self._known
        return token.kind == "name" and bool(self.folded(token.text))


def _paths(fields: Any, parent: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for field in fields:
        path = (*parent, field.name)
        yield path
        if pa.types.is_struct(field.type):
            yield from _paths(field.type, path)


# -- checks --------------------------------------------------------------------


def check_sql(sql: str, names: Names, doing: str) -> None:
    """Refuse SQL that Lance takes for something else than it looks like.

    Args:
        sql: An expression.
        names: The columns there are.
        doing: Whose SQL it is, such as "the filter ...".

    Raises:
        SourceError: It has a column in double quotes, a name in backquotes that is
            no column, a name that several columns have but for case, a timestamp that
            Lance would cut, or text that Lance's planner stops at.
    """
    found = tokens(sql)
    for token in found:
        if token.kind == "unread":
            raise SourceError(
                f"{doing} holds {token.text}, at which Lance's planner stops: write "
                "the value itself, and text in plain single quotes"
            )
    _refuse_fine_times(found, doing)
    paths = _paths_in(found)
    _refuse_double_quotes(sql, paths, names, doing)
    for path in paths:
        if path[0].kind == "quoted" and not names.has(path[0]):
            meant = names.close(".".join(token.value for token in path))
            hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
            raise SourceError(
                f"{doing} names {path[0].text}, and no column has that name{hint}; "
                f"columns there are: {quote_names(names.columns)}"
            )
    _refuse_ambiguous(found, paths, names, doing)


def check_filter_sql(sql: str, names: Names, doing: str) -> None:
    """Refuse a filter, or a part of one, that is the same for every row.

    Raises:
        SourceError: As for `check_sql`; or text is compared with text; or it would
            keep other rows each time.
    """
    check_sql(sql, names, doing)
    found = tokens(sql)
    for part in _parts(found):
        if not any(map(names.has, part)) and _compares(part):
            meant = [
                token
                for token in part
                if token.kind == "double"
                or (token.kind == "text" and names.meant(token.value))
            ]
            if meant:
                _refuse_constant(part, meant, names, doing)
    if not any(map(names.has, found)):
        texts = [token for token in found if token.kind in ("text", "double")]
        if texts:
            _refuse_constant(found, texts, names, doing)
    _refuse_changing(sql, found, names, doing)


def _paths_in(found: Sequence[Token]) -> list[list[Token]]:
    """Return the names and words in quotes, those joined by dots together.

    A word in brackets, ``box["left"]``, is a struct's field in Lance too.
    """
    paths: list[list[Token]] = []
    for i, token in enumerate(found):
        if token.kind not in _WORDS:
            continue
        if i > 1 and found[i - 1].text == "." and found[i - 2].kind in _WORDS:
            paths[-1].append(token)
        elif not (i and found[i - 1].text == "[" and token.kind == "double"):
            paths.append([token])
    return paths


def _refuse_double_quotes(
    sql: str, paths: Iterable[Sequence[Token]], names: Names, doing: str
) -> None:
    wrong: list[tuple[Sequence[Token], str]] = []
    for path in paths:
        if all(token.kind != "double" for token in path):
            continue
        meant = names.meant(".".join(token.value for token in path))
        if meant or len(path) > 1:
            own = quoted(*(token.value for token in path))
            wrong.append((path, meant[0] if meant else own))
    if not wrong:
        return
    right = sql
    for path, column in reversed(wrong):
        right = right[: path[0].start] + column + right[path[-1].stop :]
    path, column = wrong[0]
    written = sql[path[0].start : path[-1].stop]
    text = path[-1].value.replace("'", "''")
    raise SourceError(
        f"{doing} has the column {column} in double quotes, {written}, which Lance "
        "takes for text, the same in every row: columns are written in backquotes, "
        f"so write {right} (and if {written} is meant as text, '{text}')"
    )


def _refuse_fine_times(found: Iterable[Token], doing: str) -> None:
    for word, text in itertools.pairwise(found):
        fine = text.kind == "text" and _FINE.search(text.value)
        if word.word == "timestamp" and fine:
            raise SourceError(
                f"{doing} holds timestamp {text.text}, which Lance cuts to "
                f"microseconds: write timestamp(9) {text.text}"
            )


def _refuse_ambiguous(
    found: Sequence[Token], paths: Iterable[Sequence[Token]], names: Names, doing: str
) -> None:
    after = {a.start: b for a, b in itertools.pairwise(found)}
    for first in (path[0] for path in paths if path[0].kind == "name"):
        several = names.folded(first.text)
        follows = after.get(first.start)
        is_word = follows and (follows.text == "(" or follows.kind == "text")
        if len(several) > 1 and first.text not in several and not is_word:
            either = " or ".join(map(quoted, several))
            raise SourceError(
                f"{doing} names {first.text}, which differs in case from several "
                f"columns, so which one is read would be chance: write {either}"
            )


def _parts(found: Iterable[Token]) -> list[list[Token]]:
    """Return what ``and`` and ``or`` join, whatever brackets it stands in."""
    parts: list[list[Token]] = [[]]
    between = False
    for token in found:
        between = between or token.word == "between"
        if token.word == "or" or (token.word == "and" and not between):
            parts.append([])
        elif token.word == "and":
            between = False
        else:
            parts[-1].append(token)
    return parts


def _compares(part: Sequence[Token]) -> bool:
    """Tell whether both sides of a comparison stand in this part."""
    words = [token.word for token in part]
    while words and words[0] in (")", "not"):
        words = words[1:]
    return any(word in _COMPARED for word in words[1:-1])


def _refuse_constant(
    part: Sequence[Token], texts: Sequence[Token], names: Names, doing: str
) -> None:
    shown = " ".join(token.text for token in part)
    meant = [name for token in texts for name in names.close(token.value)]
    hint = f"such as {meant[0]}" if meant else f"{quote_names(names.columns)}"
    raise SourceError(
        f"{doing} names no column in {shown}, only text, so that it is the same for "
        f"every row: write a column without quotes, or in backquotes, {hint}"
    )


def _refuse_changing(
    sql: str, found: Sequence[Token], names: Names, doing: str
) -> None:
    plain = " ".join(
        token.text if token.kind in ("name", "mark", "number") else "''"
        for token in found
    )
    changing = _CHANGING.search(plain)
    if changing and changing.group() not in names.columns:
        raise SourceError(
            f"{doing} calls {changing.group()!r}, which gives another value each "
            "time, so ranks and resumed runs would read other rows; use a column or "
            "a constant instead"
        )


# -- what Lance says -----------------------------------------------------------

_LITERAL = re.compile(
    r"Received literal (\w+)\((.*?)\) and could not convert to literal of type '(\w+)"
)
_FINE = re.compile(r"\.\d{7,}")  # parts of a second finer than microseconds


def literal_hint(reason: str) -> str:
    """Return how to write a literal that Lance could not make a column's type of."""
    found = _LITERAL.search(reason)
    if found is None:
        return ""
    given, value, kind = found[1], found[2].strip('"'), found[3]
    if kind == "Timestamp":
        hint = f"write timestamp{'(9)' if _FINE.search(value) else ''} '{value}'"
    elif kind in ("Date32", "Date64"):
        hint = f"write date '{value}'"
    elif kind.startswith("Time"):
        hint = f"compare it as text, cast(... as string) with '{value}'"
    elif kind == "Duration":
        hint = "compare it as a number of its units, cast(... as bigint)"
    elif kind.endswith("Utf8"):
        hint = f"write text in single quotes, '{value}'"
    elif given == "Float64":
        hint = "compare with a whole number, or cast the column, cast(... as double)"
    else:
        hint = f"write a value of the column's type, {kind}, a number without quotes"
    return f"{hint}; "
