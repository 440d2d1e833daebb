"""The phases of a fit, and its position after each event in each phase.

The trainer is a stand-in with the counters of Lightning's; `test_position.py` and
`test_resume.py` hold the same with real fits.
"""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest

from lance_lightning import StateError
from lance_lightning.datamodule.fit_position import FitPosition
from lance_lightning.datamodule.progress import Phase
from lance_lightning.loading.loader import LanceDataLoader, state_of
from lance_lightning.loading.stream import Stream
from lance_lightning.ordering import TrainShare, World
from lance_lightning.samplers.builtin import ShuffleOrder
from lance_lightning.tables.plan import range_plan

STEPS = 6


class Loader(LanceDataLoader):
    """A training loader that reads nothing."""

    def __init__(self, clock):
        self._clock = clock
        plan = range_plan("train", 0, 4 * STEPS)
        share = TrainShare(4 * STEPS, 4, World(), drop_last=False, strided=True)
        order = ShuffleOrder(4 * STEPS, 0)
        self._reader = SimpleNamespace(stream=Stream(plan, share, order, 0))

    def __repr__(self):
        return "Loader()"


def no_loop():
    return SimpleNamespace(_combined_loader=None)


class Trainer:
    """What a fit position asks of a trainer: its state, loaders and counters."""

    def __init__(self):
        self.state = SimpleNamespace(fn="fit", status="running")
        self.num_training_batches, self.overfit_batches = STEPS, 0
        self.ckpt_path = None
        self.validate_loop = self.test_loop = self.predict_loop = no_loop()
        self.batches = SimpleNamespace(
            total=SimpleNamespace(processed=0),
            current=SimpleNamespace(processed=0, ready=0),
            is_last_batch=False,
        )
        self.epochs = SimpleNamespace(processed=0, completed=0)
        self.combined = SimpleNamespace(
            flattened=[], _iterator=SimpleNamespace(iterators=[])
        )
        self.fit_loop = SimpleNamespace(
            _combined_loader=self.combined,
            epoch_progress=SimpleNamespace(total=self.epochs),
            epoch_loop=SimpleNamespace(batch_progress=self.batches, val_loop=no_loop()),
        )


class Fit:
    """A fit position, and the events that happen to it, each a method."""

    def __init__(self):
        self.module = SimpleNamespace(trainer=None)
        self.position = FitPosition(self.module)
        self.loader = Loader(self.position.clock(0))
        self.position.note("train", [self.loader])
        self.attach(Trainer())
        self.started = None

    def attach(self, trainer):
        self.trainer = self.module.trainer = trainer
        trainer.combined.flattened.append(self.loader)

    def begin(self):
        self.position.begin_fit()

    def restore(self, epoch=3, batch=4, left_early=False, steps=STEPS):
        state = state_of(self.loader.reader.stream, epoch, batch, steps)
        self.position.restore((state,), left_early)

    def restore_early(self):
        """The trainer had stopped in the middle of the epoch."""
        self.restore(left_early=True)

    def start(self, iterator="the fit loop's"):
        self.trainer.combined._iterator.iterators[:] = [iterator]
        found = self.position.start(0, self.loader, iterator)
        self.started = (found.epoch, found.first, found.last)

    def start_at_count(self):
        """The checkpoint has no state of the module; the trainer has its counters."""
        self.trainer.ckpt_path = "a.ckpt"
        self.count(2 * STEPS + 5, 5)
        with pytest.warns(UserWarning, match="holds no data state of SimpleNamespace"):
            self.start()

    def start_within(self):
        """The trainer resumes in the restored epoch."""
        self.count(3 * STEPS + 4, 4)
        self.start()

    def start_over(self):
        """The trainer opens an epoch again whose batches are all processed."""
        self.count(3 * STEPS, STEPS)
        self.start()

    def look(self):
        """Something else than the fit loop iterates its loader."""
        found = self.position.start(0, self.loader, "a callback's")
        assert not found.moves

    def batch(self):
        self.loader.clock.tick()
        current = self.trainer.batches.current
        current.ready += 1
        current.processed += 1
        self.trainer.batches.total.processed += 1
        self.trainer.batches.is_last_batch = current.processed == STEPS

    def read_ahead(self):
        """A batch is handed out, and not processed."""
        self.loader.clock.tick()
        self.trainer.batches.current.ready += 1

    def end_epoch(self):
        while self.trainer.batches.current.processed < STEPS:
            self.batch()
        self.leave_epoch()

    def leave_epoch(self):
        self.trainer.epochs.processed += 1
        self.trainer.epochs.completed += 1

    def next_epoch(self):
        self.end_epoch()
        self.count(self.trainer.batches.total.processed, 0)
        self.start()

    def count(self, total, current):
        batches = self.trainer.batches
        batches.total.processed, batches.is_last_batch = total, current == STEPS
        batches.current.processed = batches.current.ready = current

    @property
    def at(self):
        """The phase, and the position that a checkpoint would hold."""
        (state,) = self.position.states()
        return self.position.phase, (state.epoch, state.batch)


IDLE, BEGUN, RESTORED, RUNNING = Phase
# How a phase is reached, and the position in it.
REACHED = {
    IDLE: ((), (0, 0)),
    BEGUN: (("begin",), (0, 0)),
    RESTORED: (("begin", "restore"), (3, 4)),
    RUNNING: (("begin", "start", "batch", "batch"), (0, 2)),
}
# (phase, event): (phase, position, what the iteration was started with)
TABLE = {
    (IDLE, "begin"): (BEGUN, (0, 0), None),
    (IDLE, "restore"): (RESTORED, (3, 4), None),
    (IDLE, "start"): (RUNNING, (0, 0), (0, 0, STEPS)),
    (IDLE, "start_at_count"): (RUNNING, (2, 5), (2, 5, STEPS)),
    (IDLE, "look"): (IDLE, (0, 0), None),
    (BEGUN, "begin"): (BEGUN, (0, 0), None),
    (BEGUN, "restore"): (RESTORED, (3, 4), None),
    (BEGUN, "start"): (RUNNING, (0, 0), (0, 0, STEPS)),
    (BEGUN, "start_at_count"): (RUNNING, (2, 5), (2, 5, STEPS)),
    (BEGUN, "look"): (BEGUN, (0, 0), None),
    (RESTORED, "begin"): (BEGUN, (3, 4), None),
    (RESTORED, "restore"): (RESTORED, (3, 4), None),
    (RESTORED, "start"): (RUNNING, (3, 4), (3, 4, STEPS)),
    (RESTORED, "start_within"): (RUNNING, (3, 4), (3, 4, STEPS)),
    (RESTORED, "look"): (RESTORED, (3, 4), None),
    (RUNNING, "begin"): (BEGUN, (0, 2), None),
    (RUNNING, "restore"): (RESTORED, (3, 4), None),
    (RUNNING, "look"): (RUNNING, (0, 2), (0, 0, STEPS)),
    (RUNNING, "batch"): (RUNNING, (0, 3), (0, 0, STEPS)),
    (RUNNING, "read_ahead"): (RUNNING, (0, 2), (0, 0, STEPS)),
    (RUNNING, "end_epoch"): (RUNNING, (1, 0), (0, 0, STEPS)),
    (RUNNING, "next_epoch"): (RUNNING, (1, 0), (1, 0, STEPS)),
    (RUNNING, "start"): (RUNNING, (1, 0), (1, 0, STEPS)),
}


def fit_in(phase):
    """Return a fit that is in a phase."""
    fit = Fit()
    events, position = REACHED[phase]
    for event in events:
        getattr(fit, event)()
    assert fit.at == (phase, position)
    return fit


@pytest.mark.parametrize(
    ("phase", "event"), TABLE, ids=lambda each: getattr(each, "name", each)
)
def test_an_event_leads_to_a_phase_and_a_position(phase, event):
    fit = fit_in(phase)
    before = fit.started
    getattr(fit, event)()
    after, position, started = TABLE[phase, event]
    assert fit.at == (after, position)
    assert fit.started == (before if event in ("begin", "restore") else started)


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_goes_to_spawned_ranks_with_its_position(phase):
    fit = fit_in(phase)
    fit.position._module = None  # a module leaves its trainer behind
    copy = pickle.loads(pickle.dumps(fit.position))
    assert copy.phase is phase
    assert copy.saved(0) == fit.position.saved(0)
    if phase is not RUNNING:  # what was processed, the trainer knows
        assert copy.clock(0).upcoming == REACHED[phase][1]


# What a restored fit does with an epoch that the trainer was in the middle of.
EPOCHS = {
    "resumes in it": ("restore", "start_within", (3, 4), (3, 4, STEPS)),
    "begins the next": ("restore_early", "start", (4, 0), (4, 0, STEPS)),
    "resumes in one that it had stopped": (
        *("restore_early", "start_within"),
        *((3, 4), (3, 4, STEPS)),
    ),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_a_restored_epoch_is_resumed_or_finished_with(name):
    restore, start, position, started = EPOCHS[name]
    fit = fit_in(BEGUN)
    getattr(fit, restore)()
    getattr(fit, start)()
    assert fit.at == (RUNNING, position)
    assert fit.started == started


def test_an_epoch_that_was_over_gives_no_batch_again():
    fit = fit_in(BEGUN)
    fit.restore(3, 0)
    fit.start_over()
    assert fit.started == (3, 0, 0)
    assert fit.at == (RUNNING, (3, 0))
    fit.leave_epoch()
    fit.count(3 * STEPS, 0)
    fit.start()
    assert fit.started == (3, 0, STEPS)


def test_only_a_trainer_that_stops_in_mid_epoch_leaves_it_early():
    fit = fit_in(RUNNING)
    assert not fit.position.epoch_was_left_early
    fit.leave_epoch()
    assert fit.position.epoch_was_left_early
    assert fit.at == (RUNNING, (0, 2))


@pytest.mark.parametrize("start", ["start", "start_within"])
def test_a_restored_loader_is_compared_at_its_first_start(start):
    fit = fit_in(BEGUN)
    fit.restore(steps=STEPS + 1)
    with pytest.raises(
        StateError, match="an epoch of 7 steps, and here an epoch has 6"
    ):
        getattr(fit, start)()
    fit.restore(0, 0, steps=STEPS + 1)  # at the end of an epoch its steps do not matter
    fit.count(0, 0)
    fit.start()
    assert fit.at == (RUNNING, (0, 0))


@pytest.mark.parametrize(("batches", "epoch"), [(2, 4), (1, 4)])
def test_a_second_fit_begins_the_epoch_after_the_first_fit(batches, epoch):
    fit = fit_in(RESTORED)
    fit.start()
    for _ in range(batches):
        fit.batch()
    fit.leave_epoch()
    fit.attach(Trainer())
    fit.begin()
    fit.start()
    assert fit.started == (epoch, 0, STEPS)
    assert fit.at == (RUNNING, (epoch, 0))
