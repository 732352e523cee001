"""How good a recording is: functions of an estimate, its reference and their sample rate.

Every function takes `(T,)` or `(C, T)` signals, mixes channels to mono, and gives one number.
Two conventions hold throughout, so that figures can be compared: the rate is changed by
`scipy.signal.resample_poly` (its default Kaiser window), and a metric that cannot be computed
for a signal (no speech found, too short, empty) gives NaN rather than a made-up number.
Neither time nor level is matched here: call `align` and `match_level` first where they may differ.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from speakup.blocks import power_to_db
from speakup.errors import import_optional

Signal = NDArray[np.floating[Any]]

SPEECH_RATE = 16_000
"""Rate in Hz at which PESQ, ESTOI, DNSMOS, words and voice are measured."""

LSD_RATE = 44_100
LSD_N_FFT = 2048
LSD_HOP_LENGTH = 512
LSD_FLOOR_POWER = 1e-8
"""Floor of a bin's power before the logarithm: about -106 dB below a full-scale sine's bin."""

_PESQ_SECONDS = 15
_FRAMES_AT_ONCE = 512  # bounds the memory that long recordings take

_F0_RANGE_HZ = (60, 400)
_F0_FRAME = 640  # 40 ms: more than two periods of the deepest voice
_F0_HOP = 160
_F0_LEAST_CORRELATION = 0.5
_F0_OCTAVE_COST = 0.02  # a period's multiples correlate as well: prefer the shortest
_F0_LOUDNESS_RANGE = 1e-4  # frames 40 dB below the loudest count as silent


def mono(waveform: Signal) -> NDArray[np.float64]:
    """Mix `(C, T)` to `(T,)` as the mean of the channels; `(T,)` stays as it is."""
    samples = np.asarray(waveform, dtype=np.float64)
    return samples.mean(axis=0) if samples.ndim == 2 else samples


def resample(waveform: Signal, rate_in: int, rate_out: int) -> NDArray[np.float64]:
    """Change the rate of `(..., T)` to `(..., ceil(T * rate_out / rate_in))`.

    This is the measuring convention, not the product's resampler (`stages.flow.Resampler`).
    """
    samples = np.asarray(waveform, dtype=np.float64)
    if rate_in == rate_out or samples.shape[-1] == 0:
        return samples
    common = math.gcd(rate_in, rate_out)
    return np.asarray(signal.resample_poly(samples, rate_out // common, rate_in // common, axis=-1))


def lag(
    estimate: Signal, reference: Signal, sample_rate: int, max_lag_seconds: float = 0.025
) -> int:
    """Find by how many samples the estimate comes after the reference.

    It is the place of the largest absolute cross-correlation within `max_lag_seconds` either way;
    the sign is ignored because a reversed polarity is not heard.
    """
    late, early = mono(estimate), mono(reference)
    return _best_lag(late, early, round(max_lag_seconds * sample_rate))[0]


def _best_lag(
    late: NDArray[np.float64], early: NDArray[np.float64], furthest: int
) -> tuple[int, float]:
    """Find the lag of the largest correlation, and how large it is, 0 to 1."""
    if not (late.any() and early.any()):
        return 0, 0.0
    size = fft.next_fast_len(len(late) + len(early), real=True)
    correlation = fft.irfft(fft.rfft(late, size) * np.conj(fft.rfft(early, size)), size)
    furthest = min(furthest, min(len(late), len(early)) - 1)
    lags = np.arange(-furthest, furthest + 1)
    place = int(np.argmax(np.abs(correlation[lags])))
    energy = math.sqrt(float(late @ late) * float(early @ early))
    return int(lags[place]), float(abs(correlation[lags[place]])) / energy


def align(
    estimate: Signal, reference: Signal, sample_rate: int, max_lag_seconds: float = 0.025
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut both signals to the stretch they share, at the lag where they agree best.

    Returns:
        The estimate and the reference, mono, of the same length.
    """
    samples = lag(estimate, reference, sample_rate, max_lag_seconds)
    late = mono(estimate)[max(samples, 0) :]
    early = mono(reference)[max(-samples, 0) :]
    length = min(len(late), len(early))
    return late[:length], early[:length]


def misalignment(estimate: Signal, reference: Signal, sample_rate: int) -> str:
    """Say what keeps two recordings from being compared sample by sample; "" for nothing.

    That is a delay beyond the 25 ms that `align` finds, up to a second either way; a clock that
    runs fast or slow; or another length. A recording that merely sounds different, as a room or
    an enhancer makes it, is none: an agreement elsewhere must be twice that within 25 ms.
    """
    est, ref = mono(estimate), mono(reference)
    longer = (len(est) - len(ref)) / sample_rate
    if abs(longer) > max(0.1, 0.02 * len(ref) / sample_rate):
        return f"is {abs(longer):.1f} s {'longer' if longer > 0.0 else 'shorter'}"
    near, near_peak = _best_lag(est, ref, round(0.025 * sample_rate))
    far, far_peak = _best_lag(est, ref, sample_rate)
    if far_peak > 2.0 * near_peak and far_peak > 0.2:
        return f"is {abs(1000 * far / sample_rate):.0f} ms {'late' if far > 0 else 'early'}"
    length = min(len(est), len(ref))
    window = min(length // 3, 3 * sample_rate)
    if window > sample_rate:
        ends = (slice(0, window), slice(length - window, length))
        first, last = (_best_lag(est[end], ref[end], sample_rate // 5) for end in ends)
        drift_ms = 1000 * (last[0] - first[0]) / sample_rate
        # Where a room goes, the loudest path may change by some milliseconds.
        if abs(drift_ms) > 15.0 and min(first[1], last[1]) > 0.5:
            return f"drifts by {abs(drift_ms):.0f} ms"
    return ""


def match_level(estimate: Signal, reference: Signal) -> NDArray[np.float64]:
    """Scale the estimate to the reference's RMS; silence is left alone."""
    samples = np.asarray(estimate, dtype=np.float64)
    power = float(np.mean(np.square(samples))) if samples.size else 0.0
    if power == 0.0:
        return samples
    wanted = float(np.mean(np.square(np.asarray(reference, dtype=np.float64))))
    return samples * math.sqrt(wanted / power)


def si_sdr(estimate: Signal, reference: Signal, sample_rate: int) -> float:
    """Give the scale-invariant signal-to-distortion ratio in dB; `inf` for a scaled copy.

    The sample rate is taken for the sake of one signature and not used.

    Reference:
        Le Roux et al. 2019, arXiv 1811.02508, eq. 3, after removing both means.
    """
    est, ref = _same_length(estimate, reference)
    est, ref = est - est.mean(), ref - ref.mean()
    energy = float(ref @ ref)
    if energy == 0.0:
        return math.nan
    target = (float(est @ ref) / energy) * ref
    rest = float(np.sum(np.square(est - target)))
    wanted = float(target @ target)
    if rest == 0.0:
        return math.inf if wanted > 0.0 else math.nan
    return power_to_db(wanted / rest)


def lsd(
    estimate: Signal,
    reference: Signal,
    sample_rate: int,
    *,
    above_hz: float | None = None,
    below_hz: float | None = None,
) -> float:
    """Give the log-spectral distance, in units of log10 power (1.0 is 10 dB in every bin).

    At 44.1 kHz: with `P = max(|STFT|^2, 1e-8)` of 2048-sample Hann windows every 512 samples
    (zeros beyond the ends), it is the mean over frames of
    `sqrt(mean over bins of (log10 P_estimate - log10 P_reference)^2)`.
    The floor is absolute, so levels should be near speech's usual -25 dBFS.

    Args:
        estimate: `(T,)` or `(C, T)`.
        reference: As the estimate; the longer of the two is cut.
        sample_rate: Of both, in Hz; other rates are resampled to 44.1 kHz.
        above_hz: Compare only bins at or above this frequency.
        below_hz: Compare only bins below this frequency.

    Reference:
        Gray and Markel 1976, IEEE Trans. ASSP 24(5), section III; the settings are those of the
        literature on speech super-resolution (Liu et al. 2022, arXiv 2203.14941, section 4).
    """
    est, ref = _same_length(
        resample(mono(estimate), sample_rate, LSD_RATE),
        resample(mono(reference), sample_rate, LSD_RATE),
    )
    hz_per_bin = LSD_RATE / LSD_N_FFT
    first = 0 if above_hz is None else math.ceil(above_hz / hz_per_bin)
    last = LSD_N_FFT // 2 + 1 if below_hz is None else math.ceil(below_hz / hz_per_bin)
    if first >= last or len(est) == 0:
        return math.nan
    est_frames, ref_frames = _frames(est), _frames(ref)
    distances = []
    for start in range(0, len(est_frames), _FRAMES_AT_ONCE):
        part = slice(start, start + _FRAMES_AT_ONCE)
        difference = _log_power(est_frames[part]) - _log_power(ref_frames[part])
        distances.append(np.sqrt(np.mean(np.square(difference[:, first:last]), axis=1)))
    return float(np.mean(np.concatenate(distances)))


def pesq_wb(estimate: Signal, reference: Signal, sample_rate: int) -> float:
    """Give the wide-band PESQ score, 1.04 (bad) to 4.64 (identical), at 16 kHz.

    Signals over 15 s are cut into equal parts no longer than that and the parts' scores averaged:
    the method is meant for 8 to 20 s, and the standard's code overruns its memory at the fiftieth
    utterance. It aligns level, and delay per utterance, by itself.

    Raises:
        ConfigError: the package pesq is not installed.

    Reference:
        ITU-T P.862.2; P.862.3, clause 7, for the length.
    """
    package = import_optional("pesq", "PESQ", "eval")
    est, ref = _at_speech_rate(estimate, reference, sample_rate)
    parts = max(1, math.ceil(len(ref) / (_PESQ_SECONDS * SPEECH_RATE)))
    scores = [
        _pesq_part(package, *part)
        for part in zip(np.array_split(est, parts), np.array_split(ref, parts), strict=True)
    ]
    known = [one for one in scores if not math.isnan(one)]
    return float(np.mean(known)) if known else math.nan


def _pesq_part(package: Any, est: NDArray[np.float64], ref: NDArray[np.float64]) -> float:
    if not (est.any() and ref.any()):
        return math.nan
    try:
        return float(package.pesq(SPEECH_RATE, ref, est, "wb"))
    except package.PesqError:  # no utterance found, or under a quarter of a second
        return math.nan


def estoi(estimate: Signal, reference: Signal, sample_rate: int) -> float:
    """Give the extended short-time objective intelligibility, up to 1 (identical).

    Raises:
        ConfigError: the package pystoi is not installed.

    Reference:
        Jensen and Taal 2016, IEEE/ACM TASLP 24(11). The input is brought to 16 kHz here, the
        method itself works at 10 kHz.
    """
    package = import_optional("pystoi", "ESTOI", "eval")
    est, ref = _at_speech_rate(estimate, reference, sample_rate)
    if len(ref) < SPEECH_RATE // 10 or not (est.any() and ref.any()):
        return math.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames")
        try:
            return float(package.stoi(ref, est, SPEECH_RATE, extended=True))
        except RuntimeWarning:  # fewer than 30 frames hold speech
            return math.nan


def dnsmos(estimate: Signal, sample_rate: int) -> dict[str, float]:
    """Predict listeners' scores without a reference: `ovrl`, `sig`, `bak` and `p808`, 1 to 5.

    The last comes from another network than the others, for a single overall opinion. The signal
    is brought to 16 kHz and clipped to [-1, 1]; its level is left as it is, and the networks are
    sensitive to it. Shorter signals are repeated to 9 s, longer ones averaged.

    Raises:
        ConfigError: the package speechmos is not installed.

    Reference:
        Reddy et al. 2022, arXiv 2110.01763 (DNSMOS P.835, not the personalised one); Reddy et al.
        2021, arXiv 2010.15258 (P.808).
    """
    names = ("ovrl", "sig", "bak", "p808")
    package = import_optional("speechmos.dnsmos", "DNSMOS", "eval")
    samples = np.clip(resample(mono(estimate), sample_rate, SPEECH_RATE), -1.0, 1.0)
    if len(samples) == 0:
        return dict.fromkeys(names, math.nan)
    scores = package.run(samples, sr=SPEECH_RATE)
    return {name: float(scores[f"{name}_mos"]) for name in names}


def f0_error(estimate: Signal, reference: Signal, sample_rate: int) -> float:
    """Give the F0 frame error, 0 to 1: how often the voice's pitch was lost, invented or changed.

    It is the share of 10 ms frames in which one signal is voiced and the other is not, or both
    are and their F0 differs by more than 20 %. It tells whether intonation and voicing survived,
    not whether the speaker would be recognised. Noise and rooms mislead the tracker, so compare
    before with after rather than with 0. NaN where the reference has no voiced frame.

    Reference:
        Chu and Alwan 2009, ICASSP, pp. 3969-3972.
    """
    est, ref = (_f0_hz(samples) for samples in _at_speech_rate(estimate, reference, sample_rate))
    if not ref.any():
        return math.nan
    voiced = (est > 0.0) & (ref > 0.0)
    moved = voiced & (np.abs(est - ref) > 0.2 * ref)
    return float(np.mean(((est > 0.0) != (ref > 0.0)) | moved))


def _same_length(
    estimate: Signal, reference: Signal
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    est, ref = mono(estimate), mono(reference)
    length = min(len(est), len(ref))
    return est[:length], ref[:length]


def _at_speech_rate(
    estimate: Signal, reference: Signal, sample_rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return _same_length(
        resample(mono(estimate), sample_rate, SPEECH_RATE),
        resample(mono(reference), sample_rate, SPEECH_RATE),
    )


def _frames(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """View `(T,)` as `(N, n_fft)`, `N = 1 + T // hop_length`, zeros beyond the ends."""
    padded = np.pad(samples, LSD_N_FFT // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, LSD_N_FFT)[::LSD_HOP_LENGTH]


@functools.cache
def _hann() -> NDArray[np.float64]:
    return np.asarray(signal.get_window("hann", LSD_N_FFT, fftbins=True))


def _log_power(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    spectrum = fft.rfft(frames * _hann(), axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return np.asarray(np.log10(np.maximum(power, LSD_FLOOR_POWER)))


def _f0_hz(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Track F0 at 16 kHz, `(T,)` to `(N,)` every 10 ms, 0 where unvoiced.

    Reference:
        Boersma 1993, IFA Proceedings 17: the frame's autocorrelation over the window's.
    """
    if len(samples) < _F0_FRAME:
        return np.zeros(0)
    window = signal.get_window("hann", _F0_FRAME)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _F0_FRAME)[::_F0_HOP]
    shortest, longest = (SPEECH_RATE // hz for hz in reversed(_F0_RANGE_HZ))
    lags = np.arange(shortest, longest + 1)
    of_window = _autocorrelation(window[None, :])[0]
    energies, tracks = [], []
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = frames[start : start + _FRAMES_AT_ONCE]
        correlation = _autocorrelation((part - part.mean(axis=1, keepdims=True)) * window)
        energy = correlation[:, 0]
        strength = correlation[:, shortest - 1 : longest + 2] / np.maximum(energy, 1e-20)[:, None]
        strength *= of_window[0] / of_window[shortest - 1 : longest + 2]
        inner = strength[:, 1:-1]
        peak = (inner >= strength[:, :-2]) & (inner >= strength[:, 2:])
        peak &= inner > _F0_LEAST_CORRELATION
        choice = np.where(peak, inner - _F0_OCTAVE_COST * np.log2(lags / shortest), -1.0)
        f0 = SPEECH_RATE / lags[np.argmax(choice, axis=1)]
        tracks.append(np.where(peak.any(axis=1), f0, 0.0))
        energies.append(energy)
    energy = np.concatenate(energies)
    loud = energy > np.max(energy) * _F0_LOUDNESS_RANGE
    return np.where(loud, np.concatenate(tracks), 0.0)


def _autocorrelation(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    size = fft.next_fast_len(2 * _F0_FRAME, real=True)
    spectrum = fft.rfft(frames, size, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return np.asarray(fft.irfft(power, size, axis=1))
