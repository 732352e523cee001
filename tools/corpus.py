"""Enhance twenty made recordings and print what came out, byte for byte.

Run it before and after a change that must not change any output, and compare:

    python tools/corpus.py > before.txt
    # Change the code.
    python tools/corpus.py | diff before.txt -

Every line is an output's SHA-256 and its name, or its result as JSON without times and paths. The
same input, version, machine and number of threads give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

ROOM = Path(__file__).parents[1] / "examples" / "room.flac"
_UNSTABLE = ("elapsed", "speed", "input", "output")


def voice(rate: int, seconds: float, channels: int = 1) -> NDArray[np.float32]:
    """Give some of the example clip at a rate, (T, C), channels delayed and softened in turn."""
    samples, own_rate = soundfile.read(ROOM, dtype="float32")
    place = np.arange(int(seconds * rate)) * own_rate / rate
    mono = np.interp(place % len(samples), np.arange(len(samples)), samples)
    rows = [np.roll(mono, 31 * channel) * 0.8**channel for channel in range(channels)]
    return np.stack(rows, axis=1).astype(np.float32)


def sound(
    name: str, samples: NDArray[np.float32], rate: int, subtype: str
) -> Callable[[Path], None]:
    """Give what writes a sound file."""
    return lambda folder: soundfile.write(folder / name, samples, rate, subtype)


def coded(
    name: str, codec: str, rate: int, *, tracks: int = 1, video: bool = False
) -> Callable[[Path], None]:
    """Give what writes a file with FFmpeg's encoders."""

    def write(folder: Path) -> None:
        with av.open(folder / name, "w", options={"fflags": "+bitexact"}) as container:
            container.metadata.update(title="A walk", artist="Nobody")
            picture = None
            if video:
                picture = container.add_stream("mpeg4", rate=25)
                picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
            streams = [container.add_stream(codec, rate=rate, layout="mono") for _ in range(tracks)]
            if picture is not None:
                for count in range(60):
                    image = np.full((48, 64, 3), 4 * count, np.uint8)
                    container.mux(picture.encode(av.VideoFrame.from_ndarray(image)))
                container.mux(picture.encode(None))
            for number, stream in enumerate(streams):
                samples = voice(rate, 2.4 + number / 2)[:, 0] * 0.9**number
                frame = av.AudioFrame.from_ndarray(samples[None], "fltp", "mono")
                frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
                resampler = av.AudioResampler(
                    stream.format, "mono", rate, stream.frame_size or None
                )
                for part in [*resampler.resample(frame), *resampler.resample(None)]:
                    container.mux(stream.encode(part))
                container.mux(stream.encode(None))

    return write


def corpus() -> list[tuple[Callable[[Path], None], str, list[str]]]:
    """List what writes an input, the input's name, and the options it is enhanced with."""
    quiet = voice(44_100, 2.0) * 0.01
    clipped = np.clip(voice(48_000, 3.0) * 30.0, -0.6, 0.6)
    broken = voice(16_000, 2.0)
    broken[500:600] = np.nan
    gap = voice(44_100, 3.0, 2)
    gap[44_100:88_200] = 0.0
    full = voice(48_000, 2.0) + np.random.default_rng(1).normal(0, 0.01, (96_000, 1)).astype("f4")
    files = [
        (sound("mono16k.wav", voice(16_000, 4.0), 16_000, "PCM_16"), []),
        (sound("stereo44k.flac", voice(44_100, 3.0, 2), 44_100, "PCM_24"), ["-f", "flac"]),
        (sound("equal.wav", np.repeat(voice(44_100, 2.0), 2, 1), 44_100, "PCM_16"), ["-f", "mp3"]),
        (sound("surround.wav", voice(48_000, 2.0, 6), 48_000, "PCM_24"), ["--sample-rate", "keep"]),
        (sound("telephone.wav", voice(8_000, 4.0), 8_000, "ULAW"), ["-f", "ogg"]),
        (sound("high.wav", voice(96_000, 2.0), 96_000, "FLOAT"), ["--bit-depth", "32f"]),
        (sound("full.wav", full, 48_000, "PCM_24"), ["--loudness", "ebu", "--bit-depth", "16"]),
        (sound("quiet.wav", quiet, 44_100, "PCM_16"), ["--loudness", "aes", "--strength", "0.5"]),
        (sound("clipped.wav", clipped, 48_000, "PCM_16"), ["--no-loudness"]),
        (sound("broken.wav", broken, 16_000, "FLOAT"), ["--channels", "mono"]),
        (sound("gap.wav", gap, 44_100, "PCM_16"), ["--max-attenuation", "20", "-f", "opus"]),
        (sound("silence.wav", np.zeros((44_100, 2), "f4"), 44_100, "PCM_16"), []),
        (sound("short.wav", voice(44_100, 0.1), 44_100, "PCM_16"), ["-f", "m4a"]),
        (sound("one.wav", voice(44_100, 1.1)[:1], 44_100, "PCM_16"), []),
        (sound("voice.ogg", voice(44_100, 3.0), 44_100, "VORBIS"), ["--upsample", "always"]),
        (coded("tagged.mp3", "mp3", 44_100), ["--loudness", "acx", "-f", "mp3"]),
        (coded("tagged.m4a", "aac", 44_100), ["--no-denoise", "-f", "m4a"]),
        (coded("call.opus", "libopus", 48_000), ["--no-upsample", "--bit-depth", "16"]),
        (coded("film.mp4", "aac", 44_100, video=True), []),
        (coded("two.mkv", "flac", 48_000, tracks=2, video=True), ["--precision", "fp32"]),
    ]
    names = "mono16k.wav stereo44k.flac equal.wav surround.wav telephone.wav high.wav full.wav "
    names += "quiet.wav clipped.wav broken.wav gap.wav silence.wav short.wav one.wav voice.ogg "
    names += "tagged.mp3 tagged.m4a call.opus film.mp4 two.mkv"
    return [
        (write, name, options) for (write, options), name in zip(files, names.split(), strict=True)
    ]


def main() -> None:
    """Make the corpus, enhance it and print what came out."""
    with tempfile.TemporaryDirectory() as name:
        inputs, outputs = Path(name) / "in", Path(name) / "out"
        inputs.mkdir()
        outputs.mkdir()
        for write, source, options in corpus():
            write(inputs)
            command = [sys.executable, "-m", "speakup", "enhance", str(inputs / source)]
            command += ["-o", str(outputs), "--json", "--threads", "1", *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            for line in done.stdout.splitlines():
                event = json.loads(line)
                if event["event"] == "file":
                    stages = [
                        {k: v for k, v in s.items() if k != "seconds"} for s in event["stages"]
                    ]
                    kept = {k: v for k, v in event.items() if k not in _UNSTABLE}
                    print(source, done.returncode, json.dumps(kept | {"stages": stages}))
        for path in sorted(outputs.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)


if __name__ == "__main__":
    main()
