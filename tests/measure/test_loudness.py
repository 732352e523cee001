"""The loudness meter against the standards' own test signals, pyloudnorm and FFmpeg."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pyloudnorm
import pytest
from scipy.signal import firwin, lfilter

from speakup.measure.loudness import LoudnessMeter, channel_weights, k_weighting

RATE = 24_000


def measured(signal: np.ndarray, sample_rate: int = RATE) -> LoudnessMeter:
    meter = LoudnessMeter(sample_rate, signal.shape[0])
    meter.push(signal.astype(np.float32))
    return meter


def tones(segments: list[tuple[float, float]], channels: int = 2) -> np.ndarray:
    """Join 1 kHz sines of (seconds, peak dBFS), in phase in all channels."""
    levels = np.concatenate(
        [np.full(round(seconds * RATE), 10 ** (level / 20)) for seconds, level in segments]
    )
    sine = levels * np.sin(2 * np.pi * 1000 * np.arange(len(levels)) / RATE)
    return np.tile(sine, (channels, 1))


def speechlike(seconds: float, sample_rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """Noise with speech's slope, syllables, pauses and level changes."""
    random = np.random.default_rng(seed)
    count = round(seconds * sample_rate)
    noise = lfilter([1.0], [1.0, -0.95], random.standard_normal((channels, count)))
    time = np.arange(count) / sample_rate
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time) + 0.4, 0.0, None) ** 2
    phrases = np.where(np.sin(2 * np.pi * 0.23 * time) > -0.5, 1.0, 0.003)
    return 0.02 * noise * syllables * phrases * (1.0 + 0.7 * np.sin(0.5 * time))


def ffmpeg_ebur128(signal: np.ndarray, sample_rate: int, layout: str) -> dict[str, float]:
    """Measure with FFmpeg's ebur128 filter, in this process."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=sample_rate, format="fltp", layout=layout, time_base=Fraction(1, sample_rate)
    )
    meter = graph.add("ebur128", "metadata=1:peak=true")
    sink = graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(signal, np.float32), format="fltp", layout=layout
    )
    if not hasattr(frame, "metadata"):
        pytest.skip("this PyAV does not show what filters measure")
    frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), 0
    source.push(frame)
    source.push(None)
    values: dict[str, str] = {}
    try:
        while True:
            values |= sink.pull().metadata
    except av.error.EOFError:
        return {name.removeprefix("lavfi.r128."): float(text) for name, text in values.items()}


def test_k_weighting_is_the_standards_at_48_khz() -> None:
    # BS.1770-5 Annex 1, Tables 1 and 2.
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285]
    shelf += [1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]
    np.testing.assert_allclose(k_weighting(48_000), [shelf, high_pass], atol=1e-9)


# EBU Tech 3341 (2023), Table 1, cases 1 to 5: integrated loudness -23 or -33, +-0.1.
@pytest.mark.parametrize(
    ("segments", "lufs"),
    [
        ([(20, -23.0)], -23.0),
        ([(20, -33.0)], -33.0),
        ([(10, -36.0), (60, -23.0), (10, -36.0)], -23.0),
        ([(10, -72.0), (10, -36.0), (60, -23.0), (10, -36.0), (10, -72.0)], -23.0),
        ([(20, -26.0), (20.1, -20.0), (20, -26.0)], -23.0),
    ],
)
def test_tech_3341_integrated_loudness(segments: list[tuple[float, float]], lufs: float) -> None:
    assert measured(tones(segments)).integrated_lufs() == pytest.approx(lufs, abs=0.1)


@pytest.mark.parametrize("with_lfe", [False, True])
def test_tech_3341_case_6_surround(with_lfe: bool) -> None:
    rows = [tones([(20, level)], 1)[0] for level in (-28.0, -28.0, -24.0, -30.0, -30.0)]
    if with_lfe:
        rows.insert(3, tones([(20, -6.0)], 1)[0])
    assert measured(np.array(rows)).integrated_lufs() == pytest.approx(-23.0, abs=0.1)


# EBU Tech 3341, Table 1, cases 15 to 19: sines at rate / divisor with 10 ms fades.
@pytest.mark.parametrize(
    ("divisor", "amplitude", "degrees", "dbtp"),
    [
        (4, 0.50, 0.0, -6.0),
        (4, 0.50, 45.0, -6.0),
        (6, 0.50, 60.0, -6.0),
        (8, 0.50, 67.5, -6.0),
        (4, 1.41, 45.0, 3.0),
    ],
)
@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 96_000])
def test_tech_3341_true_peak_of_sines(
    divisor: int, amplitude: float, degrees: float, dbtp: float, sample_rate: int
) -> None:
    time = np.arange(sample_rate)
    fade = np.clip(np.minimum(time, time[::-1]) / (0.01 * sample_rate), 0.0, 1.0)
    sine = amplitude * fade * np.sin(2 * np.pi * time / divisor + np.deg2rad(degrees))
    assert -0.4 <= measured(sine[None], sample_rate).true_peak_dbtp() - dbtp <= 0.2


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_tech_3341_true_peak_of_a_single_period(offset: int) -> None:
    # Cases 20 to 23: made at four times the rate, one full-scale period of rate/4 inside a sine
    # of rate/6 at half scale, low-passed, then decimated with an offset.
    carrier = 0.5 * np.sin(2 * np.pi * np.arange(24 * 400) / 24)
    wave = np.concatenate([carrier, np.sin(2 * np.pi * np.arange(16) / 16), carrier])
    edge = np.arange(len(wave))
    wave = wave * np.clip(np.minimum(edge, edge[::-1]) / 1920, 0.0, 1.0)
    decimated = np.convolve(wave, firwin(2001, 0.2498), "same")[offset::4]
    assert -0.4 <= measured(decimated[None]).true_peak_dbtp() - 0.0 <= 0.2


# EBU Tech 3342, Table 1, cases 1 to 4: +-1 LU.
@pytest.mark.parametrize(
    ("levels", "range_lu"),
    [
        ([-20.0, -30.0], 10.0),
        ([-20.0, -15.0], 5.0),
        ([-40.0, -20.0], 20.0),
        ([-50.0, -35.0, -20.0, -35.0, -50.0], 15.0),
    ],
)
def test_tech_3342_loudness_range(levels: list[float], range_lu: float) -> None:
    meter = measured(tones([(20, level) for level in levels]))
    assert meter.loudness_range() == pytest.approx(range_lu, abs=0.5)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 44_100, 48_000, 192_000])
@pytest.mark.parametrize(("channels", "layout"), [(1, "mono"), (2, "stereo"), (6, "5.1")])
def test_agrees_with_ffmpeg_and_pyloudnorm(sample_rate: int, channels: int, layout: str) -> None:
    signal = speechlike(4.0 if sample_rate == 192_000 else 12.0, sample_rate, channels).astype(
        np.float32
    )
    meter = measured(signal, sample_rate)
    reference = ffmpeg_ebur128(signal, sample_rate, layout)
    assert meter.integrated_lufs() == pytest.approx(reference["I"], abs=0.1)
    # FFmpeg also counts the windows of the first 3 s, which are not full yet.
    assert meter.loudness_range() == pytest.approx(reference["LRA"], abs=1.0)
    true_peak = 20 * math.log10(reference["true_peak"])
    assert meter.true_peak_dbtp() == pytest.approx(true_peak, abs=0.15)
    without_lfe = np.delete(signal, 3, axis=0) if channels == 6 else signal
    other = pyloudnorm.Meter(sample_rate, filter_class="DeMan")
    lufs = other.integrated_loudness(without_lfe.T.astype(np.float64))
    assert meter.integrated_lufs() == pytest.approx(lufs, abs=0.05)


def test_agrees_with_a_slow_reference_written_from_the_equations() -> None:
    signal = speechlike(8.0, RATE, 2, seed=3)
    weighted = signal
    for section in k_weighting(RATE):
        weighted = lfilter(section[:3], section[3:], weighted, axis=-1)
    blocks = [
        (weighted[:, start : start + 2 * RATE // 5] ** 2).mean(axis=1).sum()
        for start in range(0, signal.shape[1] - 2 * RATE // 5 + 1, RATE // 10)
    ]
    energies = np.array(blocks)
    loudness = -0.691 + 10 * np.log10(energies)
    gated = energies[loudness > -70]
    gate = -0.691 + 10 * np.log10(gated.mean()) - 10
    expected = -0.691 + 10 * np.log10(energies[(loudness > -70) & (loudness > gate)].mean())
    assert measured(signal).integrated_lufs() == pytest.approx(expected, abs=0.005)


FIGURES: list[Callable[[LoudnessMeter], float]] = [
    LoudnessMeter.integrated_lufs,
    LoudnessMeter.loudness_range,
    LoudnessMeter.true_peak_dbtp,
    LoudnessMeter.sample_peak_dbfs,
    LoudnessMeter.rms_dbfs,
    LoudnessMeter.noise_floor_dbfs,
]


@pytest.mark.parametrize("sample_rate", [11_025, 44_100])
def test_block_borders_leave_no_trace(sample_rate: int) -> None:
    signal = speechlike(7.3, sample_rate, 2, seed=1).astype(np.float32)
    pieces = LoudnessMeter(sample_rate, 2)
    random = np.random.default_rng(2)
    start = 0
    while start < signal.shape[1]:
        stop = start + int(random.integers(0, 60_000))
        pieces.push(signal[:, start:stop])
        if random.random() < 0.3:
            pieces.integrated_lufs()  # asking must not disturb
        start = stop
    whole = measured(signal, sample_rate)
    assert [figure(pieces) for figure in FIGURES] == [figure(whole) for figure in FIGURES]


def test_levels_of_a_known_signal() -> None:
    signal = tones([(2, -12.0), (1, -60.0)])
    meter = measured(signal)
    assert meter.sample_peak_dbfs() == pytest.approx(-12.0, abs=0.01)
    assert meter.rms_dbfs() == pytest.approx(10 * math.log10(np.square(signal).mean()), abs=1e-3)
    assert meter.noise_floor_dbfs() == pytest.approx(-63.01, abs=0.02)
    assert meter.seconds == 3.0


def test_mono_is_one_channel() -> None:
    mono, stereo = measured(tones([(5, -20.0)], 1)), measured(tones([(5, -20.0)], 2))
    assert stereo.integrated_lufs() - mono.integrated_lufs() == pytest.approx(3.01, abs=0.01)
    assert stereo.rms_dbfs() == pytest.approx(mono.rms_dbfs())


@pytest.mark.parametrize("channels", range(1, 11))
def test_channel_weights(channels: int) -> None:
    weights = channel_weights(channels)
    assert len(weights) == channels
    if channels >= 6:
        assert weights[3] == 0.0  # LFE
    assert (weights[:3] == 1.0).all() or channels == 4
    assert (weights == 1.41).sum() == (2 if channels >= 4 else 0)


@pytest.mark.parametrize("samples", [0, 1, 100, 2 * RATE // 5 - 1])
def test_less_than_a_gating_block_has_no_loudness(samples: int) -> None:
    meter = measured(np.full((1, samples), 0.25))
    assert meter.integrated_lufs() == -math.inf
    assert meter.loudness_range() == 0.0
    assert meter.sample_peak_dbfs() == (pytest.approx(-12.04, abs=0.01) if samples else -math.inf)


def test_exactly_one_gating_block_has_a_loudness() -> None:
    assert measured(tones([(0.4, -20.0)])).integrated_lufs() == pytest.approx(-20.0, abs=0.3)


def test_silence_is_minus_infinity_everywhere() -> None:
    meter = measured(np.zeros((2, 3 * RATE)))
    assert [figure(meter) for figure in FIGURES if figure is not LoudnessMeter.loudness_range] == [
        -math.inf
    ] * 5
    assert meter.loudness_range() == 0.0


def test_samples_that_are_not_finite_count_as_zero() -> None:
    signal = tones([(3, -20.0)])
    broken = signal.copy()
    broken[0, 1000], broken[1, 2000], broken[0, 3000] = np.nan, np.inf, -np.inf
    assert measured(broken).integrated_lufs() == pytest.approx(
        measured(signal).integrated_lufs(), abs=0.01
    )


def test_memory_does_not_grow() -> None:
    meter = LoudnessMeter(8_000, 1)
    block = speechlike(10.0, 8_000, 1).astype(np.float32)

    def held() -> int:
        windows = meter._windows
        histograms = (windows._momentary, windows._short_term)
        arrays = [windows._hops, meter._raw_hops, meter._recent, meter._reframer.rest]
        arrays += [values for each in histograms for values in vars(each).values()]
        return sum(values.nbytes for values in arrays)

    meter.push(block)
    before = held()
    for _ in range(60):
        meter.push(block)
    assert held() == before
    assert meter.seconds == 610.0


def test_wrong_shapes_are_refused() -> None:
    meter = LoudnessMeter(RATE, 2)
    with pytest.raises(ValueError, match=r"\(2, T\)"):
        meter.push(np.zeros((1, 10), np.float32))
    with pytest.raises(ValueError, match="0 channels"):
        LoudnessMeter(RATE, 0)
