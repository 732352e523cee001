"""Band limits drawn on the fly: what the upsampler hears, and what it is to make of it.

One example is made at a time, in NumPy, with one transform there and one back. All of a batch
follows from one random generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor

from speakup.networks.source_filter import target
from speakup.training.voices import SAMPLE_RATE, STEP, VARIANTS, Clip, Signal, Voices

_SPEECH_LEVEL_DB = -25.0
_AUDIBLE_RMS = 0.008
_CUTOFFS_HZ = (800.0, 17_000.0)
_VARIANT_CUTOFFS_HZ = {
    "telephone": (3_400.0, 3_850.0),
    "coded": (7_000.0, 7_800.0),
    "restored": (7_800.0, 7_950.0),
}
_STOP_DB = 50.0
_LATEST = 1.09
_MOST_OF_TOP, _ANY_CUTOFF_HZ, _TRIES = 0.8, 11_000.0, 8
_FOOT_DB, _FURTHEST = 30.0, 1.5


@dataclass(frozen=True)
class UpsampleRecipe:
    """Which band limits the upsampler trains on; frequencies in Hz, probabilities in [0, 1].

    Attributes:
        bands_hz: Cutoffs as they are met, each a range and how often it is drawn; for the rest
            they lie evenly over the logarithm of `cutoff_hz`.
        cutoff_hz: All that is met.
        cutoff_error: Standard deviation of the cutoff that the network is told, as a share.
        late: How often it is told half a sample rate, up to 9 % above what its filter leaves.
        telephone: Voices through a telephone's coder (GSM, A-law, mu-law, Opus).
        coded: Voices through a wide-band coder at a low rate.
        restored: Voices that were noisy and that the model `denoiser` has cleaned.
        wall: Edges as steep as a wall; `gentle` ones fall as a filter of order 4 to 16 does; the
            others are a raised cosine up to 16 % of the cutoff wide, to the power 1 to 3.
        hollow: Narrow bands without what lies under 200 to 320 Hz.
        hiss: Recordings with a noise of their own in their band, 25 to 50 dB under the voice.
        speed: Voices played faster or slower, which makes other speakers of them.
        coloured: Voices through another microphone.
        level_spread_db: Of the voice around -25 dB RMS, to either side.
    """

    bands_hz: tuple[tuple[float, float, float], ...] = (
        (970.0, 1_600.0, 0.08),
        (1_900.0, 3_100.0, 0.14),
        (3_300.0, 4_050.0, 0.23),
        (6_800.0, 8_050.0, 0.25),
        (10_600.0, 12_100.0, 0.08),
        (13_500.0, 16_100.0, 0.04),
    )
    cutoff_hz: tuple[float, float] = (900.0, 16_000.0)
    cutoff_error: float = 0.02
    late: float = 0.3
    telephone: float = 0.14
    coded: float = 0.05
    restored: float = 0.0
    denoiser: str = ""
    wall: float = 0.25
    gentle: float = 0.2
    hollow: float = 0.35
    hiss: float = 0.12
    speed: float = 0.45
    speeds: tuple[float, float] = (0.86, 1.2)
    coloured: float = 0.35
    level_spread_db: float = 8.0


class UpsampleSimulator:
    """Make pairs of a voice and what a narrow band leaves of it.

    Args:
        voices: Full-band recordings.
        recipe: How often what happens.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, voices: Voices, recipe: UpsampleRecipe) -> None:
        self.voices, self.recipe = voices, recipe

    def draw(
        self, batch: int, samples: int, seed: int, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a batch.

        Returns:
            What is heard (B, T), what it was (B, T), up to where the one holds what the other does
            (B,), and up to where what it was is known (B,), both in Hz: it ends there, and so is
            to end what is made up.
        """
        random = np.random.default_rng(seed)
        examples = [self.example(samples, random) for _ in range(batch)]
        limited, full, cutoff_hz, top_hz = zip(*examples, strict=True)
        tops = torch.tensor(top_hz, device=device)
        cutoffs = torch.tensor(cutoff_hz, device=device)
        heard, whole = target(
            torch.from_numpy(np.stack(limited)).to(device),
            torch.from_numpy(np.stack(full)).to(device),
            cutoffs,
            tops,
        )
        return heard, whole, cutoffs, tops

    def example(
        self, samples: int, random: np.random.Generator
    ) -> tuple[Signal, Signal, float, float]:
        """Draw one: limited (T,), full (T,), cutoff and top in Hz."""
        recipe = self.recipe
        variant = self._variant(random)
        speed = 1.0
        if variant is None and random.random() < recipe.speed:
            speed = random.uniform(*recipe.speeds)
        clip, start, full = self._stretch(int(samples * speed), variant, random)
        size = round(len(full) / speed)
        spectrum = resized(fft.rfft(full), len(full), size)
        heard = spectrum
        top_hz = min(clip.top_hz * speed, SAMPLE_RATE / 2)
        cutoff_hz = self._cutoff_hz(top_hz, random)
        if variant is not None:
            low = self.voices.variant(clip, variant, start, len(full))
            heard = resized(fft.rfft(low), len(low), size)
            narrowest = random.uniform(*_VARIANT_CUTOFFS_HZ[variant])
            cutoff_hz = min(cutoff_hz, narrowest) if random.random() < 0.5 else narrowest
        frequencies = np.arange(len(spectrum), dtype="f4") * np.float32(SAMPLE_RATE / size)
        if random.random() < recipe.coloured:
            colour = equaliser(frequencies, random)
            spectrum, heard = spectrum * colour, heard * colour
        gain, told_hz = self._edge(frequencies, cutoff_hz, random)
        voice = _fitted(fft.irfft(spectrum, size), samples)
        limited = _fitted(fft.irfft(heard * gain, size), samples)
        level = float(np.sqrt(np.mean(np.square(voice)))) + 1e-5
        if random.random() < recipe.hiss:
            limited = limited + hiss(samples, cutoff_hz, random) * np.float32(
                level * 10.0 ** (-random.uniform(25.0, 50.0) / 20.0)
            )
        spread = recipe.level_spread_db
        wanted = 10.0 ** ((_SPEECH_LEVEL_DB + random.uniform(-spread, spread)) / 20.0)
        factor = np.float32(min(wanted / level, 0.98 / max(float(np.abs(voice).max()), 1e-3)))
        if random.random() < recipe.late:
            told_hz *= random.uniform(1.0, _LATEST)
        told_hz *= 1.0 + recipe.cutoff_error * random.standard_normal()
        return limited * factor, voice * factor, float(np.clip(told_hz, *_CUTOFFS_HZ)), top_hz

    def _variant(self, random: np.random.Generator) -> str | None:
        share = random.random()
        for name in VARIANTS:
            share -= float(getattr(self.recipe, name))
            if share < 0.0:
                return name
        return None

    def _stretch(
        self, samples: int, variant: str | None, random: np.random.Generator
    ) -> tuple[Clip, int, Signal]:
        """Draw a stretch in which somebody speaks: the clip, where it begins, and it, (T',)."""
        for _ in range(6):
            clip = self.voices.draw(random)
            while variant is not None and variant not in clip.variants:
                clip = self.voices.draw(random)
            length = min(-(-samples // STEP), clip.samples // STEP)
            start = int(random.integers(clip.samples // STEP - length + 1)) * STEP
            full = self.voices.full(clip, start, length * STEP)
            if float(np.sqrt(np.mean(np.square(full)))) > _AUDIBLE_RMS:
                break
        return clip, start, full

    def _cutoff_hz(self, top_hz: float, random: np.random.Generator) -> float:
        """Draw a cutoff, under the recording's own top wherever that is low."""
        highest = _MOST_OF_TOP * top_hz
        drawn = self._any_cutoff_hz(random)
        for _ in range(_TRIES):
            if drawn <= highest or highest > _ANY_CUTOFF_HZ:
                return drawn
            drawn = self._any_cutoff_hz(random)
        return random.uniform(0.3, 1.0) * highest

    def _any_cutoff_hz(self, random: np.random.Generator) -> float:
        share = random.random()
        for low, high, often in self.recipe.bands_hz:
            share -= often
            if share < 0.0:
                return float(random.uniform(low, high))
        low, high = self.recipe.cutoff_hz
        return math.exp(random.uniform(math.log(low), math.log(high)))

    def _edge(
        self, frequencies: Signal, cutoff_hz: float, random: np.random.Generator
    ) -> tuple[Signal, float]:
        """Give a band limit's gain at each frequency, and the cutoff that a meter would find."""
        recipe, kind = self.recipe, random.random()
        if kind < recipe.wall:
            gain, told_hz = (frequencies < cutoff_hz).astype("f4"), cutoff_hz
        elif kind < recipe.wall + recipe.gentle:
            order = int(random.choice([4, 6, 8, 10, 16]))
            gain = 1.0 / np.sqrt(
                1.0 + (frequencies / np.float32(cutoff_hz)).clip(max=8.0) ** (2 * order)
            )
            gain = np.where(gain < 10.0 ** (-_STOP_DB / 20.0), 0.0, gain)
            furthest = min(10.0 ** (_FOOT_DB / (20.0 * order)), _FURTHEST)
            told_hz = cutoff_hz * random.uniform(0.95, furthest)
        else:
            width = math.exp(random.uniform(math.log(0.004), math.log(0.16)))
            depth = ((cutoff_hz - frequencies) / (cutoff_hz * width)).clip(0.0, 1.0)
            gain = (0.5 - 0.5 * np.cos(math.pi * depth)) ** float(random.choice([1, 1, 2, 3]))
            told_hz = cutoff_hz * (1.0 - 0.25 * width)
        if cutoff_hz < 4_200.0 and random.random() < recipe.hollow:
            edge, order = random.uniform(200.0, 320.0), int(random.choice([2, 4, 8]))
            gain = gain / np.sqrt(1.0 + (edge / frequencies.clip(40.0)) ** (2 * order))
        return gain.astype("f4"), told_hz


def resized(spectrum: NDArray[np.complex64], before: int, after: int) -> NDArray[np.complex64]:
    """Give the spectrum of a signal of `after` samples like that of `before`.

    It is the same stretch at another rate, or the same samples played at another speed.
    """
    bins = min(len(spectrum), after // 2 + 1)
    result = np.zeros(after // 2 + 1, np.complex64)
    result[:bins] = spectrum[:bins] * np.float32(after / before)
    return result


def equaliser(frequencies: Signal, random: np.random.Generator) -> Signal:
    """Draw a smooth response within about 10 dB of one."""
    octaves = np.log2(frequencies.clip(20.0) / 1_000.0)
    gain_db = random.uniform(-1.5, 1.5) * octaves
    for _ in range(3):
        middle, width = random.uniform(-3.5, 4.2), random.uniform(0.3, 1.5)
        bump = np.exp(-np.square(octaves - middle) / (2.0 * width**2))
        gain_db = gain_db + random.uniform(-8.0, 8.0) * bump
    return np.asarray(10.0 ** (gain_db / 20.0), np.float32)


def hiss(samples: int, cutoff_hz: float, random: np.random.Generator) -> Signal:
    """Draw steady coloured noise up to a cutoff, (T,), of RMS one."""
    size = fft.next_fast_len(samples, real=True)
    spectrum = fft.rfft(random.standard_normal(size).astype("f4"))
    frequencies = np.arange(len(spectrum)) * (SAMPLE_RATE / size)
    slope = (frequencies.clip(60.0) / 1_000.0) ** random.uniform(-0.8, 0.2)
    noise = fft.irfft(spectrum * slope * (frequencies < 0.98 * cutoff_hz), size)[:samples]
    return np.asarray(noise / max(float(np.sqrt(np.mean(np.square(noise)))), 1e-9), np.float32)


def _fitted(signal: Signal, samples: int) -> Signal:
    return np.pad(signal, (0, max(0, samples - len(signal))))[:samples].astype("f4")
