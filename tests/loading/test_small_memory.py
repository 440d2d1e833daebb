"""What torch's own loader reads with 64 MB of /dev/shm, a plain container's, is read.

How much a worker sends at once decides nothing else.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import lance
import numpy as np
import pyarrow as pa
import pytest
import torch

from lance_lightning import LanceDataModule, Sequential
from lance_lightning.loading.held_blocks import Held
from lance_lightning.loading.window_requests import WindowRequests
from lance_lightning.loading.worker_process import AnsweredWindows
from tests.helpers.processes import APPS

SCRIPT = APPS / "small_memory.py"
SMALL = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
OWN_MOUNTS = ["unshare", "-Urm", "sh", "-c"]


def can_be_small() -> bool:
    try:
        return not subprocess.run([*OWN_MOUNTS, SMALL], capture_output=True).returncode
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not can_be_small(), reason="needs its own mounts")


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("small") / "t.lance")
    rows, width = 320, 600_000
    image = pa.array(np.zeros(rows * width, np.uint8))
    image = pa.FixedSizeListArray.from_arrays(image, width)
    lance.write_dataset(pa.table({"id": np.arange(rows), "image": image}), path)
    return path


def padded(batch):
    """Return 64 KB a batch, and 1 MB in later ones."""
    size = 4_096 if int(batch["id"][0]) < 160 else 65_536
    return {"id": batch["id"], "x": torch.ones(len(batch["id"]), size // 4)}


def test_a_worker_sends_no_more_batches_than_the_bytes_allow(uri):
    data = LanceDataModule(
        uri,
        columns=["id"],
        sampler=Sequential(),
        transform=padded,
        batch_size=16,
        num_workers=1,
    )
    reader = data.train_dataloader().reader
    limit = 3 << 20
    worker = AnsweredWindows(reader, 80 << 20, limit)
    requests = WindowRequests(reader, 80 << 20, limit)
    windows, found, sent = reader.requests(0, 0, 20), [], []
    while windows.start < windows.stop:
        requests.begin(windows)
        request = next(iter(requests))
        answer = worker[request]
        requests.answered(answer.seen)
        requests.learn_sent(len(answer.sizes), answer.num_bytes, is_full=answer.is_full)
        sent.append((len(answer.sizes), answer.is_full))
        assert answer.num_bytes < limit
        message = pickle.loads(pickle.dumps(answer.sent))
        for batch in message.unpack(Held()):
            found += batch["id"].tolist()
        del message, batch
        windows = replace(windows, start=windows.start + len(answer.sizes))
    assert found == list(range(320))
    # Once cut it is asked for no more than it sent.
    assert sent == [
        (8, False),
        (4, True),
        (2, True),
        (2, False),
        (2, False),
        (2, False),
    ]


def run(uri: str, load: str) -> subprocess.CompletedProcess:
    """Load in a process whose /dev/shm is small."""
    script = f'{SMALL} && exec "$@"'
    arguments = ["sh", sys.executable, str(SCRIPT), uri, load]
    return subprocess.run(
        [*OWN_MOUNTS, script, *arguments], capture_output=True, text=True, timeout=120
    )


LOADS = ("images", "plain", "grown", "kept", "validated", "resumed")


@needs_mounts
@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
def test_an_epoch_is_read_with_little_shared_memory(uri, load):
    done = run(uri, load)
    assert done.stdout.endswith("ok\n"), done.stderr[-3000:]


@needs_mounts
@pytest.mark.slow
def test_a_batch_larger_than_shared_memory_is_an_error_that_names_it(uri):
    done = run(uri, "too_large")
    assert "TransformError: a batch cannot be sent from a worker" in done.stderr
    assert "--shm-size" in done.stderr
    assert "epoch 0, batch" in done.stderr
