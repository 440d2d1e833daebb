"""Epoch orders as pure functions from position to row: no table, no state.

A position is a place in the epoch, a row an offset into the split. Every order is
a bijection on ``[0, n)`` for every ``n``, and any position is found by itself, so
that a rank, a worker or a resumed run needs no other's positions.

**The orders are final**: a checkpoint holds the seed and the sizes, not the rows.
A change in any line below would resume old checkpoints with other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_UInts = NDArray[np.uint64]

# SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
# Generators" (OOPSLA 2014), with the constants of Vigna's public-domain
# splitmix64.c (https://prng.di.unimi.it/splitmix64.c).
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_MASK = 2**64 - 1

_ROUNDS = 6
_CHUNK = 1 << 14  # positions at a time: the temporaries then stay in the L2 cache

# What a key is for. One number each, so that no two uses share a permutation.
_USES = 6
_SHUFFLE, _WHOLE, _PLACES, _STREAM, _BLOCKS, _TURN = range(_USES)


def _as_uints(values: Any) -> _UInts:
    """Return integers as an array of at least one dimension, modulo 2^64.

    Arrays wrap around in silence, where numpy's scalars warn of an overflow.
    """
    if isinstance(values, int):
        values = np.array(values & _MASK, np.uint64)
    return np.atleast_1d(np.asarray(values).astype(np.uint64, copy=False))


def _mix(z: _UInts) -> _UInts:
    """Return SplitMix64's output function of ``z``; a bijection on 64 bits."""
    z = z ^ (z >> np.uint64(_SHIFTS[0]))
    z *= np.uint64(_MULTIPLIERS[0])
    z ^= z >> np.uint64(_SHIFTS[1])
    z *= np.uint64(_MULTIPLIERS[1])
    z ^= z >> np.uint64(_SHIFTS[2])
    return z


def _fold(state: _UInts, part: _UInts) -> _UInts:
    """Return the key of what ``state`` is the key of, and ``part``."""
    return _mix((state ^ part) + np.uint64(_GAMMA))


def key(*parts: Any) -> Any:
    """Return a hash of integers, to tell one permutation from another.

    Each part is folded in with one step of SplitMix64, so the order of the parts
    matters, and for equal others two values of one part never collide.

    Args:
        *parts: Integers of any size and sign, taken modulo 2^64, or integer
            arrays, which are broadcast against each other.

    Returns:
        A ``np.uint64``, or an array of them when a part is an array.
    """
    result = np.zeros(1, np.uint64)
    for part in parts:
        result = _fold(result, _as_uints(part))
    if any(np.ndim(part) for part in parts):
        return result
    return result[0]


def _domain(n: _UInts) -> tuple[_UInts, _UInts]:
    """Return ``2^bits - 1`` and ``ceil(bits / 2)``, 2^bits the power of two >= n."""
    mask = np.maximum(n, np.uint64(1)) - np.uint64(1)
    for shift in (1, 2, 4, 8, 16, 32):
        mask |= mask >> np.uint64(shift)
    # A power of two is exact as a float, so its exponent is too: bits + 1.
    exponent = np.frexp((mask + np.uint64(1)).astype(np.float64))[1]
    return mask, (exponent // 2).astype(np.uint64)


def _round_numbers(keys: _UInts) -> Iterable[tuple[_UInts, _UInts]]:
    """Return the odd a and the b of each round: SplitMix64's stream from ``keys``."""
    state = keys.copy()
    for _ in range(_ROUNDS):
        state += np.uint64(_GAMMA)
        a = _mix(state) | np.uint64(1)
        state += np.uint64(_GAMMA)
        yield a, _mix(state)


def _go_through_rounds(
    y: _UInts, mask: _UInts, half: _UInts, numbers: Iterable[tuple[_UInts, _UInts]]
) -> None:
    """Permute ``y`` in place within ``[0, mask]``.

    Rounds of ``y = (y a + b) mod 2^bits; y ^= y >> half`` with odd a: both steps can
    be undone, so their chain is a bijection.
    """
    high = np.empty_like(y)
    for a, b in numbers:
        y *= a
        y += b
        y &= mask
        y ^= np.right_shift(y, half, out=high)


def _some(values: _UInts, which: Ints) -> _UInts:
    """Return the values at ``which``, or the one value that serves them all."""
    return values if len(values) == 1 else values[which]


def _keyed(x: _UInts, n: _UInts, keys: _UInts) -> _UInts:
    """Return `keyed` of one chunk; ``n`` and ``keys`` have its length or 1."""
    if np.any(x >= n):  # the walk below might never end
        x, n = np.broadcast_arrays(x, n)
        at = np.argmax(x >= n)
        raise IndexError(f"position {x[at]} is not in an order of {n[at]} rows")
    mask, half = _domain(n)
    y = x.copy()
    one_key = list(_round_numbers(keys)) if len(keys) == 1 else None
    _go_through_rounds(y, mask, half, one_key or _round_numbers(keys))
    # Walking the cycle: a value beyond n goes through the rounds again until it
    # falls below. Less than half of the domain lies beyond, so it soon does.
    out = np.flatnonzero(y >= n)
    while len(out):
        z = y[out]
        numbers = one_key or _round_numbers(keys[out])
        _go_through_rounds(z, _some(mask, out), _some(half, out), numbers)
        y[out] = z
        out = out[z >= _some(n, out)]
    return y


def _by_chunks(
    function: Callable[..., _UInts], positions: _UInts, *others: _UInts
) -> Ints:
    """Apply ``function`` to chunks that fit in a cache; one for all is kept whole."""
    result = np.empty(len(positions), np.uint64)
    for start in range(0, len(positions), _CHUNK):
        part = slice(start, start + _CHUNK)
        rest = [other if len(other) == 1 else other[part] for other in others]
        result[part] = function(positions[part], *rest)
    return result.view(np.int64)


def keyed(x: Any, n: Any, key: Any) -> Ints:
    """Return where a keyed permutation of ``[0, n)`` sends ``x``, without a table.

    Statistically uniform over keys, not cryptographic; where an index goes is off by
    up to 3 % of its probability for ``n`` of a dozen or less. Costs one to two times
    six cheap rounds a position, whatever ``n``.

    Args:
        x: Positions in ``[0, n)``, shape ``(N,)``.
        n: The size of the permutation, 1 to 2^62, or shape ``(N,)``: one each.
        key: What `key` returned, or shape ``(N,)``: one permutation each.

    Returns:
        Shape ``(N,)``.

    Raises:
        IndexError: A position is not in ``[0, n)``.
    """
    return _by_chunks(_keyed, _as_uints(x), _as_uints(n), _as_uints(key))


def shuffle(positions: Ints, n: int, seed: int, epoch: int) -> Ints:
    """Return the rows at positions of a full shuffle of ``n`` rows.

    Args:
        positions: Shape ``(N,)``, any order.
        n: Rows in the split.
        seed: Any integer, modulo 2^64.
        epoch: Any integer; another epoch is another order.
    """
    return keyed(positions, n, key(_SHUFFLE, seed, epoch))


def _divmod(x: _UInts, divisor: int) -> tuple[_UInts, _UInts]:
    """Return ``divmod(x, divisor)``; numpy's own takes twice as long."""
    quotient = x // np.uint64(divisor)
    return quotient, x - quotient * np.uint64(divisor)


def _scaled(number: np.uint64, below: int) -> int:
    """Return a uniform 64-bit number brought to ``[0, below)``."""
    return int(number) * below >> 64


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The numbers of one epoch's `block_shuffle`, of ``n`` > ``buffer`` rows."""

    n: int
    block: int
    buffer: int
    batch: int
    keys: _UInts  # by use

    def rows(self, p: _UInts) -> _UInts:
        """Return the rows at positions: streams first, then blocks."""
        last = self.n // self.buffer - 1
        in_last = p >= np.uint64(last * self.buffer)
        x = np.empty_like(p)
        for which, m in (
            (~in_last, self.buffer),
            (in_last, self.n - last * self.buffer),  # with what fills no other
        ):
            if which.any():
                g = np.minimum(p[which] // np.uint64(self.buffer), np.uint64(last))
                x[which] = self._from_streams(p[which], g, m)
        return self._from_blocks(x)

    def _from_streams(self, p: _UInts, g: _UInts, m: int) -> _UInts:
        """Return the place in block order of positions in buffers of ``m`` rows.

        A buffer is cut into streams: runs of neighbours in block order, ``k`` for
        each place of a global batch. Place c of every batch takes its row from one
        of the streams that are c modulo the batch size; which one changes from
        batch to batch, and so does the place in the stream.

        Args:
            p: Positions.
            g: The buffer of each.
            m: Rows in each of these buffers.
        """
        start = g * np.uint64(self.buffer)
        k = self.buffer // (self.block * self.batch)
        streams = k * self.batch
        rows, longer = divmod(m, streams)  # so many streams are one row longer
        j, q = _divmod(p - start, streams)
        a, c = _divmod(q, self.batch)
        # p - a * batch is one number for the k positions that share k streams.
        shared = _fold(self.keys[_PLACES, None], p - a * np.uint64(self.batch))
        chosen = _keyed(a, _as_uints(k), shared)
        s = np.where(j < np.uint64(rows), chosen, a) * np.uint64(self.batch) + c
        start += s * np.uint64(rows) + np.minimum(s, np.uint64(longer))
        length = _as_uints(rows)
        if longer:
            length = length + (s < np.uint64(longer)).astype(np.uint64)
        stream = _fold(self.keys[_STREAM, None], g * np.uint64(streams) + s)
        return start + _keyed(j, length, stream)

    def _from_blocks(self, x: _UInts) -> _UInts:
        """Return the rows at places in block order: whole blocks in keyed order.

        The table is turned by a random number of rows, which moves the borders of
        the blocks, and the short block at the end, from epoch to epoch.
        """
        n, block, whole = self.n, self.block, self.n // self.block
        q, i = _divmod(x, block)
        inner = np.minimum(q, np.uint64(whole - 1))
        moved = _keyed(inner, _as_uints(whole), self.keys[_BLOCKS, None])
        q = np.where(q < np.uint64(whole), moved, q)
        turn = _scaled(self.keys[_TURN], n)
        return _divmod(q * np.uint64(block) + i + np.uint64(turn), n)[1]


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
        return keyed(positions, n, key(_WHOLE, seed, epoch))
    keys = key(np.arange(_USES), seed, epoch)
    blocks = _Blocks(n, block_size, buffer_size, global_batch_size, keys)
    return _by_chunks(blocks.rows, _as_uints(positions))
