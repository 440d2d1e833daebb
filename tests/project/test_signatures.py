"""The signatures of all public names, beside the file in which they are kept.

Whatever changes for a user's program shows as a change of that file. To write it
anew: `python tests/project/test_signatures.py`.
"""

import difflib
import importlib
import inspect
from pathlib import Path

import lance_lightning

KEPT = Path(__file__).parents[1] / "data" / "public_signatures.txt"
PUBLIC = {
    "lance_lightning": lance_lightning.__all__,
    "lance_lightning.callbacks": ["LogBatchSize", "PredictedRows"],
    "lance_lightning.importing": ["import_table"],
    "lance_lightning.samplers": ["Order", "Sampler", "TrainingSplit"],
}
# These are asked of a data module; their constructors are not for users.
HANDED_OUT = ("LanceDataLoader", "LanceIterableDataset", "LanceMapDataset")
OPERATORS = ("__getitem__", "__getitems__", "__iter__", "__len__")


class Bare(str):
    """Text that a signature shows without quotes."""

    __repr__ = str.__str__


def signature(function):
    found = inspect.signature(function)
    parameters = [
        parameter.replace(
            annotation=bare(parameter.annotation),
            # A function's repr holds its address.
            default=Bare(parameter.default.__name__)
            if inspect.isroutine(parameter.default)
            else parameter.default,
        )
        for parameter in found.parameters.values()
    ]
    result = bare(found.return_annotation)
    return str(found.replace(parameters=parameters, return_annotation=result))


def bare(annotation):
    return Bare(annotation) if isinstance(annotation, str) else annotation


def is_ours(value):
    return value.__module__.startswith("lance_lightning")


def methods(owner):
    """Yield a line for each public method and property that is defined here."""
    found = {}
    for base in filter(is_ours, reversed(owner.__mro__)):
        found.update(vars(base))
    for name, value in sorted(found.items()):
        if name.startswith("_") and name not in OPERATORS:
            continue
        if isinstance(value, property):
            result = bare(inspect.signature(value.fget).return_annotation)
            yield f"    {name}: {result}{', can be set' if value.fset else ''}"
        elif isinstance(value, (classmethod, staticmethod)):
            yield f"    {type(value).__name__} {name}{signature(value.__func__)}"
        elif inspect.isfunction(value):
            yield f"    {name}{signature(value)}"


def lines():
    for module, names in PUBLIC.items():
        for name in names:
            value = getattr(importlib.import_module(module), name)
            if not inspect.isclass(value):
                yield f"{module}.{name}{signature(value)}"
                continue
            shown = "" if name in HANDED_OUT else made_by(value)
            yield f"{module}.{name}{shown}"
            yield from methods(value)


def made_by(owner):
    """Return what a class is called with, and of an error what it is caught as."""
    if not issubclass(owner, Exception):
        return signature(owner)
    return f" is {', '.join(base.__name__ for base in owner.__bases__)}"


def written():
    return "".join(f"{line}\n" for line in lines())


def test_public_signatures_are_those_that_are_kept():
    kept, now = KEPT.read_text(), written()
    changes = difflib.unified_diff(
        kept.splitlines(), now.splitlines(), str(KEPT), "the code", lineterm="", n=0
    )
    assert now == kept, (
        "public signatures have changed; if that is meant, say it in CHANGELOG.md and "
        "run `python tests/project/test_signatures.py`\n" + "\n".join(changes)
    )


def test_no_signature_holds_what_differs_between_processes():
    assert " at 0x" not in KEPT.read_text()
    assert "/" not in KEPT.read_text()


if __name__ == "__main__":
    KEPT.write_text(written())
