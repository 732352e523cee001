"""How a synthesised top is put on a recording: the recording's own band stays what it was."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from speakup.config import WORKING_RATE
from speakup.networks import spectra

GRID = 441
"""Samples, at a multiple of which a chunk must begin."""

_TRANSITION_HZ = 150.0
_CEILING_WIDTH_HZ = 300.0
_BELOW_HZ = (2_000.0, 200.0)
_SMOOTH_FRAMES = 10
_FLOOR = 1e-10
_MOST_GAIN = 2.0

REACH = 2 * spectra.highpass_reach(_TRANSITION_HZ, WORKING_RATE) + (_SMOOTH_FRAMES + 2) * GRID
"""Samples on either side of a sample that the result depends on."""


def keep_own_band(own: Tensor, estimate: Tensor, cutoff_hz: float) -> Tensor:
    """Take a recording up to its cutoff and an estimate of it from 150 Hz above.

    Under the cutoff, what comes of the estimate is 70 dB down; there is no delay. The estimate
    is brought to the recording's level where they meet.

    Args:
        own: (B, T) at 44.1 kHz, speech at about `speakup.networks.contract.SPEECH_LEVEL_DB`.
        estimate: (B, T), the same with a top, perhaps with a low band of its own making.
        cutoff_hz: Where the recording's own content ends.

    Returns:
        (B, T).
    """
    levelled = estimate * _seam_gain(own, estimate, cutoff_hz)
    # The two filters, one for each, add up to one: a single filter of the difference does both.
    return own + spectra.highpass(levelled - own, cutoff_hz, _TRANSITION_HZ, WORKING_RATE)


def end_at(own: Tensor, extended: Tensor, ceiling_hz: float) -> Tensor:
    """Take out what was added to a recording above a ceiling, 70 dB down from 300 Hz over it.

    Args:
        own: (B, T) at 44.1 kHz, the recording.
        extended: (B, T), the same with a synthesised top.
        ceiling_hz: Where the top is to end.

    Returns:
        (B, T). A sample depends on at most `REACH` samples on either side.
    """
    added = extended - own
    return extended - spectra.highpass(added, ceiling_hz, _CEILING_WIDTH_HZ, WORKING_RATE)


def _seam_gain(own: Tensor, estimate: Tensor, cutoff_hz: float) -> Tensor:
    """Give the gain, (B, T), with which an estimate is as loud as the recording at the cutoff.

    Compared over 2 kHz and 0.2 s; at most 6 dB either way, so that noise in the recording or a
    network far off do not carry the top away.
    """
    low_hz, high_hz = max(cutoff_hz - _BELOW_HZ[0], cutoff_hz / 2.0), cutoff_hz - _BELOW_HZ[1]
    both = torch.cat([own, estimate])
    band = spectra.highpass(both, low_hz, _TRANSITION_HZ, WORKING_RATE)
    band = band - spectra.highpass(both, high_hz, _TRANSITION_HZ, WORKING_RATE)
    samples = own.shape[1]
    padded = functional.pad(band.square(), (0, -samples % GRID))
    frames = functional.avg_pool1d(padded[:, None], GRID)
    window = torch.hann_window(2 * _SMOOTH_FRAMES + 1, False, device=own.device)
    window = window / window.sum()
    before, after = functional.conv1d(frames, window[None, None], padding=_SMOOTH_FRAMES).chunk(2)
    # What is faint in both is left as it is.
    gain = ((before + _FLOOR) / (after + _FLOOR)).sqrt().clamp(1.0 / _MOST_GAIN, _MOST_GAIN)
    # Frame k's middle is sample (k + 1/2) * GRID.
    gain = functional.interpolate(gain, scale_factor=float(GRID), mode="linear")
    return gain[:, 0, :samples]
