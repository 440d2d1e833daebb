"""Blocks of neighbouring rows in another order each epoch, and rows within a buffer.

Blocks of 4 rows, buffers of 16, and global batches of 2 rows::

    the split, turned by a random number of rows, in blocks; a short one stays last
        | A A A A | B B B B | C C C C | D D D D | E E E E | ... | Z Z |
    the blocks in a random order, in buffers; the last has what fills no other
        | G G G G  C C C C  X X X X  B B B B | F F F F  K K K K  ... | ...
    a buffer in streams, runs of neighbours in that order
        | stream 0 | stream 1 | stream 2 | stream 3 |
    batches: which of its streams gives the row, and which row, is random
        place 0 of every batch of the buffer takes a row of stream 0 or 2
        place 1 of every batch of the buffer takes a row of stream 1 or 3

So 8 batches share a buffer, and with two ranks each reads streams of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

import numpy as np

from lance_lightning.ordering.permutations import (
    BLOCKS_KEY,
    PLACES_KEY,
    STREAM_KEY,
    TURN_KEY,
    USES,
    WHOLE_KEY,
    UInts,
    as_uints,
    by_chunks,
    fold,
    key,
    keyed,
    permute,
)
from lance_lightning.types import Ints


def _divmod(x: UInts, divisor: int) -> tuple[UInts, UInts]:
    """Return ``divmod(x, divisor)``; numpy's own takes twice as long."""
    quotient = x // divisor
    remainder = quotient * divisor
    return quotient, np.subtract(x, remainder, out=remainder)


def _scaled(number: np.uint64, below: int) -> int:
    """Return a uniform 64-bit number brought to ``[0, below)``."""
    return int(number) * below >> 64


def _step(p: UInts, batch: int) -> int:
    """Return a divisor of ``batch`` and of all differences of positions.

    A rank's positions are the number of ranks apart, and so are its streams.
    """
    step = gcd(int(p[-1]) - int(p[-2:][0]), batch)
    if step > 1 and _divmod(p - p.min(), step)[1].any():
        return 1
    return step


def _permute_by_number(
    x: UInts,
    numbers: UInts,
    step: int,
    permutations: Callable[[UInts], tuple[UInts, UInts]],
) -> UInts:
    """Send each of ``x`` through the permutation of its number.

    Positions share permutations, and what a permutation costs is the numbers of its
    rounds. So where ``x`` and ``numbers`` are close together, every x between the
    ends goes through every permutation between the ends, which makes a table.

    Args:
        x: Shape ``(N,)``.
        numbers: Shape ``(N,)``, or ``(1,)`` for a single permutation.
        step: A divisor of all differences of ``numbers``.
        permutations: Returns sizes and keys, as `permute` takes them, of numbers.
    """
    low, first = x.min(), numbers.min()
    height = int(x.max() - low) + 1
    width = int(numbers.max() - first) // step + 1
    # The round numbers of a permutation cost as much as the rounds of four or more x.
    if width * max(height, 4) > 2 * len(x):
        return permute(x.copy(), *permutations(numbers))
    n, keys = permutations(np.arange(width, dtype=x.dtype) * step + first)
    table = np.empty((height, width), x.dtype)
    table[:] = np.arange(height, dtype=x.dtype)[:, None] + low
    # Where sizes differ, some x are beyond the smaller; nothing asks for those.
    np.minimum(table, n.astype(x.dtype) - 1, out=table)
    at = (x - low) * width
    at += (numbers - first) // step
    permute(table, n, keys)
    found: UInts = table.reshape(-1).take(at.astype(np.intp))
    return found


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The numbers of one epoch's `block_shuffle`, of ``n`` > ``buffer`` rows."""

    n: int
    block: int
    buffer: int
    batch: int
    keys: UInts  # by use

    @property
    def streams(self) -> int:
        """Streams in a buffer."""
        return self.buffer // self.block

    def rows(self, p: UInts) -> UInts:
        """Return the rows at positions: streams first, then blocks."""
        begin = (self.n // self.buffer - 1) * self.buffer
        in_last = p >= begin
        x = np.empty_like(p)
        for which, m in (
            (~in_last, self.buffer),
            (in_last, self.n - begin),  # with what fills no other
        ):
            if which.all():
                x = self._from_streams(p, m)
            elif which.any():
                x[which] = self._from_streams(p[which], m)
        return self._from_blocks(x)

    def _from_streams(self, p: UInts, m: int) -> UInts:
        """Return the place in block order of positions in buffers of ``m`` rows.

        A buffer is cut into streams: runs of neighbours in block order, ``k`` for
        each place of a global batch. Place c of every batch takes its row from one
        of the streams that are c modulo the batch size; which one changes from
        batch to batch, and so does the place in the stream.
        """
        streams = self.streams
        rows, longer = divmod(m, streams)  # that many streams are one row longer
        g = np.minimum(p // self.buffer, self.n // self.buffer - 1)
        t, q = _divmod(p, streams)
        j = t - g * self.block
        a, c = _divmod(q, self.batch)
        step = _step(p, self.batch)

        def places(numbers: UInts) -> tuple[UInts, UInts]:
            t, c = _divmod(numbers, self.batch)
            k = as_uints(streams // self.batch)
            return k, fold(self.keys[PLACES_KEY, None], t * streams + c)

        def in_streams(numbers: UInts) -> tuple[UInts, UInts]:
            length = as_uints(rows)
            if longer:
                length = length + (_divmod(numbers, streams)[1] < longer)
            return length, fold(self.keys[STREAM_KEY, None], numbers)

        # One number for the k positions that share k streams.
        chosen = _permute_by_number(a, t * self.batch + c, step, places)
        if longer:
            chosen = np.where(j < rows, chosen, a)
        s = chosen * self.batch + c
        start: UInts = g * self.buffer + s * rows
        if longer:
            start += np.minimum(s, longer)
        start += _permute_by_number(j, g * streams + s, step, in_streams)
        return start

    def _from_blocks(self, x: UInts) -> UInts:
        """Return the rows at places in block order: whole blocks in keyed order.

        The table is turned by a random number of rows, which moves the borders of
        the blocks, and the short block at the end, from epoch to epoch.
        """
        whole = self.n // self.block
        q, i = _divmod(x, self.block)
        short = np.flatnonzero(q == whole)  # stays at the end
        q[short] = whole - 1
        order = as_uints(whole), self.keys[BLOCKS_KEY, None]
        q = _permute_by_number(q, np.zeros(1, q.dtype), 1, lambda _: order)
        q[short] = whole
        q *= self.block
        q += i
        q += _scaled(self.keys[TURN_KEY], self.n)
        return _divmod(q, self.n)[1]


def block_shuffle(
    positions: Ints,
    n: int,
    seed: int,
    epoch: int,
    *,
    block_size: int,
    buffer_size: int,
    global_batch_size: int,
) -> Ints:
    """Return the rows at positions of a shuffle that keeps reads together.

    Blocks of neighbouring rows in random order are gathered in buffers, each
    shared by ``buffer_size / global_batch_size`` global batches; each row of a
    batch comes from another block. A split of no more rows than a buffer is
    shuffled whole. Among W ranks that take the positions r modulo W, with W
    dividing the global batch size, no two need rows of one stream of a buffer.

    Args:
        positions: Shape ``(N,)``, any order.
        n: Rows in the split.
        seed: Any integer, modulo 2^64.
        epoch: Any integer; another epoch is another order.
        block_size: Rows in a block (LanceDB says clump).
        buffer_size: Rows in a buffer, a multiple of ``block_size *
            global_batch_size``; the more often, the better batches mix.
        global_batch_size: Rows in a batch over all ranks.
    """
    if n <= buffer_size:
        return keyed(positions, n, key(WHOLE_KEY, seed, epoch))
    keys = key(np.arange(USES), seed, epoch)
    blocks = _Blocks(n, block_size, buffer_size, global_batch_size, keys)
    return by_chunks(lambda p, _: blocks.rows(p), as_uints(positions), as_uints(n))
