"""An index: each promise under "Guarantees" in README.md, and tests that hold it."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
README = (TESTS.parent / "README.md").read_text()

HELD_BY = {
    "A run reads one version of the table, pinned when it starts.": [
        "datamodule/test_datamodule.py::test_once_pinned_a_version_stays_for_the_modules_life",
        "processes/test_ddp.py::test_ranks_agree_on_the_version_while_the_table_grows",
    ],
    "Rows written or deleted meanwhile change nothing.": [
        "tables/test_opening.py::test_writes_after_resolve_change_nothing",
        "loading/test_dataset.py::test_rows_written_later_change_nothing",
    ],
    "Splits are disjoint, the same on every rank, and depend only on the table, the "
    "spec and the split's own seed.": [
        "datamodule/test_datamodule.py::"
        "test_the_shares_of_a_random_split_are_disjoint_and_cover_the_table",
        "splits/test_building.py::test_another_process_gets_the_same_plans",
        "splits/test_building.py::test_copy_of_a_table_has_the_same_plans",
    ],
    "They are built once and kept in `cache_dir`.": [
        "splits/test_building.py::test_plans_in_the_cache_are_not_built_again",
    ],
    "Order is a function of the seed and the epoch.": [
        "loading/test_loader.py::test_set_epoch_gives_that_epochs_order",
        "samplers/test_samplers.py::test_seeds_and_epochs_give_other_orders",
        "samplers/test_samplers.py::test_orders_are_final",
    ],
    "Global random state is not touched.": [
        "loading/test_loader.py::test_reading_leaves_the_global_generators_alone",
    ],
    "All ranks make the same number of steps.": [
        "ordering/test_shares.py::test_ranks_make_the_same_steps_and_none_is_empty",
    ],
    "With `drop_last=False` every row comes once an epoch.": [
        "samplers/test_samplers.py::test_all_ranks_together_see_every_row_once",
        "processes/test_ddp.py::test_every_row_comes_once_over_two_ranks",
    ],
    "With the same `global_batch_size`, a step sees the same rows for every number of "
    "ranks that divides it, and for every number of workers.": [
        "samplers/test_samplers.py::"
        "test_every_world_size_trains_on_the_same_global_batches",
        "loading/test_loader.py::test_workers_change_nothing",
    ],
    "Evaluation sees every row once over all ranks, none repeated, none dropped.": [
        "ordering/test_shares.py::test_evaluation_sees_every_row_once_and_in_order",
        "processes/test_ddp.py::test_every_row_comes_once_over_two_ranks",
    ],
    "A run that is stopped at any batch and resumed from its checkpoint sees the rows "
    "that the unbroken run would have seen.": [
        "datamodule/test_resume.py::test_a_run_goes_on_from_a_checkpoint_of_any_hook",
        "datamodule/test_resume.py::test_a_run_goes_on_from_every_hook_at_every_step",
        "processes/test_kill.py::test_weights_are_the_same_after_a_kill",
    ],
    "A table or a setting that does not match is an error that shows both sides.": [
        "datamodule/test_resume_identity.py::test_fit_stops_at_another_table",
        "datamodule/test_resume_limits.py::"
        "test_the_middle_of_an_epoch_asks_for_the_same_global_batch",
        "samplers/test_adapters.py::"
        "test_another_order_than_the_checkpoints_shows_both_sides",
    ],
    "Leave its flags as they are; nothing is sharded twice.": [
        "processes/test_ddp.py::test_every_row_comes_once_over_two_ranks",
        "processes/test_samplers_ddp.py::test_ranks_share_the_rows_of_an_epoch",
    ],
}


def promises() -> list[str]:
    """Return the sentences of the section; a bold word before one is its title."""
    section = README.partition("\n## Guarantees\n")[2].partition("\n## ")[0]
    found = []
    for item in re.split(r"^- ", section, flags=re.MULTILINE)[1:]:
        text = re.sub(r"^\*\*\w+\.\*\* ", "", " ".join(item.split()))
        found += re.split(r"(?<=\.) (?=[A-Z])", text.replace("**", ""))
    return found


def test_every_promise_has_its_tests():
    assert promises() == list(HELD_BY)
    assert all(HELD_BY.values())


@pytest.mark.parametrize("test", sorted(set(chain.from_iterable(HELD_BY.values()))))
def test_a_test_that_holds_a_promise_is_there(test):
    path, _, name = test.partition("::")
    functions = ast.parse((TESTS / path).read_text()).body
    assert name in {getattr(each, "name", "") for each in functions}
