"""One measurement in a process of its own.

    python -m benchmarks.child MODULE JSON

calls ``run(**arguments)`` of a module of this package and prints what it returns.
A worker that is spawned imports this file again, so it imports next to nothing.
"""

from __future__ import annotations

import importlib
import json
import sys

MARK = "RESULT "


def main() -> None:
    """Run what the command line names."""
    module, arguments = sys.argv[1:]
    try:
        result = importlib.import_module(module).run(**json.loads(arguments))
    except ModuleNotFoundError as error:
        result = {"missing": str(error)}
    print(MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
