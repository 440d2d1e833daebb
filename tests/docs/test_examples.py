"""The example programs, run as a user runs them, on the digits."""

import re

import lance
import pytest

from tests.helpers.processes import EXAMPLES, run_script

QUICK = ("trainer.max_epochs=1", "trainer.enable_progress_bar=false")


def run(cwd, name, *arguments):
    return run_script(cwd, EXAMPLES / name, *arguments)


def accuracies(out, split="test"):
    assert out.returncode == 0, out.stdout + out.stderr
    return [
        float(x) for x in re.findall(rf"^{split} accuracy: (.*)$", out.stdout, re.M)
    ]


def files_under(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}


@pytest.fixture
def cwd(digits, tmp_path):
    """A folder of its own for each run, with the digits and the plans of all."""
    for name in ("data", "cache"):
        (digits / name).mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(digits / name)
    return tmp_path


def test_digits_are_written_once(digits):
    uri = str(digits / "data" / "digits.lance")
    table = lance.dataset(uri).to_table()
    assert table.num_rows == 1797
    assert sorted(table["id"].to_pylist()) == list(range(1797))
    assert set(table["label"].to_pylist()) == set(range(10))

    again = run(digits, "make_digits.py")
    assert again.returncode == 0, again.stderr
    assert lance.dataset(uri).version == 1


@pytest.mark.slow
def test_training_reaches_its_accuracy_and_goes_on_from_its_checkpoint(cwd):
    out = run(cwd, "train.py", "trainer.enable_progress_bar=false")
    (accuracy,) = accuracies(out)
    assert accuracy >= 0.95

    (checkpoint,) = (cwd / "outputs").rglob("*.ckpt")
    assert checkpoint.name == "epoch-19.ckpt"
    arguments = (f"ckpt_path={checkpoint}", "trainer.max_epochs=21")
    out = run(cwd, "train.py", "trainer.enable_progress_bar=false", *arguments)
    assert accuracies(out)[0] >= 0.95
    assert sorted(path.name for path in (cwd / "outputs").rglob("*.ckpt")) == [
        "epoch-19.ckpt",
        "epoch-20.ckpt",
    ]


@pytest.mark.slow
def test_training_without_hydra_reaches_the_same_accuracy(cwd):
    out = run(cwd, "train_no_hydra.py")
    (accuracy,) = accuracies(out)
    assert accuracy >= 0.95


def test_sampler_and_batch_size_can_be_swept(cwd):
    arguments = ("data/sampler=sequential,shuffle", "data.batch_size=512")
    out = run(cwd, "train.py", "--multirun", *QUICK, "data.seed=1", *arguments)
    assert len(accuracies(out)) == 2
    assert (out.stdout + out.stderr).count("Lance data: ") == 2, "once a job"


@pytest.mark.slow
def test_hash_split_and_arrow_batches(cwd):
    arguments = ("data/splits=hash", "data.splits.columns=[id]")
    out = run(cwd, "train.py", *QUICK, *arguments, "data.output_format=arrow")
    assert len(accuracies(out, "val")) == 1


@pytest.mark.slow
def test_two_processes_share_one_output_folder(cwd):
    out = run(cwd, "train.py", *QUICK, "trainer=ddp_cpu")
    assert len(accuracies(out)) == 1, "rank 0 alone prints"
    (made,) = (cwd / "outputs").glob("*/*")
    hydra = {f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")}
    others = files_under(made) - hydra - {".hydra"}
    assert others == {"checkpoints/epoch-0.ckpt"}
    assert {path.name for path in cwd.iterdir()} == {"cache", "data", "outputs"}


@pytest.mark.slow
def test_a_debug_run_tries_one_batch_and_saves_nothing(cwd):
    out = run(cwd, "train.py", "debug=fdr", "trainer.enable_progress_bar=false")
    assert len(accuracies(out)) == 1
    assert "using 1 batch(es)" in out.stdout + out.stderr
    assert not list((cwd / "outputs").rglob("*.ckpt"))


@pytest.mark.slow
def test_a_value_of_the_wrong_type_is_a_clear_error(cwd):
    out = run(cwd, "train.py", *QUICK, "data.batch_size=abc")
    assert out.returncode == 1
    assert "batch_size must be an integer, got 'abc' (str)" in out.stderr


def test_help_shows_groups_and_overrides(cwd):
    out = run(cwd, "train.py", "--help")
    assert out.returncode == 0, out.stderr
    assert "data/sampler: block_shuffle, sequential, sharded_batches" in out.stdout
    assert "data/sampler=shuffle data.batch_size=512" in out.stdout
