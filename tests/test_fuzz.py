"""Damaged files: each decodes or is refused in one line; none crashes, hangs or fills the memory.

Files of many formats, made here, are damaged at random (from a seed) and read in worker
processes that are watched. `SPEAKUP_FUZZ_SECONDS` sets for how long (a few seconds; a night's work
gives hours), and `SPEAKUP_FUZZ_SEED` which.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import soundfile
from av_files import write_with_ffmpeg
from mutations import damage_a_part
from sounds import noise

SECONDS = float(os.environ.get("SPEAKUP_FUZZ_SECONDS", "8"))
SEED = int(os.environ.get("SPEAKUP_FUZZ_SEED", "1"))
SECONDS_A_CASE = 20.0
"""Far more than any case needs, so that a busy machine fails none; a hang is for ever."""

MOST_BYTES = 400 << 20
"""What a case of 0.3 s of sound may take beyond what the worker has at the start."""

WORKER = Path(__file__).with_name("fuzz_worker.py")
SIZES = (0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 3, 20, 200))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def damage_the_head(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 2, 8))):
        data[chance.randrange(min(len(data), 200))] = chance.randrange(256)


def cut_off(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def move_a_block(data: bytearray, chance: random.Random) -> None:
    size = chance.choice((4, 64, 1024))
    block = bytes(data[(start := chance.randrange(len(data))) : start + size])
    del data[start : start + size]
    place = chance.randrange(len(data) + 1)
    data[place:place] = block


def repeat_a_block(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    block = bytes(data[start : start + chance.choice((8, 256, 4096))])
    data[start:start] = block * chance.choice((1, 2, 20))


def blank_a_block(data: bytearray, chance: random.Random) -> None:
    start, size = chance.randrange(len(data)), chance.choice((4, 64, 1024))
    data[start : start + size] = bytes(len(data[start : start + size]))


def write_a_size(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 4))):
        size, order = chance.choice((2, 4, 4, 8)), chance.choice(("little", "big"))
        number = chance.choice((*SIZES, 2**63 - 1, 2**64 - 1)) % 2 ** (8 * size)
        start = chance.randrange(min(len(data), chance.choice((64, 1024, len(data)))))
        written = number.to_bytes(size, "big" if order == "big" else "little")
        data[start : start + size] = written[: len(data) - start]


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    damage_the_head,
    cut_off,
    move_a_block,
    repeat_a_block,
    blank_a_block,
    write_a_size,
    *[damage_a_part] * 8,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Give sound files of every kind, 0.3 s each."""
    folder = tmp_path_factory.mktemp("whole")
    sound = noise(2, 14400, 48000)
    for name, subtype in [
        ("u8.wav", "PCM_U8"),
        ("s16.wav", "PCM_16"),
        ("f32.wav", "FLOAT"),
        ("adpcm.wav", "IMA_ADPCM"),
        ("a.flac", "PCM_16"),
        ("vorbis.ogg", "VORBIS"),
        ("a.aiff", "PCM_24"),
        ("a.w64", "PCM_16"),
        ("a.rf64", "PCM_16"),
        ("a.caf", "PCM_16"),
        ("alac.caf", "ALAC_16"),
        ("a.au", "FLOAT"),
    ]:
        kind = "RF64" if name == "a.rf64" else None
        soundfile.write(folder / name, sound.T, 48000, subtype, format=kind)
    for name, codec, video in [
        ("a.mp3", "libmp3lame", False),
        ("a.opus", "libopus", False),
        ("a.m4a", "aac", False),
        ("alac.m4a", "alac", False),
        ("a.mp4", "aac", True),
        ("a.mkv", "flac", False),
        ("video.mkv", "aac", True),
        ("a.webm", "libopus", False),
        ("a.wma", "wmav2", False),
        ("a.avi", "pcm_s16le", True),
    ]:
        tags = {"title": "A title", "artist": "Somebody"}
        write_with_ffmpeg(folder / name, codec, sound, rate=48000, video=video, metadata=tags)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def damaged(whole: dict[str, bytes], case: int) -> tuple[str, bytes]:
    """Make one damaged file; the same for the same number."""
    chance = random.Random(SEED * 1_000_003 + case)
    names = list(whole)
    name = names[case % len(names)]
    data = bytearray(whole[name])
    if chance.random() < 0.1:  # the head of one format before the rest of another
        other = whole[chance.choice(names)]
        cut = chance.randrange(8, 400)
        data[:cut] = other[:cut]
    for _ in range(chance.choice((1, 1, 2, 3))):
        if data:
            chance.choice(DAMAGES)(data, chance)
    return name, bytes(data)


class Watched:
    """A worker that reads files one after the other, and is killed if one takes too long."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "worker.log"
        self._worker: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        if self._worker is None:
            self._worker = subprocess.Popen(
                [sys.executable, str(WORKER), str(MOST_BYTES), str(SECONDS_A_CASE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log.open("w"),
                text=True,
            )
        return self._worker

    def read(self, path: Path) -> str:
        """Have a file read; say "decoded", "refused", or what went wrong."""
        worker = self.start()
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(f"{path}\n")
        worker.stdin.flush()
        said = worker.stdout.readline().strip()
        if said:
            return said
        code = worker.wait()
        self._worker = None
        return f"died with {code}: {self._log.read_text()[-300:]}"

    def stop(self) -> None:
        if self._worker is not None:
            assert self._worker.stdin is not None
            self._worker.stdin.close()
            self._worker.wait()


def test_a_damaged_file_decodes_or_is_refused(whole: dict[str, bytes], tmp_path: Path) -> None:
    keep = os.environ.get("SPEAKUP_FUZZ_KEEP")
    worker = Watched(tmp_path)
    wrong: list[str] = []
    outcomes = {"decoded": 0, "refused": 0}
    slowest = (0.0, "")
    try:
        began = time.monotonic()
        for case in count():
            if time.monotonic() - began > SECONDS and case > 40:
                break
            name, data = damaged(whole, case)
            path = tmp_path / f"{case}-{name}"
            path.write_bytes(data)
            started = time.monotonic()
            outcome = worker.read(path)
            slowest = max(slowest, (time.monotonic() - started, path.name))
            if outcome in outcomes:
                outcomes[outcome] += 1
            else:
                wrong.append(f"{path.name} (seed {SEED}): {outcome}")
                if keep:
                    (Path(keep) / path.name).write_bytes(data)
            path.unlink()
    finally:
        worker.stop()
    print(f"{outcomes}, seed {SEED}, slowest {slowest}")
    assert wrong == []
    assert min(outcomes.values()) > case // 50, "the damage is too slight, or too great"


def test_the_worker_tells_what_is_whole_from_what_is_no_sound(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    worker = Watched(tmp_path)
    try:
        for name, data in whole.items():
            (tmp_path / name).write_bytes(data)
            assert worker.read(tmp_path / name) == "decoded", name
        (tmp_path / "no.wav").write_bytes(b"no sound at all")
        assert worker.read(tmp_path / "no.wav") == "refused"
    finally:
        worker.stop()


def test_headers_that_promise_the_world_take_no_memory_for_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((4800, 2)), 48000)
    head = bytearray((tmp_path / "a.wav").read_bytes())
    worker = Watched(tmp_path)
    try:
        for start, size, number in [
            (22, 2, 0xFFFF),  # channels
            (24, 4, 0xFFFFFFFF),  # rate
            (32, 2, 0xFFFF),  # bytes of a sample of all channels
            (34, 2, 0xFFFF),  # bits
            (40, 4, 0xFFFFFFFF),  # bytes of all samples
        ]:
            claim = bytearray(head)
            claim[start : start + size] = number.to_bytes(size, "little")
            (tmp_path / "claim.wav").write_bytes(claim)
            assert worker.read(tmp_path / "claim.wav") in ("decoded", "refused")
    finally:
        worker.stop()


@pytest.mark.parametrize("case", range(8))
def test_the_command_says_what_is_wrong_with_a_damaged_file(
    whole: dict[str, bytes], tmp_path: Path, case: int
) -> None:
    from speakup.config import Config
    from speakup.errors import SpeakupError
    from speakup.pipeline import Pipeline

    name, data = damaged(whole, 10_000 + 7 * case)
    (tmp_path / name).write_bytes(data)
    target = tmp_path / "out.wav"
    try:
        result = Pipeline(Config(denoise=False, upsample="off")).run(tmp_path / name, target)
    except SpeakupError as error:
        assert str(tmp_path / name) in str(error)
        assert not target.exists()
    else:
        assert result.status == "ok" and soundfile.info(str(target)).frames > 0
    left = {path.name for path in tmp_path.iterdir()} - {name, "out.wav"}
    assert left == set()
