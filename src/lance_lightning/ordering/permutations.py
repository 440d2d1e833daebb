"""Epoch orders as pure functions from position to row: no table, no state.

A position is a place in the epoch, a row an offset into the split. Every order is
a bijection on ``[0, n)`` for every ``n``, and any position is found by itself, so
that a rank, a worker or a resumed run needs no other's positions.

**The orders are final**: a checkpoint holds the seed and the sizes, not the rows.
A change in any line below would resume old checkpoints with other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lance_lightning.types import Ints

UInts = NDArray[Any]  # unsigned, of 64 bits or, where they are enough, of 32

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
USES = 6
SHUFFLE_KEY, WHOLE_KEY, PLACES_KEY, STREAM_KEY, BLOCKS_KEY, TURN_KEY = range(USES)


def as_uints(values: Any) -> UInts:
    """Return integers as an array of at least one dimension, modulo 2^64.

    Arrays wrap around in silence, where numpy's scalars warn of an overflow.
    """
    if isinstance(values, int):
        values = np.array(values & _MASK, np.uint64)
    return np.atleast_1d(np.asarray(values).astype(np.int64, copy=False)).view(
        np.uint64
    )


def _mix(z: UInts) -> UInts:
    """Return SplitMix64's output function of ``z``; a bijection on 64 bits."""
    z = z ^ (z >> np.uint64(_SHIFTS[0]))
    z *= np.uint64(_MULTIPLIERS[0])
    z ^= z >> np.uint64(_SHIFTS[1])
    z *= np.uint64(_MULTIPLIERS[1])
    z ^= z >> np.uint64(_SHIFTS[2])
    return z


def fold(state: UInts, part: UInts) -> UInts:
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
        result = fold(result, as_uints(part))
    if any(np.ndim(part) for part in parts):
        return result
    return result[0]


def _domain(n: UInts) -> tuple[Any, Any]:
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


def _round_numbers(keys: UInts, word: Any) -> Iterable[tuple[UInts, UInts]]:
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
    y: UInts, mask: Any, half: Any, numbers: Iterable[tuple[UInts, UInts]]
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


def permute(y: UInts, n: UInts, keys: UInts) -> UInts:
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
    # falls below. Less than half of the domain is beyond, so it soon does.
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


def by_chunks(
    function: Callable[..., UInts], positions: UInts, n: UInts, *others: UInts
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
    return by_chunks(permute, as_uints(x), as_uints(n), as_uints(key))


def shuffle(positions: Ints, n: int, seed: int, epoch: int) -> Ints:
    """Return the rows at positions of a full shuffle of ``n`` rows.

    Args:
        positions: Shape ``(N,)``, any order.
        n: Rows in the split.
        seed: Any integer, modulo 2^64.
        epoch: Any integer; another epoch is another order.
    """
    return keyed(positions, n, key(SHUFFLE_KEY, seed, epoch))
