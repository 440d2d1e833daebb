"""Imports run one way, and heavy packages are imported where they are needed."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import lance_lightning

PACKAGE = Path(lance_lightning.__file__).parent

# Each file may import those above it.
ORDER = [
    "types",
    "forks",
    "frozen",
    "sql",
    "projection",
    "world",
    "order",
    "shard",
    "state",
    "cache",
    "extension_types",
    "blobs",
    "identity",
    "snapshot",
    "door",
    "lancedb_objects",
    "remote",
    "sources",
    "arrow_source",
    "open_objects",
    "separate",
    "plan",
    "samplers",
    "lance_samplers",
    "grid",
    "layout",
    "times",
    "column",
    "fills",
    "features",
    "encoded",
    "tensors",
    "objects",
    "decoders",
    "ragged",
    "columns",
    "batches",
    "stacked",
    "frames",
    "formats",
    "display",
    "gather",
    "held_blocks",
    "shared_pool",
    "transport",
    "batch_pickler",
    "sent_batches",
    "row_sizes",
    "fetch",
    "column_cache",
    "transforms",
    "drawn",
    "foreign_samplers",
    "reader",
    "dataset",
    "window_requests",
    "worker_process",
    "workers",
    "loader_iterator",
    "loader",
    "iterable_dataset",
    "_builder",
    "_permutation_table",
    "_split_specs",
    "split_sizes",
    "splits",
    "arguments",
    "specs",
    "progress",
    "trainer_loops",
    "resume",
    "pins",
    "reports",
    "config",
    "hyperparameters",
    "asked",
    "fit_position",
    "callbacks",
    "datamodule",
    "input_rows",
    "table_files",
    "sample_files",
    "huggingface",
    "inputs",
    "importing",
    "cli",
    "__main__",
]
LIGHTNING = {
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "pytorch_lightning",
}
IMPORT_LIGHTNING = {
    "asked",
    "callbacks",
    "datamodule",
    "fit_position",
    "hyperparameters",
    "reports",
}
HYDRA = {"hydra", "omegaconf", "hydra_plugins"}
ONLY_IN_FUNCTIONS = {"lancedb", "pandas", "polars", "PIL"}

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """Return the name of a file in the order; a folder counts as one."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree: ast.AST) -> set[str]:
    """Return the modules that are imported anywhere in a tree, by full name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(tree: ast.AST) -> set[str]:
    """Return the files of this package that a tree imports from."""
    names = [name.split(".") for name in imported(tree)]
    inner = {name[1] for name in names if name[0] == "lance_lightning" and name[1:]}
    return {name for name in inner if name in known()}


def known() -> set[str]:
    return {part_of(path) for path in FILES} - {"__init__"}


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
    return {name.split(".")[0] for name in imported(tree)}


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def source(request) -> tuple[str, ast.Module]:
    return part_of(request.param), ast.parse(request.param.read_text("utf-8"))


def test_every_file_has_its_place_in_the_order():
    assert known() - set(ORDER) == set()


def test_a_file_imports_only_files_above_it(source):
    part, tree = source
    if part == "__init__":
        return
    above = set(ORDER[: ORDER.index(part)])
    if part == "callbacks":  # they may share with each other
        above.add(part)
    assert parts_imported(tree) <= above


def test_only_callbacks_and_the_data_module_import_lightning(source):
    part, tree = source
    if part not in IMPORT_LIGHTNING:
        assert packages(tree).isdisjoint(LIGHTNING)


def test_nothing_imports_hydra(source):
    _, tree = source
    assert packages(tree).isdisjoint(HYDRA)


def test_heavy_packages_are_imported_inside_functions(source):
    _, tree = source
    assert packages(outside_functions(tree)).isdisjoint(ONLY_IN_FUNCTIONS)


def test_importing_the_package_imports_none_of_its_files():
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    assert parts_imported(outside_functions(tree)) == set()


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
