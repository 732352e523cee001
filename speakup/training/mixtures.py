"""Mixtures for the denoiser, drawn on the fly: what a microphone hears, and what was meant.

One example is made at a time, in NumPy, from 16-bit recordings in memory: voices joined with
pauses, a room, noises, damage, a level. All of a batch follows from one random generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft
from torch import Tensor

from speakup.training.data import Corpus
from speakup.training.sounds import (
    DIRECT_SECONDS,
    LEAD,
    Signal,
    active_rms,
    coded,
    diffuse_room,
    emptied,
    equaliser,
    filled,
    gain,
    played,
    rms,
    small_device,
    synthetic_noise,
    telephone_band,
)

_SPEECH_LEVEL_DB = -25.0
_FADE_SECONDS = 0.008


@dataclass(frozen=True)
class MixtureRecipe:
    """How often what happens, probabilities in [0, 1]; levels and ratios in dB.

    Attributes:
        joined: Voices cut together from several recordings, with pauses between them.
        long_pause: Of the pauses, how many last `long_pause_seconds` instead of up to 0.5 s.
        second_voice: A second voice talks at once, and is to be kept as well.
        speed: Voices played faster or slower by up to an eighth, which makes other speakers.
        narrow: Voices limited to 3.4 to 7 kHz, to be kept so.
        coloured: Voices through another microphone, whose colour is kept.
        music: Music under the voice, or (`music_alone` of these) in its place, to be kept.
        room: Voices in rooms; `measured_room` of these with a measured response.
        direct_ratio_db: Direct sound over reverberation.
        noise: Mixtures with noise; `second_noise` of these with two, `synthetic` of the noises
            made of formulas, `babble` of them of voices.
        snr_db: Active speech over noise; `quiet` of the mixtures have `quiet_snr_db` instead.
        clipping: Overdriven, `saturated` of these softly; the target is not.
        codec: Coded at a low rate; the target has the coder's band.
        loss: Stretches lost as in a bad connection; the target is whole.
        device: Through a small loudspeaker's or telephone's response; the target as well.
        noise_alone: Nothing but noise; the target is silence.
        level_spread_db: Of the mixture around -25 dB RMS, to either side.
    """

    joined: float = 0.6
    long_pause: float = 0.2
    long_pause_seconds: tuple[float, float] = (0.5, 1.5)
    second_voice: float = 0.03
    speed: float = 0.3
    narrow: float = 0.12
    coloured: float = 0.2
    music: float = 0.02
    music_alone: float = 0.3
    music_below_db: tuple[float, float] = (3.0, 20.0)
    room: float = 0.3
    measured_room: float = 0.33
    direct_ratio_db: tuple[float, float] = (-3.0, 14.0)
    noise: float = 0.96
    second_noise: float = 0.3
    synthetic: float = 0.2
    babble: float = 0.04
    snr_db: tuple[float, float] = (-5.0, 20.0)
    quiet: float = 0.12
    quiet_snr_db: tuple[float, float] = (20.0, 45.0)
    clipping: float = 0.04
    saturated: float = 0.3
    codec: float = 0.0
    loss: float = 0.0
    device: float = 0.0
    noise_alone: float = 0.03
    level_spread_db: float = 6.0


class Material:
    """Recordings grouped by source; a source is drawn by its weight, then one of its recordings.

    Args:
        sources: Of each source its recordings, int16.
        weights: Of each source.
        sample_rate: Hz.
        by_length: Whether a long recording is drawn more often than a short one.
    """

    def __init__(
        self,
        sources: list[list[np.ndarray]],
        weights: list[float],
        sample_rate: int,
        *,
        by_length: bool = True,
    ) -> None:
        self.sources, self.sample_rate = sources, sample_rate
        self._source_ends = np.cumsum(np.asarray(weights)) / (sum(weights) or 1.0)
        self._item_ends = []
        for items in sources:
            sizes = np.array([float(len(item)) if by_length else 1.0 for item in items])
            self._item_ends.append(np.cumsum(sizes / sizes.sum()))

    @classmethod
    def of(cls, corpus: Corpus, *, balance: float = 0.0, by_length: bool = True) -> Material:
        """Take what a corpus holds, sources weighed by their length to the power `balance`."""
        lengths = [float(sum(map(len, items))) for items in corpus.sources]
        weights = [
            weight * length**balance for weight, length in zip(corpus.weights, lengths, strict=True)
        ]
        return cls(corpus.sources, weights, corpus.sample_rate, by_length=by_length)

    def __bool__(self) -> bool:
        return bool(self.sources)

    def item(self, random: np.random.Generator) -> np.ndarray:
        """Draw a recording, int16."""
        source = _place(self._source_ends, random)
        return self.sources[source][_place(self._item_ends[source], random)]

    def segment(self, samples: int, random: np.random.Generator) -> Signal:
        """Draw a stretch of a recording, float32; of a short one all there is, (T' <= T,)."""
        item = self.item(random)
        start = int(random.integers(max(1, len(item) - samples + 1)))
        return item[start : start + samples].astype(np.float32) * np.float32(1 / 32768)


class MixtureSimulator:
    """Make (degraded, clean) pairs for the denoiser.

    Args:
        speech: Clean and dry voices: a floor in a target is a floor in the result.
        noise: What is to go.
        rooms: Measured responses.
        music: What is to be kept under voices; may be empty.
        recipe: How often what happens.
    """

    def __init__(
        self,
        speech: Material,
        noise: Material,
        rooms: Material,
        music: Material,
        recipe: MixtureRecipe,
    ) -> None:
        self.speech, self.noise, self.rooms, self.music = speech, noise, rooms, music
        self.recipe, self.rate = recipe, speech.sample_rate

    def draw(
        self, batch: int, samples: int, seed: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Draw a batch: degraded (B, T) and clean (B, T)."""
        random = np.random.default_rng(seed)
        pairs = [self.example(samples, random) for _ in range(batch)]
        degraded, clean = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return degraded.to(device), clean.to(device)

    def example(self, samples: int, random: np.random.Generator) -> tuple[Signal, Signal]:
        """Draw one pair: degraded (T,) and clean (T,)."""
        recipe = self.recipe
        if random.random() < recipe.noise_alone:
            return self._levelled(self._noises(samples, random), np.zeros(samples, "f4"), random)
        voice = self._voice(samples, random)
        if random.random() < recipe.second_voice:
            other = self._voice(samples, random)
            voice = voice + other * gain(random.uniform(-8.0, 3.0))
        if self.music and random.random() < recipe.music:
            voice = self._scored(voice, random)
        wet, clean = self._heard(voice, random)
        mixture = wet
        if random.random() < recipe.noise:
            noise = self._noises(samples, random)
            quiet = random.random() < recipe.quiet
            snr = random.uniform(*(recipe.quiet_snr_db if quiet else recipe.snr_db))
            level = active_rms(clean, self.rate) / max(active_rms(noise, self.rate), 1e-5)
            mixture = wet + noise * np.float32(level * gain(-snr))
        return self._levelled(*self._damaged(mixture, clean, random), random)

    def _levelled(
        self, mixture: Signal, clean: Signal, random: np.random.Generator
    ) -> tuple[Signal, Signal]:
        spread = self.recipe.level_spread_db
        wanted = gain(_SPEECH_LEVEL_DB + random.uniform(-spread, spread))
        factor = np.float32(wanted / max(rms(mixture), 1e-5))
        return mixture * factor, clean * factor

    # Voices

    def _voice(self, samples: int, random: np.random.Generator) -> Signal:
        """Draw voices with pauses, (T,), each at a level of its own near -25 dB."""
        if random.random() >= self.recipe.joined:
            return self._phrase(samples, random, whole=True)
        voice, place = np.zeros(samples, "f4"), int(random.uniform(0.0, 0.3) * self.rate)
        while place < samples:
            phrase = self._phrase(int(random.uniform(0.6, 3.0) * self.rate), random)
            end = min(samples, place + len(phrase))
            voice[place:end] = phrase[: end - place]
            long = random.random() < self.recipe.long_pause
            pause = random.uniform(*(self.recipe.long_pause_seconds if long else (0.0, 0.5)))
            place = end + int(pause * self.rate)
        return voice

    def _phrase(self, samples: int, random: np.random.Generator, *, whole: bool = False) -> Signal:
        """Draw a stretch of one recording with faded ends; `whole` fills all the samples."""
        wanted = samples
        if random.random() < self.recipe.speed:
            wanted = int(samples * random.uniform(0.88, 1.14))
        for _ in range(4):
            phrase = self.speech.segment(wanted, random)
            if (level := active_rms(phrase, self.rate)) > 0.01:
                break
        if wanted != samples:
            phrase = played(phrase, max(16, int(len(phrase) * samples / wanted)))
        phrase = emptied(phrase, level, self.rate)
        fade = min(int(_FADE_SECONDS * self.rate), len(phrase) // 2)
        ramp = np.linspace(0.0, 1.0, fade, dtype="f4")
        phrase = phrase * np.float32(gain(random.uniform(-28.0, -22.0)) / max(level, 1e-3))
        phrase[:fade] *= ramp
        phrase[len(phrase) - fade :] *= ramp[::-1]
        if whole and len(phrase) < samples:
            phrase = np.resize(np.pad(phrase, (0, int(0.2 * self.rate))), samples)
        return phrase

    def _scored(self, voice: Signal, random: np.random.Generator) -> Signal:
        """Put music under a voice or in its place: what an editor has mixed is no noise."""
        music = filled(self.music.segment(len(voice), random), len(voice), random)
        music = music * np.float32(rms(voice) / max(rms(music), 1e-4))
        if random.random() < self.recipe.music_alone:
            return music
        return voice + music * gain(-random.uniform(*self.recipe.music_below_db))

    def _heard(self, voice: Signal, random: np.random.Generator) -> tuple[Signal, Signal]:
        """Give a voice as it is in its room, and as it would be without, of the same colour."""
        recipe = self.recipe
        narrow = random.random() < recipe.narrow
        colour = random.random() < recipe.coloured
        device = random.random() < recipe.device
        room = random.random() < recipe.room
        if not (narrow or colour or device or room):
            return voice, voice
        response = self._room(random) if room else None
        size = fft.next_fast_len(len(voice) + (0 if response is None else len(response)), True)
        spectrum = fft.rfft(voice, size)
        frequencies = np.linspace(0.0, self.rate / 2, len(spectrum), dtype="f4")
        if narrow:
            spectrum *= telephone_band(frequencies, random)
        if colour:
            spectrum *= equaliser(frequencies, random)
        if device:
            spectrum *= small_device(frequencies, random)
        if response is None:
            wet = dry = fft.irfft(spectrum, size)[: len(voice)]
        else:
            direct = response[: int(DIRECT_SECONDS * self.rate) + LEAD]
            wet = fft.irfft(spectrum * fft.rfft(response, size), size)[: len(voice)]
            dry = fft.irfft(spectrum * fft.rfft(direct, size), size)[: len(voice)]
        level = np.float32(rms(voice) / max(rms(dry), 1e-6))
        return wet * level, dry * level

    def _room(self, random: np.random.Generator) -> Signal:
        """Draw a response whose direct sound lies in the first samples, at unit energy."""
        ratio_db = random.uniform(*self.recipe.direct_ratio_db)
        if self.rooms and random.random() < self.recipe.measured_room:
            measured = self.rooms.item(random).astype("f4")
            start = max(0, int(np.abs(measured).argmax()) - LEAD)
            response = measured[start : start + int(1.1 * self.rate)].copy()
            known = len(response)
        else:
            response, known = diffuse_room(self.rate, random), 0
        edge = int(DIRECT_SECONDS * self.rate) + LEAD
        response /= max(float(np.linalg.norm(response[:edge])), 1e-6)
        late = float(np.linalg.norm(response[edge:]))
        if late > 0.0:
            factor = gain(-ratio_db) / late
            response[edge:] *= np.float32(np.clip(factor, 0.3, 1.6) if known else factor)
        return response

    # Noises

    def _noises(self, samples: int, random: np.random.Generator) -> Signal:
        noise = self._noise(samples, random)
        if random.random() < self.recipe.second_noise:
            noise = noise + self._noise(samples, random) * gain(random.uniform(-15.0, 0.0))
        return noise

    def _noise(self, samples: int, random: np.random.Generator) -> Signal:
        """Draw a noise, (T,), at unit level where it sounds."""
        kind = random.random()
        if kind < self.recipe.synthetic or not self.noise:
            noise = synthetic_noise(samples, self.rate, random)
        elif kind < self.recipe.synthetic + self.recipe.babble:
            noise = self._babble(samples, random)
        else:
            speed = random.uniform(0.7, 1.4) if random.random() < 0.5 else 1.0
            piece = self.noise.segment(int(samples * speed), random)
            if speed != 1.0:
                piece = played(piece, max(16, int(len(piece) / speed)))
            noise = filled(piece, samples, random)
        if random.random() < 0.25:
            size = fft.next_fast_len(samples, True)
            spectrum = fft.rfft(noise, size)
            frequencies = np.linspace(0.0, self.rate / 2, len(spectrum), dtype="f4")
            noise = fft.irfft(spectrum * equaliser(frequencies, random), size)[:samples]
        return noise / np.float32(max(active_rms(noise, self.rate), 1e-5))

    def _babble(self, samples: int, random: np.random.Generator) -> Signal:
        """Mix four to eight voices in a large room."""
        babble = np.zeros(samples, "f4")
        for _ in range(int(random.integers(4, 9))):
            voice = self._phrase(samples, random, whole=True)
            babble += voice * gain(random.uniform(-6.0, 0.0))
        response = diffuse_room(self.rate, random)
        size = fft.next_fast_len(samples + len(response), True)
        return fft.irfft(fft.rfft(babble, size) * fft.rfft(response, size), size)[:samples]

    # Damage

    def _damaged(
        self, mixture: Signal, clean: Signal, random: np.random.Generator
    ) -> tuple[Signal, Signal]:
        recipe = self.recipe
        if random.random() < recipe.clipping:
            ceiling = np.float32(random.uniform(0.15, 0.8) * max(np.abs(mixture).max(), 1e-4))
            if random.random() < recipe.saturated:
                mixture = ceiling * np.tanh(mixture / ceiling)
            else:
                mixture = np.clip(mixture, -ceiling, ceiling)
        if random.random() < recipe.codec:
            mixture, clean = coded(mixture, clean, self.rate, random)
        if random.random() < recipe.loss:
            mixture = mixture.copy()
            unit = int(random.choice([0.01, 0.02, 0.03]) * self.rate)
            for start in np.flatnonzero(
                random.random(len(mixture) // unit) < random.uniform(0.01, 0.08)
            ):
                mixture[start * unit : (start + 1 + int(random.integers(2))) * unit] = 0.0
        return mixture, clean


def _place(ends: np.ndarray, random: np.random.Generator) -> int:
    return min(int(np.searchsorted(ends, random.random(), "right")), len(ends) - 1)
