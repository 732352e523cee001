"""Cover pictures: only what is a whole JPEG or PNG file goes on, and no demuxer guesses what it is.

A picture in a recording is bytes that anybody wrote. FFmpeg, asked to find out what they are, may
take them for a playlist and open what that names, or for the sound of a game console.
"""

from __future__ import annotations

import re
import struct

MOST_BYTES = (1 << 24) - (1 << 10)
"""A FLAC block, which also Vorbis comments hold, has at most 2^24 (RFC 9639, section 8.1)."""

_OTHERS = {
    rb"RIFF....WEBP": "WebP", rb"BM": "BMP", rb"II\*\0|MM\0\*": "TIFF", rb"GIF8": "GIF",
    rb"....ftypavi": "AVIF", rb"....ftyp(?:hei|mif)": "HEIC", rb"\s*<(?:\?xml|svg)": "SVG",
}  # fmt: skip


def fault(cover: bytes) -> str | None:
    """Say why a picture cannot go on, as what it is; None where it can."""
    known = kind(cover)
    if known is None:
        for pattern, name in _OTHERS.items():
            if re.match(pattern, cover, re.DOTALL):
                return f"{name}, not JPEG or PNG"
        return "not a picture"
    if len(cover) > MOST_BYTES:
        return f"over {MOST_BYTES >> 20} MiB"
    whole = _is_whole_png(cover) if known == "png" else _is_whole_jpeg(cover)
    return None if whole else "damaged"


def kind(cover: bytes) -> str | None:
    """Tell "jpeg" or "png" by how a file begins; None for all else."""
    if cover.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "png" if cover.startswith(b"\x89PNG\r\n\x1a\n") else None


def _is_whole_png(cover: bytes) -> bool:
    """Tell whether the chunks lead from a header with a size to the end (PNG, section 5.3)."""
    at, first = 8, True
    while at + 12 <= len(cover):
        length, name = struct.unpack_from(">I4s", cover, at)
        if first:
            width, height = cover[at + 8 : at + 12], cover[at + 12 : at + 16]
            if name != b"IHDR" or length != 13 or not (any(width) and any(height)):
                return False
        if name == b"IEND":
            return True
        at, first = at + 12 + length, False
    return False


def _is_whole_jpeg(cover: bytes) -> bool:
    """Tell whether the segments lead to a frame with a size, and an end follows (ITU-T T.81, B)."""
    at = 2
    while at + 9 <= len(cover) and cover[at] == 0xFF:
        marker = cover[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        is_frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if is_frame:
            height, width = struct.unpack_from(">HH", cover, at + 5)
            return bool(height and width) and cover.rfind(b"\xff\xd9") > at
        if marker == 0xDA:
            return False
        at += 2 + int.from_bytes(cover[at + 2 : at + 4], "big")
    return False
