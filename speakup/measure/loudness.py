"""The loudness meter of ITU-R BS.1770 and EBU R 128, for streams."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from speakup.blocks import Float32, Float64, Reframer, checked_block, finite, gain_to_db
from speakup.measure.true_peak import Oversampler, annex_factor

MOMENTARY_SECONDS = 0.4
"""Length of a gating block; nothing shorter can be measured."""

HOPS_PER_SECOND = 10
"""How often gating blocks begin."""

_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_RANGE_GATE_LU = -20.0
_MOMENTARY_HOPS = 4
_SHORT_TERM_HOPS = 30
_FLOOR_HOPS = 5


class LoudnessMeter:
    """Measure loudness, its range, peaks, RMS and noise floor of a stream.

    The 400 ms and 3 s windows step by 100 ms and are counted, with their exact energies, in
    bins of 0.01 LU: the memory is that of two histograms however long the recording. The only
    error is that a relative gate acts on whole bins: below 0.001 LU on real programmes. Range
    percentiles are bin centres: within 0.01 LU. Samples that are not finite count as zero.
    Every figure may be asked for at any time.

    Args:
        sample_rate: In Hz, 8000 to 192000.
        channels: In the order of WAVE and FLAC: L R C LFE Lb Rb Ls Rs; see `channel_weights`.
        speakers: Which speaker each feeds, where that is known; see `speaker_weights`.
        keep_hops: Whether `over_time` will be asked for, which takes 80 bytes a second.

    Reference: ITU-R BS.1770-5 Annexes 1 and 2; EBU Tech 3341 and 3342. At rates below 16 kHz
        the coefficients, which are pyloudnorm's and FFmpeg's, read up to 0.2 LU above what the
        same sound reads at 48 kHz.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int,
        speakers: Sequence[str] = (),
        *,
        keep_hops: bool = False,
    ) -> None:
        if sample_rate <= 0 or channels <= 0:
            raise ValueError(f"need a rate and channels, got {sample_rate} Hz, {channels} channels")
        self.sample_rate = sample_rate
        self.channels = channels
        self._weights = speaker_weights(speakers) if speakers else channel_weights(channels)
        self._sos = k_weighting(sample_rate)
        self._filter_state = np.zeros((len(self._sos), channels, 2))
        self._oversampler = Oversampler(annex_factor(sample_rate))
        self._recent = np.zeros((channels, Oversampler.history), np.float32)
        # One second is the shortest piece that holds whole 100 ms hops at every integer rate.
        self._reframer = Reframer(channels, sample_rate)
        self._windows = HopWindows()
        self._kept: list[Float64] | None = [] if keep_hops else None
        self._raw_hops = np.zeros(0)
        self._quietest = math.inf
        self._square_sum = 0.0
        self._samples = 0
        self._sample_peak = 0.0
        self._true_peak = 0.0
        self._closed: LoudnessMeter | None = None

    def push(self, block: Float32) -> None:
        """Take in a block `(C, T)`."""
        self._closed = None
        block = finite(checked_block(block, self.channels))
        for second in self._reframer.push(block):
            self._measure(second)

    def integrated_lufs(self) -> float:
        """Give the gated loudness in LUFS; -inf for silence and for less than 400 ms.

        Reference: ITU-R BS.1770-5 Annex 1, equations 3 to 7.
        """
        return self._at_end()._windows.integrated_lufs()

    def loudness_range(self) -> float:
        """Give the loudness range (LRA) in LU; 0 for silence and for less than 3 s.

        Reference: EBU Tech 3342, section 4: 10th to 95th percentile.
        """
        return self._at_end()._windows.loudness_range()

    def true_peak_dbtp(self) -> float:
        """Give the largest true peak of any channel in dBTP; -inf for silence."""
        end = self._at_end()
        return gain_to_db(max(end._true_peak, end._sample_peak))

    def sample_peak_dbfs(self) -> float:
        """Give the largest sample of any channel in dBFS; -inf for silence."""
        return gain_to_db(self._at_end()._sample_peak)

    def rms_dbfs(self) -> float:
        """Give the RMS over the whole length and all channels, ungated, in dBFS."""
        end = self._at_end()
        return gain_to_db(math.sqrt(end._square_sum / max(1, end._samples * end.channels)))

    def noise_floor_dbfs(self) -> float:
        """Give the RMS of the quietest half second in dBFS, as ACX Check does.

        Windows step by 100 ms. With less than half a second it is the RMS of the whole.
        """
        quietest = self._at_end()._quietest
        return self.rms_dbfs() if math.isinf(quietest) else gain_to_db(math.sqrt(quietest))

    def over_time(self) -> tuple[Float64, Float64]:
        """Give the momentary and the short-term loudness in LUFS, each (N,), every 100 ms.

        Value n is that of the 400 ms, or 3 s, up to (n + 1) / 10 s; NaN before there are as
        many, -inf for silence. N = floor(10 * seconds).

        Reference: EBU Tech 3341, section 2.2.
        """
        kept = self._at_end()._kept
        assert kept is not None, "the meter was not told to keep them"
        hops = np.concatenate([np.zeros(0), *kept])
        found = []
        for width in (_MOMENTARY_HOPS, _SHORT_TERM_HOPS):
            means = np.full(len(hops), np.nan)
            means[width - 1 :] = _sliding_mean(hops, width)
            with np.errstate(divide="ignore"):
                found.append(_lufs(means))
        return found[0], found[1]

    @property
    def seconds(self) -> float:
        """Length taken in so far."""
        return self._at_end()._samples / self.sample_rate

    def _at_end(self) -> LoudnessMeter:
        """Measure the unfinished second on a copy, so that the stream can go on."""
        if self._closed is None:
            self._closed = copy.deepcopy(self)
            self._closed._measure(self._reframer.rest, last=True)
            self._closed._closed = self._closed
        return self._closed

    def _measure(self, piece: Float32, *, last: bool = False) -> None:
        wide = piece.astype(np.float64)
        self._samples += piece.shape[1]
        squares = wide * wide
        self._square_sum += float(squares.sum())
        self._sample_peak = max(self._sample_peak, float(np.abs(piece).max(initial=0.0)))
        self._measure_true_peak(piece, last)
        # 100 ms hops end at floor(j * rate / 10): a second is whole at 11.025 kHz as well.
        hops = piece.shape[1] * HOPS_PER_SECOND // self.sample_rate
        if hops == 0:
            return
        from scipy.signal import sosfilt  # it takes half a second to load

        edges = np.arange(hops + 1) * self.sample_rate // HOPS_PER_SECOND
        lengths = np.diff(edges)
        weighted, self._filter_state = sosfilt(self._sos, wide, axis=-1, zi=self._filter_state)
        sums = np.add.reduceat((weighted * weighted)[:, : edges[-1]], edges[:-1], axis=-1)
        raw_sums = np.add.reduceat(squares[:, : edges[-1]], edges[:-1], axis=-1)
        energies = self._weights @ sums / lengths
        self._windows.add(energies)
        if self._kept is not None:
            self._kept.append(energies)
        self._raw_hops = np.concatenate([self._raw_hops, raw_sums.mean(axis=0) / lengths])
        floors = _sliding_mean(self._raw_hops, _FLOOR_HOPS)
        self._quietest = min(self._quietest, float(floors.min(initial=math.inf)))
        self._raw_hops = self._raw_hops[1 - _FLOOR_HOPS :]

    def _measure_true_peak(self, piece: Float32, last: bool) -> None:
        parts = [self._recent, piece]
        if last:
            parts.append(np.zeros((self.channels, Oversampler.reach), np.float32))
        signal = np.concatenate(parts, axis=1)
        known = max(self._true_peak, self._sample_peak)
        between = self._oversampler.between(signal, known)
        self._true_peak = max(known, float(between.max(initial=0.0)))
        self._recent = signal[:, signal.shape[1] - (Oversampler.history) :].copy()


class HopWindows:
    """Count a programme's 400 ms and 3 s windows, from the weighted energies of its 100 ms hops."""

    def __init__(self) -> None:
        self._momentary = _EnergyHistogram()
        self._short_term = _EnergyHistogram()
        self._hops = np.zeros(0)

    def add(self, energies: Float64) -> None:
        """Take the next hops' energies `(N,)`: mean squares, summed over the channels."""
        fresh = len(energies)
        if fresh == 0:
            return
        self._hops = np.concatenate([self._hops, energies])
        self._momentary.add(_sliding_mean(self._hops, _MOMENTARY_HOPS)[-fresh:])
        self._short_term.add(_sliding_mean(self._hops, _SHORT_TERM_HOPS)[-fresh:])
        self._hops = self._hops[1 - _SHORT_TERM_HOPS :]

    def integrated_lufs(self) -> float:
        """Give the gated loudness in LUFS; -inf without a window above the absolute gate."""
        return self._momentary.gated_lufs(_RELATIVE_GATE_LU)

    def loudness_range(self) -> float:
        """Give the 10th to the 95th percentile of the short-term loudness in LU."""
        low, high = self._short_term.percentiles_lufs(_RANGE_GATE_LU, (0.10, 0.95))
        return high - low


class _EnergyHistogram:
    """Counts and exact energy sums of windows from -70 to +30 LUFS, in bins of 0.01 LU."""

    _BINS_PER_LU = 100
    _BINS = 10_000

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS, np.int64)
        self._energies = np.zeros(self._BINS)
        steps = (np.arange(self._BINS) + 0.5) / self._BINS_PER_LU
        self._lufs = _ABSOLUTE_GATE_LUFS + steps

    def add(self, energies: Float64) -> None:
        """Count windows by their energy; those under the absolute gate are dropped."""
        energies = energies[energies > _energy(_ABSOLUTE_GATE_LUFS)]
        above_gate = _lufs(energies) - _ABSOLUTE_GATE_LUFS
        bins = (above_gate * self._BINS_PER_LU).astype(np.int64).clip(0, self._BINS - 1)
        np.add.at(self._counts, bins, 1)
        np.add.at(self._energies, bins, energies)

    def gated_lufs(self, gate_lu: float) -> float:
        """Average the windows that lie above a gate relative to the average of all."""
        counts, energies = self._above(gate_lu)
        return float(_lufs(energies.sum() / counts.sum())) if counts.any() else -math.inf

    def percentiles_lufs(self, gate_lu: float, shares: tuple[float, float]) -> tuple[float, float]:
        """Give the loudness below which each share of the gated windows lies, by nearest rank."""
        counts, _ = self._above(gate_lu)
        if not counts.any():
            return 0.0, 0.0
        ranks = np.cumsum(counts)
        low, high = (
            float(self._lufs[np.searchsorted(ranks, round((ranks[-1] - 1) * share) + 1)])
            for share in shares
        )
        return low, high

    def _above(self, gate_lu: float) -> tuple[NDArray[np.int64], Float64]:
        if not self._counts.any():
            return self._counts, self._energies
        gate = _lufs(self._energies.sum() / self._counts.sum()) + gate_lu
        passed = self._lufs > gate
        return self._counts * passed, self._energies * passed


def k_weighting(sample_rate: int) -> Float64:
    """Give the two second-order sections `(2, 6)` of BS.1770-5 Annex 1, Tables 1 and 2.

    The parameters are those of pyloudnorm's filter class "DeMan", which at 48 kHz reproduces
    the tables; its default class reads 0.04 LU low.
    """
    from pyloudnorm.iirfilter import IIRfilter  # with scipy, which takes half a second to load

    shelf = IIRfilter(
        3.99984385397, 0.7071752369554193, 1681.9744509555319, sample_rate, "high_shelf_DeMan"
    )
    high_pass = IIRfilter(
        0.0, 0.5003270373253953, 38.13547087613982, sample_rate, "high_pass_DeMan"
    )
    return np.array([[*section.b, *section.a] for section in (shelf, high_pass)])


def channel_weights(channels: int) -> Float64:
    """Give the weight of each channel of a WAVE or FLAC file by its number of channels.

    Surrounds between 60 and 120 degrees count 1.41, the LFE nothing, all others 1: so the rear
    pair of 7.1 and the back centre of 6.1 count 1. Channels past the eighth count 1.

    Reference: ITU-R BS.1770-5 Annex 1, Table 4, and Annex 3.
    """
    front, side, lfe = 1.0, 1.41, 0.0
    layouts = {
        4: [front, front, side, side],
        5: [front, front, front, side, side],
        6: [front, front, front, lfe, side, side],
        7: [front, front, front, lfe, front, side, side],
        8: [front, front, front, lfe, front, front, side, side],
    }
    known = layouts.get(min(channels, 8), [front] * channels)
    return np.array(known + [front] * (channels - len(known)))


def speaker_weights(speakers: Sequence[str]) -> Float64:
    """Give the weight of each channel by the speaker it feeds.

    Those between 60 and 120 degrees to the side count 1.41: the sides, the wide ones, and the back
    ones where there are none at the sides. The LFE counts nothing.

    Args:
        speakers: FFmpeg's names: FL, FR, FC, LFE, BL, SL ...

    Reference: ITU-R BS.1770-5 Annex 1, Table 4, and Annex 3.
    """
    beside = {"SL", "SR", "WL", "WR", "SDL", "SDR"}
    if not {"SL", "SR"} & set(speakers):
        beside |= {"BL", "BR"}
    known = {"LFE": 0.0, "LFE2": 0.0} | dict.fromkeys(beside, 1.41)
    return np.array([known.get(name, 1.0) for name in speakers])


def _sliding_mean(values: Float64, width: int) -> Float64:
    if len(values) < width:
        return np.zeros(0)
    return np.asarray(sliding_window_view(values, width).mean(axis=-1))


def _lufs(energy: Float64 | np.float64) -> Float64:
    """BS.1770-5 Annex 1, equation 2: -0.691 dB cancels the K-weighting at 997 Hz."""
    return np.asarray(-0.691 + 10.0 * np.log10(energy))


def _energy(lufs: float) -> float:
    return float(10.0 ** ((lufs + 0.691) / 10.0))
