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
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_lightning.types import Ints

_UInts = NDArray[Any]  # unsigned, of 64 bits or, where they are enough, of 32

# SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
# Generators" (OOPSLA 2014), with the constants of Vigna's public-domain
# splitmix64.c (https://prng.di.unimi.it/splitmix64.c).
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_MASK = 2**64 - 1

_ROUNDS = 6
_CHUNK = 1 << 18  # bytes of positions at a time: the temporaries stay in a cache
_NARROW = 2**31  # the most rows for 32 bits, which hold the sum of two positions

# What a key is for. One number each, so that no two uses share a permutation.
_USES = 6
_SHUFFLE, _WHOLE, _PLACES, _STREAM, _BLOCKS, _TURN = range(_USES)


def _as_uints(values: Any) -> _UInts:
    """Return integers as an array of at least one dimension, modulo 2^64.

    Arrays wrap around in silence, where numpy's scalars warn of an overflow.
    """
    if isinstance(values, int):
        values = np.array(values & _MASK, np.uint64)
    return np.atleast_1d(np.asarray(values).astype(np.int64, copy=False)).view(
        np.uint64
    )


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


def _domain(n: _UInts) -> tuple[Any, Any]:
    """Return ``2^bits - 1`` and ``ceil(bits / 2)``, 2^bits the power of two >= n."""
    if len(n) == 1:  # in Python's integers: a tenth of the time
        bits = (int(n[0]) - 1).bit_length()
        return 2**bits - 1, (bits + 1) // 2
    mask = n.astype(np.uint64) - np.uint64(1)
    for shift in (1, 2, 4, 8, 16, 32):
        mask |= mask >> np.uint64(shift)
    # A power of two is exact as a float, so its exponent is too: bits + 1.
    exponent = np.frexp((mask + np.uint64(1)).astype(np.float64))[1]
    return mask.astype(n.dtype), (exponent // 2).astype(n.dtype)


def _round_numbers(keys: _UInts, word: Any) -> Iterable[tuple[_UInts, _UInts]]:
    """Return the odd a and the b of each round: SplitMix64's stream from ``keys``.

    They are cut to the bits of ``word``: no round is modulo more than those.
    """
    state = keys + np.array([[_GAMMA], [2 * _GAMMA & _MASK]], np.uint64)
    for _ in range(_ROUNDS):
        a, b = _mix(state).astype(word)
        a |= word(1)
        yield a, b
        state += np.uint64(2 * _GAMMA & _MASK)


def _some(values: Any, which: Any) -> Any:
    """Return the values at ``which``, or the one value that serves them all."""
    return values if np.size(values) == 1 else values[which]


def _go_through_rounds(
    y: _UInts, mask: Any, half: Any, numbers: Iterable[tuple[_UInts, _UInts]]
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


def _permute(y: _UInts, n: _UInts, keys: _UInts) -> _UInts:
    """Do in place what `keyed` does, and return ``y``.

    Args:
        y: Integers below ``n``, shape ``(N,)`` or ``(M, N)``.
        n: Shape ``(N,)`` or ``(1,)``.
        keys: Shape ``(N,)`` or ``(1,)``.
    """
    if n.max() == 1:  # blocks of one row make streams of one row
        return y
    word = y.dtype.type
    n = n.astype(word)
    mask, half = _domain(n)
    one_key = list(_round_numbers(keys, word)) if len(keys) == 1 else None
    _go_through_rounds(y, mask, half, one_key or _round_numbers(keys, word))
    # Walking the cycle: a value beyond n goes through the rounds again until it
    # falls below. Less than half of the domain lies beyond, so it soon does.
    out = np.flatnonzero(y >= n)
    flat = y.reshape(-1)
    while len(out):
        z = flat[out]
        at = out % y.shape[-1]
        numbers = one_key or _round_numbers(keys[at], word)
        _go_through_rounds(z, _some(mask, at), _some(half, at), numbers)
        flat[out] = z
        out = out[z >= _some(n, at)]
    return y


def _by_chunks(
    function: Callable[..., _UInts], positions: _UInts, n: _UInts, *others: _UInts
) -> Ints:
    """Apply ``function`` to chunks that fit in a cache; one for all is kept whole.

    Raises:
        IndexError: A position is not in ``[0, n)``.
    """
    result = np.empty(len(positions), np.int64)
    word = np.uint32 if n.max(initial=0) <= _NARROW else np.uint64
    length = _CHUNK // word().itemsize
    for start in range(0, len(positions), length):
        part = slice(start, start + length)
        x, size = positions[part], _some(n, part)
        if np.any(x >= size):  # the walk of a cycle might never end
            x, size = np.broadcast_arrays(x, size)
            at = np.argmax(x >= size)
            raise IndexError(f"position {x[at]} is not in an order of {size[at]} rows")
        rest = [_some(other, part) for other in others]
        result[part] = function(x.astype(word), size, *rest)
    return result


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
    return _by_chunks(_permute, _as_uints(x), _as_uints(n), _as_uints(key))


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
    quotient = x // divisor
    remainder = quotient * divisor
    return quotient, np.subtract(x, remainder, out=remainder)


def _scaled(number: np.uint64, below: int) -> int:
    """Return a uniform 64-bit number brought to ``[0, below)``."""
    return int(number) * below >> 64


def _step(p: _UInts, batch: int) -> int:
    """Return a divisor of ``batch`` and of all differences of positions.

    A rank's positions are the number of ranks apart, and so are its streams.
    """
    step = gcd(int(p[-1]) - int(p[-2:][0]), batch)
    if step > 1 and _divmod(p - p.min(), step)[1].any():
        return 1
    return step


def _permute_by_number(
    x: _UInts,
    numbers: _UInts,
    step: int,
    permutations: Callable[[_UInts], tuple[_UInts, _UInts]],
) -> _UInts:
    """Send each of ``x`` through the permutation of its number.

    Positions share permutations, and what a permutation costs is the numbers of its
    rounds. So where ``x`` and ``numbers`` lie close together, every x between the
    ends goes through every permutation between the ends, which makes a table.

    Args:
        x: Shape ``(N,)``.
        numbers: Shape ``(N,)``, or ``(1,)`` for a single permutation.
        step: A divisor of all differences of ``numbers``.
        permutations: Returns sizes and keys, as `_permute` takes them, of numbers.
    """
    low, first = x.min(), numbers.min()
    height = int(x.max() - low) + 1
    width = int(numbers.max() - first) // step + 1
    # The round numbers of a permutation cost as much as the rounds of four or more x.
    if width * max(height, 4) > 2 * len(x):
        return _permute(x.copy(), *permutations(numbers))
    n, keys = permutations(np.arange(width, dtype=x.dtype) * step + first)
    table = np.empty((height, width), x.dtype)
    table[:] = np.arange(height, dtype=x.dtype)[:, None] + low
    # Where sizes differ, some x are beyond the smaller; nothing asks for those.
    np.minimum(table, n.astype(x.dtype) - 1, out=table)
    at = (x - low) * width
    at += (numbers - first) // step
    _permute(table, n, keys)
    found: _UInts = table.reshape(-1).take(at.astype(np.intp))
    return found


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The numbers of one epoch's `block_shuffle`, of ``n`` > ``buffer`` rows."""

    n: int
    block: int
    buffer: int
    batch: int
    keys: _UInts  # by use

    @property
    def streams(self) -> int:
        """Streams in a buffer."""
        return self.buffer // self.block

    def rows(self, p: _UInts) -> _UInts:
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

    def _from_streams(self, p: _UInts, m: int) -> _UInts:
        """Return the place in block order of positions in buffers of ``m`` rows.

        A buffer is cut into streams: runs of neighbours in block order, ``k`` for
        each place of a global batch. Place c of every batch takes its row from one
        of the streams that are c modulo the batch size; which one changes from
        batch to batch, and so does the place in the stream.
        """
        streams = self.streams
        rows, longer = divmod(m, streams)  # so many streams are one row longer
        g = np.minimum(p // self.buffer, self.n // self.buffer - 1)
        t, q = _divmod(p, streams)
        j = t - g * self.block
        a, c = _divmod(q, self.batch)
        step = _step(p, self.batch)

        def places(numbers: _UInts) -> tuple[_UInts, _UInts]:
            t, c = _divmod(numbers, self.batch)
            k = _as_uints(streams // self.batch)
            return k, _fold(self.keys[_PLACES, None], t * streams + c)

        def in_streams(numbers: _UInts) -> tuple[_UInts, _UInts]:
            length = _as_uints(rows)
            if longer:
                length = length + (_divmod(numbers, streams)[1] < longer)
            return length, _fold(self.keys[_STREAM, None], numbers)

        # One number for the k positions that share k streams.
        chosen = _permute_by_number(a, t * self.batch + c, step, places)
        if longer:
            chosen = np.where(j < rows, chosen, a)
        s = chosen * self.batch + c
        start: _UInts = g * self.buffer + s * rows
        if longer:
            start += np.minimum(s, longer)
        start += _permute_by_number(j, g * streams + s, step, in_streams)
        return start

    def _from_blocks(self, x: _UInts) -> _UInts:
        """Return the rows at places in block order: whole blocks in keyed order.

        The table is turned by a random number of rows, which moves the borders of
        the blocks, and the short block at the end, from epoch to epoch.
        """
        whole = self.n // self.block
        q, i = _divmod(x, self.block)
        short = np.flatnonzero(q == whole)  # stays at the end
        q[short] = whole - 1
        order = _as_uints(whole), self.keys[_BLOCKS, None]
        q = _permute_by_number(q, np.zeros(1, q.dtype), 1, lambda _: order)
        q[short] = whole
        q *= self.block
        q += i
        q += _scaled(self.keys[_TURN], self.n)
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
        return keyed(positions, n, key(_WHOLE, seed, epoch))
    keys = key(np.arange(_USES), seed, epoch)
    blocks = _Blocks(n, block_size, buffer_size, global_batch_size, keys)
    return _by_chunks(lambda p, _: blocks.rows(p), _as_uints(positions), _as_uints(n))
