"""Up to which frequency a recording holds anything of the sound it was made of."""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from speakup.truepeak import Float32, Float64, Reframer

_BIN_HZ = 21.5
_BAND_BINS = 4
_GROUP_BANDS = 6
_BATCH_FRAMES = 32
_SILENCE_POWER = 1e-10
_LOUD, _QUIET = 0.99, 0.20
_MOVING_DB = 6.0
_AUDIBLE_DB = 65.0
_WALL_DB = 12.0
_GAP_HZ = 1_500.0
_NARROWEST_HZ = 3_400.0
_SOURCE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000)
_MIRROR_BINS = 60
_MIRRORED = 0.4


class BandwidthMeter:
    """Measure the effective bandwidth of a stream: what a band limit has left of it.

    Speech never stands still: in every band that holds some of it, the level in the loudest
    moments (99th percentile over time) is far above that in the quiet ones (20th). Hiss, hum
    and whistles stand still, whatever their level. So a group of bands about 500 Hz wide counts
    as present when

    - it moves: its loud moments exceed its quiet ones by 6 dB. Steady noise of that width moves
      by 3.5 dB. A real top under noise is recognised as soon as its strongest consonants come
      up to the noise's level; one that stays below is as good as missing, and so is reported.
      A missing top under noise does not move at all;
    - it can be heard: its loud moments are at most 65 dB below those of the strongest band of
      the voice. What a resampler, a codec or the rounding to 16 bits leaves behind a band
      limit is fainter.

    The bandwidth is the end of the highest group present. Islands past a stretch of 1.5 kHz that
    cannot be heard are left out: they are images and whistles. If the level falls off a wall
    there (12 dB within 260 Hz), the foot of the wall is found to 90 Hz.

    A bad resampler mirrors the spectrum at half the old rate. The mirror image moves as speech
    does, but bin for bin like the original: where the fine structure on both sides of 4, 5.5, 6,
    8, 11, 12 or 16 kHz agrees, the bandwidth ends there.

    Memory is constant: one histogram of levels for every band and group. Digital silence is
    left out of the statistics; samples that are not finite count as zero.
    """

    def __init__(self, sample_rate: int) -> None:
        if sample_rate <= 0:
            raise ValueError(f"need a sample rate, got {sample_rate} Hz")
        self.sample_rate = sample_rate
        self._size = 2 ** max(6, round(math.log2(sample_rate / _BIN_HZ)))
        self._hop = self._size // 2
        self._bin_hz = sample_rate / self._size
        window = np.hanning(self._size + 1)[:-1]
        # Full scale is 0 dB for a band that holds all the power of a sine of amplitude sqrt(2).
        self._window = (window / math.sqrt(self._size * np.square(window).sum() / 2)).astype(
            np.float32
        )
        bands = self._hop // _BAND_BINS
        self._bands = _LevelHistogram(bands)
        self._groups = _LevelHistogram(bands // _GROUP_BANDS)
        self._mirrors = _Mirrors(sample_rate, self._bin_hz)
        self._reframer: Reframer | None = None
        self._recent: Float32 = np.zeros((0, 0), np.float32)

    def push(self, block: Float32) -> None:
        """Take in a block `(C, T)`; channels count by their mean power."""
        block = np.asarray(block, np.float32)
        if self._reframer is None:
            self._reframer = Reframer(block.shape[0], _BATCH_FRAMES * self._hop)
            self._recent = np.zeros((block.shape[0], 0), np.float32)
        if not np.isfinite(block.sum()):
            block = np.nan_to_num(block, posinf=0.0, neginf=0.0)
        for piece in self._reframer.push(block):
            self._measure(piece)

    def bandwidth_hz(self) -> float:
        """Give the effective bandwidth in Hz, from 3400 to half the sample rate.

        It is half the sample rate where nothing is known to be missing: also for silence, for
        less than 50 ms, and for recordings that hold nothing that moves. No less than 3400 Hz
        is ever reported, the narrowest band speech is sent through: below that it is noise that
        hides the voice, not a channel that cut it.
        """
        if self._reframer is None:
            return self.sample_rate / 2
        end = copy.deepcopy(self)
        end._measure(self._reframer.rest)
        return end._estimate()

    def _measure(self, piece: Float32) -> None:
        signal = np.concatenate([self._recent, piece], axis=1)
        if signal.shape[1] < self._size:
            self._recent = signal
            return
        frames = sliding_window_view(signal, self._size, axis=1)[:, :: self._hop]
        self._recent = signal[:, frames.shape[1] * self._hop :].copy()
        spectra = np.fft.rfft(frames * self._window)[..., 1 : self._hop + 1]
        power = (spectra.real**2 + spectra.imag**2).mean(axis=0)
        power = power[power.sum(axis=1) > _SILENCE_POWER]
        bands = _band_sums(power, _BAND_BINS)
        self._bands.add(bands)
        self._groups.add(_band_sums(bands, _GROUP_BANDS))
        self._mirrors.add(power)

    def _estimate(self) -> float:
        nyquist = self.sample_rate / 2
        loud, quiet = self._groups.levels_db(_LOUD), self._groups.levels_db(_QUIET)
        if loud is None or quiet is None:
            return nyquist
        moving = loud - quiet > _MOVING_DB
        width = self._bin_hz * _BAND_BINS * _GROUP_BANDS
        voice = moving & (np.arange(len(moving)) * width < 4_000.0)
        if not voice.any():
            return nyquist
        audible = loud > loud[voice].max() - _AUDIBLE_DB
        last = _last_present(moving, audible, round(_GAP_HZ / width))
        bandwidth = min(self._edge_hz(last), self._mirrors.lowest_hz())
        if bandwidth > 0.97 * nyquist:
            return nyquist
        return min(nyquist, max(_NARROWEST_HZ, bandwidth))

    def _edge_hz(self, group: int) -> float:
        """Give the end of a group, or of the wall within half a group of it."""
        loud = self._bands.levels_db(_LOUD)
        assert loud is not None
        low = max(0, group * _GROUP_BANDS - _GROUP_BANDS // 2)
        drops = (loud[:-3] - loud[3:])[low : (group + 1) * _GROUP_BANDS + _GROUP_BANDS // 2]
        edge = (group + 1) * _GROUP_BANDS
        if len(drops) and drops.max() > _WALL_DB:
            edge = low + int(drops.argmax()) + 2
        return (edge * _BAND_BINS + 0.5) * self._bin_hz


class _LevelHistogram:
    """How often each of many bands had which level, in steps of 1 dB from -180 to +60 dB."""

    _LOWEST_DB = -180
    _LEVELS = 240

    def __init__(self, bands: int) -> None:
        self._counts = np.zeros((bands, self._LEVELS), np.int64)

    def add(self, power: Float32) -> None:
        """Count the frames of `(N, bands)`."""
        bands = len(self._counts)
        levels = np.round(10.0 * np.log10(power[:, :bands] + 1e-18)).astype(np.int64)
        levels = (levels - self._LOWEST_DB).clip(0, self._LEVELS - 1)
        places = levels + np.arange(bands) * self._LEVELS
        counts = np.bincount(places.ravel(), minlength=self._counts.size)
        self._counts += counts.reshape(self._counts.shape)

    def levels_db(self, share: float) -> Float64 | None:
        """Give the level under which each band stays in a share of the frames; None without any."""
        ranks = np.cumsum(self._counts, axis=1)
        frames = int(ranks[0, -1])
        if frames == 0:
            return None
        rank = math.ceil(share * frames)
        return (ranks >= rank).argmax(axis=1).astype(np.float64) + self._LOWEST_DB


class _Mirrors:
    """Tell whether the spectrum is mirrored at half of a usual sample rate.

    In every frame the log spectra of the 60 bins below and above are compared without their
    slope: harmonics and the noise between them agree (correlation near 1) only if one is made
    from the other. Frames weigh by the magnitude above the mirror.
    """

    def __init__(self, sample_rate: int, bin_hz: float) -> None:
        self._axes_hz = [rate / 2 for rate in _SOURCE_RATES if rate < 0.9 * sample_rate]
        # Bin k of the spectra handed in lies at (k + 1) * bin_hz.
        self._axes = [2 * axis / bin_hz - 2 for axis in self._axes_hz]
        self._agreement = np.zeros(len(self._axes))
        self._weight = np.zeros(len(self._axes))

    def add(self, power: Float32) -> None:
        """Compare the frames of `(N, F)`."""
        levels = np.log(power + 1e-18)
        for index, twice in enumerate(self._axes):
            below = np.arange(math.floor(twice / 2) - _MIRROR_BINS, math.floor(twice / 2) - 2)
            above = np.round(twice - below).astype(np.int64)
            if above.max() >= levels.shape[1]:
                continue
            one, other = _fine_structure(levels[:, below]), _fine_structure(levels[:, above])
            weight = np.sqrt(power[:, above].mean(axis=1))
            self._agreement[index] += float((weight * (one * other).mean(axis=1)).sum())
            self._weight[index] += float(weight.sum())

    def lowest_hz(self) -> float:
        """Give the lowest frequency of a mirror, or infinity."""
        agreement = self._agreement / np.maximum(self._weight, 1e-30)
        found = [hz for hz, value in zip(self._axes_hz, agreement, strict=True) if value > _MIRRORED]
        return min(found, default=math.inf)


def _fine_structure(levels: NDArray[np.float32]) -> Float64:
    """Take mean and slope out of each row and scale it to unit variance."""
    slope = np.linspace(-1.0, 1.0, levels.shape[1])
    slope /= math.sqrt(float(np.square(slope).mean()))
    rest = levels - levels.mean(axis=1, keepdims=True)
    rest = rest - slope * (rest * slope).mean(axis=1, keepdims=True)
    return np.asarray(rest / (rest.std(axis=1, keepdims=True) + 1e-9))


def _band_sums(power: Float32, width: int) -> Float32:
    bands = power.shape[1] // width
    sums: Float32 = power[:, : bands * width].reshape(len(power), bands, width).sum(axis=-1)
    return sums


def _last_present(moving: NDArray[np.bool_], audible: NDArray[np.bool_], most_gap: int) -> int:
    """Give the highest group that moves and is audible, not past a long inaudible stretch."""
    last, gap = 0, 0
    for group, (moves, heard) in enumerate(zip(moving, audible, strict=True)):
        gap = 0 if heard else gap + 1
        if gap > most_gap:
            break
        if moves and heard:
            last = group
    return last
