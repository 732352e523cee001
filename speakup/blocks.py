"""Blocks: how sound goes from place to place, and the few things done to every block.

A block is float32 (C, T): channels by samples at one rate, full scale at 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]
"""Samples (C, T) of a stream at one rate, full scale at 1."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

LOWEST_RATE, HIGHEST_RATE = 2_000, 768_000
"""Sample rates in Hz that are taken; below there is no speech, and above no converter."""

MOST_CHANNELS = 64

_NO_SOUND = 1e10


def db_to_gain(level_db: float) -> float:
    """Convert decibels to an amplitude factor."""
    return math.pow(10.0, level_db / 20.0)


def gain_to_db(gain: float) -> float:
    """Convert an amplitude factor to decibels; nothing is at -inf."""
    return 20.0 * math.log10(gain) if gain > 0.0 else -math.inf


def power_to_db(power: float) -> float:
    """Convert a power, such as a mean square, to decibels; nothing is at -inf."""
    return 10.0 * math.log10(power) if power > 0.0 else -math.inf


class Reframer:
    """Cut a stream into pieces of one length, so that block borders leave no trace."""

    def __init__(self, channels: int, length: int) -> None:
        self.rest: Float32 = np.zeros((channels, 0), np.float32)
        self._length = length

    def push(self, block: Float32) -> Iterator[Float32]:
        """Take a block `(C, T)` and yield every whole piece `(C, length)`."""
        start = 0
        if self.rest.shape[1]:
            start = min(self._length - self.rest.shape[1], block.shape[1])
            self.rest = np.concatenate([self.rest, block[:, :start]], axis=1)
            if self.rest.shape[1] == self._length:
                full, self.rest = self.rest, self.rest[:, :0]
                yield full
        if self.rest.shape[1]:
            return
        whole = start + (block.shape[1] - start) // self._length * self._length
        self.rest = block[:, whole:].copy()
        for piece in range(start, whole, self._length):
            yield block[:, piece : piece + self._length]


def reframed(blocks: Iterable[Float32], length: int) -> Iterator[Float32]:
    """Join and cut blocks `(C, T)` to pieces `(C, length)`, the last one shorter."""
    reframer: Reframer | None = None
    for block in blocks:
        reframer = reframer or Reframer(len(block), length)
        yield from reframer.push(block)
    if reframer is not None and reframer.rest.shape[1]:
        yield reframer.rest


def checked_block(block: Float32, channels: int | None = None) -> Float32:
    """Give the block as float32, or say that its shape is not `(C, T)` with that many channels."""
    block = np.asarray(block, dtype=np.float32)
    if block.ndim != 2 or block.shape[0] != (channels or block.shape[0]):
        raise ValueError(f"expected a block ({channels or 'C'}, T), got shape {block.shape}")
    return block


def finite(block: Block) -> Block:
    """Give the block itself, or a copy with zeros for samples that are no numbers.

    What is 200 dB beyond full scale counts as none: it is no sound, and its power would overflow.
    """
    if max(block.max(initial=0.0), -block.min(initial=0.0)) < _NO_SOUND:  # false for NaN
        return block
    return np.where(np.abs(block) < _NO_SOUND, block, np.float32(0.0))


def prepared(
    blocks: Iterable[Block], *, mono: bool, weights: Float32 | None = None
) -> Iterator[Block]:
    """Yield float32 blocks (C, T), mixed to mono if asked: to the mean, or by weights (C,)."""
    for block in blocks:
        block = np.asarray(block, dtype=np.float32)
        if mono:
            with np.errstate(invalid="ignore"):  # inf - inf
                if weights is None:
                    block = block.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
                else:
                    block = weights[None] @ block
        yield block
