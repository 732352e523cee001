"""Tags and covers between every two formats, as seen by a reader that shares no code with ours."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from sounds import noise

from speakup.config import Config
from speakup.media.formats import resolve_format
from speakup.media.recording import probe
from speakup.media.writer import AudioWriter
from speakup.pipeline import Pipeline

mutagen = pytest.importorskip("mutagen")

FORMATS = ("mp3", "m4a", "flac", "ogg", "opus")
TAGS = {
    "title": "Über Körner",
    "artist": "Ada; Bo",
    "album": "Folge 3",
    "date": "2024",
    "genre": "Podcast",
    "comment": "日本語",
    "track": "3",
}


@pytest.fixture(scope="module")
def cover() -> bytes:
    """Give a small PNG picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        image = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 99, np.uint8), format="rgb24")
        out.mux(stream.encode(image))
        out.mux(stream.encode(None))
    return file.getvalue()


def seen(path: Path) -> tuple[dict[str, str], bytes]:
    """Give what mutagen finds: tags under our names, and the front cover."""
    easy = mutagen.File(path, easy=True)
    names = {"tracknumber": "track", "description": "comment"}
    found = {names.get(name, name): str(values[0]) for name, values in easy.items()}
    full: Any = mutagen.File(path)
    picture = b""
    if path.suffix == ".mp3":
        picture = full.tags.getall("APIC")[0].data
        # FFmpeg writes a comment as a field of the user's own, not as ID3's COMM.
        found["comment"] = full.tags.getall("TXXX:comment")[0].text[0]
    elif path.suffix == ".m4a":
        picture = bytes(full.tags["covr"][0])
    elif path.suffix == ".flac":
        picture = full.pictures[0].data
    else:
        block = base64.b64decode(full["metadata_block_picture"][0])
        picture = mutagen.flac.Picture(block).data
    return {name: found.get(name, "") for name in TAGS}, picture


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_tags_and_cover_pass_between_any_two_formats(
    tmp_path: Path, source: str, target: str, cover: bytes
) -> None:

    first, second = tmp_path / f"a.{source}", tmp_path / f"b.{target}"
    settings: dict[str, Any] = {"bit_depth": None, "bitrate": None, "channels": 1}
    coded = resolve_format(first, format=None, sample_rate=48000, **settings)
    with AudioWriter(first, 48000, 1, coded, tags=TAGS, cover=cover) as writer:
        writer.write(noise(1, 24000, 48000))
    Pipeline(Config(denoise=False, upsample="off")).run(first, second)
    assert seen(second) == (TAGS, cover)
    assert probe(second).tags == TAGS
    assert probe(second).cover == cover
