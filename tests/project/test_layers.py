"""The packages are layers with doors, and heavy packages are imported where needed."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import lance_lightning

PACKAGE = Path(lance_lightning.__file__).parent

# A part imports from lower lines only, never from its own line.
LAYERS = [
    {"cli"},
    {"datamodule"},
    {"callbacks"},
    {"splits", "loading"},
    {"sources", "samplers", "formats", "reading"},
    {"tables", "columns", "ordering", "importing"},
    {"arrow", "cache_folder"},
    {"checks", "forks", "frozen", "randomness"},
    {"errors"},
    {"types"},
]
FLOOR = {part: len(LAYERS) - at for at, parts in enumerate(LAYERS) for part in parts}

LIGHTNING = (
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "pytorch_lightning",
)
# Which parts may import what.
ONLY = {
    **{name: {"datamodule", "callbacks"} for name in LIGHTNING},
    "torch": {
        *("arrow", "columns", "formats", "loading", "samplers", "datamodule"),
        *("callbacks", "randomness"),
    },
    "lance": {
        *("tables", "sources", "splits", "samplers", "importing", "arrow", "reading"),
        "datamodule",  # the type of a `lance.sampler.Sampler`, which jsonargparse reads
    },
    "lancedb": {"sources", "splits", "tables"},
    **{name: set() for name in ("hydra", "omegaconf", "hydra_plugins")},
}
ONLY_IN_FUNCTIONS = {"lancedb", "pandas", "polars", "PIL"}

FILES = sorted(PACKAGE.rglob("*.py"))
DOORS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def part_of(path: Path) -> str:
    """Return the package that a file belongs to, or the file's own name."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(tree: ast.AST) -> list[tuple[str, str | None]]:
    """Return (module, name) of each import in a tree; the name is None for a module."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [(node.module, alias.name) for alias in node.names]
    return found


def ours(tree: ast.AST) -> list[tuple[list[str], str | None]]:
    """Return what a tree imports from this package: the path below it, and the name."""
    found = []
    for module, name in imports(tree):
        path = module.split(".")
        if path[0] != "lance_lightning":
            continue
        if not path[1:] and name in FLOOR:  # from lance_lightning import splits
            path, name = [*path, name], None
        found.append((path[1:], name))
    return found


def outside_functions(tree: ast.Module) -> ast.Module:
    """Return what runs when the module is imported."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_FunctionDef

        def visit_If(self, node):
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return None
            return self.generic_visit(node)

    return Strip().visit(tree)


def packages(tree: ast.AST) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(tree)}


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def file(request) -> tuple[Path, ast.Module]:
    return request.param, ast.parse(request.param.read_text("utf-8"))


def test_every_part_is_in_one_layer():
    parts = {part_of(path) for path in FILES} - {"__init__", "__main__"}
    assert parts == set(FLOOR)
    assert sum(map(len, LAYERS)) == len(FLOOR)


def test_a_part_imports_from_lower_layers_only(file):
    path, tree = file
    part = part_of(path)
    if part in ("__init__", "__main__"):
        return
    up = {
        below[0]
        for below, _ in ours(tree)
        if below and below[0] != part and FLOOR[below[0]] >= FLOOR[part]
    }
    assert up == set(), f"{part} may import only from layers below it"


def test_other_packages_are_entered_by_their_door(file):
    path, tree = file
    part = part_of(path)
    for below, name in ours(tree):
        if not below or below[0] not in DOORS or below[0] == part:
            continue
        assert len(below) == 1, f"import it from lance_lightning.{below[0]}"
        if name is not None:
            door = importlib.import_module(f"lance_lightning.{below[0]}")
            assert name in door.__all__


def test_a_package_does_not_import_by_its_own_door(file):
    path, tree = file
    part = part_of(path)
    if part in DOORS and path.name != "__init__.py":
        assert [part] not in [below for below, _ in ours(tree)]


@pytest.mark.parametrize("door", DOORS)
def test_a_door_has_only_what_others_need(door):
    needed = {name for name, part in lance_lightning._MODULES.items() if part == door}
    needed |= {
        "importing": {"FORMATS", "import_table"},
        "cli": {"main"},
        "callbacks": {"LogBatchSize", "PredictedRows"},
    }.get(door, set())
    for path in FILES:
        if part_of(path) != door:
            tree = ast.parse(path.read_text("utf-8"))
            needed |= {name for below, name in ours(tree) if below == [door] and name}
            needed |= used_of_module(tree, door)
    found = importlib.import_module(f"lance_lightning.{door}").__all__
    assert sorted(needed) == sorted(found)
    assert len(found) == len(set(found))


def used_of_module(tree: ast.AST, door: str) -> set[str]:
    """Return the names that a tree takes from a package that it imports whole."""
    if ([door], None) not in ours(tree):
        return set()
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == door
    }


def test_private_names_stay_in_their_file(file):
    _, tree = file
    assert [name for _, name in ours(tree) if name and name.startswith("_")] == [
        name for name in ("__version__",) if (([], name) in ours(tree))
    ]


def test_a_package_has_no_circle_of_imports():
    graph = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): {
            ".".join(below)
            for below, _ in ours(outside_functions(ast.parse(path.read_text("utf-8"))))
        }
        for path in FILES
        if path.name != "__init__.py"
    }
    done: set[str] = set()
    while len(done) < len(graph):
        free = {
            name
            for name, needs in graph.items()
            if name not in done and not (needs & set(graph)) - done
        }
        assert free, f"a circle: {sorted(set(graph) - done)}"
        done |= free


def test_each_part_imports_only_what_it_may(file):
    path, tree = file
    for package in packages(tree) & set(ONLY):
        assert part_of(path) in ONLY[package], f"{package} is not for {path.name}"


def test_ordering_imports_nothing_but_numpy(file):
    path, tree = file
    if part_of(path) == "ordering":
        found = packages(tree) - {"lance_lightning"}
        assert found - sys.stdlib_module_names == {"numpy"} & found


def test_heavy_packages_are_imported_inside_functions(file):
    _, tree = file
    assert packages(outside_functions(tree)).isdisjoint(ONLY_IN_FUNCTIONS)


def test_a_file_is_no_longer_than_350_lines(file):
    path, _ = file
    assert len(path.read_text("utf-8").splitlines()) <= 350


def test_a_test_file_is_no_longer_than_500_lines():
    for path in Path(__file__).parents[1].rglob("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 500, path.name


def test_half_the_files_are_shorter_than_160_lines():
    lengths = sorted(len(path.read_text("utf-8").splitlines()) for path in FILES)
    assert lengths[len(lengths) // 2] < 160


def test_importing_the_package_imports_none_of_its_files():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    assert ours(outside_functions(tree)) == []


def test_public_names_are_sorted_and_come_lazily():
    names = lance_lightning.__all__
    assert names == sorted(names)
    assert set(names) == set(lance_lightning._MODULES)
    assert list(lance_lightning._MODULES) == names
    assert dir(lance_lightning) == names
    for name, module in lance_lightning._MODULES.items():
        found = importlib.import_module(f"lance_lightning.{module}")
        assert getattr(lance_lightning, name) is getattr(found, name)


def test_type_checkers_see_every_public_name():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    shown = {
        alias.name: node.module.removeprefix("lance_lightning.")
        for node in block.body
        for alias in node.names
    }
    assert shown == lance_lightning._MODULES
