"""A plan gives a split's row offsets, and pickles without them."""

import hashlib
import pickle

import numpy as np
import pytest

from lance_lightning.errors import SourceError
from lance_lightning.tables.plan import range_plan, save_offsets


def test_range_gives_neighbours_and_needs_no_file():
    plan = range_plan("val", 70, 100)
    assert plan.is_range
    assert plan.sorted
    assert plan.num_rows == 30
    np.testing.assert_array_equal(plan.offsets(np.array([0, 29, 3])), [70, 99, 73])
    assert plan.offsets(np.array([1])).dtype == np.int64


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.uint64])
def test_saved_offsets_come_back_at_any_index(tmp_path, dtype):
    rows = np.array([2, 3, 5, 8, 13], dtype)
    plan = save_offsets(tmp_path / "0.npy", "train", rows)
    assert not plan.is_range
    assert plan.sorted
    assert plan.num_rows == 5
    found = plan.offsets(np.array([4, 0, 0, 2]))
    np.testing.assert_array_equal(found, [13, 2, 2, 5])
    assert found.dtype == np.int64
    assert type(found) is np.ndarray


def test_neighbours_are_stored_as_a_range(tmp_path):
    plan = save_offsets(tmp_path / "0.npy", "train", np.arange(40, 90))
    assert plan == range_plan("train", 40, 90)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_split_is_a_plan(tmp_path):
    plan = save_offsets(tmp_path / "0.npy", "train", np.array([], np.uint64))
    assert plan.num_rows == 0
    assert plan.offsets(np.array([], np.int64)).tolist() == []


def test_order_of_a_permutation_is_kept(tmp_path):
    rows = np.array([9, 4, 7, 5, 6, 8])
    plan = save_offsets(tmp_path / "0.npy", "train", rows)
    assert not plan.sorted
    np.testing.assert_array_equal(plan.offsets(np.arange(6)), rows)


def test_offsets_take_four_bytes_and_eight_where_they_must(tmp_path):
    small = save_offsets(tmp_path / "0.npy", "a", np.array([1, 2**32 - 1], np.uint64))
    large = save_offsets(tmp_path / "1.npy", "b", np.array([1, 2**32], np.uint64))
    assert np.load(small.path).dtype == np.uint32
    assert np.load(large.path).dtype == np.uint64
    assert small.offsets(np.array([1])).tolist() == [2**32 - 1]
    assert large.offsets(np.array([1])).tolist() == [2**32]


def test_digest_is_of_the_rows_and_their_order_alone(tmp_path):
    def digest(name, rows, dtype):
        path = tmp_path / f"{name}-{np.dtype(dtype)}.npy"
        return save_offsets(path, name, np.array(rows, dtype)).digest

    assert digest("a", [3, 1, 4], np.uint64) == digest("b", [3, 1, 4], np.int64)
    different = [[1, 3, 4], [3, 1, 4], [3, 1, 5], [3, 1], [1, 3, 4, 5]]
    assert len({digest("a", rows, np.int64) for rows in different}) == len(different)
    assert range_plan("a", 0, 9).digest == range_plan("b", 0, 9).digest
    assert range_plan("a", 0, 9).digest != range_plan("a", 1, 10).digest
    assert len(bytes.fromhex(range_plan("a", 0, 9).digest)) == 32


def test_digest_covers_every_piece_of_a_long_plan(tmp_path):
    rows = np.arange(0, 3_000_000, 2)
    plan = save_offsets(tmp_path / "0.npy", "train", rows)
    content = b"offsets " + rows.astype("<u8").tobytes()
    assert plan.digest == hashlib.sha256(content).hexdigest()


def test_pickled_plan_is_under_a_kilobyte_and_holds_no_rows(tmp_path):
    plan = save_offsets(tmp_path / "0.npy", "train", np.arange(0, 200_000, 2))
    plan.offsets(np.array([5]))  # mapped by now
    pickled = pickle.dumps(plan)
    assert len(pickled) < 1024
    again = pickle.loads(pickled)
    assert again == plan
    assert again.offsets(np.array([7])).tolist() == [14]


def test_a_plan_file_that_is_gone_is_one_clear_error(tmp_path):
    plan = save_offsets(tmp_path / "0.npy", "train", np.array([1, 3]))
    (tmp_path / "0.npy").unlink()
    with pytest.raises(SourceError, match=r"0\.npy' is gone.*cache_dir"):
        plan.offsets(np.array([0]))
