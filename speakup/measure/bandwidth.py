"""Up to which frequency a recording holds anything of the sound it was made of."""

from __future__ import annotations

import copy
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import rfft
from scipy.ndimage import maximum_filter1d, median_filter
from scipy.signal import lfilter

from speakup.blocks import Float32, Float64, Reframer, checked_block, finite, power_to_db

_BIN_HZ = 21.5
_BAND_BINS = 4
_GROUP_BANDS = 6
_BATCH_FRAMES = 64
_SILENCE_POWER = 1e-10
_MOST_ZEROS = 1 / 16
_LOUD, _QUIET = 0.99, 0.20
_MOVING_DB = 6.0
_AUDIBLE_DB = 65.0
_ROUNDING_DB = -95.0  # rounding to 16 bits leaves -101 dB of white noise
_DRIFT_SECONDS = 1.0
_WALL_DB = 10.0
_GAP_HZ = 1_500.0
_SLOPE_DB = 14.0  # measured: 4 to 12 dB where a voice fades into noise, 15 to 40 dB by filters
_SLOPE_HZ = (8_000.0, 16_000.0)  # real tops fall as steeply further up
_NARROWEST_HZ = 3_400.0
_LOWEST_HZ = 900.0
_FALL_DB, _FALL_HZ = (24.0, 44.0), (900.0, 8_000.0)
_FOOT_DB, _HELD_DB = 12.0, 24.0
_HARMONIC_BANDS, _WHISTLE_BANDS = 5, 11
_SOURCE_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000)
_MIRROR_BINS = 60
_MIRRORED = 0.35
_TINY = 1e-18


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
    there (10 dB within 260 Hz), the foot of the wall is found to 90 Hz. If it falls by a slope
    steeper than voices do (14 dB over the last half octave, somewhere between 8 and 16 kHz), as
    behind the filter of a telephone or a cheap microphone, that half octave counts as missing. So
    does all from where the level falls by 24 dB in half an octave and 44 dB in a whole one, between
    900 Hz and 8 kHz, and never rises again, but for the first 12 dB. Of 50 voices that nothing was
    done to, none falls so; behind a filter of order 8 at 3.4 kHz the band was found to end between
    2.6 and 4.6 kHz for 47, at 2 kHz between 1.5 and 2.7 kHz for 43.

    Below 3400 Hz, the narrowest band speech is sent through, only such a fall is the end of the
    band. Else it is noise that hides the voice, and 3400 Hz are given.

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
        # Scaled so that the powers of a frame's bins add up to its mean square.
        self._window = (window / math.sqrt(self._size * np.square(window).sum() / 2)).astype(
            np.float32
        )
        bands = self._hop // _BAND_BINS
        self._bands = _LevelHistogram(bands)
        self._groups = _LevelHistogram(bands // _GROUP_BANDS)
        self._swings = _LevelHistogram(bands // _GROUP_BANDS)
        self._drift = _Drift(self._hop / sample_rate)
        self._mirrors = _Mirrors(sample_rate, self._bin_hz)
        self._reframer: Reframer | None = None
        self._recent: Float32 = np.zeros((0, 0), np.float32)

    def push(self, block: Float32) -> None:
        """Take in a block `(C, T)`; channels count by their mean power."""
        block = finite(checked_block(block, None if self._reframer is None else len(self._recent)))
        if self._reframer is None:
            self._reframer = Reframer(block.shape[0], _BATCH_FRAMES * self._hop)
            self._recent = np.zeros((block.shape[0], 0), np.float32)
        for piece in self._reframer.push(block):
            self._measure(piece)

    def bandwidth_hz(self) -> float:
        """Give the effective bandwidth in Hz, from 900 to half the sample rate.

        It is half the sample rate where nothing is known to be missing: also for silence, for
        less than 50 ms, and for recordings that hold nothing that moves.
        """
        return self._found()[0]

    def hidden_by_noise(self) -> bool:
        """Tell whether the band ends where noise hides the voice, not where something cut it off.

        How far the voice goes on under the noise is then not known.
        """
        return self._found()[1]

    def _found(self) -> tuple[float, bool]:
        if self._reframer is None:
            return self.sample_rate / 2, False
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
        spectra = rfft(frames * self._window)[..., 1 : self._hop + 1]
        power = (spectra.real**2 + spectra.imag**2).mean(axis=0)
        # Digital silence has no spectrum, and a cut into it is a click that nobody spoke.
        whole = signal[:, : (frames.shape[1] + 1) * self._hop].reshape(len(signal), -1, self._hop)
        zeros = (~whole.any(axis=0)).sum(axis=-1)
        sounding = zeros[:-1] + zeros[1:] < _MOST_ZEROS * self._size
        power = power[sounding & (power.sum(axis=1) > _SILENCE_POWER)]
        bands = _band_sums(power, _BAND_BINS)
        groups = _decibels(_band_sums(bands, _GROUP_BANDS))
        self._bands.add(_decibels(bands))
        self._groups.add(groups)
        self._swings.add(self._drift.removed(groups))
        self._mirrors.add(power)

    def _estimate(self) -> tuple[float, bool]:
        nyquist = self.sample_rate / 2
        loud = self._groups.levels_db(_LOUD)
        if loud is None:
            return nyquist, False
        moving = median_filter(self._swings.spread_db(), 3, mode="nearest") > _MOVING_DB
        width = self._bin_hz * _BAND_BINS * _GROUP_BANDS
        voice = moving & (np.arange(len(moving)) * width < 4_000.0) & (loud > loud.max() - 40.0)
        if not voice.any():
            return nyquist, False
        rounding = _ROUNDING_DB + power_to_db(width / nyquist)
        audible = loud > max(loud[voice].max() - _AUDIBLE_DB, rounding)
        last = _last_present(moving, audible, round(_GAP_HZ / width))
        edge, walled = self._edge_hz(last)
        fall = self._fall_hz(moving)
        sloping = not walled and self._slope_db(edge) > _SLOPE_DB
        if sloping:
            edge /= math.sqrt(2.0)
        if fall == math.inf:
            walled = walled and edge > _NARROWEST_HZ
            edge = max(edge, _NARROWEST_HZ)
        elif not (walled and self._holds(fall, edge)):
            edge = min(edge, fall)
        mirror = self._mirrors.lowest_hz()
        bandwidth = min(edge, mirror)
        if bandwidth > 0.97 * nyquist:
            return nyquist, False
        cut = walled or sloping or min(fall, mirror) < math.inf
        hidden = not cut and 2 * int(audible[last + 2 :].sum()) > len(audible) - last - 2
        return min(nyquist, max(_LOWEST_HZ, bandwidth)), hidden

    def _edge_hz(self, group: int) -> tuple[float, bool]:
        """Give the end of a group or of the wall within half a group of it, and if there is one."""
        loud = self._bands.levels_db(_LOUD)
        assert loud is not None
        low = max(0, group * _GROUP_BANDS - _GROUP_BANDS // 2)
        edge = (group + 1) * _GROUP_BANDS
        drops = (loud[:-3] - loud[3:])[low : edge + _GROUP_BANDS // 2]
        if edge + _GROUP_BANDS > len(loud):  # bands past the last whole group go with it
            edge = len(loud)
        walled = bool(len(drops) and drops.max() > _WALL_DB)
        if walled:
            edge = low + int(drops.argmax()) + 2
        return (edge * _BAND_BINS + 0.5) * self._bin_hz, walled

    def _slope_db(self, edge_hz: float) -> float:
        """Give by how much the level falls over the last half octave before an edge."""
        if not _SLOPE_HZ[0] < edge_hz < _SLOPE_HZ[1]:
            return 0.0
        loud = self._groups.levels_db(_LOUD)
        assert loud is not None
        last = round(edge_hz / (self._bin_hz * _BAND_BINS * _GROUP_BANDS)) - 1
        return float(loud[round(last / math.sqrt(2.0))] - loud[last])

    def _holds(self, fall_hz: float, edge_hz: float) -> bool:
        """Tell whether the level stays up between a fall and a wall: the band ends at the wall."""
        loud = self._bands.levels_db(_LOUD)
        assert loud is not None
        width = self._bin_hz * _BAND_BINS
        first, last = round(fall_hz / width), round(edge_hz / width)
        if last - first < _HARMONIC_BANDS:
            return True
        level = maximum_filter1d(loud[: last - 1], _HARMONIC_BANDS)[max(0, first - 2) :]
        return bool(level.min() > level[0] - _HELD_DB)

    def _fall_hz(self, moving: NDArray[np.bool_]) -> float:
        """Give where the level falls for good, and more steeply than voices do, or infinity."""
        loud = self._bands.levels_db(_LOUD)
        assert loud is not None
        # Harmonics stand up to half a kilohertz apart; whistles are narrow.
        level = maximum_filter1d(loud, _HARMONIC_BANDS)
        rest = np.maximum.accumulate(median_filter(loud, _WHISTLE_BANDS)[::-1])[::-1]
        width = self._bin_hz * _BAND_BINS
        heard = np.repeat(moving, _GROUP_BANDS)
        for place in range(round(_FALL_HZ[0] / width), min(round(_FALL_HZ[1] / width), len(heard))):
            half, whole = round(place * math.sqrt(2.0)), 2 * place
            if whole >= len(loud) or not heard[place]:
                continue
            falls = level[place] - rest[half], level[place] - rest[whole]
            if falls[0] > _FALL_DB[0] and falls[1] > _FALL_DB[1]:
                near = loud[place : half + 2] > level[place] - _FOOT_DB
                return float(place + np.flatnonzero(near).max(initial=0) + 1) * width
        return math.inf


class _LevelHistogram:
    """How often each of many bands had which level, in steps of 1 dB from -180 to +60 dB."""

    _LOWEST_DB = -180
    _LEVELS = 240

    def __init__(self, bands: int) -> None:
        self._counts = np.zeros((bands, self._LEVELS), np.int64)

    def add(self, levels_db: Float32) -> None:
        """Count the frames of `(N, bands)`."""
        levels = np.round(levels_db).astype(np.int64) - self._LOWEST_DB
        places = levels.clip(0, self._LEVELS - 1) + np.arange(len(self._counts)) * self._LEVELS
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

    def spread_db(self) -> Float64:
        """Give by how much each band's loud moments exceed its quiet ones."""
        loud, quiet = self.levels_db(_LOUD), self.levels_db(_QUIET)
        assert loud is not None and quiet is not None
        return loud - quiet


class _Drift:
    """Take out of levels what changes more slowly than speech does."""

    def __init__(self, frame_seconds: float) -> None:
        self._keep = math.exp(-frame_seconds / _DRIFT_SECONDS)
        self._state: Float32 | None = None

    def removed(self, levels_db: Float32) -> Float32:
        """Subtract the recent mean: `(N, bands)` to `(N, bands)`."""
        if len(levels_db) == 0:
            return levels_db
        if self._state is None:
            self._state = levels_db[:1] * self._keep
        mean, self._state = lfilter(
            [1.0 - self._keep], [1.0, -self._keep], levels_db, axis=0, zi=self._state
        )
        return np.asarray(levels_db - mean, np.float32)


class _Mirrors:
    """Tell whether the spectrum is mirrored at half of a usual sample rate.

    In every second frame the log spectra of the 58 bins below and above are compared without
    their slope: harmonics and the noise between them agree (correlation near 1, else near 0)
    only if one is made from the other. Frames weigh by the magnitude above the mirror.
    """

    def __init__(self, sample_rate: int, bin_hz: float) -> None:
        axes_hz = np.array([rate / 2 for rate in _SOURCE_RATES])
        highest = sample_rate / 2 - _MIRROR_BINS * bin_hz
        self._axes_hz = axes_hz[axes_hz < highest]
        # Bin k of the spectra handed in lies at (k + 1) * bin_hz.
        twice = 2 * self._axes_hz[:, None] / bin_hz - 2
        self._below = np.floor(twice / 2).astype(np.int64) - np.arange(2, _MIRROR_BINS)
        self._above = np.round(twice - self._below).astype(np.int64)
        self._agreement = np.zeros(len(self._axes_hz))
        self._weight = np.zeros(len(self._axes_hz))
        self._squared_weight = np.zeros(len(self._axes_hz))

    def add(self, power: Float32) -> None:
        """Compare the frames of `(N, F)`."""
        power = power[::2]
        levels = np.log(power + _TINY)
        one, other = (_fine_structure(levels[:, side]) for side in (self._below, self._above))
        weight = np.sqrt(power[:, self._above].mean(axis=-1))
        self._agreement += (weight * (one * other).mean(axis=-1)).sum(axis=0)
        self._weight += weight.sum(axis=0)
        self._squared_weight += np.square(weight).sum(axis=0)

    def lowest_hz(self) -> float:
        """Give the lowest frequency of a mirror, or infinity."""
        agreement = self._agreement / np.maximum(self._weight, _TINY)
        # By chance one frame agrees to 0 +- 0.25, the weighted mean of many to less.
        frames = np.square(self._weight) / np.maximum(self._squared_weight, _TINY)
        needed = _MIRRORED + 0.3 / np.sqrt(np.maximum(frames, 1.0))
        return float(self._axes_hz[agreement > needed].min(initial=math.inf))


def _fine_structure(levels: Float32) -> Float32:
    """Take mean and slope out of `(..., F)` and scale it to unit variance.

    What varies by less than half a neper is smooth, as a click's spectrum is, and stays small.
    """
    slope = np.linspace(-1.0, 1.0, levels.shape[-1], dtype=np.float32)
    slope /= np.sqrt(np.square(slope).mean())
    rest = levels - levels.mean(axis=-1, keepdims=True)
    rest -= slope * (rest @ slope / len(slope))[..., None]
    return rest / np.maximum(rest.std(axis=-1, keepdims=True), np.float32(0.5))


def _decibels(power: Float32) -> Float32:
    levels: Float32 = np.float32(10.0) * np.log10(power + np.float32(_TINY))
    return levels


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
