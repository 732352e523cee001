"""Make room.flac: a synthetic voice in a simulated, noisy room, heard through a laptop microphone.

Needs `pip install speakup` for NumPy, SciPy, soxr and soundfile, and, unless --voice names a
recording, Festival with its 32 kHz HTS voice: `apt install festival festvox-us-slt-hts`.

    python make_room_clip.py room.flac --clean room_clean.flac
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy import signal

Samples = NDArray[np.float64]

RATE = 44_100
TEXT = (
    "When I came home last night, the old kettle was still warm. "
    "Somebody had been sitting in my chair, reading my letters, and humming the same quiet song."
)
SPEED_OF_SOUND = 343.0  # m/s

ROOM = np.array([4.6, 3.7, 2.6])  # metres: a living room
MOUTH = np.array([1.9, 1.5, 1.2])
MICROPHONE = np.array([2.4, 1.9, 0.9])
# Crossovers in Hz, and in each band between them the share of pressure a wall gives back.
# Furniture and curtains take the highs: about 0.6 s of reverberation below, 0.3 s at the top.
CROSSOVERS = (400.0, 1600.0, 5000.0)
REFLECTIONS = (0.83, 0.81, 0.76, 0.68)

SNR_DB = 10.0
BANDWIDTH_HZ = 7800.0  # a call's wideband codec carries no more
LEVEL_DBFS = -34.0  # RMS: recorded too quietly, as most memos are


def synthesise(text: str) -> tuple[Samples, int]:
    """Speak the text with Festival's CMU SLT voice; give samples `(T,)` and their rate."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "voice.wav"
        subprocess.run(
            ["text2wave", "-eval", "(voice_cmu_us_slt_arctic_hts)", "-o", str(target)],
            input=text.encode(),
            check=True,
        )
        return soundfile.read(target)


def image_response(reflection: float, seconds: float = 0.7) -> Samples:
    """Give the room's impulse response for one wall reflection factor, by the image method.

    Each image of the mouth in the mirrored rooms adds a click at its distance, weakened by the
    walls it met; a windowed sinc puts the click between samples.

    Reference: J. Allen and D. Berkley, "Image method for efficiently simulating small-room
    acoustics", JASA 65(4), 1979, equation 10.
    """
    reach = seconds * SPEED_OF_SOUND
    axes = []
    for axis in range(3):
        count = int(reach / (2 * ROOM[axis])) + 1
        order = np.arange(-count, count + 1)
        distance, bounces = [], []
        for mirrored in (0, 1):
            distance.append((1 - 2 * mirrored) * MOUTH[axis] + 2 * order * ROOM[axis])
            bounces.append(np.abs(order - mirrored) + np.abs(order))
        axes.append((np.concatenate(distance) - MICROPHONE[axis], np.concatenate(bounces)))
    (x, bx), (y, by), (z, bz) = axes
    radius = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2).ravel()
    bounces = (bx[:, None, None] + by[:, None] + bz).ravel()
    near = radius < reach
    radius, bounces = radius[near], bounces[near]

    half = 16
    arrival = radius / SPEED_OF_SOUND * RATE
    first = np.floor(arrival).astype(int)
    response = np.zeros(int(seconds * RATE) + 2 * half)
    weight = reflection**bounces / radius
    for tap in range(1 - half, half + 1):
        offset = first + tap - arrival
        window = 0.5 + 0.5 * np.cos(np.pi * offset / half)
        np.add.at(response, np.maximum(first + tap, 0), weight * np.sinc(offset) * window)
    return response


def room_response(seed: int = 1979) -> Samples:
    """Join the bands' responses into one; jitter each a little, as real walls are not mirrors."""
    generator = np.random.default_rng(seed)
    edges = (0.0, *CROSSOVERS, RATE / 2)
    total = np.zeros(0)
    for low, high, reflection in zip(edges[:-1], edges[1:], REFLECTIONS, strict=True):
        band = image_response(reflection)
        tail = np.arange(len(band)) / RATE > 0.02
        band = np.where(tail, band * generator.normal(1.0, 0.3, len(band)), band)
        spectrum = np.fft.rfft(band)
        frequency = np.fft.rfftfreq(len(band), 1 / RATE)
        spectrum *= _rises_through(frequency, low) * (1 - _rises_through(frequency, high))
        band = np.fft.irfft(spectrum, len(band))
        total = band if total.size == 0 else total + band
    return total


def _rises_through(frequency: Samples, crossover: float) -> Samples:
    """Go from 0 to 1 over the octave round a crossover, so that neighbouring bands sum to 1."""
    if crossover == 0.0:
        return np.ones_like(frequency)
    if crossover >= RATE / 2:
        return np.zeros_like(frequency)
    octaves = np.log2(np.maximum(frequency, 1.0) / crossover)
    return 0.5 + 0.5 * np.sin(np.pi * np.clip(octaves, -0.5, 0.5))


def street_and_fan(count: int, seed: int = 7) -> Samples:
    """Give `(count,)` samples of a desk fan's hum and rush, with a car passing the window."""
    generator = np.random.default_rng(seed)
    time = np.arange(count) / RATE

    def coloured(slope_db_per_octave: float, low: float, high: float) -> Samples:
        spectrum = np.fft.rfft(generator.standard_normal(count))
        frequency = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 1.0)
        spectrum *= (frequency / 1000.0) ** (slope_db_per_octave / 6.02)
        spectrum *= 1 / np.sqrt((1 + (low / frequency) ** 4) * (1 + (frequency / high) ** 4))
        noise = np.fft.irfft(spectrum, count)
        return np.asarray(noise / np.sqrt(np.mean(noise**2)))

    blades = 2 * np.pi * 93.0 * time + 0.6 * np.sin(2 * np.pi * 0.4 * time)
    hum = sum(np.sin(k * blades + k) / k**1.3 for k in range(1, 9))
    rush = coloured(-6.0, 90.0, 7000.0) * (1 + 0.15 * np.sin(2 * np.pi * 1.1 * time))
    passing = np.exp(-0.5 * ((time - 0.62 * time[-1]) / 1.3) ** 2)
    car = coloured(-7.5, 70.0, 3000.0) * passing
    return rush + 0.4 * hum + 1.0 * car


def hear(sound: Samples) -> Samples:
    """Pass `(T,)` through the microphone: no bass, a lump at 2.5 kHz, and the codec's edge."""
    heard = signal.sosfilt(signal.butter(2, 90.0, "highpass", fs=RATE, output="sos"), sound)
    heard = heard + 0.5 * signal.lfilter(*signal.iirpeak(2500.0, 1.5, fs=RATE), heard)
    edge = signal.firwin(511, BANDWIDTH_HZ, fs=RATE, window=("kaiser", 10.0))
    return np.asarray(signal.fftconvolve(heard, edge, mode="same"))


def record(voice: Samples, rate: int) -> tuple[Samples, Samples]:
    """Put a dry voice into the room; give the recording and the same voice without room or noise.

    Args:
        voice: Samples `(T,)` at `rate`.
        rate: Their sample rate in Hz.

    Returns:
        Two arrays at RATE of round(T * RATE / rate) samples, time-aligned at the direct sound.
    """
    dry = soxr.resample(voice, rate, RATE)
    response = room_response()
    direct = int(np.argmax(np.abs(response)))
    wet = signal.fftconvolve(dry, response)[direct : direct + len(dry)]
    wet, noise = hear(wet), hear(street_and_fan(len(dry)))
    noise *= np.sqrt(np.mean(wet**2) / np.mean(noise**2)) * 10 ** (-SNR_DB / 20)
    heard = wet + noise
    heard *= 10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(heard**2))
    return heard, dry / np.max(np.abs(dry)) * 0.5


def main() -> None:
    """Write the clip and, if asked, the clean voice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path, help="the noisy clip to write")
    parser.add_argument("--clean", type=Path, help="write the voice alone here")
    parser.add_argument("--voice", type=Path, help="take this dry recording, not the synthesiser")
    options = parser.parse_args()
    voice, rate = soundfile.read(options.voice) if options.voice else synthesise(TEXT)
    if voice.ndim == 2:
        voice = voice.mean(axis=1)
    heard, clean = record(voice, rate)
    soundfile.write(options.target, heard, RATE, subtype="PCM_16")
    if options.clean:
        soundfile.write(options.clean, clean, RATE, subtype="PCM_16")


if __name__ == "__main__":
    main()
