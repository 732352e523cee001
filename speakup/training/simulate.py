"""Degradations drawn on the fly: what happens to a clean voice before it reaches a listener.

Everything works on a batch (B, T) of clean speech at the network's rate, on the device it lies
on. The order is that of nature: room, noise, microphone, overload, level.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from speakup.networks import spectra
from speakup.networks.contract import SPEECH_LEVEL_DB
from speakup.training.data import Corpus
from speakup.training.rooms import simulate_room, vary_room

_AUDIBLE_RMS = 0.01
"""Segments under this RMS (-40 dBFS) are pauses and are drawn again."""


@dataclass(frozen=True)
class DenoiseRecipe:
    """How often each degradation strikes, and how hard; probabilities in [0, 1], levels in dB.

    `narrow` voices are limited to 3.4 to 7.9 kHz before anything else and are to be kept so.
    `only_clipped` voices are overdriven by 2 to 18 dB and suffer nothing else.
    `music` is heard under some voices, and alone, and is to be kept like them. `speed` is how many
    voices are played up to an eighth faster or slower, which makes other speakers of them;
    `noise_variety` how many noises are played faster or slower, backwards or coloured.
    """

    untouched: float = 0.06
    narrow: float = 0.0
    reverb: float = 0.6
    measured_room: float = 0.5
    noise: float = 0.85
    second_noise: float = 0.3
    synthetic_noise: float = 0.2
    snr_db: tuple[float, float] = (-5.0, 25.0)
    equaliser: float = 0.5
    band_limit: float = 0.25
    clipping: float = 0.15
    only_clipped: float = 0.0
    codec: float = 0.0
    dropout: float = 0.0
    music: float = 0.0
    music_alone: float = 0.3
    music_below_db: tuple[float, float] = (3.0, 20.0)
    level_spread_db: float = 4.0
    pause: float = 0.15
    speed: float = 0.0
    noise_variety: float = 0.0


class DenoiseSimulator:
    """Make (degraded, clean) pairs for the denoiser from corpora of speech, noise, rooms, music.

    Without recordings of noise or of rooms, all of it is synthetic.
    """

    def __init__(
        self, speech: Corpus, noise: Corpus, rooms: Corpus, music: Corpus, recipe: DenoiseRecipe
    ) -> None:
        self.speech, self.noise, self.rooms, self.music = speech, noise, rooms, music
        self.recipe = recipe
        self.sample_rate = speech.sample_rate

    def draw(
        self, batch: int, samples: int, generator: torch.Generator, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Draw a batch: degraded (B, T) and clean (B, T), both at the level the network hears."""
        clean = torch.stack([self._speech(samples, generator) for _ in range(batch)]).to(device)
        recipe = self.recipe
        narrow = [chance(recipe.narrow, generator) for _ in range(batch)]
        if any(narrow):
            clean = self._narrowed(clean, narrow, generator)
        scored = [chance(recipe.music, generator) for _ in range(batch)]
        if any(scored):
            clean = self._scored(clean, scored, generator)
        driven_alone = [chance(recipe.only_clipped, generator) for _ in range(batch)]
        spared = zip(narrow, scored, driven_alone, strict=True)
        touched = [not (chance(recipe.untouched, generator) or any(why)) for why in spared]
        degraded = clean.clone()
        if any(driven_alone):
            clipped = self._overload(clean, generator, share=1.0)
            alone = torch.tensor(driven_alone, device=device)[:, None]
            degraded = torch.where(alone, clipped, degraded)
        if any(touched):
            driven, dry = self.degrade(clean, generator)
            keep = torch.tensor(touched, device=device)[:, None]
            degraded, clean = torch.where(keep, driven, degraded), torch.where(keep, dry, clean)
        spread = recipe.level_spread_db
        wanted = SPEECH_LEVEL_DB + spread * (2.0 * torch.rand(batch, 1, generator=generator) - 1.0)
        gain = (10.0 ** (wanted / 20.0)).to(device) / spectra.rms(degraded).clamp_min(1e-4)
        return degraded * gain, clean * gain

    def degrade(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Do to voices (B, T) all that a recording does; give them and what is to come back."""
        wet, dry = self._reverberate(clean, generator)
        noisy = wet + self._noise(wet, generator)
        shaped = self._microphone(noisy, generator)
        clipped = self._overload(shaped, generator, share=self.recipe.clipping)
        return self._transmit(clipped, generator), dry

    def _speech(self, samples: int, generator: torch.Generator) -> Tensor:
        wanted = samples
        if chance(self.recipe.speed, generator):
            wanted = int(samples * between(7 / 8, 8 / 7, generator))
        clean = self.speech.draw(wanted, generator)
        for _ in range(4):
            if float(spectra.rms(clean)) > _AUDIBLE_RMS:
                break
            clean = self.speech.draw(wanted, generator)
        if wanted != samples:
            clean = stretched(clean, samples)
        if chance(self.recipe.pause, generator):
            length = between(0.3, 1.0, generator) * self.sample_rate
            start = int(between(0.0, max(1.0, samples - length), generator))
            clean = clean.clone()
            clean[start : start + int(length)] = 0.0
        return clean

    def _narrowed(self, clean: Tensor, narrow: list[bool], generator: torch.Generator) -> Tensor:
        """Limit some voices to a telephone's band: all that there is of them, to be kept."""
        cutoff = torch.empty(len(clean)).uniform_(3_400.0, 7_900.0, generator=generator)
        width = torch.empty(len(clean)).uniform_(0.005, 0.06, generator=generator)
        limited = low_pass(clean, cutoff.to(clean), width.to(clean), self.sample_rate)
        return torch.where(torch.tensor(narrow, device=clean.device)[:, None], limited, clean)

    def _scored(self, clean: Tensor, scored: list[bool], generator: torch.Generator) -> Tensor:
        """Put music under some voices or in their place: what an editor has mixed is no noise."""
        rows = []
        for voice, music_too in zip(clean, scored, strict=True):
            if music_too and self.music.sources:
                music = self.music.draw(len(voice), generator).to(voice)
                below_db = between(*self.recipe.music_below_db, generator)
                music = music * (spectra.rms(voice) / spectra.rms(music).clamp_min(1e-4))
                if chance(self.recipe.music_alone, generator):
                    voice = music
                else:
                    voice = voice + music * 10.0 ** (-below_db / 20.0)
            rows.append(voice)
        return torch.stack(rows)

    def _reverberate(self, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Put speech into rooms; give it wet, and dry with the colour of its direct sound."""
        responses, directs = [], []
        for _ in range(len(clean)):
            response = direct = torch.ones(1)
            if chance(self.recipe.reverb, generator):
                if chance(self.recipe.measured_room, generator) and self.rooms.sources:
                    response = self.rooms.draw_whole(generator)
                else:
                    response = simulate_room(self.sample_rate, generator)
                response, direct = vary_room(response, self.sample_rate, generator)
            responses.append(response)
            directs.append(direct)
        wet, dry = convolve(clean, responses), convolve(clean, directs)
        level = spectra.rms(clean) / spectra.rms(dry).clamp_min(1e-6)
        return wet * level, dry * level

    def _noise(self, speech: Tensor, generator: torch.Generator) -> Tensor:
        samples = speech.shape[1]
        rows = []
        for _ in range(len(speech)):
            row = torch.zeros(samples)
            if chance(self.recipe.noise, generator):
                row = self._one_noise(samples, generator)
                if chance(self.recipe.second_noise, generator):
                    row = row + self._one_noise(samples, generator) * 10 ** between(
                        -1.0, 0.0, generator
                    )
            rows.append(row)
        noise = torch.stack(rows).to(speech)
        low, high = self.recipe.snr_db
        snr = low + (high - low) * torch.rand(len(speech), 1, generator=generator).to(speech)
        level = spectra.rms(noise)
        gain = spectra.rms(speech) / level.clamp_min(1e-6) * 10.0 ** (-snr / 20.0)
        return torch.where(level > 1e-6, noise * gain, torch.zeros_like(noise))

    def _one_noise(self, samples: int, generator: torch.Generator) -> Tensor:
        if chance(self.recipe.synthetic_noise, generator) or not self.noise.sources:
            noise = synthetic_noise(samples, self.sample_rate, generator)
        elif chance(self.recipe.noise_variety, generator):
            noise = self.noise.draw(int(samples * between(0.6, 1.6, generator)), generator)
            noise = noise.flip(0) if chance(0.3, generator) else noise
            noise = coloured(stretched(noise, samples), self.sample_rate, generator)
        else:
            noise = self.noise.draw(samples, generator)
        return noise / spectra.rms(noise).clamp_min(1e-4)

    def _microphone(self, signal: Tensor, generator: torch.Generator) -> Tensor:
        """Colour and band-limit in one multiplication per signal in the frequency domain."""
        padded = signal.shape[1] + 2048
        frequencies = torch.fft.rfftfreq(padded, 1.0 / self.sample_rate)
        curves = []
        for _ in range(len(signal)):
            gain_db = torch.zeros_like(frequencies)
            if chance(self.recipe.equaliser, generator):
                gain_db = gain_db + random_equaliser(frequencies, generator)
            if chance(self.recipe.band_limit, generator):
                high = min(between(3_400.0, 8_500.0, generator), 7_900.0)
                low = between(60.0, 300.0, generator)
                slope = between(24.0, 120.0, generator)
                gain_db = gain_db - slope * (frequencies / high).clamp_min(1e-3).log2().clamp(0, 9)
                gain_db = gain_db - slope * (low / frequencies.clamp_min(1.0)).log2().clamp(0, 9)
            curves.append(10.0 ** (gain_db.clamp_min(-100.0) / 20.0))
        spectrum = torch.fft.rfft(signal, padded) * torch.stack(curves).to(signal)
        coloured = torch.fft.irfft(spectrum, padded)[:, : signal.shape[1]]
        return _as_loud(coloured, signal)

    def _overload(self, signal: Tensor, generator: torch.Generator, *, share: float) -> Tensor:
        """Clip a share hard or saturate it, at a level some dB under each signal's peak."""
        ceilings, soft = [], []
        for _ in range(len(signal)):
            clip = chance(share, generator)
            ceilings.append(10.0 ** (-between(2.0, 18.0, generator) / 20.0) if clip else 1e3)
            soft.append(chance(0.3, generator))
        peak = signal.abs().amax(1, keepdim=True).clamp_min(1e-4)
        ceiling = peak * torch.tensor(ceilings)[:, None].to(signal)
        hard = signal.clamp(-ceiling, ceiling)
        curved = ceiling * torch.tanh(signal / ceiling)
        driven = torch.where(torch.tensor(soft)[:, None].to(signal.device), curved, hard)
        return _as_loud(driven, signal)

    def _transmit(self, signal: Tensor, generator: torch.Generator) -> Tensor:
        """Send some signals through a coder at a low rate, and lose short stretches of some."""
        rows = []
        for row in signal:
            if chance(self.recipe.codec, generator):
                row = coded(row, self.sample_rate, generator)
            if chance(self.recipe.dropout, generator):
                row = row.clone()
                for _ in range(1 + int(between(0.0, 4.0, generator))):
                    length = int(between(0.005, 0.06, generator) * self.sample_rate)
                    start = int(between(0.0, max(1.0, len(row) - length), generator))
                    row[start : start + length] = 0.0
            rows.append(row)
        return torch.stack(rows)


def low_pass(
    signal: Tensor,
    cutoff_hz: Tensor,
    width: Tensor,
    sample_rate: int,
    exponent: Tensor | None = None,
) -> Tensor:
    """Remove what lies above each signal's cutoff with a raised-cosine edge of linear phase.

    Args:
        signal: (B, T).
        cutoff_hz: (B,) where the edge ends; nothing is left above.
        width: (B,) the edge's width as a share of the cutoff.
        sample_rate: Hz.
        exponent: (B,) power to which the edge is raised: 2 to 3 falls as most resamplers do; None
            is 1.

    Returns:
        (B, T).
    """
    padded = signal.shape[1] + 2048
    frequencies = torch.fft.rfftfreq(padded, 1.0 / sample_rate).to(signal)
    depth = (cutoff_hz[:, None] - frequencies) / (cutoff_hz * width)[:, None]
    gain = 0.5 - 0.5 * torch.cos(math.pi * depth.clamp(0.0, 1.0))
    if exponent is not None:
        gain = gain.pow(exponent[:, None])
    return torch.fft.irfft(torch.fft.rfft(signal, padded) * gain, padded)[:, : signal.shape[1]]


def stretched(signal: Tensor, samples: int) -> Tensor:
    """Play a signal (T,) faster or slower, so that it has so many samples, (T',); pitch follows."""
    spectrum = torch.fft.rfft(signal)[: samples // 2 + 1]
    return torch.fft.irfft(spectrum, samples) * (samples / len(signal))


def coloured(signal: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Send a signal (T,) through a random equaliser."""
    frequencies = torch.fft.rfftfreq(len(signal), 1.0 / sample_rate)
    gain = 10.0 ** (random_equaliser(frequencies, generator) / 20.0)
    return torch.fft.irfft(torch.fft.rfft(signal) * gain, len(signal))


def convolve(signal: Tensor, responses: list[Tensor]) -> Tensor:
    """Convolve each signal with its response, keeping the length: (B, T), B x (L,) -> (B, T)."""
    longest = max(len(response) for response in responses)
    if longest == 1:
        return signal * torch.stack(responses).to(signal)
    kernel = torch.zeros(len(responses), longest)
    for row, response in zip(kernel, responses, strict=True):
        row[: len(response)] = response
    padded = 1 << (signal.shape[1] + longest - 1).bit_length()
    spectrum = torch.fft.rfft(signal, padded) * torch.fft.rfft(kernel.to(signal), padded)
    return torch.fft.irfft(spectrum, padded)[:, : signal.shape[1]]


CODERS = (
    ("WAV", "GSM610", 8_000),
    ("WAV", "ULAW", 8_000),
    ("OGG", "OPUS", 8_000),
    ("OGG", "OPUS", 16_000),
    ("MP3", "MPEG_LAYER_III", 16_000),
)
"""Container, coding and sample rate of what calls and small files are coded with."""


def coded(signal: Tensor, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Code a signal (T,) at a low rate with a random coder and decode it, in its place, (T,)."""
    container, coding, rate = CODERS[int(torch.randint(len(CODERS), (1,), generator=generator))]
    effort = between(0.85, 0.98, generator)
    samples = signal.cpu().numpy().astype(np.float64)
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < 1e-4:
        return signal
    narrow = soxr.resample(samples * (0.7 / peak), sample_rate, rate)
    settings = {} if container == "WAV" else {"compression_level": effort}
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, coding, format=container, **settings) as writer:
        writer.write(narrow)
    file.seek(0)
    heard = soxr.resample(soundfile.read(file)[0], rate, sample_rate)[: len(samples)]
    heard = np.pad(heard, (0, len(samples) - len(heard))) * (peak / 0.7)
    return torch.from_numpy(heard.astype(np.float32)).to(signal)


def synthetic_noise(samples: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Synthesise hiss of random colour, mains hum with harmonics, or both, (T,)."""
    noise = torch.zeros(samples)
    if chance(0.7, generator):
        spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
        slope = between(-1.2, 0.3, generator)
        ramp = torch.arange(1, len(spectrum) + 1).float()
        hiss = torch.fft.irfft(spectrum * ramp**slope, samples)
        noise = hiss / spectra.rms(hiss)
    if not bool(noise.any()) or chance(0.4, generator):
        base = 50.0 if chance(0.5, generator) else 60.0
        time = torch.arange(samples) / sample_rate
        for harmonic in range(1, 12):
            phase = between(0.0, 2.0 * math.pi, generator)
            level = 10.0 ** (between(-30.0, 0.0, generator) / 20.0)
            noise = noise + level * torch.sin(2.0 * math.pi * base * harmonic * time + phase)
    return noise


def random_equaliser(frequencies: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a smooth random response in dB, within about +-10 dB, over frequencies (F,) in Hz."""
    octaves = (frequencies.clamp_min(20.0) / 1_000.0).log2()
    gain_db = between(-1.5, 1.5, generator) * octaves
    for _ in range(3):
        centre = between(-3.5, 3.0, generator)
        width = between(0.3, 1.5, generator)
        depth = between(-8.0, 8.0, generator)
        gain_db = gain_db + depth * (-((octaves - centre) ** 2) / (2.0 * width**2)).exp()
    return gain_db


def _as_loud(changed: Tensor, original: Tensor) -> Tensor:
    """Undo a change's effect on the level, which no network could guess."""
    return changed * (spectra.rms(original) / spectra.rms(changed).clamp_min(1e-6))


def chance(probability: float, generator: torch.Generator) -> bool:
    """Draw whether something happens."""
    return bool(torch.rand(1, generator=generator) < probability)


def between(low: float, high: float, generator: torch.Generator) -> float:
    """Draw a number from a range."""
    return low + (high - low) * float(torch.rand(1, generator=generator))
