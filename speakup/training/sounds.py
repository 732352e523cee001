"""What befalls sounds: rooms, colours, noises of formulas, coders; in NumPy, a signal at a time.

A signal is (T,) float32; everything random follows from the generator that is given.
"""

from __future__ import annotations

import io
import math

import numpy as np
import soundfile
import soxr
from scipy import fft

Signal = np.ndarray
"""(T,) float32."""

DIRECT_SECONDS = 0.0025
"""After a room's direct sound: what comes so soon is of it."""

LEAD = 8
"""Samples of a measured response before its peak that are kept."""

_ACTIVE_RANGE = 10.0**-3.5


def gain(level_db: float) -> float:
    """Convert decibels to an amplitude factor."""
    return float(10.0 ** (level_db / 20.0))


def rms(signal: Signal) -> float:
    """Give the root mean square."""
    return math.sqrt(float(np.dot(signal, signal)) / max(1, len(signal)))


def active_rms(signal: Signal, rate: int) -> float:
    """Give the level of those 20 ms frames that are within 35 dB of the loudest."""
    frame = rate // 50
    frames = signal[: len(signal) // frame * frame].reshape(-1, frame)
    if not len(frames):
        return rms(signal)
    energy = np.einsum("nt,nt->n", frames, frames) / frame
    loudest = float(energy.max())
    return math.sqrt(float(energy[energy >= loudest * _ACTIVE_RANGE].mean()))


def emptied(signal: Signal, level: float, rate: int) -> Signal:
    """Empty a clean voice's pauses: what is 40 dB and more under its level goes down again as far.

    At most by 24 dB, with a gain that follows in 10 ms: what noise a studio has is not to be
    learnt. Under a voice so little is not heard.
    """
    frame = rate // 100
    count = -(-len(signal) // frame)
    padded = np.pad(signal, (0, count * frame - len(signal))).reshape(count, frame)
    energy = np.einsum("nt,nt->n", padded, padded) / np.float32(frame)
    # The loudest of three frames, so that a gain is open before its word begins.
    edges = np.pad(energy, 1)
    loud = np.maximum(np.maximum(edges[:-2], edges[1:-1]), edges[2:])
    factor = np.sqrt(loud / np.float32(max(level * level * 1e-4, 1e-12)))
    factor = np.clip(factor, 0.063, 1.0)
    if factor.min() == 1.0:
        return signal
    place = np.arange(len(signal), dtype="f4") * np.float32(1.0 / frame) - np.float32(0.5)
    return signal * np.interp(place, np.arange(count), factor).astype("f4")


def played(signal: Signal, samples: int) -> Signal:
    """Play a signal faster or slower, so that it has so many samples; pitch follows."""
    size = fft.next_fast_len(len(signal), True)
    spectrum = fft.rfft(signal, size)
    wanted = fft.next_fast_len(int(size * samples / len(signal)), True)
    bins = min(len(spectrum), wanted // 2 + 1)
    result = fft.irfft(spectrum[:bins], wanted)[:samples] * np.float32(wanted / size)
    return np.pad(result, (0, samples - len(result)))


def filled(piece: Signal, samples: int, random: np.random.Generator) -> Signal:
    """Fill a length with a short recording: tiled without a seam, or scattered with pauses."""
    if len(piece) >= samples:
        return piece[:samples]
    fade = min(len(piece) // 4, 800)
    ramp = np.linspace(0.0, 1.0, fade, dtype="f4")
    piece = piece.copy()
    piece[:fade] *= ramp
    piece[len(piece) - fade :] *= ramp[::-1]
    result, place = np.zeros(samples, "f4"), 0
    scattered = random.random() < 0.5
    if scattered:
        place = int(random.uniform(0.0, 0.5) * samples)
    while place < samples:
        end = min(samples, place + len(piece))
        result[place:end] += piece[: end - place]
        place = end + int(random.uniform(0.0, 0.3) * samples) if scattered else end - fade
        if end == samples:
            break
    return result


def synthetic_noise(samples: int, rate: int, random: np.random.Generator) -> Signal:
    """Make stationary noise of a random colour, hum with harmonics, or both."""
    noise = np.zeros(samples, "f4")
    hum = random.random()
    if hum > 0.1:
        size = fft.next_fast_len(samples, True)
        bins = size // 2 + 1
        parts = random.standard_normal((2, bins), dtype="f4")
        frequencies = np.linspace(rate / 2 / bins, rate / 2, bins, dtype="f4")
        bands = random.uniform(-10.0, 10.0, 8).astype("f4")
        octave = np.clip(np.log2(frequencies / 62.5), 0.0, 7.0)
        slope = random.uniform(-1.0, 0.2)
        level = np.interp(octave, np.arange(8), bands) + 20.0 * slope * octave * math.log10(2.0)
        shape = np.power(10.0, level / 20.0, dtype="f4")
        noise = fft.irfft((parts[0] + 1j * parts[1]) * shape, size)[:samples]
        noise /= np.float32(max(rms(noise), 1e-9))
    if hum < 0.25:
        base = random.choice([50.0, 60.0]) * random.uniform(0.995, 1.005)
        time = np.arange(samples, dtype="f4") * np.float32(2.0 * math.pi * base / rate)
        tone = np.zeros(samples, "f4")
        for harmonic in range(1, int(random.integers(3, 12))):
            phase = random.uniform(0.0, 2.0 * math.pi)
            tone += np.sin(time * harmonic + np.float32(phase)) * gain(random.uniform(-30.0, 0.0))
        noise = noise + tone / np.float32(max(rms(tone), 1e-6)) * gain(random.uniform(-10.0, 10.0))
    return noise.astype("f4")


def diffuse_room(rate: int, random: np.random.Generator) -> Signal:
    """Simulate a room: direct sound, two to eight early reflections, a tail with damped highs."""
    rt60 = random.uniform(0.15, 0.9)
    length = int(min(1.1, 1.1 * rt60 + 0.05) * rate)
    time = np.arange(length, dtype="f4") / np.float32(rate)
    first = random.uniform(0.0015, 0.012)
    tail = random.standard_normal(length, dtype="f4")
    dull = np.convolve(tail, np.hanning(10)[1:-1].astype("f4") * 0.35, "same")
    damping = random.uniform(0.0, 0.75)
    decay = 3.0 * math.log(10.0) / rt60
    tail = tail * ((1.0 - damping) * np.exp(-decay * (1.0 + damping) * time)).astype("f4")
    tail += dull * (damping * np.exp(-decay * time)).astype("f4")
    tail[: int(first * rate)] = 0.0
    for _ in range(int(random.integers(2, 9))):
        place = int((first + random.exponential(0.012)) * rate)
        if place < length:
            tail[place] += random.choice([-1.0, 1.0]) * random.uniform(0.5, 6.0)
    edge = int(DIRECT_SECONDS * rate) + LEAD
    tail[edge:] /= max(float(np.linalg.norm(tail[edge:])), 1e-6)
    tail[:edge] *= np.float32(0.05)
    tail[0] = 1.0
    return tail


def equaliser(frequencies: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw a smooth response within about +-8 dB, as amplitudes."""
    octaves = np.log2(np.maximum(frequencies, 60.0) / np.float32(1_000.0))
    level = random.uniform(-1.5, 1.5) * octaves
    for _ in range(3):
        centre, width = random.uniform(-3.5, 3.0), random.uniform(0.3, 1.5)
        level += random.uniform(-6.0, 6.0) * np.exp(-(((octaves - centre) / width) ** 2))
    return np.power(10.0, np.clip(level, -10.0, 10.0) / 20.0, dtype="f4")


def small_device(frequencies: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw the response of a small loudspeaker or microphone: no lows, peaks and notches."""
    low = random.uniform(100.0, 500.0)
    edge = 1.0 / (1.0 + (low / np.maximum(frequencies, 1.0)) ** random.uniform(2.0, 6.0))
    return (edge * equaliser(frequencies, random) ** 1.5).astype("f4")


def telephone_band(frequencies: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw a band limit at 3.4 to 7 kHz, with a telephone's high-pass in some of the low ones."""
    cutoff = random.choice([3_400.0, 3_800.0, 5_500.0, 7_000.0]) * random.uniform(0.95, 1.05)
    order = random.choice([8.0, 16.0, 32.0, 200.0])
    level = 1.0 / np.sqrt(1.0 + np.minimum(frequencies / cutoff, 4.0) ** (2.0 * order))
    if cutoff < 4_200.0 and random.random() < 0.5:
        level /= np.sqrt(1.0 + (250.0 / np.maximum(frequencies, 10.0)) ** 8)
    return level.astype("f4")


_CODERS = (
    ("WAV", "GSM610", 8_000, 3_900.0),
    ("WAV", "ULAW", 8_000, 3_900.0),
    ("OGG", "OPUS", 8_000, 3_900.0),
    ("OGG", "OPUS", 16_000, 7_900.0),
    ("MP3", "MPEG_LAYER_III", 16_000, 7_900.0),
)
"""Container, coding, sample rate and upper edge of what calls and small files are coded with."""


def coded(
    mixture: Signal, clean: Signal, rate: int, random: np.random.Generator
) -> tuple[Signal, Signal]:
    """Code a mixture at a low rate; the target gets the coder's band and nothing else of it."""
    container, coding, coder_rate, edge = _CODERS[int(random.integers(len(_CODERS)))]
    peak = float(np.abs(mixture).max(initial=0.0))
    if peak < 1e-4:
        return mixture, clean
    narrow = soxr.resample(mixture * np.float32(0.7 / peak), rate, coder_rate, "MQ")
    settings = {} if container == "WAV" else {"compression_level": random.uniform(0.85, 0.98)}
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", coder_rate, 1, coding, format=container, **settings) as out:
        out.write(narrow)
    file.seek(0)
    heard = soxr.resample(soundfile.read(file, dtype="float32")[0], coder_rate, rate, "MQ")
    heard = heard[: len(mixture)] * np.float32(peak / 0.7)
    heard = np.pad(heard, (0, len(mixture) - len(heard)))
    if coder_rate < rate:
        spectrum = fft.rfft(clean)
        frequencies = np.linspace(0.0, rate / 2, len(spectrum), dtype="f4")
        clean = fft.irfft(spectrum * (frequencies < edge), len(clean))
    return heard, clean
