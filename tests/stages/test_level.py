"""Facts about levelling: voices come together, one voice keeps its ups and downs, rest is rest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from speech import voice

from speakup.blocks import db_to_gain
from speakup.measure.loudness import LoudnessMeter
from speakup.stages.level import MAX_GAIN_DB, Level, changes, levelling

RATE = 16_000
Waveform = NDArray[np.float32]


def levelled(waveform: Waveform, strength: float = 1.0, block: int = 20_000) -> Waveform:
    stage = Level(RATE, len(waveform), strength=strength)
    blocks = [waveform[:, i : i + block] for i in range(0, waveform.shape[1], block)]
    return np.concatenate([*map(stage.push, blocks), *stage.flush()], axis=1)


def lufs(waveform: Waveform) -> float:
    meter = LoudnessMeter(RATE, len(waveform))
    meter.push(waveform)
    return meter.integrated_lufs()


def loudness_range(waveform: Waveform) -> float:
    meter = LoudnessMeter(RATE, len(waveform))
    meter.push(waveform)
    return meter.loudness_range()


def said(seconds: float, lufs_wanted: float, f0_hz: float = 120.0) -> Waveform:
    spoken = voice(seconds, f0_hz, RATE)[None].astype(np.float32)
    return spoken * np.float32(db_to_gain(lufs_wanted - lufs(spoken)))


def conversation(turn: float, apart_db: float) -> tuple[Waveform, list[slice]]:
    """Give two voices in turns, 0.4 s of nearly nothing between, and where each turn is."""
    rest = np.random.default_rng(3).standard_normal((1, 6_400)).astype(np.float32) * 1e-4
    parts: list[Waveform] = []
    for number in range(8):
        loud = number % 2 == 0
        turned = said(turn, -18.0 if loud else -18.0 - apart_db, 110.0 if loud else 200.0)
        parts += [turned, rest]
    ends = np.cumsum([part.shape[1] for part in parts])
    places = [slice(ends[i] - parts[i].shape[1], ends[i]) for i in range(0, len(parts), 2)]
    return np.concatenate(parts, axis=1), places


@pytest.mark.parametrize("turn", [2.0, 5.0, 12.0])
def test_two_voices_come_together(turn: float) -> None:
    waveform, turns = conversation(turn, 16.0)
    result = levelled(waveform)
    assert result.shape == waveform.shape
    one, other = (
        lufs(np.concatenate([result[:, place] for place in turns[first::2]], axis=1))
        for first in (0, 1)
    )
    assert abs(one - other) <= 3.0


def test_one_voice_keeps_its_own_dynamics() -> None:
    drift_db = 2.0 * np.sin(np.arange(40 * RATE) / RATE * 2 * np.pi / 11.0)
    waveform = said(40.0, -23.0) * np.power(10.0, drift_db / 20.0).astype(np.float32)
    assert loudness_range(waveform) > 3.0
    result = levelled(waveform)
    assert abs(loudness_range(result) - loudness_range(waveform)) <= 1.0


def test_pauses_and_silence_are_not_lifted() -> None:
    hiss = np.random.default_rng(5).standard_normal((1, 4 * RATE)).astype(np.float32) * 3e-4
    quiet = [said(8.0, -36.0, 190.0), hiss, said(8.0, -36.0, 190.0)]
    waveform = np.concatenate([said(8.0, -18.0), *quiet, np.zeros((1, RATE), np.float32)], axis=1)
    result = levelled(waveform)
    pause = slice(16 * RATE + 4_800, 20 * RATE - 3_200)
    assert lufs(result[:, 8 * RATE : 16 * RATE]) > lufs(waveform[:, 8 * RATE : 16 * RATE]) + 4.0
    assert np.abs(result[:, pause]).max() <= np.abs(waveform[:, pause]).max() * 1.001
    assert not result[:, -RATE + 4_800 :].any()


@pytest.mark.parametrize("colour", ["noise", "tone", "silence"])
def test_what_is_no_speech_is_left_alone(colour: str) -> None:
    time = np.arange(30 * RATE) / RATE
    sounds = {
        "noise": np.random.default_rng(1).standard_normal(len(time)) * 0.01,
        "tone": 0.1 * np.sin(2 * np.pi * 440.0 * time),
        "silence": np.zeros(len(time)),
    }
    waveform = sounds[colour][None].astype(np.float32)
    waveform[:, 15 * RATE :] *= 0.25
    assert np.array_equal(levelled(waveform), waveform)


def test_channels_share_the_gain_and_blocks_do_not_matter() -> None:
    waveform, _ = conversation(4.0, 14.0)
    stereo = np.concatenate([waveform, 0.5 * waveform])
    result = levelled(stereo)
    assert np.allclose(result[1], 0.5 * result[0], atol=1e-7)
    assert np.array_equal(result, levelled(stereo, block=1_013))


def test_strength_is_linear_in_decibels_and_nothing_at_zero() -> None:
    waveform, _ = conversation(5.0, 12.0)
    assert np.array_equal(levelled(waveform, strength=0.0), waveform)
    gains = [
        levelled(waveform, strength=strength)[0, 3 * RATE] / waveform[0, 3 * RATE]
        for strength in (0.5, 1.0)
    ]
    assert gains[0] ** 2 == pytest.approx(gains[1], rel=1e-3)


def test_no_gain_is_larger_than_the_limit() -> None:
    levels = np.tile(np.r_[np.full(30, -15.0), np.full(5, -70.0), np.full(30, -44.0)], 4)
    levels += np.tile([0.0, -12.0, 2.0, -3.0, 1.0], len(levels) // 5)
    gains, _ = levelling(levels)
    assert 6.0 < np.abs(gains).max() <= MAX_GAIN_DB


def test_changes_are_those_of_the_cheapest_fit() -> None:
    """By trying every way to cut ten values into pieces."""
    random = np.random.default_rng(7)
    for _ in range(20):
        values = np.repeat(random.normal(0.0, 4.0, 5), 2) + random.normal(0.0, 1.0, 10)
        costs = random.uniform(2.0, 8.0, 10)

        def price(cuts: tuple[int, ...], values: NDArray[np.float64] = values) -> float:
            pieces = np.split(values, cuts)
            return sum(float(np.square(piece - piece.mean()).sum()) for piece in pieces)

        ways = itertools.chain.from_iterable(
            itertools.combinations(range(1, 10), count) for count in range(10)
        )
        cheapest = min(ways, key=lambda cuts: price(cuts) + costs[list(cuts)].sum())
        assert tuple(changes(values, costs)[1:]) == cheapest
