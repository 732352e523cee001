"""What rewriting the head of an Ogg Vorbis file changes, and what it does not."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from sounds import RATE, noise

from speakup.media import ogg


def vorbis(samples: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(1, samples).T, RATE, "VORBIS", format="OGG")
    return file.getvalue()


def rewritten(stream: bytes, comments: dict[str, str]) -> bytes:
    out = io.BytesIO()
    ogg.rewrite_comments(io.BytesIO(stream).read, out.write, comments)
    return out.getvalue()


def pages(stream: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(stream):
        segments = stream[at + 26]
        size = 27 + segments + sum(stream[at + 27 : at + 27 + segments])
        found.append(stream[at : at + size])
        at += size
    return found


def test_the_checksum_is_the_one_libogg_writes() -> None:
    for page in pages(vorbis(RATE)):
        blank = page[:22] + b"\0\0\0\0" + page[26:]
        assert struct.pack("<I", ogg.checksum(blank)) == page[22:26]


@pytest.mark.parametrize("samples", [1, 100, 4410, 2 * RATE + 77])
@pytest.mark.parametrize("size", [0, 250, 60_000, 200_000])
def test_the_samples_stay_and_the_comments_are_ours_however_long(samples: int, size: int) -> None:
    before = vorbis(samples)
    after = rewritten(before, {"TITLE": "Tést", "LONG": "x" * size})
    decoded, rate = soundfile.read(io.BytesIO(after), dtype="float32")
    np.testing.assert_array_equal(decoded, soundfile.read(io.BytesIO(before), dtype="float32")[0])
    assert (len(decoded), rate) == (samples, RATE)
    with soundfile.SoundFile(io.BytesIO(after)) as sound:
        assert sound.title == "Tést"
    numbers = [struct.unpack_from("<I", page, 18)[0] for page in pages(after)]
    assert numbers == list(range(len(numbers)))


def test_the_same_samples_give_the_same_bytes() -> None:
    one, other = vorbis(5000), vorbis(5000)
    assert one != other  # libsndfile numbers its streams at random
    assert rewritten(one, {}) == rewritten(other, {})
