"""Training mixtures: what is in the degraded signal, and what of it is to come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from speakup.training.data import floor_under_db
from speakup.training.mixtures import Material, MixtureRecipe, MixtureSimulator
from speakup.training.sounds import (
    active_rms,
    diffuse_room,
    emptied,
    equaliser,
    filled,
    gain,
    played,
    rms,
    synthetic_noise,
    telephone_band,
)

RATE = 16_000
FREQUENCIES = np.linspace(0.0, 8_000.0, 4_001, dtype="f4")


def words(seconds: float, hertz: float, floor: float = 0.0) -> NDArray[np.int16]:
    """Give a buzz in bursts of 0.4 s with 0.2 s of pause, and a floor of noise, as int16."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * hertz * k * time) / k**0.5 for k in range(1, int(7_900 / hertz)))
    said = 0.1 * np.asarray(buzz) * (time % 0.6 < 0.4)
    noise = floor * np.random.default_rng(1).standard_normal(len(time))
    return np.round(32_000 * (said + noise).clip(-1, 1)).astype(np.int16)


def material(*recordings: NDArray[np.int16]) -> Material:
    return Material([list(recordings)], [1.0], RATE) if recordings else Material([], [], RATE)


NOTHING: dict[str, float] = dict.fromkeys(
    [
        "joined",
        "long_pause",
        "second_voice",
        "speed",
        "narrow",
        "coloured",
        "music",
        "room",
        "noise",
        "clipping",
        "codec",
        "loss",
        "device",
        "noise_alone",
        "level_spread_db",
    ],
    0.0,
)


def drawn(
    count: int = 6, seconds: float = 2.0, seed: int = 1, **changes: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    hiss = np.round(3_000 * np.random.default_rng(2).standard_normal(4 * RATE)).astype(np.int16)
    room = np.zeros(4_000)
    room[40], room[1_000:3_000] = 0.9, 0.05 * np.random.default_rng(3).standard_normal(2_000)
    simulator = MixtureSimulator(
        material(words(8.0, 110), words(6.0, 210)),
        material(hiss),
        material(np.round(32_000 * room).astype(np.int16)),
        material(words(5.0, 1_000)),
        MixtureRecipe(**(NOTHING | {"synthetic": 0.0, "babble": 0.0, "quiet": 0.0} | changes)),
    )
    batch = simulator.draw(count, int(seconds * RATE), seed, torch.device("cpu"))
    degraded, clean = (part.numpy() for part in batch)
    assert degraded.shape == clean.shape == (count, int(seconds * RATE))
    assert np.isfinite(degraded).all() and np.isfinite(clean).all()
    return degraded, clean


def test_a_seed_gives_the_same_again_and_another_seed_something_else() -> None:
    everything = {"room": 0.5, "noise": 0.9, "joined": 0.5, "codec": 0.2, "music": 0.3}
    one, again, other = (drawn(seed=seed, **everything) for seed in (1, 1, 2))
    assert np.array_equal(one[0], again[0]) and np.array_equal(one[1], again[1])
    assert not np.array_equal(one[0], other[0])


def test_without_damage_nothing_is_to_be_done() -> None:
    for kept in ("coloured", "narrow", "second_voice", "music", "device", "speed", "joined"):
        degraded, clean = drawn(**{kept: 1.0})
        assert np.abs(degraded - clean).max() < 1e-6, kept
        assert [rms(row) for row in degraded] == pytest.approx([gain(-25.0)] * 6, rel=1e-3)


@pytest.mark.parametrize("snr_db", [-3.0, 15.0])
def test_noise_lies_so_far_under_the_voice_where_that_is_heard(snr_db: float) -> None:
    degraded, clean = drawn(noise=1.0, second_noise=0.5, snr_db=(snr_db, snr_db))
    for mixture, voice in zip(degraded, clean, strict=True):
        ratio = active_rms(voice, RATE) / active_rms(mixture - voice, RATE)
        assert 20.0 * np.log10(ratio) == pytest.approx(snr_db, abs=1.5)


def test_noise_alone_is_to_become_silence() -> None:
    degraded, clean = drawn(noise_alone=1.0)
    assert not clean.any()
    assert [rms(row) for row in degraded] == pytest.approx([gain(-25.0)] * 6, rel=1e-3)


def test_of_a_room_the_direct_sound_comes_back_and_no_more() -> None:
    """In pauses the degraded voice goes on; the target has ended 3 ms after the voice has."""
    degraded, clean = drawn(room=1.0, measured_room=0.5, direct_ratio_db=(0.0, 3.0), count=12)
    energy = (clean.reshape(12, -1, 160) ** 2).mean(-1)
    quiet = energy < energy.max(1, keepdims=True) * 1e-6
    assert quiet.mean() > 0.2  # the target's pauses are empty
    wet = (degraded.reshape(12, -1, 160) ** 2).mean(-1)
    assert np.median(wet[quiet]) > 1e3 * np.median(energy[quiet])


def test_the_ratio_of_direct_to_late_sound_is_the_one_asked_for() -> None:
    for ratio_db in (-6.0, 9.0):
        simulator = MixtureSimulator(
            material(words(3.0, 110)),
            material(),
            material(),
            material(),
            MixtureRecipe(direct_ratio_db=(ratio_db, ratio_db)),
        )
        for seed in range(8):
            response = simulator._room(np.random.default_rng(seed))
            direct, late = response[:48], response[48:]
            measured = 20.0 * np.log10(np.linalg.norm(direct) / np.linalg.norm(late))
            assert measured == pytest.approx(ratio_db, abs=0.2)
            assert np.abs(direct).argmax() < 10


def test_joined_voices_have_pauses_that_hold_nothing() -> None:
    _, clean = drawn(seconds=6.0, joined=1.0, long_pause=1.0, long_pause_seconds=(0.8, 0.8))
    for row in clean:
        silent = (row.reshape(-1, 160) == 0.0).all(1)
        runs = np.diff(np.flatnonzero(np.diff(np.r_[0, silent.astype(int), 0])))[::2]
        assert runs.max() >= 75  # of 10 ms


def test_a_coder_narrows_what_comes_back_and_a_lost_packet_does_not() -> None:
    degraded, clean = drawn(codec=1.0, count=16)
    spectrum = np.abs(np.fft.rfft(clean)) ** 2
    top = spectrum[:, FREQUENCIES.searchsorted(4_100.0) * 4 :].sum(1) / spectrum.sum(1)
    narrow = top < 1e-6
    assert 0 < narrow.sum() < 16  # some coders take 8 kHz, some 16
    whole_top = np.abs(np.fft.rfft(degraded[narrow]))[:, 16_400 // 2 :] ** 2
    assert whole_top.sum() < 1e-2 * (np.abs(np.fft.rfft(degraded[narrow])) ** 2).sum()

    degraded, clean = drawn(loss=1.0)
    gone = (degraded == 0.0) & (clean != 0.0)
    assert gone.any(1).mean() > 0.5 and np.array_equal(degraded[~gone], clean[~gone])


def test_clipping_is_the_degraded_voices_alone() -> None:
    degraded, clean = drawn(clipping=1.0, saturated=0.0)
    for mixture, voice in zip(degraded, clean, strict=True):
        ceiling = np.abs(mixture).max()
        assert (np.abs(mixture) > 0.999 * ceiling).mean() > 1e-3
        below = np.abs(mixture) < 0.999 * ceiling
        assert np.allclose(mixture[below], voice[below], atol=1e-6)
        assert np.abs(voice).max() > 1.1 * ceiling


def test_longer_sources_weigh_more_as_the_balance_says() -> None:
    class Held:
        sources = [[words(4.0, 100)], [words(1.0, 200)]]  # noqa: RUF012
        weights = [1.0, 1.0]  # noqa: RUF012
        sample_rate = RATE

    for balance, share in ((0.0, 0.5), (0.5, 2 / 3), (1.0, 0.8)):
        held = Material.of(Held(), balance=balance)  # type: ignore[arg-type]
        random = np.random.default_rng(5)
        long = sum(len(held.item(random)) == 4 * RATE for _ in range(600)) / 600
        assert long == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("samples", [100, 8_000, 50_000])
def test_segments_are_pieces_of_recordings(samples: int) -> None:
    recording = words(1.0, 130)
    segment = material(recording).segment(samples, np.random.default_rng(samples))
    assert segment.dtype == np.float32 and len(segment) == min(samples, len(recording))
    whole = recording.astype("f4") / 32_768
    starts = np.lib.stride_tricks.sliding_window_view(whole, len(segment))
    assert (starts == segment).all(1).any()


def test_a_floor_is_measured_under_the_voice() -> None:
    for floor_db in (30.0, 50.0):
        voice = words(6.0, 150)
        level = active_rms(voice.astype("f4") / 32_000, RATE)
        heard = floor_under_db(words(6.0, 150, floor=level * gain(-floor_db)), RATE)
        assert heard == pytest.approx(floor_db, abs=1.5)
    assert floor_under_db(np.zeros(8_000, np.int16), RATE) == 0.0


def test_an_emptied_pause_goes_down_and_words_stay() -> None:
    voice = words(3.0, 150, floor=0.0002).astype("f4") / 32_000
    level = active_rms(voice, RATE)
    result = emptied(voice, level, RATE)
    time = np.arange(len(voice)) / RATE
    said, pause = time % 0.6 < 0.4, (time % 0.6 > 0.43) & (time % 0.6 < 0.57)
    assert np.array_equal(result[said], voice[said])
    assert rms(result[pause]) < 0.3 * rms(voice[pause])
    assert emptied(result[:4_000], level, RATE).shape == (4_000,)


@pytest.mark.parametrize("samples", [12_000, 20_001])
def test_a_recording_played_faster_has_its_pitch_changed(samples: int) -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(16_000) / RATE).astype("f4")
    result = played(tone, samples)
    assert len(result) == samples
    middle = result[1_000:9_000] * np.hanning(8_000)
    hertz = np.abs(np.fft.rfft(middle)).argmax() * RATE / 8_000
    assert hertz == pytest.approx(400 * 16_000 / samples, abs=4)
    assert rms(result[1_000:-1_000]) == pytest.approx(0.5**0.5, rel=2e-2)


@pytest.mark.parametrize("seed", range(6))
def test_short_noises_fill_a_length_without_a_jump(seed: int) -> None:
    random = np.random.default_rng(seed)
    piece = np.sin(np.arange(3_000, dtype="f4") * 0.05)
    result = filled(piece, 20_000, random)
    assert len(result) == 20_000 and result.any()
    assert np.abs(np.diff(result)).max() < 0.15
    assert np.array_equal(filled(piece, 2_000, random), piece[:2_000])


@pytest.mark.parametrize("seed", range(6))
def test_formulas_give_bounded_finite_sounds(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = synthetic_noise(20_001, RATE, random)
    assert noise.shape == (20_001,) and np.isfinite(noise).all() and rms(noise) > 0.1
    room = diffuse_room(RATE, random)
    assert np.isfinite(room).all() and abs(room).argmax() == 0
    response = equaliser(FREQUENCIES, random)
    assert response.min() >= 10**-0.5 - 1e-3 and response.max() <= 10**0.5 + 1e-3
    band = telephone_band(FREQUENCIES, random)
    assert band.max() <= 1.0 and band[FREQUENCIES.searchsorted(7_900.0)] < 0.6
