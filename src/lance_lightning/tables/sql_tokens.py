"""The words of a SQL text."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Comments do not nest, and a doubled quote is one quote: both as Lance has them.
_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | --[^\n]* | /\*.*?\*/ )
  | (?P<unread> [nNrRbB]'(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
      | \$\d+ | \? | (?<![\w\]):`"']):[^\W\d]\w* )
  | (?P<text> [xX]?'(?:[^']|'')*' )
  | (?P<double> "(?:[^"]|"")*" )
  | (?P<quoted> `(?:[^`]|``)*` )
  | (?P<name> [^\W\d][\w$]* )
  | (?P<number> \d+(?:\.\d*)?(?:[eE][+-]?\d+)? )
  | (?P<mark> == | != | <> | <= | >= | \|\| | :: | . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of SQL.

    Args:
        kind: ``"name"``; ``"quoted"``, a name in backquotes; ``"text"`` and
            ``"double"``, text in single and in double quotes; ``"number"``;
            ``"mark"``; ``"unread"``, what Lance's planner stops the process at.
        text: As it is written.
        start: Where it begins.
    """

    kind: str
    text: str
    start: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def value(self) -> str:
        """The name or the text without its quotes."""
        if self.kind not in ("text", "double", "quoted"):
            return self.text
        quote = self.text[-1]
        inner = self.text[self.text.index(quote) + 1 : -1]
        return inner.replace(quote * 2, quote)

    @property
    def word(self) -> str:
        """A keyword or mark in lower case; nothing for what is quoted."""
        return self.text.lower() if self.kind in ("name", "mark") else ""


def tokens(sql: str) -> list[Token]:
    """Return the tokens of SQL text, without spaces and comments."""
    return [
        Token(found.lastgroup or "", found.group(), found.start())
        for found in _TOKEN.finditer(sql)
        if found.lastgroup != "space"
    ]
