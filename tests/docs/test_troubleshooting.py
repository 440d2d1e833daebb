"""The messages that docs/troubleshooting.md explains are those of the code."""

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE)


def texts():
    """Yield each text of the code; what differs in an f-string is `...`."""
    for path in (REPO / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    part.value if isinstance(part, ast.Constant) else "..."
                    for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


@pytest.fixture(scope="module")
def code():
    return "\n".join(texts())


def test_ten_messages_are_explained():
    assert len(MESSAGES) == 10


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_one_of_the_code(code, message):
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("..."))
    assert re.search(pattern, code), "correct docs/troubleshooting.md"
