"""Cover pictures: whole JPEG and PNG files go on; all else is left out, said, and never opened."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hostile import adx_without_blocks
from sounds import RATE, noise

from speakup.config import Config
from speakup.media import covers
from speakup.media.recording import probe
from speakup.pipeline import Pipeline


def picture(codec: str) -> bytes:
    """Give a small picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as out:
        stream = out.add_stream(codec, rate=1)
        stream.width, stream.height = 16, 16
        stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}[codec]
        image = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 99, np.uint8), format="rgb24")
        out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    return file.getvalue()


def write_with_cover(path: Path, cover: bytes, mime: bytes = b"image/jpeg") -> None:
    """Write a FLAC file with a picture block (RFC 9639, section 8.8), whatever is in it."""
    soundfile.write(path, noise(1, RATE).T, RATE)
    whole = path.read_bytes()
    block = struct.pack(">II", 3, len(mime)) + mime + bytes(20)
    block += struct.pack(">I", len(cover)) + cover
    head = bytes([6]) + len(block).to_bytes(3, "big")
    path.write_bytes(whole[:42].replace(b"fLaC\x80", b"fLaC\0") + head + block + whole[42:])


OTHERS = {
    "WebP": b"RIFF\x24\0\0\0WEBPVP8 " + bytes(40),
    "BMP": b"BM" + bytes(60),
    "TIFF": b"II*\0" + bytes(60),
    "GIF": b"GIF89a" + bytes(60),
    "AVIF": b"\0\0\0\x1cftypavif" + bytes(40),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "not a picture": adx_without_blocks(),
    "not": b"ffconcat version 1.0\nfile private.jpg\n",
    "damaged": b"\xff\xd8\xff\xe0" + bytes(60),
    "over": b"\x89PNG\r\n\x1a\n" + bytes(covers.MOST_BYTES),
}


@pytest.mark.parametrize("target", ["a.mp3", "a.m4a", "a.ogg", "a.opus", "b.flac"])
@pytest.mark.parametrize("why", OTHERS)
def test_a_cover_that_no_player_shows_costs_a_warning_and_not_the_recording(
    tmp_path: Path, why: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("private.jpg").write_bytes(picture("mjpeg"))
    cover = OTHERS[why][: 1 << 20] if why != "over" else OTHERS[why]
    if len(cover) >= 1 << 24:
        cover = cover[: (1 << 24) - 100]
    write_with_cover(tmp_path / "a.flac", cover)
    chain = Pipeline(Config(denoise=False, upsample="off"))
    result = chain.run(tmp_path / "a.flac", tmp_path / target)
    assert any(f"cover picture, {why}" in warning for warning in result.warnings), result.warnings
    assert probe(tmp_path / target).cover is None
    assert probe(tmp_path / target).seconds == pytest.approx(1.0, abs=0.05)
    assert picture("mjpeg")[20:60] not in Path(target).read_bytes()


@pytest.mark.parametrize("codec", ["mjpeg", "png"])
def test_a_picture_cut_off_anywhere_is_damaged_and_the_whole_one_is_not(codec: str) -> None:
    whole = picture(codec)
    assert covers.fault(whole) is None
    assert covers.fault(whole + b"\0\0") is None
    for size in range(8, len(whole) - 12):
        assert covers.fault(whole[:size]) == "damaged", size
